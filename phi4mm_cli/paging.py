"""How a page is shown to the model: which pages, at which size, whole or in overlapping bands, and what that costs."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import Match, SequenceMatcher
from enum import StrEnum
from itertools import groupby, pairwise
from operator import eq
from typing import TYPE_CHECKING

from phi4mm_cli.errors import UsageError
from phi4mm_cli.model.grid import CROP, FIXED_TOKENS, MOST_CROPS, POSITIONS, image_tokens

if TYPE_CHECKING:
    from phi4mm_cli.media.pdf import Sheet

POINTS = 72  # to an inch
LOW_CROPS = 12  # a page of A4 at 150 dots to the inch, for about 3,300 tokens
CROP_TOKENS = POSITIONS * (POSITIONS + 1)  # at most, the newlines included
SHARP = 4 * CROP  # pixels of a page's shorter side: A4 at 217 dots to the inch; --detail auto gives up no page's
FINEST = 8 * CROP  # ... at 434 dots to the inch; more is not shown
OVERLAP = CROP // 2  # pixels that neighbouring bands share: several lines of text

SLACK = 2.0  # by which the lines of an overlap may be closer than those of the rest of the band
FEWEST_WORDS = 24  # that are looked at on either side of a join
AGREEING = 8  # words that agree in a row, at least, where there is a choice of places to join at
LEAST_LETTERS = 8  # in the words that two bands have in common; less is chance
LINE = 12  # words, at most, of a line that the edge of a band cuts through

_WORD = re.compile(r"\S+")


class Detail(StrEnum):
    """How finely pages are shown."""

    AUTO = "auto"
    LOW = "low"
    HIGH = "high"


DPI = {Detail.LOW: 150, Detail.AUTO: 200, Detail.HIGH: 300}  # that lines and letters are drawn at


@dataclass(frozen=True, slots=True)
class View:
    """A picture that the model is shown of a page."""

    size: tuple[int, int] | None  # of the whole page in pixels; None: those it has
    band: tuple[int, int] | None  # rows of them, from and to; None: all
    tokens: int  # that it takes in the prompt


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of a document's pages, in order, counted from 1."""

    ranges: tuple[tuple[int, int | None], ...]  # first and last; None: to the end

    @property
    def first(self) -> int:
        """The first page."""
        return min(first for first, _ in self.ranges)

    def of(self, count: int) -> list[int]:
        """The pages, of `count`."""
        return [page for page in range(1, count + 1) if any(a <= page <= (b or count) for a, b in self.ranges)]


ALL_PAGES = Selection(((1, None),))


def selection(asked: str) -> Selection:
    """The pages that `1-3,7,10-` names. Raises UsageError."""
    ranges = []
    for part in re.sub(r"\s*([,-])\s*", r"\1", asked.strip()).split(","):
        match = re.fullmatch(r"(\d{0,9})(-?)(\d{0,9})", part, re.ASCII)
        first = int(match[1] or 1) if match else 0
        last = None if not match or (match[2] and not match[3]) else int(match[3] or first)
        if not match or not (match[1] or match[3]) or first < 1 or (last is not None and last < first):
            raise UsageError(f"--pages takes pages counted from 1, as in 1-3,7,10-, not '{asked}'")
        ranges.append((first, last))
    return Selection(tuple(ranges))


def listed(pages: Collection[int]) -> str:
    """Pages as `selection` reads them."""
    known = set(pages)
    starts = sorted(page for page in known if page - 1 not in known)
    ends = sorted(page for page in known if page + 1 not in known)
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)
    )


# ------------------------------------------------------------------------------------------------------ what is shown


def crops_within(tokens: int) -> int:
    """How many crops a picture may have that takes at most so many tokens; at least 1, at most what the model takes."""
    return max(1, min(MOST_CROPS, (tokens - FIXED_TOKENS) // CROP_TOKENS))


def views(sheet: Sheet, detail: Detail = Detail.AUTO, most_crops: int = MOST_CROPS) -> tuple[View, ...]:
    """The views of a page, from top to bottom: one of the whole, or bands of it that overlap.

    A page is shown in its own pixels if they fit into the crops. Where they do not it is reduced, which `low` does not
    mind; `auto` minds when too little is left of the shorter side, as of a strip or a large sheet, and `high` always.
    Raises InputError where the page is too narrow for the model.
    """
    resolution = DPI[detail] / POINTS if sheet.drawn else 1.0
    width, height = sheet.width * resolution, sheet.height * resolution
    most = min(LOW_CROPS, most_crops) if detail is Detail.LOW else most_crops
    scale = _largest_scale(width, height, most)
    if scale >= 1:
        if not sheet.drawn:
            return (View(None, None, image_tokens(round(width), round(height), most)),)
        columns, rows = math.ceil(width / CROP), math.ceil(height / CROP)
        scale = min(columns * CROP / width, rows * CROP / height)  # the grid is paid for, so it is filled
        return (_whole(width, height, scale, most),)
    shorter = min(width, height)
    enough = {Detail.LOW: 0.0, Detail.AUTO: min(shorter, 0.95 * SHARP), Detail.HIGH: shorter}[detail]
    if scale * shorter >= enough:
        return (_whole(width, height, scale, most),)
    finest = SHARP if detail is Detail.AUTO else FINEST
    return _bands(width, height, min(1.0, finest / shorter, most * CROP / width), most)


def _largest_scale(width: float, height: float, most_crops: int) -> float:
    """The largest scale at which a page fits into so many crops, in whatever grid of them that is."""
    grids = ((columns, most_crops // columns) for columns in range(1, most_crops + 1))
    return max(min(columns * CROP / width, rows * CROP / height) for columns, rows in grids)


def _whole(width: float, height: float, scale: float, most_crops: int) -> View:
    size = _pixels(width, height, scale)
    return View(size, None, image_tokens(*size, most_crops))


def _bands(width: float, height: float, scale: float, most_crops: int) -> tuple[View, ...]:
    """As few bands as there can be, all of one height."""
    size = columns, rows = _pixels(width, height, scale)
    tallest = most_crops // math.ceil(columns / CROP) * CROP
    count = 1 + max(0, math.ceil((rows - tallest) / (tallest - OVERLAP)))
    if count == 1:
        return (View(size, None, image_tokens(*size, most_crops)),)
    tall = math.ceil((rows + (count - 1) * OVERLAP) / count)
    tops = [round(number * (rows - tall) / (count - 1)) for number in range(count)]
    return tuple(View(size, (top, top + tall), image_tokens(columns, tall, most_crops)) for top in tops)


def _pixels(width: float, height: float, scale: float) -> tuple[int, int]:
    return max(1, round(width * scale)), max(1, round(height * scale))


# ------------------------------------------------------------------------------------------------------ what was read


def joined(texts: Sequence[str], overlap: float) -> tuple[str, int]:
    """The texts of the bands of a page as one, what neighbours both hold once; and how many have nothing in common.

    `overlap` is the share of a band that its neighbour shows too. Two texts are joined at the longest run of words that
    the end of the one and the beginning of the other have in common: a line that the edge of a band cuts through is
    taken from the other band. Where they have no words in common, or where more would be lost than such a line and than
    they have in common, both are kept as they are.
    """
    together, apart = texts[0], 0
    for upper, lower in pairwise(texts):
        seam = _seam(upper, lower, overlap)
        if seam is None:
            apart += bool(upper.strip() and lower.strip())
            together = f"{together}\n{lower}".strip("\n")
        else:
            rest, begin = seam
            together = together[: len(together) - rest] + lower[begin:]
    return together, apart


def _seam(upper: str, lower: str, overlap: float) -> tuple[int, int] | None:
    """How many letters the end of `upper` loses, and where `lower` goes on."""
    above, below = [*_WORD.finditer(upper)], [*_WORD.finditer(lower)]
    reach = max(FEWEST_WORDS, math.ceil(SLACK * overlap * max(len(above), len(below))))
    tail, head = above[-reach:], below[:reach]
    ends, begins = [word[0] for word in tail], [word[0] for word in head]
    run = SequenceMatcher(None, ends, begins, autojunk=False).find_longest_match()
    run = _nearest(ends, begins, run, overlap * max(len(above), len(below)))
    if sum(letter.isalnum() for word in ends[run.a : run.a + run.size] for letter in word) < LEAST_LETTERS:
        return None
    rest, begin = len(upper) - tail[run.a + run.size - 1].end(), head[run.b + run.size - 1].end()
    lost = _lost(ends[run.a + run.size :], begins[run.b + run.size :])
    lost += _lost(begins[: run.b][::-1], ends[: run.a][::-1])
    dropped = upper[len(upper) - rest :], lower[: head[run.b].start()]
    is_cut_line = lost <= LINE and not any("\n" in text.strip() for text in dropped)
    return (rest, begin) if is_cut_line or lost <= run.size else None


def _lost(dropped: Sequence[str], instead: Sequence[str]) -> int:
    """How many of these words the other band does not have at the same place, as far as it is looked at."""
    return (Counter(dropped) - Counter(instead[: len(dropped)])).total()


def _nearest(ends: Sequence[str], begins: Sequence[str], longest: Match, expected: float) -> Match:
    """Of the places where both agree about as well as at the `longest`, that whose overlap is nearest to `expected`.

    In rows that repeat themselves there are many, and the longest run takes rows for doubled that are not.
    """
    found, miss = longest, abs(len(ends) - longest.a + longest.b - expected)
    for size in range(AGREEING, min(len(ends), len(begins)) + 1):  # words of the overlap
        if abs(size - expected) >= miss:
            continue
        start = place = 0
        for same, group in groupby(map(eq, ends[-size:], begins)):
            start, place = place, place + len([*group])
            run = place - start
            if same and run >= AGREEING and 3 * run >= longest.size and 2 * run >= size:
                found, miss = Match(len(ends) - size + start, start, run), abs(size - expected)
    return found
