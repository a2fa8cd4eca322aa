"""Timed text to captions: which words share one, and where its line breaks.

All captions of a text are chosen together, at the least sum of penalties (dynamic programming over the places where a
line may end). What cannot keep to the rules, because it was spoken too fast or is too dense, is shown all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from phi4mm_cli.captions.grammar import CLAUSE, TORN, Grammar, grammar_of
from phi4mm_cli.captions.pieces import columns, limit, pieces, unspaced
from phi4mm_cli.captions.presets import LINES, PRESETS, Preset, PresetName
from phi4mm_cli.captions.schedule import scheduled
from phi4mm_cli.outputs import Segment
from phi4mm_cli.timing import spread

# Penalties, in the unit of the costs of a line's end: 0 after a sentence, 5 between any two words, 13 after an article.
EACH_CAPTION = 2.0
SENTENCE_WITHIN = 3.0  # a caption should hold one sentence (BBC 3.2)
BROKEN_RULE = 8.0  # at once, and again for each
PER_EXCESS = 30.0  # ... as much as the limit itself
FRAGMENT, FRAGMENT_COLUMNS = 5.0, 20  # a part of a sentence that is shorter
LINE_END = 0.7  # of the cost, where the two lines are of one caption
UNEVEN, TOP_HEAVY, ORPHAN = 4.0, 1.0, 12.0
ORPHAN_COLUMNS = 10  # a lone word of so many, or more, may have a line
PAUSE, PAUSE_PENALTY = 500, 20.0  # milliseconds of silence that are not felt in a caption; for each second more


@dataclass(frozen=True, slots=True)
class Caption:
    """What stands on the screen from `start` to `end` (integer milliseconds)."""

    start: int
    end: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of text that no line divides, and when it is said."""

    text: str
    columns: int
    wide: int  # those of the columns that full-width characters take
    space: str  # before it, where it does not begin a line
    cost: float  # of ending a line before it
    start: int  # milliseconds
    end: int


Block = tuple[int, int, int]  # the first unit of a caption, that of its second line (or the end), the end


def from_segments(
    segments: Iterable[Segment], preset: Preset = PRESETS[PresetName.NETFLIX], language: str | None = None
) -> list[Caption]:
    """Captions of `segments` (rising in time); `language` is their code, found out where it is not given."""
    segments = list(segments)
    if math.isinf(preset.columns):
        return _one_each(segments)
    grammar = grammar_of((segment.text for segment in segments), language)
    found: list[Unit] = []
    for segment in segments:
        start, end = round(segment.start * 1000), int(segment.end * 1000)
        words = [(word.word, round(word.start * 1000), round(word.end * 1000)) for word in segment.words or ()]
        join(found, units(segment.text, start, end, grammar, preset, words), grammar)
    blocks = arranged(found, preset)
    times = scheduled([(found[i].start, found[j - 1].end, size(found[i:j])) for i, _, j in blocks], preset)
    return [Caption(start, end, tuple(lines(found, block))) for block, (start, end) in zip(blocks, times, strict=True)]


def _one_each(segments: Iterable[Segment]) -> list[Caption]:
    captions: list[Caption] = []
    for segment in segments:
        if text := " ".join(segment.text.split()):
            start = max(round(segment.start * 1000), captions[-1].end if captions else 0)
            captions.append(Caption(start, max(int(segment.end * 1000), start + 1), (text,)))
    return captions


# ---------------------------------------------------------------------------------------------- units


def units(
    text: str,
    start: int,
    end: int,
    grammar: Grammar,
    preset: Preset,
    words: Sequence[tuple[str, int, int]] = (),
) -> list[Unit]:
    """The units of a text that is said from `start` to `end` (milliseconds).

    `words` are its words, in order, with the times of each, where these are known; else an even pace is assumed.
    """
    found = pieces(text, grammar, preset)
    if not found:
        return []
    parts = [text[piece.begin : piece.end] for piece in found]
    if words:
        spans = _by_words(text, [(piece.begin, piece.end) for piece in found], words, start, end)
    else:
        last = max(end, start + 1) / 1000
        spans = [(round(a * 1000), round(b * 1000)) for a, b in spread(parts, [(start / 1000, last)])]
    return [
        Unit(part, piece.columns, piece.wide, piece.space, piece.cost, begins, ends)
        for part, piece, (begins, ends) in zip(parts, found, spans, strict=True)
    ]


def _by_words(
    text: str, places: Sequence[tuple[int, int]], words: Sequence[tuple[str, int, int]], start: int, end: int
) -> list[tuple[int, int]]:
    """When each stretch of `text` is said: its characters take the times of the word that they stand in."""
    known: list[tuple[int, int]] = [(0, start)]  # a character, and when it is reached
    at = 0
    for word, begins, ends in words:
        found = text.find(word.strip(), at)
        if found >= 0 and word.strip():
            at = found + len(word.strip())
            known += [(found, begins), (at, ends)]
    known.append((len(text), end))
    spans = []
    for first, last in places:
        spans.append((_reached(known, first, after=True), _reached(known, last, after=False)))
    rising = list(accumulate((begins for begins, _ in spans), max))
    return [(begins, max(begins, ends)) for begins, (_, ends) in zip(rising, spans, strict=True)]


def _reached(known: Sequence[tuple[int, int]], character: int, after: bool) -> int:
    """When `character` is reached; where a pause is there, `after` it or before."""
    exact = [time for at, time in known if at == character]
    if exact:
        return exact[-1] if after else exact[0]
    for (left, begins), (right, ends) in pairwise(known):
        if left < character < right:
            return begins + (ends - begins) * (character - left) // (right - left)
    return known[-1][1]


def join(before: list[Unit], after: Sequence[Unit], grammar: Grammar) -> None:
    """Add a stretch of text to another; between them a caption may well end."""
    if before and after:
        last, first = before[-1], after[0]
        cost = grammar.cost(last.text, first.text)
        if cost < TORN and not last.text.endswith("."):  # which may be that of a title: Mr.
            cost = min(cost, CLAUSE)
        after = [replace(first, space="" if unspaced(last.text[-1], first.text[0]) else " ", cost=cost), *after[1:]]
    before += after


def size(units: Sequence[Unit]) -> int:
    """Columns to be read."""
    return sum(unit.columns for unit in units) + sum(columns(unit.space) for unit in units[1:])


def lines(units: Sequence[Unit], block: Block) -> Iterator[str]:
    """The lines of a caption."""
    first, second, end = block
    for begin, until in ((first, second), (second, end)):
        if begin < until:
            yield units[begin].text + "".join(unit.space + unit.text for unit in units[begin + 1 : until])


# ---------------------------------------------------------------------------------------------- which words


class _Sums:
    """Sums over the first units, so that those of any stretch are a subtraction."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self.spaces = [columns(unit.space) for unit in units]
        sizes = (unit.columns + space for unit, space in zip(units, self.spaces, strict=True))
        self.columns = list(accumulate(sizes, initial=0))
        self.words = list(accumulate((unit.columns for unit in units), initial=0))
        self.wide = list(accumulate((unit.wide for unit in units), initial=0))
        self.pauses = [0] * len(units[:1]) + [max(0, b.start - a.end) for a, b in pairwise(units)]  # before each
        within = (
            (SENTENCE_WITHIN if unit.cost == 0 else 0.0) + PAUSE_PENALTY * max(0, pause - PAUSE) / 1000
            for unit, pause in zip(units, self.pauses, strict=True)
        )
        self.within = list(accumulate(within, initial=0.0))  # what it costs to have it inside of a caption

    def width(self, first: int, end: int) -> int:
        return self.columns[end] - self.columns[first] - self.spaces[first]


def arranged(units: Sequence[Unit], preset: Preset) -> list[Block]:
    """The captions of `units`, none of which is left out."""
    sums = _Sums(units)
    most = LINES * max(preset.columns, preset.wide_columns)
    best: list[tuple[float, Block]] = [(0.0, (0, 0, 0))]
    for end in range(1, len(units) + 1):
        least: tuple[float, Block] = (math.inf, (0, 0, 0))
        for first in range(end - 1, -1, -1):
            if sums.width(first, end) > most and first < end - 1:
                break
            total = best[first][0] + _penalty(units, sums, first, end, preset)
            if total < least[0] and (broken := _line_break(units, sums, first, end, preset)) is not None:
                least = min(least, (total + broken[0], (first, broken[1], end)))
        best.append(least)
    blocks: list[Block] = []
    end = len(units)
    while end > 0:
        blocks.append(best[end][1])
        end = best[end][1][0]
    return blocks[::-1]


def whole(units: Sequence[Unit], preset: Preset) -> Block | None:
    """All of `units` as one caption, where they fit."""
    broken = _line_break(units, _Sums(units), 0, len(units), preset) if units else None
    return None if broken is None else (0, broken[1], len(units))


def _line_break(units: Sequence[Unit], sums: _Sums, first: int, end: int, preset: Preset) -> tuple[float, int] | None:
    """The penalty of the best lines, and where the second begins: at the end, where one is enough. None: too long."""
    whole = sums.width(first, end)
    room = limit(preset, sums.words[end] - sums.words[first], sums.wide[end] - sums.wide[first])
    if whole <= room or end == first + 1:
        return 0.0, end
    best: tuple[float, int] | None = None
    for second in range(end - 1, first, -1):
        bottom = sums.width(second, end)
        if bottom > room:
            break
        top = sums.width(first, second)
        if top > room:
            continue
        cost = LINE_END * units[second].cost + UNEVEN * abs(top - bottom) / room + TOP_HEAVY * (top > bottom)
        alone = (second == first + 1 and top < ORPHAN_COLUMNS) or (second == end - 1 and bottom < ORPHAN_COLUMNS)
        cost += ORPHAN * alone
        if best is None or cost < best[0]:
            best = cost, second
    return best


def _penalty(units: Sequence[Unit], sums: _Sums, first: int, end: int, preset: Preset) -> float:
    """What is bad about a caption of these units, but for its lines."""
    size, start = sums.width(first, end), units[first].start
    spoken = units[end - 1].end - start
    last = end == len(units)
    free = preset.longest if last else units[end].start - preset.gap - start
    shown = max(1.0, min(free, preset.longest))
    cost = EACH_CAPTION + sums.within[end] - sums.within[first + 1]
    if not last:  # a pause makes any place a better end
        cost += units[end].cost * max(0.2, 1 - sums.pauses[end] / 1000)
    whole = (last or units[end].cost == 0) and units[first].cost == 0
    if not whole and size < FRAGMENT_COLUMNS:
        cost += FRAGMENT * (1 - size / FRAGMENT_COLUMNS)
    for excess in (1000 * size / (preset.speed * shown), preset.shortest / shown, spoken / preset.longest):
        if excess > 1:
            cost += BROKEN_RULE + PER_EXCESS * min(excess - 1, 10)
    return cost
