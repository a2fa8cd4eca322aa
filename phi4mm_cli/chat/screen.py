"""How an answer is shown while it is written: as it is in a pipe, as Markdown on a terminal."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from phi4mm_cli import console, markdown

if TYPE_CHECKING:
    from rich.segment import Segment, Segments

    Lines = list[list[Segment]]


class Page(Protocol):
    """Where an answer is written to."""

    def write(self, piece: str) -> None:
        """The next piece of it."""


@contextmanager
def unseen() -> Iterator[Page]:
    """Where an answer goes that is not to be shown."""
    yield _Nowhere()


@contextmanager
def page(stdout: TextIO, plain: bool = False) -> Iterator[Page]:
    """Where one answer goes; leaving it ends its last line. `plain` text is no Markdown."""
    fits = not plain and stdout.isatty() and os.environ.get("TERM") != "dumb"
    shown = _Rendered(stdout) if fits else _Raw(stdout)
    try:
        yield shown
    finally:
        shown.close()


class _Nowhere:
    def write(self, piece: str) -> None:
        pass


class _Raw:
    """Each piece at once. On a terminal that cannot do more, without what would make it do something."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout, self._safe = stdout, stdout.isatty()
        self._open = False  # a line is

    def write(self, piece: str) -> None:
        self._stdout.write(console.harmless(piece) if self._safe else piece)
        self._stdout.flush()
        self._open = not piece.endswith("\n")

    def close(self) -> None:
        if self._open:
            self._stdout.write("\n")
        self._stdout.flush()


class _Rendered:
    """Paragraphs, lists and tables that are finished are printed; the last one is drawn anew as it grows."""

    def __init__(self, stdout: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stdout, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._text = ""  # what is not printed yet
        self._printed = False

    def write(self, piece: str) -> None:
        self._text += console.harmless(piece)
        place = markdown.last_block(self._text)
        if place:
            self._live.update("", refresh=True)
            self._print(self._lines(self._text[:place]))
            self._text = self._text[place:]
        self._live.start()
        rest = self._lines(self._text)[-max(1, self._console.height - 3) :]  # as many as the terminal has room for
        self._live.update(_together([[], *rest] if self._printed else rest), refresh=True)

    def close(self) -> None:
        self._live.update("")
        self._live.stop()
        if lines := self._lines(self._text):
            self._print(lines)

    def _lines(self, text: str) -> Lines:
        """What a Markdown text looks like, without empty lines around it."""
        lines = self._console.render_lines(markdown.drawn(text), pad=False)
        shown = [number for number, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
        return lines[shown[0] : shown[-1] + 1] if shown else []

    def _print(self, lines: Lines) -> None:
        if self._printed:
            self._console.print()  # as between blocks of one document
        self._console.print(_together(lines), end="")
        self._printed = True


def _together(lines: Lines) -> Segments:
    from rich.segment import Segment, Segments

    return Segments([segment for line in lines for segment in (*line, Segment.line())])
