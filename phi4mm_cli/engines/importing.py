"""Imports what is large, as torch and transformers are."""

from __future__ import annotations

import gc
from importlib import import_module


def import_quickly(name: str) -> None:
    """Import a module without garbage collection meanwhile.

    What modules define is there to stay, and looking through it for garbage takes a seventh of the time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        import_module(name)
    finally:
        if collecting:
            gc.enable()
