"""Which files are worked on: what paths, folders, patterns and lists come to, by rule and in a stable order."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.files import STDIN, Input, label_of
from phi4mm_cli.media.sniffing import HEAD, suffix_of
from phi4mm_cli.options import BatchOptions
from phi4mm_cli.paths import absolute, is_file, is_folder, is_there

READ_SIZE = 1 << 16  # bytes of a list that are asked for at once; a pipe gives what it has


@dataclass(frozen=True, slots=True)
class Rules:
    """Which files are taken of those that nobody named: from folders, and of what a pattern matches.

    Those with one of `suffixes`, or whose first bytes are of such a kind, whatever they are called. Not hidden ones,
    nor earlier outputs, whose names have `tag` before their suffix; nor what is no file.
    """

    suffixes: Collection[str]
    tag: str | None = None
    replaced_tags: Collection[str] = ()  # which outputs drop from the names of their inputs
    outputs: Collection[str] = ()  # absolute paths of what earlier runs of the same command have written

    def takes(self, path: Path) -> bool:
        """Whether `path`, which need not be there any more, is taken."""
        known = path.suffix.lower() in self.suffixes
        if path.name.startswith(".") or (known and self.tag and path.with_suffix("").suffix == f".{self.tag}"):
            return False
        if self.outputs and absolute(path) in self.outputs:
            return False
        if is_file(path):
            return known or _suffix_inside(path) in self.suffixes
        return known and path.is_symlink() and not is_there(path)  # a broken link is worth a word

    def input(self, path: Path, name: Path, is_named: bool = False) -> Input:
        """The input at `path`, known by `name`, which is that of its outputs too, without what they replace of it.

        A suffix that is unknown stays, unless its file `is_named`: it may be part of the name, as in 2024.01.31.
        """
        stem = name.with_suffix("") if is_named or name.suffix.lower() in self.suffixes else name
        if stem.suffix.removeprefix(".") in self.replaced_tags:
            stem = stem.with_suffix("")
        return Input(path, label_of(path), stem, name.as_posix())

    def nothing(self, path: Path, what: str) -> Unfound:
        """There was nothing to be taken from `path`."""
        return Unfound(label_of(path), InputError(what, f"Looked for {' '.join(sorted(self.suffixes))}"))


@dataclass(frozen=True, slots=True)
class Unfound:
    """Something that was asked for and gives no input."""

    label: str
    error: InputError


Found = Input | Unfound


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command line names. Raises UsageError where it is nothing, or stdin for two things."""

    paths: Sequence[Path]
    batch: BatchOptions
    stdin_name: str

    def __post_init__(self) -> None:
        if not self.paths and self.batch.files_from is None:
            raise UsageError("no input is named", "Name files or folders, or give a list of them with --files-from")
        if STDIN in self.paths and self.batch.files_from == STDIN:
            raise UsageError("stdin is both an input and the list of inputs", "Give one of them as a file")

    @property
    def grows(self) -> bool:
        """Whether inputs may still be named while others are worked on."""
        return self.batch.files_from == STDIN

    @property
    def is_one_file(self) -> bool:
        """Whether there can be only one input."""
        if len(self.paths) != 1 or self.batch.files_from is not None:
            return False
        return not (is_folder(self.paths[0]) or _is_pattern(self.paths[0]))

    def found(self, rules: Rules) -> Iterator[Found]:
        """Every input, those of the command line first. Raises UsageError where the list cannot be read."""
        yield from find(self.paths, rules, self.stdin_name)
        if self.batch.files_from is not None:
            yield from listed(read_list(self.batch.files_from, self.batch.null), rules)


def find(paths: Iterable[Path], rules: Rules, stdin_name: str) -> Iterator[Found]:
    """What the arguments of a command name: files, stdin, folders searched below, patterns that no shell expanded.

    Outputs have the name of their file, below the folder that was searched its tree. A file that is named directly is
    taken, whatever it is: its reader judges it.
    """
    for path in paths:
        if path == STDIN:
            yield Input(path, stdin_name, Path(stdin_name), stdin_name)
        elif is_folder(path):
            yield from _or_nothing(_searched(path, path, rules), rules, path, "no media files in this folder")
        elif _is_pattern(path):
            yield from _or_nothing(_matched(path, rules), rules, path, "no media files match this pattern")
        else:
            yield rules.input(path, Path(path.name), is_named=True)


def listed(paths: Iterable[Path], rules: Rules) -> Iterator[Found]:
    """What a list names: files and folders, one after the other, while the list may still grow.

    Outputs have the whole path of their file, as from the current folder: lists name files of many folders.
    """
    here = Path.cwd()
    for path in paths:
        if is_folder(path):
            within = _mirrored(path, here)
            found = _searched(path, path, rules, within)
            yield from _or_nothing(found, rules, path, "no media files in this folder")
        else:
            yield rules.input(path, _mirrored(path, here))


def once(found: Iterable[Found]) -> Iterator[Found]:
    """`found`, without inputs that were there before."""
    seen: set[str] = set()
    for one in found:
        if isinstance(one, Input):
            path = absolute(one.path)
            if path in seen:
                continue
            seen.add(path)
        yield one


def read_list(path: Path, null: bool) -> Iterator[Path]:
    """The paths in a list, one a line (ended by NUL where `null`), each as soon as it is there; `-` is stdin.

    They are taken as they are: any bytes but the end of a line may be in them. Raises UsageError.
    """
    end = b"\0" if null else b"\n"
    try:
        source = 0 if path == STDIN else os.open(path, os.O_RDONLY)
        try:
            rest = b""
            while piece := os.read(source, READ_SIZE):
                *lines, rest = (rest + piece).split(end)
                yield from filter(None, (_listed_path(line, null) for line in lines))
            yield from filter(None, [_listed_path(rest, null)])
        finally:
            if path != STDIN:
                os.close(source)
    except OSError as error:
        raise UsageError(f"cannot read the list {label_of(path)}: {error.strerror}") from None


def _listed_path(line: bytes, null: bool) -> Path | None:
    if not null and b"\0" in line:
        raise UsageError("the list has NUL bytes in it", "Give -0 (--null) for what `find -print0` writes")
    name = os.fsdecode(line if null else line.removesuffix(b"\r"))
    return (Path.cwd() / name if name == str(STDIN) else Path(name)) if name else None


def _mirrored(path: Path, here: Path) -> Path:
    """`path` as seen from `here`, or from the root; never one that leads up."""
    normal = Path(os.path.normpath(path))
    if normal.is_absolute():
        normal = normal.relative_to(here if normal.is_relative_to(here) else normal.anchor)
    return Path(*(part for part in normal.parts if part != ".."))


def _or_nothing(found: Iterable[Found], rules: Rules, path: Path, message: str) -> Iterator[Found]:
    is_empty = True
    for one in found:
        is_empty = False
        yield one
    if is_empty:
        yield rules.nothing(path, message)


# ------------------------------------------------------------------------------------------ folders


def _searched(folder: Path, base: Path, rules: Rules, within: Path = Path()) -> Iterator[Found]:
    """The files below `folder`, those of each folder by name before its folders; links to folders are not followed.

    Their outputs mirror the tree below `base`, `within` another.
    """
    waiting = [folder]
    while waiting:
        where = waiting.pop()
        try:
            with os.scandir(where) as entries:
                visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            yield Unfound(label_of(where), InputError(f"this folder cannot be searched: {error.strerror}"))
            continue
        waiting += [Path(entry) for entry in reversed(visible) if entry.is_dir(follow_symlinks=False)]
        files = (Path(entry) for entry in visible if not is_folder(entry))
        yield from (_below(file, base, rules, within) for file in files if rules.takes(file))


def _below(file: Path, base: Path, rules: Rules, within: Path = Path()) -> Input:
    return rules.input(file, within / file.relative_to(base))


def _suffix_inside(path: Path) -> str | None:
    """The usual suffix of what is in the file; None where it cannot be read: the others are none of our business."""
    try:
        with path.open("rb", buffering=0) as file:
            return suffix_of(file.read(HEAD))
    except OSError:
        return None


# ------------------------------------------------------------------------------------------ patterns


def _is_pattern(path: Path) -> bool:
    """Whether `path` is what a shell would have put names for; a file of that very name is a file."""
    return _has_marks(str(path)) and not os.path.lexists(path)


def _has_marks(part: str) -> bool:
    return any(mark in part for mark in "*?[")


def _matched(pattern: Path, rules: Rules) -> Iterator[Found]:
    """The files that a shell with `**` would have put for `pattern`; below folders that it matches, all of them."""
    fixed = next(place for place, part in enumerate(pattern.parts) if _has_marks(part))
    base = Path(*pattern.parts[:fixed])
    for path in _expanded(base, pattern.parts[fixed:]):
        if is_folder(path):
            yield from _searched(path, base, rules)
        elif rules.takes(path):
            yield _below(path, base, rules)


def _expanded(folder: Path, parts: Sequence[str]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    names = _visible(folder)
    if part == "**":
        yield from _expanded(folder, rest)
        if rest:  # without one, the folder is searched as a whole
            below = (folder / name for name in names)
            for path in (path for path in below if is_folder(path) and not path.is_symlink()):
                yield from _expanded(path, parts)
    elif not _has_marks(part):
        if os.path.lexists(folder / part):
            yield from _expanded(folder / part, rest)
    else:
        for name in names:
            if fnmatchcase(name, part) and (not rest or is_folder(folder / name)):
                yield from _expanded(folder / name, rest)


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
