"""Recordings as the model hears them: decoded once, mono, at 8 or 16 kHz, and kept on disk for clips to be cut from."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from phi4mm_cli import cancel
from phi4mm_cli.closing import Closing
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import headers
from phi4mm_cli.media.decode import BLOCK_SECONDS, AudioInfo, Decoder, PcmDecoder, Stretch, clock, open_file
from phi4mm_cli.media.spool import Spool
from phi4mm_cli.schema import Clip, Source

NARROW, WIDE = 8000, 16000  # Hz; the two rates that the model's features are computed at
EDGE = 1 << 16  # bytes at each end of a file that go into its fingerprint
KEPT_OPEN = 16  # recordings that `read` keeps decoded for callers that hold none open themselves

Span = tuple[float, float]  # seconds; the end may be infinite
_Key = tuple[Source, int | None]
_open: dict[_Key, list[Recording]] = {}
_open_lock = threading.RLock()
_reopened: OrderedDict[_Key, tuple[Recording, Iterator[NDArray[np.float32]]]] = OrderedDict()
_reopened_lock = threading.Lock()


def probe(path: str | Path) -> AudioInfo:
    """What the header says, without decoding more than one frame. Raises InputError where it is not a recording."""
    path = Path(path)
    with open_file(path) as file:
        decoder = open_decoder(file)
        decoder.close()
        return decoder.info


def source(path: str | Path) -> Source:
    """The file as it is now: its size, and a hash of its size and both its ends. Raises InputError."""
    path = Path(path)
    with open_file(path) as file:
        return _identify(file, str(path))


def _identify(file: BinaryIO, path: str) -> Source:
    size = file.seek(0, 2)
    file.seek(0)
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    digest.update(file.read(EDGE))
    file.seek(max(0, size - EDGE))
    digest.update(file.read(EDGE))
    return Source(path, size, digest.hexdigest()[:16])


def useful_rate(rate: int) -> int:
    """Hz that sound recorded at `rate` is kept at: telephone sound stays at 8 kHz, for which the model has features."""
    return NARROW if rate <= NARROW else WIDE


def open_recording(source: Source, channel: int | None = None, span: Span = (0.0, math.inf)) -> Recording:
    """Open `source` for decoding: one channel (counted from 1), or the mean of all; only `span`, in seconds.

    Raises InputError: not a recording, changed since `source` was made, no such channel, no room for its sound, or
    nothing of it in `span`.
    """
    return Recording(source, channel, span)


class Recording(Closing):
    """A recording that is decoded once, by the consumer of `blocks`, and can be read anywhere up to there.

    A context manager; while it is open, `read` finds it.
    """

    def __init__(self, source: Source, channel: int | None, span: Span) -> None:
        self.source = source
        self.channel = channel
        self.start, self._end = span
        self.truncated: str | None = None  # set when the blocks have ended: why they are not the whole recording
        self._state: Literal["new", "decoding", "done", "closed"] = "new"
        self._decoding = threading.Lock()  # a decoder that is closed while it decodes takes the program with it
        path = Path(source.path)
        self._file = open_file(path)
        try:
            if _identify(self._file, source.path) != source:
                raise InputError("the file has changed since this run began", "Run it again.")
            self._decoder = open_decoder(self._file)
            self._info = self._decoder.info
            self.rate = useful_rate(self._info.rate)
            self._spool = self._make_spool()
            self._skipped = self._seek()
        except BaseException:
            self._file.close()
            raise
        with _open_lock:
            _open.setdefault((source, channel), []).append(self)

    def _make_spool(self) -> Spool:
        require(self._info, self.channel, self.start)
        length = self.expected_seconds
        return Spool(round((min(length or 0.0, self._end) - min(length or 0.0, self.start)) * self.rate))

    def _seek(self) -> float:
        """Seconds that the decoder begins before `start`."""
        if not self.start:
            return 0.0
        reached = self._decoder.seek(self.start)
        if reached is None:
            self._decoder.close()
            self._decoder = open_decoder(self._file)
            reached = 0.0
        return self.start - reached

    @property
    def tracks(self) -> tuple[int, int]:
        """The sound track that is heard, counted from 1, and how many there are."""
        return self._info.track, self._info.tracks

    @property
    def seconds(self) -> float:
        """Seconds decoded so far, from `start`."""
        return len(self._spool) / self.rate

    @property
    def end(self) -> float:
        """When what has been decoded so far ends, in seconds of the recording."""
        return self.start + self.seconds

    @property
    def expected_seconds(self) -> float | None:
        """Seconds that the header promises; None where it does not know."""
        return self._info.seconds

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Decode: float32 (samples,) in [-1, 1) at `rate`, some seconds at a time, each kept before it is given.

        Can be run through once. Raises InputError when the disk is full, and where there is no sound at all.
        """
        if self._state != "new":
            raise ValueError("the blocks of a recording can be run through only once")
        self._state = "decoding"
        stretches = resampled(gathered(without(self._decoder.mono(self.channel), self._skipped)), self.rate)
        while (block := self._next_block(stretches)) is not None:
            cancel.check()
            if block.size:
                yield block

    def _next_block(self, stretches: Iterator[NDArray[np.float32]]) -> NDArray[np.float32] | None:
        with self._decoding:
            if self._state == "closed":
                return None
            samples = next(stretches, None)
            wanted = math.inf if self._end == math.inf else round((self._end - self.start) * self.rate)
            if samples is not None and len(self._spool) < wanted:
                return self._spool.append(samples[: int(min(samples.size, wanted - len(self._spool)))])
            if not len(self._spool) and self.start:
                raise InputError(f"it ends before {clock(self.start)}, where the range begins", "Give another --range.")
            if not len(self._spool):
                raise InputError("no sound in it could be decoded", headers.ADVICE)
            self.truncated = self._decoder.damage(self.end, is_end=samples is None and len(self._spool) < wanted)
            self._state = "done"
            return None

    def read(self, start: float, end: float) -> NDArray[np.float32]:
        """float32 samples from `start` to `end` seconds, as far as they have been decoded. Safe in any thread."""
        return self._spool.read(round((start - self.start) * self.rate), round((end - self.start) * self.rate))

    def holds(self, start: float, end: float) -> bool:
        """Whether everything from `start` to `end` seconds has been decoded, or all that there is of it."""
        is_whole = self._state == "done" and self._end == math.inf
        return start >= self.start and (is_whole or len(self._spool) >= round((end - self.start) * self.rate))

    def close(self) -> None:
        """Free the decoder and the disk space. Waits for the block that another thread is decoding."""
        with self._decoding, _open_lock:
            if self._state == "closed":
                return
            self._state = "closed"
            key = (self.source, self.channel)
            _open[key].remove(self)
            if not _open[key]:
                del _open[key]
            self._decoder.close()
            self._file.close()
            self._spool.close()


def require(info: AudioInfo, channel: int | None, start: float) -> None:
    """Raise InputError where a recording has no such channel, or ends before `start`, in seconds."""
    if channel is not None and not 1 <= channel <= info.channels:
        count = "only one channel" if info.channels == 1 else f"channels 1 to {info.channels}"
        raise InputError(f"there is no channel {channel}", f"The recording has {count}.")
    if info.seconds is not None and start >= info.seconds and info.is_certain:
        raise InputError(f"it ends at {clock(info.seconds)}, before the range begins", "Give another --range.")


def read(clip: Clip) -> tuple[NDArray[np.float32], int]:
    """The samples of a clip, float32 in [-1, 1), and their rate: from the open recording, else decoded again.

    Clips of a few recordings that nobody holds open go on where the last clip ended, not from the start again.
    Raises InputError like `open_recording`.
    """
    key = (clip.source, clip.channel)
    with _open_lock:
        for recording in _open.get(key, []):
            if recording.holds(clip.start, clip.end):
                return recording.read(clip.start, clip.end), recording.rate
    with _reopened_lock:
        if key not in _reopened:
            recording = open_recording(*key)
            _reopened[key] = recording, recording.blocks()
        _reopened.move_to_end(key)
        while len(_reopened) > KEPT_OPEN:
            _reopened.popitem(last=False)[1][0].close()
        recording, blocks = _reopened[key]
        try:
            while not recording.holds(clip.start, clip.end) and next(blocks, None) is not None:
                pass
        except BaseException:
            _reopened.pop(key)[0].close()
            raise
        return recording.read(clip.start, clip.end), recording.rate


def open_decoder(file: BinaryIO) -> Decoder:
    """The decoder for `file`, chosen by its content. Raises InputError where it holds no sound that can be decoded.

    FLAC, Ogg and MP3 go to PyAV although libsndfile knows them: libsndfile gives up at the first damaged FLAC frame,
    closes up the time that a damaged Ogg page held, and prints messages about MP3 files on stderr.
    """
    misjudged = False
    if not headers.is_compressed(file):
        with suppress(soundfile.LibsndfileError):
            decoder = PcmDecoder(file)
            if not decoder.is_misjudged:
                return decoder
            misjudged = True
            decoder.close()
    # Loaded only here: most recordings do not need it, and it takes a fifth of a second.
    from phi4mm_cli.media.container import ContainerDecoder

    return ContainerDecoder(file, misjudged)


def without(stretches: Iterator[Stretch], seconds: float) -> Iterator[Stretch]:
    """`stretches` without their first seconds."""
    for samples, rate in stretches:
        skipped = min(round(seconds * rate), len(samples))
        seconds -= skipped / rate
        if skipped < len(samples):
            yield samples[skipped:], rate


def gathered(stretches: Iterator[Stretch]) -> Iterator[Stretch]:
    """Neighbouring stretches of one rate joined to some seconds each: frames of a codec hold hundredths of a second."""
    parts: list[NDArray[np.float32]] = []
    count, rate = 0, 0
    for samples, new_rate in stretches:
        if parts and (new_rate != rate or count >= BLOCK_SECONDS * rate):
            yield np.concatenate(parts), rate
            parts, count = [], 0
        parts.append(samples)
        count, rate = count + len(samples), new_rate
    if parts:
        yield np.concatenate(parts), rate


def resampled(stretches: Iterator[Stretch], rate: int) -> Iterator[NDArray[np.float32]]:
    """`stretches` at `rate` Hz, through one filter from start to end; their own rate may change on the way."""
    stream: soxr.ResampleStream | None = None
    stream_rate = rate
    nothing = np.zeros(0, np.float32)
    for samples, own_rate in stretches:
        # Float files may hold anything; one NaN would silence everything behind it in the filter.
        samples = np.clip(np.nan_to_num(samples), -1.0, 1.0)
        if own_rate != stream_rate:
            if stream:
                yield stream.resample_chunk(nothing, last=True)
            stream = soxr.ResampleStream(own_rate, rate, 1, dtype="float32", quality="HQ") if own_rate != rate else None
            stream_rate = own_rate
        yield stream.resample_chunk(samples) if stream else samples
    if stream:
        yield stream.resample_chunk(nothing, last=True)


__all__ = ["AudioInfo", "Recording", "open_recording", "probe", "read", "source", "useful_rate"]
