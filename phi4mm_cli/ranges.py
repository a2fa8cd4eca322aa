"""Parts of a recording as people write them: `10:00-20:00`, `90s-`, `-5:00`, several with commas."""

from __future__ import annotations

import math
import re
from itertools import pairwise

from phi4mm_cli.errors import UsageError

Span = tuple[float, float]  # seconds; the end may be infinite
WHOLE: tuple[Span, ...] = ((0.0, math.inf),)

_CLOCK = re.compile(r"(?:(?:(?P<h>\d+):)?(?P<m>\d+):)?(?P<s>\d+(?:\.\d+)?)")
_UNITS = re.compile(r"(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?")
ADVICE = "Write it as 10:00-20:00, 90s-1:02:03.5, 10:00- or -5:00; several with commas"


def parse(text: str) -> tuple[Span, ...]:
    """The parts that `text` names, those that touch as one.

    Raises UsageError where it names none, or they are out of order.
    """
    spans = tuple(_span(part.strip()) for part in text.split(","))
    if any(after[0] < before[1] for before, after in pairwise(spans)):
        raise UsageError(f"the ranges of '{text}' overlap, or are not in order", "Give each part once, first to last")
    joined: list[Span] = []
    for start, end in spans:
        begin = joined.pop()[0] if joined and joined[-1][1] == start else start
        joined.append((begin, end))
    return tuple(joined)


def covered(spans: tuple[Span, ...], until: float) -> float:
    """Seconds of the spans that are before `until`, in seconds."""
    return sum(max(0.0, min(end, until) - start) for start, end in spans)


def _span(text: str) -> Span:
    first, dash, last = text.partition("-")
    if not dash or not (first or last):
        raise UsageError(f"'{text}' is no range", ADVICE)
    start = seconds(first.strip()) if first else 0.0
    end = seconds(last.strip()) if last else math.inf
    if end <= start:
        raise UsageError(f"the range '{text}' ends before it begins", ADVICE)
    return start, end


def seconds(text: str) -> float:
    """A time such as 90s, 1h2m, 1:02:03.5 or 12. Raises UsageError."""
    found = _CLOCK.fullmatch(text) or _UNITS.fullmatch(text)
    if not text or not found:
        raise UsageError(f"'{text}' is no time", ADVICE)
    return 3600 * int(found["h"] or 0) + 60 * int(found["m"] or 0) + float(found["s"] or 0)
