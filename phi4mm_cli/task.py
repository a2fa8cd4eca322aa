"""What a command does to a file, and the forms in which its results are written: what commands tell `batch`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from phi4mm_cli import ranges, writers
from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.files import Work
from phi4mm_cli.flow import Flow
from phi4mm_cli.outputs import Body, Document, Unit
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.report import SegmentsOf
from phi4mm_cli.schema import Profile

Prepare = Callable[[Profile, CountTokens], Callable[..., Flow[Body]]]  # which is called with the sources of the work


@dataclass(frozen=True, slots=True)
class Edition:
    """A form in which a result is written."""

    format: str
    name: str  # of the file, behind the stem: "srt", "fr.srt"
    write: writers.Writer


class Editions(Protocol):
    """The forms in which the results of a command are written, where `asked` formats are; () leaves them to it."""

    def names(self, path: Path, asked: tuple[str, ...]) -> Sequence[str]:
        """What the files that are written for an input may be called, behind their stem; `files.NUMBER` for any."""

    def of(
        self, path: Path, document: Document, asked: tuple[str, ...], rules: PresetName, together: bool
    ) -> Iterable[Edition]:
        """The editions of a result; one alone where they go to stdout `together`."""


@dataclass(frozen=True, slots=True)
class OneEach:
    """An edition for each format, which is text unless asked for otherwise."""

    tag: str | None

    def names(self, path: Path, asked: tuple[str, ...]) -> Sequence[str]:
        """The formats, behind the tag."""
        return [f"{self.tag}.{name}" if self.tag else name for name in asked or ("txt",)]

    def of(
        self, path: Path, document: Document, asked: tuple[str, ...], rules: PresetName, together: bool
    ) -> Iterable[Edition]:
        """As the writers have them."""
        for format, name in zip(asked or ("txt",), self.names(path, asked), strict=True):
            yield Edition(format, name, writers.writer(format, rules))


@dataclass(frozen=True, slots=True)
class Task:
    """What a command does to one file."""

    command: str  # its name
    suffixes: Collection[str]  # of the files that are taken from folders
    probe: Callable[[Path], float | None]  # reads the header; the length in seconds where it tells; raises InputError
    prepare: Prepare  # the flow, once it is known what the model can do
    options: Mapping[str, str | int | float | bool | None]  # what is recorded of the options in each result
    unit: Unit = "seconds"  # of the lengths that `probe` tells
    spans: tuple[ranges.Span, ...] = ranges.WHOLE  # of recordings, that are heard
    segments: SegmentsOf | None = None  # of what a flow in its Gather returns, to be shown while others run
    tag: str | None = None  # stands in the names of the outputs before the extension, as in talk.fr.srt
    replaced_tags: Collection[str] = ()  # of inputs, whose place it takes: talk.en.srt becomes talk.fr.srt
    editions: Editions | None = None  # None: one for each format
    writing: Mapping[str, str | bool | None] = field(default_factory=dict)  # options that decide no result, only files
    to_files: bool = False  # also where a single text could go to stdout

    @property
    def forms(self) -> Editions:
        """The forms in which its results are written."""
        return self.editions or OneEach(self.tag)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where results go."""

    folder: Path | None  # None: all to stdout
    formats: tuple[str, ...]  # () leaves them to the command
    captions: PresetName
    lines: Path | None = None  # the file that has a line for each result; None: none has

    @property
    def home(self) -> Path | None:
        """The folder that keeps the journal."""
        return self.folder if self.lines is None else self.lines.parent

    def claims(self, task: Task, works: Sequence[Work]) -> list[tuple[Work, Sequence[str]]]:
        """What the files may be called that are written for each."""
        return [(work, task.forms.names(work.path, self.formats)) for work in works]
