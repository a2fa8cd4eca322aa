"""The rules of captions, by the house whose they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

LINES = 2  # both houses' limit
FRAME_RATE = 24.0  # frames a second of film: two frames are the longest there


class PresetName(StrEnum):
    """The sets of rules."""

    NETFLIX = "netflix"
    BBC = "bbc"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Preset:
    """Limits of a caption. Columns are half-width: a full-width character takes two."""

    columns: float = math.inf  # of a line
    wide_columns: float = math.inf  # of a line in a caption that is mostly full-width
    speed: float = math.inf  # columns a second that people can read
    shortest: int = 1  # milliseconds
    longest: float = math.inf  # milliseconds
    gap: int = 0  # milliseconds between one caption and the next, at least
    jerk: int = 0  # milliseconds: a gap that is shorter looks jerky, and is closed down to `gap`


def two_frames(frame_rate: float) -> int:
    """The time of two frames in whole milliseconds."""
    return int(2000 / frame_rate)


PRESETS = {
    # Netflix Timed Text Style Guide, General Requirements (duration, frame gap, line treatment), Subtitle Timing
    # Guidelines (gaps under half a second are closed), English (42 characters, 17 a second) and the East Asian
    # guides (16 full-width characters a line; read at half the rate, which the double width gives).
    PresetName.NETFLIX: Preset(42, 32, 17, 833, 7000, two_frames(FRAME_RATE), 500),
    # BBC Subtitle Guidelines 3.1 (37 characters), 4 (180 words a minute: 15 characters a second at the usual five a
    # word), 4.5 (no gap under a second). They set no shortest and longest time: Netflix's.
    PresetName.BBC: Preset(37, 28, 15, 833, 7000, 0, 1000),
    # A caption for each segment, as it is: for tools that lay text out themselves.
    PresetName.PLAIN: Preset(),
}
