"""Lets work be given up: loops that may take long ask between their steps whether to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_unwanted: ContextVar[Callable[[], bool]] = ContextVar("unwanted", default=lambda: False)
_dropped: ContextVar[Callable[[str], bool]] = ContextVar("dropped", default=lambda key: False)
_whole: ContextVar[bool] = ContextVar("whole", default=False)


class Cancelled(Exception):  # noqa: N818 - not an error: nobody waits for the work any more
    """The work that this thread is at is no longer wanted."""


@contextmanager
def cancelled_when(unwanted: Callable[[], bool]) -> Iterator[None]:
    """Within the context, in this thread, `check` raises once `unwanted` is true."""
    token = _unwanted.set(unwanted)
    try:
        yield
    finally:
        _unwanted.reset(token)


@contextmanager
def in_one_piece() -> Iterator[None]:
    """Within the context, in this thread, unwanted work ends only where it asks whether to go on.

    What is broken off while it is imported cannot be imported again. A signal that ends the program still does.
    """
    token = _whole.set(True)
    try:
        yield
    finally:
        _whole.reset(token)


def is_in_one_piece() -> bool:
    """Whether what this thread is at must not be broken off."""
    return _whole.get()


@contextmanager
def dropped_when(unwanted: Callable[[str], bool]) -> Iterator[None]:
    """Within the context, in this thread, `is_dropped` asks `unwanted` of a request by its key."""
    token = _dropped.set(unwanted)
    try:
        yield
    finally:
        _dropped.reset(token)


def is_dropped(key: str) -> bool:
    """Whether nobody waits for the answer to this request any more; others of the same batch go on."""
    return _dropped.get()(key)


def check() -> None:
    """Raise Cancelled where the work is no longer wanted."""
    if _unwanted.get()():
        raise Cancelled
