"""Questions about paths that always have an answer: pathlib raises for a forbidden folder, a long name, ~nobody."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

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


def telling_names(paths: Sequence[str], with_suffix: bool = False) -> list[str]:
    """Names that tell the paths apart: without suffixes where that is enough, with folders where it has to be."""
    pure = [PurePath(path) for path in paths]
    forms = [[path.stem for path in pure]] if not with_suffix else []
    most = max(len(path.parts) for path in pure)
    forms += ([PurePath(*path.parts[-count:]).as_posix() for path in pure] for count in range(1, most + 1))
    return next(names for names in forms if len({*names}) >= len({*pure}))
