"""Questions about paths that always have an answer: pathlib raises for a forbidden folder, a long name, ~nobody."""

from __future__ import annotations

import os
from pathlib import Path

AnyPath = str | os.PathLike[str]


def is_folder(path: AnyPath) -> bool:
    """Whether there is a folder, or a link to one, as far as can be seen."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: AnyPath) -> bool:
    """Whether there is a file, or a link to one, as far as can be seen."""
    return os.path.isfile(path)  # noqa: PTH113


def is_there(path: AnyPath) -> bool:
    """Whether there is anything, as far as can be seen; a broken link is nothing."""
    return os.path.exists(path)  # noqa: PTH110


def from_home(path: AnyPath) -> Path:
    """The path with ~ and ~user for their folders; what is no user's stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def absolute(path: AnyPath) -> str:
    """The path from the root, without dots; links stay, since they are names of their own."""
    return os.path.abspath(path)  # noqa: PTH100
