"""Which rules a subtitle file breaks, and where."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from phi4mm_cli.captions.arrange import ORPHAN_COLUMNS
from phi4mm_cli.captions.grammar import TORN, Grammar, grammar_of
from phi4mm_cli.captions.pieces import columns, limit_of, pieces
from phi4mm_cli.captions.presets import LINES, Preset
from phi4mm_cli.subtitles import Cue, Kind, Subtitles, plain

Rule = Literal[
    "format",  # the file is not in order, though it can be read
    "empty",  # no text
    "times",  # it ends before it starts
    "order",  # it starts before the one above it
    "overlap",  # it starts before the one above it ends, in the same place
    "gap",  # ... or so soon after that they flicker
    "short",
    "long",
    "speed",  # more characters a second than people read
    "lines",  # too many
    "width",  # a line with too many characters
    "orphan",  # a short word alone on a line, though the lines could be of like length
    "torn",  # a line ends after an article or a title, though it could end elsewhere
]
_PLACE = re.compile(r"\{\\(?:an?\d|pos)[^{}]*\}")
SPOKEN_BY = re.compile(r"\s*(?:[-–—‐]|>>|\[|♪)")  # a line of its own: what a speaker says, a sound, a song


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that is broken."""

    line: int  # of the file, from 1
    cue: int | None  # from 1; None: of the file as a whole
    rule: Rule
    detail: str


def check(found: Subtitles, preset: Preset, language: str | None = None) -> list[Violation]:
    """What breaks a rule in a file, in the order of its lines."""
    grammar = grammar_of((plain(cue.text, found.kind) for cue in found.cues), language)
    broken = [Violation(fault.line, None, "format", fault.detail) for fault in found.faults]
    ends: dict[tuple[str, str], int] = {}  # of the last cue in each place
    highest = 0
    for number, cue in enumerate(found.cues, 1):
        rules = [*of_text(plain(cue.text, found.kind), preset, grammar), *of_time(cue, found.kind, preset)]
        where = place(cue)
        if cue.start < highest:
            rules.append(("order", f"starts {_seconds(highest - cue.start)} before the cue above it"))
        elif where in ends and cue.start < ends[where]:
            rules.append(("overlap", f"starts {_seconds(ends[where] - cue.start)} before the one above it ends"))
        elif where in ends and cue.start - ends[where] < preset.gap:
            rules.append(("gap", f"{cue.start - ends[where]} ms after the one above it, at least {preset.gap} ms"))
        ends[where] = max(cue.end, ends.get(where, 0))
        highest = max(highest, cue.start)
        broken += [Violation(cue.line, number, rule, detail) for rule, detail in rules]
    return sorted(broken, key=lambda violation: violation.line)


def place(cue: Cue) -> tuple[str, str]:
    """What tells where on the screen a cue stands."""
    return cue.settings, "".join(_PLACE.findall(cue.text))


def of_text(text: str, preset: Preset, grammar: Grammar) -> Iterator[tuple[Rule, str]]:
    """The rules that a cue's words break, times aside."""
    rows = text.split("\n")
    if not text.strip():
        yield "empty", "no text"
        return
    room = limit_of(text, preset)
    if len(rows) > LINES and preset.columns < float("inf"):
        yield "lines", f"{len(rows)} lines, at most {LINES}"
    for row in rows:
        if columns(row) > room:
            yield "width", f"{columns(row)} columns, at most {room:g}: {row}"
    if len(rows) == 2 and room < math.inf and not any(SPOKEN_BY.match(row) for row in rows):
        yield from _of_break(rows, room, preset, grammar)


def _of_break(rows: Sequence[str], room: float, preset: Preset, grammar: Grammar) -> Iterator[tuple[Rule, str]]:
    """What is bad about where the first of two lines ends, where it could end better."""
    found = pieces(" ".join(rows), grammar, preset)
    text = " ".join(rows)

    def faulty(second: int) -> Rule | None:
        top, bottom = (text[: found[second - 1].end], text[found[second].begin :])
        if max(columns(top), columns(bottom)) > room:
            return "width"
        if found[second].cost >= TORN:
            return "torn"
        alone = (second == 1 and columns(top) < ORPHAN_COLUMNS) or (
            second == len(found) - 1 and columns(bottom) < ORPHAN_COLUMNS
        )
        return "orphan" if alone else None

    at = next((i for i, piece in enumerate(found) if piece.begin > len(rows[0])), 0)
    rule = faulty(at) if at else None
    if rule in ("orphan", "torn") and any(faulty(i) is None for i in range(1, len(found))):
        yield rule, " / ".join(rows)


def of_time(cue: Cue, kind: Kind, preset: Preset) -> Iterator[tuple[Rule, str]]:
    """The rules that a cue's own times break."""
    shown = cue.end - cue.start
    if shown <= 0:
        yield "times", f"ends {_seconds(-shown)} before it starts" if shown else "ends as it starts"
        return
    if shown < preset.shortest:
        yield "short", f"{_seconds(shown)}, at least {_seconds(preset.shortest)}"
    if shown > preset.longest:
        yield "long", f"{_seconds(shown)}, at most {_seconds(preset.longest)}"
    size = sum(columns(row) for row in plain(cue.text, kind).split("\n"))
    if 1000 * size > preset.speed * shown:
        yield "speed", f"{1000 * size / shown:.1f} characters a second, at most {preset.speed:g}"


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f} s"
