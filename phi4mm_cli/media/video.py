"""Videos: which of their frames are looked at, and those frames, found by seeking: what lies between is not read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from av import VideoFrame
from numpy.typing import NDArray
from PIL import Image

from phi4mm_cli import cancel
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import FRAMES, film
from phi4mm_cli.media.decode import clock, open_file
from phi4mm_cli.schema import Picture, Source

LOOKS = 8  # moments of a video that are compared for each scene that is asked for
SHORTEST_SCENE = 0.5  # seconds
THUMBNAIL = (32, 18)  # pixels
CUT = 24.0  # of 255, by which the pictures before and behind a cut differ in the mean; PySceneDetect takes 27
FEWEST_LOOKS = 2  # for each scene; where key frames are fewer, and sparser than this, what lies between is compared too
SPARSE = 2.0  # seconds
SLACK = 1.5  # seconds that the last frame may lack to what the header promises

Span = tuple[float, float]  # seconds; the end may be infinite


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video before its frames are looked at."""

    seconds: float
    size: tuple[int, int]  # width and height of its first frame in pixels, as it is seen
    has_sound: bool
    truncated: str | None = None  # why it is not the whole video


@dataclass(frozen=True, slots=True)
class Choice:
    """Which frames of a video are looked at: some that are evenly spread, or at equal steps, or one of each scene."""

    frames: int = FRAMES  # at most
    every: float | None = None  # seconds from one to the next
    scenes: bool = False
    spans: tuple[Span, ...] = ((0.0, math.inf),)  # first to last; nothing outside of them is looked at


def is_film_or_sound(path: Path) -> bool:
    """Whether a file begins as a video or a recording does, be it cut off. Raises InputError where it is no file."""
    with open_file(path) as file:
        return film.is_film_or_sound(file)


def probe(path: str | Path) -> VideoInfo:
    """What the header, the first frame and the last packet tell. Raises InputError where no frame can be decoded."""
    with open_file(Path(path)) as file, film.opened(file) as video:
        first = next(video.frames(), None)
        if first is None:
            raise InputError("it has no frame that can be decoded", film.ADVICE)
        seconds, promised, truncated = video.end(), video.promised(), None
        if promised is not None and seconds < promised - SLACK:
            truncated = f"its pictures end at {clock(seconds)}, but its header promises {clock(promised)}"
        return VideoInfo(seconds, video.upright(first).size, video.has_sound, truncated)


def frames(source: Source, choice: Choice | None = None, info: VideoInfo | None = None) -> tuple[Picture, ...]:
    """The frames of `source` that `choice` names, in order, each with its time.

    Of equal steps, so many are left out evenly that they are no more than `choice.frames`. `info` is what `probe`
    has found. Raises InputError like it, and where the video ends before the spans begin.
    """
    choice, info = choice or Choice(), info or probe(source.path)
    spans = within(choice.spans, info.seconds)
    if not spans:
        raise InputError(f"it ends at {clock(info.seconds)}, before the range begins", "Give another --range.")
    if choice.scenes:
        times = _scenes(Path(source.path), spans, choice.frames)
    elif choice.every is not None:
        times = _thinned([*_steps(spans, choice.every)], choice.frames)
    else:
        times = _spread(spans, choice.frames)
    return tuple(Picture(source, time=round(time, 3)) for time in times)


@lru_cache(maxsize=16)
def frame_size(source: Source) -> tuple[int, int]:
    """Width and height in pixels of the frames of a video. Raises InputError like `probe`."""
    return probe(source.path).size


def within(spans: Sequence[Span], seconds: float) -> list[Span]:
    """What of `spans` lies in a video of this length."""
    return [(start, min(end, seconds)) for start, end in spans if start < seconds]


def steps(spans: Sequence[Span], every: float) -> int:
    """How many frames there are at equal steps, if none is left out."""
    return len([*_steps(spans, every)])


# -------------------------------------------------------------------------------------------------- which frames


def _spread(spans: Sequence[Span], count: int) -> list[float]:
    """The middles of so many equal parts of all spans together: the first frame and the last are often black."""
    total = sum(end - start for start, end in spans)
    return [_at(spans, total * (number + 0.5) / count) for number in range(count)]


def _at(spans: Sequence[Span], seconds: float) -> float:
    """The time that lies so many seconds into the spans, what is between them left out."""
    for start, end in spans:
        if seconds <= end - start:
            return start + seconds
        seconds -= end - start
    return spans[-1][1]


def _steps(spans: Sequence[Span], every: float) -> Iterator[float]:
    for start, end in spans:
        yield from (start + number * every for number in range(max(1, math.ceil((end - start) / every - 1e-9))))


def _thinned(times: Sequence[float], most: int) -> list[float]:
    """At most so many of them, evenly chosen, the first and the last included."""
    if len(times) <= most:
        return [*times]
    return [times[round(number * (len(times) - 1) / max(1, most - 1))] for number in range(most)]


@dataclass(frozen=True, slots=True)
class _Look:
    """A moment of a video, and what it looks like from afar."""

    time: float
    colours: NDArray[np.float32]


def _scenes(path: Path, spans: Sequence[Span], most: int) -> list[float]:
    """The middle of each scene, of at most so many: those that the sharpest cuts divide."""
    step = max(SHORTEST_SCENE, sum(end - start for start, end in spans) / (LOOKS * most))
    found: list[tuple[float, float]] = []  # how sharp the cut before it is, and the middle of a scene
    for start, end in spans:
        looks = [*_looks(path, (start, end), step, keys_only=True)]
        if len(looks) < FEWEST_LOOKS * most and len(looks) * SPARSE < end - start:
            looks = [*_looks(path, (start, end), step, keys_only=False)]
        cuts = [(start, math.inf)]
        for before, after in pairwise(looks):
            sharpness = float(np.abs(after.colours - before.colours).mean())
            if sharpness >= CUT:
                cuts.append((after.time, sharpness))
        ends = [*(time for time, _ in cuts[1:]), end]
        found += [(sharp, (time + until) / 2) for (time, sharp), until in zip(cuts, ends, strict=True)]
    return sorted(time for _, time in sorted(found, reverse=True)[:most])


def _looks(path: Path, span: Span, step: float, keys_only: bool) -> Iterator[_Look]:
    """Moments of a span at least `step` seconds apart: key frames, between which nothing is decoded, or any frames."""
    start, end = span
    with open_file(path) as file, film.opened(file) as video:
        zero, wanted = video.zero, start
        video.track.codec_context.skip_frame = "NONKEY" if keys_only else "DEFAULT"
        decoded = video.frames_from(zero + start)
        while (frame := next(decoded, None)) is not None:
            cancel.check()
            time = (frame.time or 0.0) - zero
            if time >= end:
                return
            if time < wanted and not (keys_only and wanted == start):
                continue
            thumbnail = frame.reformat(*THUMBNAIL, format="rgb24", interpolation="AREA").to_ndarray()
            yield _Look(max(time, start), thumbnail.astype(np.float32))
            wanted = max(time, start) + step
            if keys_only and video.seek(zero + wanted, backward=False):
                decoded = video.frames()


# -------------------------------------------------------------------------------------------------- one frame


def frame(file: BinaryIO, seconds: float) -> Image.Image:
    """What a video shows at `seconds` from its start, in mode RGB; its last frame beyond the end. Raises InputError."""
    found: VideoFrame | None = None
    with film.opened(file) as video:
        video.track.thread_type = "AUTO"  # or many frames between key frames take long
        wanted = video.zero + seconds
        for frame in video.frames_from(wanted):
            if found is not None and frame.time is not None and frame.time > wanted:
                break
            found = frame
        if found is None:
            raise InputError(f"no frame at {seconds:.3f} s could be decoded", "Copy it again, or choose another time.")
        return video.upright(found)
