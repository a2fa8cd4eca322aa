"""Files in and files out: output names, clashes, and writing that is never half done."""

from __future__ import annotations

import errno
import itertools
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

from phi4mm_cli.errors import InputError, StorageError, UsageError
from phi4mm_cli.paths import is_folder

STDIN = Path("-")
OUTPUT_SUFFIXES = {".csv", ".json", ".md", ".srt", ".tsv", ".txt", ".vtt"}
NUMBER = "*"  # in what stands behind a stem: outputs are numbered there, and nobody knows yet how many there will be
FITTING_NAME, USUAL_LONGEST_NAME = 143, 255  # bytes: what every file system takes, and what most of them do
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # no other output could be written
_counter = itertools.count()
_OWN = secrets.token_hex(4)  # process numbers are the same in many containers, and on other machines


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
        try:
            shutil.copyfileobj(sys.stdin.buffer, spool)
            spool.flush()
        except OSError as error:
            raise StorageError(
                f"stdin could not be kept in {tempfile.gettempdir()}: {error.strerror}",
                "Free some space, or set TMPDIR to another folder",
            ) from error
        held = Path(spool.name)
        yield [replace(file, path=held) if file.path == STDIN else file for file in inputs]


Claimed = Sequence[tuple[Input | Work, Sequence[str]]]  # what each may write: names behind the stem of its outputs


class Claims:
    """Which outputs a run will write: no two inputs may claim one, none may be an input, all may be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owners: dict[Path, str] = {}  # of outputs: the path of their input
        self._sources: set[str] = set()
        self._real: dict[str, str] = {}  # folders as they are without links
        self._writable: set[Path] = set()  # folders
        self._lock = threading.Lock()

    def read(self, work: Input | Work) -> None:
        """What `work` is made of is not to be written."""
        for file in work.inputs:
            self._sources |= self._places(file.path)

    def write(self, work: Input | Work, extensions: Sequence[str]) -> None:
        """`work` will be written with these. Raises UsageError where it may not be."""
        for extension in extensions:
            target = target_of(work, self._folder, extension)
            path = str(work.path)
            if (other := self._owners.setdefault(target, path)) != path:
                raise UsageError(
                    f"{label_of(Path(other))} and {work.label} would both write {label_of(target)}",
                    "Rename one, or give them different output folders with -o",
                )
            if not self._sources.isdisjoint(self._places(target)):
                message = f"{label_of(target)} is an input; it is not overwritten"
                raise UsageError(message, "Give another folder with -o")
            if target.parent not in self._writable:
                _check_writable(target.parent)
                self._writable.add(target.parent)

    def _places(self, path: Path) -> set[str]:
        """Where the file is, and where it leads if it is a link; folders are looked at once."""
        folder, name = os.path.split(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        place = os.path.join(self._real[folder], name)  # noqa: PTH118 - paths of many files take their time
        return {place, os.path.realpath(place)} if os.path.islink(place) else {place}  # noqa: PTH114

    def take(self, work: Work, extensions: Sequence[str]) -> None:
        """Read and write `work`, beside others in other threads. Raises UsageError."""
        with self._lock:
            self.read(work)
            self.write(work, extensions)


def check_outputs(claimed: Claimed, folder: Path) -> None:
    """Raise UsageError where two inputs claim one output, an output is an input or may not be written."""
    claims = Claims(folder)
    for work, _ in claimed:
        claims.read(work)
    for work, extensions in claimed:
        claims.write(work, extensions)


def check_absent(claimed: Claimed, folder: Path) -> None:
    """Raise UsageError where an output exists, whatever its NUMBER."""
    listed: dict[Path, list[str]] = {}
    for work, extensions in claimed:
        for extension in extensions:
            target = target_of(work, folder, extension)
            if NUMBER in extension:
                if target.parent not in listed:
                    listed[target.parent] = _names_in(target.parent)
                name = re.compile(r"\d+".join(map(re.escape, target.name.rsplit(NUMBER, 1))))
                there = next(filter(name.fullmatch, listed[target.parent]), None)
                target = target.with_name(there) if there is not None else target
            if target.exists():
                raise UsageError(f"{label_of(target)} exists", "Remove it, or leave out --no-overwrite")


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if is_folder(folder) else []


def check_folder_name(folder: Path) -> None:
    """Raise UsageError where a folder would be made that has the name of a file."""
    if folder.suffix in OUTPUT_SUFFIXES and not is_folder(folder):
        advice = f"Name a folder, or write one output to stdout: '-o - > {label_of(folder)}'"
        raise UsageError(f"-o takes a folder, and {label_of(folder)} looks like a file", advice)


def check_target(path: Path) -> None:
    """Raise UsageError where a file at `path` could not be written."""
    if is_folder(path):
        raise UsageError(f"{label_of(path)} is a folder", "Name a file")
    if _is_special(path):
        return
    _check_writable(path.parent, "Name another file")
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # as of a name that is too long
        raise UsageError(f"cannot write {label_of(path)}: {error.strerror}", "Give another file") from None


def _is_special(path: Path) -> bool:
    """Whether it is a device or a pipe, which no file may take the place of."""
    try:
        return path.exists() and not path.is_file() and not path.is_dir()
    except OSError:
        return False


def check_names(work: Input | Work, extensions: Sequence[str], folder: Path) -> None:
    """Raise InputError where the name of an output is longer than its folder can hold."""
    for extension in extensions:
        target = target_of(work, folder, extension)
        size = len(os.fsencode(target.name))
        if size > FITTING_NAME and size > (most := _longest_name(_first_there(target.parent))):
            message = f"the name of its output .{extension} would have {size} bytes, and {most} are the most there"
            raise InputError(message, "Give it a shorter name")


def _longest_name(folder: Path) -> int:
    """In bytes."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or a file system that does not tell
        return USUAL_LONGEST_NAME


def _first_there(folder: Path) -> Path:
    """The folder in which `folder` is or would be made."""
    return next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))


def target_of(work: Input | Work, folder: Path, extension: str) -> Path:
    """Where the result of `work` in one format is written."""
    return folder / work.stem.with_name(f"{work.stem.name}.{extension}")


def _check_writable(folder: Path, advice: str = "Give another one with -o") -> None:
    """Try to write where `folder` is or would be made; permissions alone do not tell (read-only disks, root)."""
    try:
        with tempfile.TemporaryFile(dir=_first_there(folder)):
            return
    except OSError as error:
        reason = error.strerror or str(error)
    raise UsageError(f"cannot write to the output folder {label_of(folder)}: {reason}", advice)


def write(target: Path, produce: Callable[[TextIO], None], advice: str = "Its result is lost") -> None:
    """Write `target` whole or not at all: to a temporary name in its folder, then renamed.

    Raises StorageError where there is no room left on the disk, and InputError, with `advice`, for any other reason.
    """
    temporary = target.with_name(f".phi4mm-{_OWN}-{next(_counter)}.part")
    try:
        if _is_special(target):
            with target.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
                produce(file)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
            produce(file)
            file.flush()
            os.fsync(file.fileno())
        with suppress(OSError):  # there is none yet, or its rights are not ours to give
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        message = f"cannot write {label_of(target)}: {error.strerror}"
        raise (StorageError if error.errno in FULL else InputError)(message, advice) from error
    finally:
        with suppress(OSError):  # what cannot be written may not be removed either
            temporary.unlink(missing_ok=True)
