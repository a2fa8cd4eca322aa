"""Segments to captions: at most two lines of 42 characters, in order, never overlapping, never zero long.

Widths follow the terminal convention that a wide (East Asian) character counts as two.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from phi4mm_cli.schema import Segment
from phi4mm_cli.timing import spread

LINE_WIDTH = 42  # characters; the limit of the Netflix timed-text style guide, and of most broadcasters
MAX_LINES = 2
MIN_MILLISECONDS = 1


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands on the screen from `start` to `end` (integer milliseconds)."""

    start: int
    end: int
    lines: tuple[str, ...]


def from_segments(segments: Iterable[Segment]) -> list[Caption]:
    """Captions of `segments`, each segment's time shared among its captions."""
    captions: list[Caption] = []
    for segment in segments:
        blocks = list(_blocks(_lines(segment.text)))
        spans = spread([" ".join(lines) for lines in blocks], [(segment.start, segment.end)]) if blocks else []
        for lines, (start, end) in zip(blocks, spans, strict=True):
            first = max(round(start * 1000), captions[-1].end if captions else 0)
            captions.append(Caption(first, max(int(end * 1000), first + MIN_MILLISECONDS), lines))
    return captions


def width(text: str) -> int:
    """Columns that `text` takes: 2 for wide characters, 0 for combining ones."""
    shown = (c for c in text if not unicodedata.combining(c) and unicodedata.category(c) != "Cf")
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)


def _blocks(lines: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Lines grouped by captions of nearly equal size."""
    count = math.ceil(len(lines) / MAX_LINES)
    for i in range(count):
        yield tuple(lines[i * len(lines) // count : (i + 1) * len(lines) // count])


def _lines(text: str) -> list[str]:
    """`text` in as few lines as fit, of nearly equal width."""
    words = [piece for word in text.split() for piece in _pieces(word)]
    lines = _fill(words, LINE_WIDTH)
    narrowest = LINE_WIDTH
    while narrowest > 1 and len(_fill(words, narrowest - 1)) == len(lines):
        narrowest -= 1
    return _fill(words, narrowest)


def _fill(words: Sequence[str], limit: int) -> list[str]:
    lines: list[str] = []
    for word in words:
        if lines and width(lines[-1]) + 1 + width(word) <= limit:
            lines[-1] += " " + word
        else:
            lines.append(word)
    return lines


def _pieces(word: str) -> Iterator[str]:
    """A word that is wider than a line (a URL, a sentence without spaces), cut into pieces of a line at most."""
    piece = ""
    for character in word:
        if width(piece + character) > LINE_WIDTH:
            yield piece
            piece = ""
        piece += character
    yield piece
