"""From when to when captions are shown: as long as it takes to read them, and never two at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

from phi4mm_cli.captions.presets import Preset

_FOREVER = 3_600_000  # milliseconds
LAG = 300  # milliseconds that a caption may come late, so that the one before it does not flash by


def needed(size: int, preset: Preset) -> int:
    """The milliseconds that so many columns should be shown."""
    return max(preset.shortest, math.ceil(1000 * size / preset.speed))


def scheduled(
    spoken: Sequence[tuple[int, int, int]], preset: Preset, until: int | None = None
) -> list[tuple[int, int]]:
    """When captions are shown that are said from `start` to `end` and are so many columns: times that rise.

    Each stays as long as it takes to read, as far as there is time before the next, or before `until`; gaps that would
    look jerky are closed; one that would flash by may push the next, which is then late by LAG at most.
    """
    times: list[tuple[int, int]] = []
    gap = preset.gap
    for n, (said, done, size) in enumerate(spoken):
        last = n == len(spoken) - 1
        following = until if last else spoken[n + 1][0]
        start = max(said, times[-1][1] + gap) if times else said
        latest = done + _FOREVER if following is None else following - gap
        end = max(done, start + needed(size, preset))
        if end > latest or latest + gap - end < preset.jerk:
            end = latest
        end = min(end, start + int(preset.longest))
        if end < start + preset.shortest:
            end = max(start + 1, min(start + preset.shortest, latest + (0 if last else LAG)))
        times.append((start, end))
    return times
