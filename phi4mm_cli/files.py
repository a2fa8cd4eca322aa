"""Which files are read and which are written: discovery, output names, clashes, and writing that is never half done."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
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


def find(
    paths: Sequence[Path],
    suffixes: Collection[str],
    stdin_name: str,
    tag: str | None = None,
    replaced_tags: Collection[str] = (),
) -> tuple[list[Input], list[tuple[str, InputError]]]:
    """The files that `paths` name, in their order, folders searched below; and the folders that hold none.

    In a folder, files with one of `suffixes` are taken; hidden ones are left out, and earlier outputs, whose names
    have `tag` before their suffix; links to folders are not followed. Outputs mirror the folder's tree, without a tag
    of `replaced_tags` in their names. Whether a file named directly can be read is left to its reader.
    """
    found: dict[Path, Input] = {}
    errors = []
    for path in paths:
        if path.is_dir():
            walked = [file for file in _walk(path, suffixes) if tag is None or file.with_suffix("").suffix != f".{tag}"]
            files = [Input(file, _label(file), *_named(file.relative_to(path))) for file in walked]
            if not files:
                known = " ".join(sorted(suffixes))
                errors.append((_label(path), InputError("no media files in this folder", f"Looked for {known}")))
        elif path == STDIN:
            files = [Input(path, stdin_name, Path(stdin_name), stdin_name)]
        else:
            files = [Input(path, _label(path), *_named(Path(path.name)))]
        for file in files:
            tagged = file.stem.suffix.removeprefix(".") in replaced_tags
            found.setdefault(file.path, replace(file, stem=file.stem.with_suffix("")) if tagged else file)
    return list(found.values()), errors


def _walk(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(where, name)


def _named(path: Path) -> tuple[Path, str]:
    """The stem of a file's outputs, and its name."""
    return path.with_suffix(""), path.as_posix()


def _label(path: Path) -> str:
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
                    f"{claimed[target].label} and {work.label} would both write {_label(target)}",
                    "Rename one, or give them different output folders with -o",
                )
            claimed[target] = work
            if target.resolve() in sources:
                raise UsageError(f"{_label(target)} is an input; it is not overwritten", "Give another folder with -o")
            folders.add(target.parent)
    for where in sorted(folders):
        _check_writable(where)


def check_absent(claims: Claims, folder: Path) -> None:
    """Raise UsageError where an output exists."""
    for work, extensions in claims:
        for extension in extensions:
            if (target := target_of(work, folder, extension)).exists():
                raise UsageError(f"{_label(target)} exists", "Remove it, or leave out --no-overwrite")


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
    raise UsageError(f"cannot write to the output folder {_label(folder)}: {reason}", "Give another one with -o")


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
        message = f"cannot write {_label(target)}: {error.strerror}"
        raise (StorageError if error.errno in FULL else InputError)(message, advice) from error
    finally:
        with suppress(OSError):  # what cannot be written may not be removed either
            temporary.unlink(missing_ok=True)
