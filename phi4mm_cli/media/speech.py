"""Finds the speech in a recording and cuts it into chunks that the model can hear: in silence, or where it is quietest.

Chunks are given as soon as the recording is decoded some seconds past them, and do not depend on how it is decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import numpy as np

from phi4mm_cli.errors import UsageError
from phi4mm_cli.media.activity import HOP, RATE, Activity, Array, activity

SHORTEST_CHUNK = 1.0  # seconds


def _hops(seconds: float) -> int:
    return int(seconds * RATE / HOP + 1e-6)


# Chosen on synthetic speech in noise, in rooms and at low levels. Silero's own threshold, 0.5, loses whispers.
LIKELY = 0.35  # probability that makes a stretch speech
POSSIBLE = 0.15  # probability that it begins and ends at
SHORTEST_SPEECH = _hops(0.12)
SHORTEST_PAUSE = _hops(0.1)
SHORTEST_CUT = _hops(0.2)  # shorter pauses are heard too vaguely to cut in: the loudness tells better where
CLEAR, UNCLEAR = 0.95, 0.75  # median probability of what is surely speech, and of what may be music (or a whisper)
LONG_PAUSE = _hops(3.0)  # always ends a chunk
FULL_PAUSE = _hops(1.0)  # no longer pause is better to cut in
PAD_BEFORE, PAD_AFTER = _hops(0.3), _hops(0.2)  # kept around speech, which begins and ends softer than can be judged
NARROW_PAUSE = _hops(0.4)  # up to here the cut goes to the quietest place in it, or close by: pauses are heard late
CLOSE_BY = _hops(0.12)
TIGHT_PAD = _hops(0.04)  # kept even where the chunk becomes as long as may be
AHEAD = _hops(0.5)  # known after a cut before it is made
DOUBTFUL = _hops(2.0)  # how long possible speech may wait to become likely
SMOOTHING = 0.06, 0.12, 0.24  # seconds: words hold silences of up to some 80 ms
LATE_DB = 3.0  # loudness that counts as much as a chunk of half the length


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch in which somebody speaks."""

    start: float  # seconds
    end: float  # seconds


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch for one request, with a little silence around the speech in it."""

    start: float  # seconds
    end: float  # seconds
    speech: tuple[Region, ...]  # none where nobody has listened for it
    is_unsure: bool = False  # all of it may be music, or other sound, as well as speech

    def later(self, seconds: float) -> Chunk:
        """The same chunk, where its recording began so much earlier."""
        speech = tuple(Region(region.start + seconds, region.end + seconds) for region in self.speech)
        return replace(self, start=self.start + seconds, end=self.end + seconds, speech=speech)


class Recording(Protocol):
    """Sound that is decoded as its blocks are taken."""

    rate: int  # 8000 or 16000 samples per second

    @property
    def seconds(self) -> float:
        """Decoded so far."""

    def blocks(self) -> Iterator[Array]:
        """Mono samples in -1..1, some seconds at a time."""


def chunks(recording: Recording, max_seconds: float = 30.0, vad: bool = True) -> Iterator[Chunk]:
    """Cut `recording` into stretches of at most `max_seconds`, in order and without overlap, while decoding it.

    With `vad`, silence and noise between the chunks are left out, and what is said without a pause lies in one chunk
    if it fits. Without, all is taken for speech, and the chunks are the whole recording.
    Raises UsageError where `max_seconds` is less than a second, and what decoding raises.
    """
    if max_seconds < SHORTEST_CHUNK:
        raise UsageError("A chunk cannot be shorter than a second", "Allow more seconds.")
    cutter = _Cutter(_hops(max_seconds), is_inside=not vad)
    for block in activity(recording.blocks(), recording.rate, judge=vad):
        cutter.add(block)
        while cut := cutter.next():
            yield cut.chunk(float("inf"), vad)
    cutter.finish(recording.seconds)
    while cut := cutter.next():
        yield cut.chunk(recording.seconds, vad)


def halves(chunk: Chunk, samples: Array, rate: int) -> tuple[Chunk, Chunk]:
    """`chunk`, whose sound is `samples`, cut in two: in the longest pause of its middle half, or at its quietest."""
    quarter = (chunk.end - chunk.start) / 4
    low, high = chunk.start + quarter, chunk.end - quarter
    pauses = [(max(before.end, low), min(after.start, high)) for before, after in pairwise(chunk.speech)]
    start, end = max(pauses, key=lambda pause: pause[1] - pause[0], default=(0.0, 0.0))
    if end - start >= SHORTEST_CUT * HOP / RATE:
        cut = (start + end) / 2
    else:
        level = np.concatenate([block.level for block in activity([samples], rate, judge=False)])
        loudness = _loudness(level)
        first, last = _hops(quarter), max(_hops(3 * quarter), _hops(quarter) + 1)
        cut = chunk.start + (first + int(np.argmin(loudness[first:last]))) * HOP / RATE
    parts = ((chunk.start, cut), (cut, chunk.end))
    left, right = (Chunk(start, end, tuple(_within(chunk.speech, start, end)), chunk.is_unsure) for start, end in parts)
    return left, right


def _within(regions: Sequence[Region], start: float, end: float) -> Iterator[Region]:
    for region in regions:
        if region.start < end and region.end > start:
            yield Region(max(region.start, start), min(region.end, end))


def spoken(samples: Array, rate: int) -> float:
    """Seconds of speech in `samples`."""
    likely = sum(int((block.speech > LIKELY).sum()) for block in activity([samples], rate))
    return min(likely * HOP / RATE, samples.size / rate)


@dataclass(frozen=True, slots=True)
class _Run:
    """A stretch between two hops, counted from the start of the recording."""

    start: int
    end: int

    def clipped(self, start: int, end: int) -> _Run:
        return _Run(max(self.start, start), min(self.end, end))


@dataclass(frozen=True, slots=True)
class _Cut:
    """A chunk in hops."""

    start: int
    end: int
    speech: Sequence[_Run]
    is_unsure: bool

    def chunk(self, duration: float, vad: bool) -> Chunk:
        """In seconds; the recording, with its last hop, may end at `duration`."""

        def seconds(hop: int) -> float:
            return min(hop * HOP / RATE, duration)

        runs = [run.clipped(self.start, self.end) for run in self.speech] if vad else []
        regions = tuple(Region(seconds(run.start), seconds(run.end)) for run in runs)
        return Chunk(seconds(self.start), seconds(self.end), regions, vad and self.is_unsure)


class _Cutter:
    """Takes in a recording's activity and gives out its chunks; remembers what is not yet cut."""

    def __init__(self, longest: int, is_inside: bool) -> None:
        self._longest = longest  # hops
        self._begin = 0  # where memory begins
        self._level = np.zeros(0, np.float32)  # dB
        self._speech = np.zeros(0, np.float32)  # probability
        self._is_inside = is_inside  # memory begins amid speech
        self._is_last = False

    def add(self, activity: Activity) -> None:
        """Go on listening."""
        self._level = np.concatenate([self._level, activity.level])
        self._speech = np.concatenate([self._speech, activity.speech])

    def finish(self, duration: float) -> None:
        """The recording has ended after `duration` seconds."""
        hops = -int(-duration * RATE // HOP) - self._begin
        self._level, self._speech = self._level[:hops], self._speech[:hops]
        self._is_last = True

    def next(self) -> _Cut | None:
        """The next chunk; None until more is known, or for ever after the last."""
        runs = self._runs()
        if not runs:
            self._skip_silence()
            return None
        start = self._start(runs[0])
        limit = start + self._longest
        pauses = self._pauses(runs, limit)
        long = [pause for pause in pauses if pause.end - pause.start >= LONG_PAUSE]
        if not long and self._known < limit + AHEAD and not self._is_last:
            return None
        if pauses:
            change = (pause for pause in pauses if pause in long or self._is_change(runs, pause, limit))
            best = next(change, None) or max(pauses, key=lambda pause: self._worth(pause, start))
            return self._cut_in_pause(start, limit, [run for run in runs if run.end <= best.start], best)
        return self._cut_in_speech(start, limit, runs)

    @property
    def _known(self) -> int:
        return self._begin + self._level.size

    def _runs(self) -> list[_Run]:
        """The stretches of speech in memory; the last may go on."""
        edges = np.diff(np.pad((self._speech > POSSIBLE).astype(np.int8), 1))
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        apart = starts[1:] - ends[:-1] >= SHORTEST_PAUSE
        starts = starts[np.concatenate([starts[:1] >= 0, apart])]
        ends = ends[np.concatenate([apart, ends[:1] >= 0])]
        runs: list[_Run] = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            is_speech = end - start >= SHORTEST_SPEECH and self._speech[start:end].max() > LIKELY
            if is_speech or (self._is_inside and start == 0):
                runs.append(_Run(self._begin + start, self._begin + end))
        return runs

    def _start(self, run: _Run) -> int:
        """Where the chunk that begins with `run` begins: later than usual where `run` fits into it only then."""
        earliest = max(self._begin, run.start - PAD_BEFORE)
        latest = max(self._begin, run.start - TIGHT_PAD)
        fitting = run.end + TIGHT_PAD - self._longest
        return max(earliest, fitting) if fitting <= latest else earliest

    def _pauses(self, runs: Sequence[_Run], limit: int) -> list[_Run]:
        """The pause after each run, as far as a chunk up to `limit` can end in it."""
        nexts = [run.start for run in runs[1:]]
        ends_in_silence = self._is_last or self._known - runs[-1].end >= SHORTEST_CUT
        # The end of a recording is as good a pause as any.
        nexts += [self._known + LONG_PAUSE * self._is_last] if ends_in_silence else []
        pauses = [_Run(run.end, following) for run, following in zip(runs, nexts, strict=False)]
        return [
            pause
            for pause in pauses
            if pause.end - pause.start >= SHORTEST_CUT and min(pause.start + TIGHT_PAD, self._known) <= limit
        ]

    def _is_change(self, runs: Sequence[_Run], pause: _Run, limit: int) -> bool:
        """Whether sure speech is on one side of `pause`, and what may be music on the other.

        In one chunk, models go on to invent words for the music; alone it mostly gets none.
        """
        if pause.end - pause.start < NARROW_PAUSE or pause.end >= limit:
            return False
        sides = [run.clipped(self._begin, limit) for run in runs if run.end == pause.start or run.start == pause.end]
        spoken = [self._sureness(run) for run in sides]
        return min(spoken) < UNCLEAR and max(spoken) >= CLEAR

    def _sureness(self, run: _Run) -> float:
        """The median probability that it is speech."""
        return float(np.median(self._speech[run.start - self._begin : run.end - self._begin]))

    def _is_unsure(self, runs: Sequence[_Run], end: int) -> bool:
        return all(self._sureness(run.clipped(self._begin, end)) < UNCLEAR for run in runs)

    def _worth(self, pause: _Run, start: int) -> float:
        """How well the chunk from `start` ends in `pause`: long pauses and full chunks are good."""
        length = min(pause.end - pause.start, FULL_PAUSE) / FULL_PAUSE
        return float(0.7 * np.sqrt(length) + (pause.start - start) / self._longest)

    def _cut_in_pause(self, start: int, limit: int, runs: Sequence[_Run], pause: _Run) -> _Cut:
        if pause.end - pause.start <= NARROW_PAUSE:
            earliest = max(pause.start - CLOSE_BY, runs[-1].start + 1)
            end = self._quietest(earliest, min(pause.end + CLOSE_BY, limit))
            following = end
        else:
            middle = (pause.start + pause.end) // 2
            end = min(pause.start + PAD_AFTER, middle, limit, self._known)
            following = max(end, min(pause.end - PAD_BEFORE, self._known))
        cut = _Cut(start, end, runs, self._is_unsure(runs, pause.start))
        self._forget(following, is_inside=False)
        return cut

    def _cut_in_speech(self, start: int, limit: int, runs: Sequence[_Run]) -> _Cut:
        """Cuts speech that does not pause up to `limit`, in the second half of the longest chunk."""
        latest = min(limit, self._known - AHEAD // 2)  # leaves no crumb
        end = self._quietest(start + self._longest // 2, latest, LATE_DB)
        said = [run for run in runs if run.start < end]
        cut = _Cut(start, end, said, self._is_unsure(said, end))
        self._forget(end, is_inside=any(run.start < end < run.end for run in runs))
        return cut

    def _quietest(self, earliest: int, latest: int, late_db: float = 0.0) -> int:
        """Where it is quietest; `late_db` favours the latest place over the earliest."""
        cost = _loudness(self._level)[earliest - self._begin : latest + 1 - self._begin]
        return earliest + int(np.argmin(cost - late_db * np.linspace(0, 1, cost.size)))

    def _skip_silence(self) -> None:
        """Forgets what is no speech, but for what speech may yet grow out of."""
        impossible = np.flatnonzero(self._speech <= POSSIBLE)
        doubtful = self._speech.size - (int(impossible[-1]) + 1 if impossible.size else 0)
        self._forget(
            max(self._begin, self._known - min(doubtful, DOUBTFUL) - PAD_BEFORE - SHORTEST_PAUSE), is_inside=False
        )

    def _forget(self, end: int, is_inside: bool) -> None:
        self._level, self._speech = self._level[end - self._begin :], self._speech[end - self._begin :]
        self._begin, self._is_inside = end, is_inside


def _loudness(level: Array) -> Array:
    """The level in dB around each hop, at which the quietest place of a stretch shows."""
    return np.asarray(np.mean([_smooth_db(level, _hops(width)) for width in SMOOTHING], axis=0), np.float32)


def _smooth_db(level: Array, width: int) -> Array:
    """The level in dB of the mean power of `width` hops around each hop."""
    power = np.convolve(10 ** (level / 10), np.full(width, 1 / width), mode="same")
    return (10 * np.log10(np.maximum(power, 1e-10))).astype(np.float32)
