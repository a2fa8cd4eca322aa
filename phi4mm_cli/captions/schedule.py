"""From when to when captions are shown: as long as it takes to read them, and never two at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phi4mm_cli.captions.presets import Preset

_FOREVER = 3_600_000  # milliseconds
LAG = 300  # milliseconds that a caption may come late, so that the one before it can be read
LEAD = 300  # milliseconds that one may come early for that, while none is shown


def needed(size: int, preset: Preset) -> int:
    """The milliseconds that so many columns should be shown."""
    return max(preset.shortest, math.ceil(1000 * size / preset.speed))


def scheduled(
    spoken: Sequence[tuple[int, int, int]], preset: Preset, until: int | None = None
) -> list[tuple[int, int]]:
    """When captions are shown that are said from `start` to `end` and are so many columns: times that rise.

    Each stays as long as it takes to read, as far as there is time before the next, or before `until`; where there is
    not, it comes early by LEAD at most, and then may push the next, which is late by LAG at most. Gaps that would look
    jerky are closed.
    """
    times: list[tuple[int, int]] = []
    gap, longest = preset.gap, int(min(preset.longest, _FOREVER))
    for n, (said, done, size) in enumerate(spoken):
        last = n == len(spoken) - 1
        following = until if last else spoken[n + 1][0]
        earliest = times[-1][1] + gap if times else 0
        latest = done + _FOREVER if following is None else following - gap
        wanted = min(needed(size, preset), longest)
        start = max(earliest, min(said, max(said - LEAD, latest - wanted)))
        end = max(done, start + wanted)
        if end > latest or latest + gap - end < preset.jerk:
            end = latest
        end = min(end, start + longest)
        if end < start + wanted:
            end = max(start + 1, min(start + wanted, latest + (0 if last else LAG)))
        times.append((start, end))
    return times
