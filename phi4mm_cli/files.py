"""Files in and files out: output names, clashes, and writing that is never half done."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from phi4mm_cli.errors import InputError, StorageError, UsageError

STDIN = Path("-")
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other output could be written
_counter = itertools.count()


@dataclass(frozen=True, slots=True)
class Input:
    """A file to work on."""

    path: Path  # where its bytes are
    label: str  # what messages and results call it
    stem: Path  # its outputs' name without extension, relative to the output folder
    name: str  # its path in the folder that was searched: what journals and shards know it by, on any machine

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Itself: alone it is a work."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Work:
    """What one result is made of: an input, or several together."""

    inputs: tuple[Input, ...]
    label: str
    stem: Path
    name: str

    @property
    def path(self) -> Path:
        """Of its first input. Tells it from other work; labels need not, for names may not be UTF-8."""
        return self.inputs[0].path


def label_of(path: Path) -> str:
    """The path as UTF-8 text, also where its bytes are not."""
    return os.fsencode(path).decode("utf-8", "replace")


@contextmanager
def stdin_spooled(inputs: Sequence[Input]) -> Iterator[list[Input]]:
    """`inputs`, with stdin replaced by a temporary file that holds what it gave."""
    if all(file.path != STDIN for file in inputs):
        yield list(inputs)
        return
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("'-' reads a recording from stdin, which is a terminal", "Pipe one in")
    with tempfile.NamedTemporaryFile(prefix="phi4mm-stdin-") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        held = Path(spool.name)
        yield [replace(file, path=held) if file.path == STDIN else file for file in inputs]


Claims = Sequence[tuple[Input | Work, Sequence[str]]]  # what each may write: names behind the stem of its outputs


def check_outputs(claims: Claims, folder: Path) -> None:
    """Raise UsageError where two inputs claim one output, an output is an input or may not be written."""
    claimed: dict[Path, Input | Work] = {}
    sources = {file.path.resolve() for work, _ in claims for file in work.inputs}
    folders = set()
    for work, extensions in claims:
        for extension in extensions:
            target = target_of(work, folder, extension)
            if target in claimed and claimed[target] is not work:
                raise UsageError(
                    f"{claimed[target].label} and {work.label} would both write {label_of(target)}",
                    "Rename one, or give them different output folders with -o",
                )
            claimed[target] = work
            if target.resolve() in sources:
                raise UsageError(
                    f"{label_of(target)} is an input; it is not overwritten", "Give another folder with -o"
                )
            folders.add(target.parent)
    for where in sorted(folders):
        _check_writable(where)


def check_absent(claims: Claims, folder: Path) -> None:
    """Raise UsageError where an output exists."""
    for work, extensions in claims:
        for extension in extensions:
            if (target := target_of(work, folder, extension)).exists():
                raise UsageError(f"{label_of(target)} exists", "Remove it, or leave out --no-overwrite")


def target_of(work: Input | Work, folder: Path, extension: str) -> Path:
    """Where the result of `work` in one format is written."""
    return folder / work.stem.with_name(f"{work.stem.name}.{extension}")


def _check_writable(folder: Path) -> None:
    """Try to write where `folder` is or would be made; permissions alone do not tell (read-only disks, root)."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    try:
        with tempfile.TemporaryFile(dir=there):
            return
    except OSError as error:
        reason = error.strerror or str(error)
    raise UsageError(f"cannot write to the output folder {label_of(folder)}: {reason}", "Give another one with -o")


def write(target: Path, produce: Callable[[TextIO], None], advice: str = "Its result is lost") -> None:
    """Write `target` whole or not at all: to a temporary name in its folder, then renamed.

    Raises StorageError where there is no room left on the disk, and InputError, with `advice`, for any other reason.
    """
    temporary = target.with_name(f".phi4mm-{os.getpid()}-{next(_counter)}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            produce(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        message = f"cannot write {label_of(target)}: {error.strerror}"
        raise (StorageError if error.errno in FULL else InputError)(message, advice) from error
    finally:
        with suppress(OSError):  # what cannot be written may not be removed either
            temporary.unlink(missing_ok=True)
