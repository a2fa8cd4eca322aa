"""Cuts what is too long for one request: a text at its own borders, and anything in order into few parts of like size.

Nothing is left out but the white space at the borders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise

from phi4mm_cli import timing

Span = tuple[float, float]  # where something begins and ends, in any unit

_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n\s*")
_NARROWINGS = 20  # halvings of what is not known of the best size: to a millionth of it


def paragraphs(text: str) -> list[str]:
    """`text` cut at its blank lines, the paragraphs as they are; [] where there is none."""
    return [piece for piece in _PARAGRAPH_END.split(text.strip()) if piece]


def pieces(text: str, count: Callable[[str], int], most: int) -> Iterator[str]:
    """`text` in pieces that are at most `most` tokens long, by `count`.

    A text that is short enough stays whole; a longer one is cut between sentences, a longer sentence between words
    near its middle, and what has none of these, anywhere.
    """
    if count(text) <= most:
        yield text
        return
    found = [piece for sentence in timing.sentences(text) for piece in _halves(sentence, count, most)]
    # One more for the space between two sentences.
    ends = [*accumulate((count(piece) + 1 for piece in found), initial=0)]
    yield from (" ".join(found[run]) for run in packed([*pairwise(ends)], most))


def _halves(text: str, count: Callable[[str], int], most: int) -> Iterator[str]:
    if len(text) < 2 or count(text) <= most:
        yield text
        return
    middle = len(text) // 2
    space = text.rfind(" ", middle // 2, middle)
    cut = middle if space < 0 else space
    for half in (text[:cut], text[cut:].lstrip()):
        yield from _halves(half, count, most)


def packed(spans: Sequence[Span], most: float) -> list[slice]:
    """The fewest runs of neighbours that are each at most `most` from the first's start to the last's end.

    The runs are of nearly equal length. A span that is longer than `most` is a run of its own.
    """
    fewest = _filled(spans, most)
    too_little, enough = 0.0, most
    for _ in range(_NARROWINGS):
        middle = (too_little + enough) / 2
        if len(_filled(spans, middle)) > len(fewest):
            too_little = middle
        else:
            enough = middle
    return _filled(spans, enough)


def _filled(spans: Sequence[Span], most: float) -> list[slice]:
    """Runs that take in as much as they can, one after the other."""
    runs: list[slice] = []
    first = 0
    for i, (_, end) in enumerate(spans):
        if i > first and end - spans[first][0] > most:
            runs.append(slice(first, i))
            first = i
    return [*runs, slice(first, len(spans))] if spans else []
