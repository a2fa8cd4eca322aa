"""A text in so many lines, for captions whose times are given; and captions in two languages, a line of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from phi4mm_cli.captions.arrange import Caption, Unit, size, units
from phi4mm_cli.captions.grammar import grammar_of
from phi4mm_cli.captions.pieces import columns, limit
from phi4mm_cli.captions.presets import PRESETS, Preset, PresetName
from phi4mm_cli.captions.schedule import scheduled
from phi4mm_cli.timing import spread

BREAK = 0.02  # what a cost of a line's end counts beside the share of a line that is too little or too much
TOO_WIDE = 100.0

_NETFLIX = PRESETS[PresetName.NETFLIX]


@dataclass(frozen=True, slots=True)
class Pair:
    """What is said from `start` to `end` (seconds), above its translation."""

    start: float
    end: float
    source: str
    translation: str


def broken(text: str, preset: Preset = _NETFLIX, language: str | None = None) -> list[str]:
    """`text` in as few lines as fit, of nearly equal width."""
    found = _units(text, preset, language)
    return _rows(found, _fewest(found, preset), preset)


def of_pairs(
    pairs: Iterable[Pair], preset: Preset = _NETFLIX, source: str | None = None, translation: str | None = None
) -> list[Caption]:
    """Captions with a line of the source above one of its translation, whose languages' codes are given.

    A pair that needs more than a line of either is shown in several captions, one after the other. Reading speed is
    that of one language: who knows the one does not read the other.
    """
    shown: list[tuple[str, ...]] = []
    spoken: list[tuple[int, int, int]] = []
    for pair in pairs:
        above, below = _units(pair.source, preset, source), _units(pair.translation, preset, translation)
        count = max(_fewest(above, preset), _fewest(below, preset))
        rows = zip(_filled(above, count, preset), _filled(below, count, preset), strict=True)
        both = [tuple(row for row in lines if row) for lines in rows]
        time = (pair.start, max(pair.end, pair.start + 0.001))
        spans = spread([" ".join(lines) for lines in both], [time]) if both else []
        shown += both
        widths = (max(map(columns, lines)) for lines in both)
        spoken += ((round(a * 1000), round(b * 1000), width) for (a, b), width in zip(spans, widths, strict=True))
    unruly = math.isinf(preset.columns)
    times = [(start, end) for start, end, _ in spoken] if unruly else scheduled(spoken, preset)
    return [Caption(start, end, lines) for lines, (start, end) in zip(shown, times, strict=True)]


def _units(text: str, preset: Preset, language: str | None) -> list[Unit]:
    return units(text, 0, 1000, grammar_of([text], language), preset)


def _room(found: Sequence[Unit], preset: Preset) -> float:
    return limit(preset, size(found), sum(unit.wide for unit in found))


def _fewest(found: Sequence[Unit], preset: Preset) -> int:
    """How many lines the units need."""
    room, rows, taken = _room(found, preset), 0, 0
    for unit in found:
        taken += columns(unit.space) + unit.columns
        if not rows or taken > room:
            rows, taken = rows + 1, unit.columns
    return rows


def _filled(found: Sequence[Unit], rows: int, preset: Preset) -> list[str]:
    """So many lines; empty ones at the end where there are too few units."""
    lines = _rows(found, min(rows, len(found)), preset)
    return lines + [""] * (rows - len(lines))


def _rows(found: Sequence[Unit], rows: int, preset: Preset) -> list[str]:
    """The units in so many lines, at the places that make them most even and are best for a line's end."""
    if not rows:
        return []
    room, aim = _room(found, preset), max(1.0, size(found) / rows)
    spaces = [columns(unit.space) for unit in found]
    reached = [*accumulate((unit.columns + space for unit, space in zip(found, spaces, strict=True)), initial=0)]

    def cost(first: int, end: int) -> float:
        width = reached[end] - reached[first] - spaces[first]
        ends = BREAK * found[first].cost if first else 0.0
        return ((width - aim) / aim) ** 2 + ends + TOO_WIDE * (width > room)

    best: list[list[tuple[float, int]]] = [[(0.0, 0)] + [(math.inf, 0)] * len(found)]
    for _ in range(rows):
        before = best[-1]
        ways = ([(before[first][0] + cost(first, end), first) for first in range(end)] for end in range(len(found) + 1))
        best.append([min(way, default=(math.inf, 0)) for way in ways])
    lines: list[str] = []
    end = len(found)
    for row in reversed(best[1:]):
        first = row[end][1]
        lines.insert(0, found[first].text + "".join(unit.space + unit.text for unit in found[first + 1 : end]))
        end = first
    return lines
