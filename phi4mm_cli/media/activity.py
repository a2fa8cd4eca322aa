"""How loud a recording is and how likely somebody speaks, every 8 ms: what it is cut by.

The judge is Silero VAD in the form that takes a whole stretch of frames in one call (`silero_vad_16k_sequence.onnx`):
the same probabilities as frame by frame, in a tenth of the time, and without loading torch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from phi4mm_cli.errors import MissingError

Array = npt.NDArray[np.float32]

RATE = 16000  # samples per second that the judge hears
FRAME = 512  # samples, and CONTEXT samples before them: what Silero judges at once
CONTEXT = 64
HOP = 128  # samples; four hops are one frame
HOP_SECONDS = HOP / RATE
BLOCK = 128  # frames, 4.1 s: judged in one call, and how far the judge is ahead of what is cut

FLOOR_DB = -100.0  # of digital silence
TARGET_DB = -20.0  # level that the loudest frame nearby is brought to
FAINT_DB = -24.0  # how much fainter it is judged once more
SOFTENING = 0.9  # coefficient of a first-order low pass
MAX_GAIN_DB = 40.0
NEARBY = 31  # frames, 1 s
MARGIN = NEARBY + NEARBY // 2 + 1  # frames around a block that decide its gain


@dataclass(frozen=True, slots=True)
class Activity:
    """A stretch of a recording, both (hops,): whole frames, so that the last one may reach past the end."""

    level: Array  # dB of full scale
    speech: Array  # probability


def activity(blocks: Iterable[Array], rate: int, judge: bool = True) -> Iterator[Activity]:
    """Level and probability of speech of the samples in `blocks`, whatever their sizes; `rate` is 8000 or 16000.

    Without `judge` all probabilities are 1 and no model is loaded. 8 kHz sound is brought to 16 kHz.
    """
    frames = _frames(_widened(blocks, rate))
    if judge:
        yield from _judged(frames)
        return
    for block in frames:
        yield Activity(_levels(block, HOP), np.ones(block.size // HOP, np.float32))


def _widened(blocks: Iterable[Array], rate: int) -> Iterator[Array]:
    if rate == RATE:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def _frames(blocks: Iterable[Array]) -> Iterator[Array]:
    """The samples in blocks of (BLOCK, FRAME), the last one shorter; the last frame is filled up with silence."""
    held: list[Array] = []
    count, size = 0, BLOCK * FRAME
    for block in blocks:
        held.append(block)
        count += block.size
        if count < size:
            continue
        samples = np.concatenate(held)
        whole = count - count % size
        yield from samples[:whole].reshape(-1, BLOCK, FRAME)
        held, count = [samples[whole:]], count - whole
    if count:
        yield np.pad(np.concatenate(held), (0, -count % FRAME)).reshape(-1, FRAME)


def _levels(samples: Array, length: int) -> Array:
    """dB of each `length` samples."""
    power: Array = np.square(samples.reshape(-1, length)).mean(axis=1)
    level: Array = 10 * np.log10(power + np.float32(10 ** (FLOOR_DB / 10)))
    return level


def _judged(frames: Iterable[Array]) -> Iterator[Activity]:
    """Judges each block at two levels and with its high tones softened; the highest probability counts.

    The judge's memory can settle on "no speech" and stay there: for whispers, in echoing rooms, on the telephone, at
    some levels and not at others. Measured on such speech, each of the three heard what another missed.
    """
    loud, faint, soft = _Stream(), _Stream(), _Stream()
    plain, other = tee(frames)
    for (block, gain), (softened, other_gain) in zip(_with_gains(plain), _with_gains(_softened(other)), strict=True):
        levelled = block * gain
        speech = loud.judge(levelled)
        speech = np.maximum(speech, faint.judge(levelled * np.float32(10 ** (FAINT_DB / 20))))
        speech = np.maximum(speech, soft.judge(softened * other_gain))
        yield Activity(_levels(block, HOP), np.repeat(speech, FRAME // HOP))


def _softened(frames: Iterable[Array]) -> Iterator[Array]:
    """The frames with 20 dB less of the highest tones than of the lowest."""
    response = SOFTENING ** np.arange(64, dtype=np.float32)
    context = np.zeros(response.size - 1, np.float32)
    for block in frames:
        samples = np.concatenate([context, block.reshape(-1)])
        context = samples[-context.size :]
        yield np.convolve(samples, response, mode="valid").reshape(block.shape)


def _with_gains(frames: Iterable[Array]) -> Iterator[tuple[Array, Array]]:
    """Each block with factors of its shape that bring the loudest frame within a second to TARGET_DB, smoothly."""
    before, block = np.zeros(0, np.float32), None
    for following in frames:
        if block is not None:
            level = _levels(block, FRAME)
            yield block, _gains(before, level, _levels(following, FRAME)[:MARGIN])
            before = np.concatenate([before, level])[-MARGIN:]
        block = following
    if block is not None:
        yield block, _gains(before, _levels(block, FRAME), np.zeros(0, np.float32))


def _gains(before: Array, level: Array, after: Array) -> Array:
    """(frames, FRAME) factors for the frames of `level` dB, with the levels around them."""
    edges = (MARGIN - before.size, MARGIN - after.size)
    around = np.pad(np.concatenate([before, level, after]), edges, mode="edge")
    loudest = sliding_window_view(around, 2 * NEARBY + 1).max(axis=1)
    smooth = sliding_window_view(loudest, 2 * (NEARBY // 2) + 1).mean(axis=1)
    gain = np.clip(TARGET_DB - smooth, -MAX_GAIN_DB, MAX_GAIN_DB)  # of the frames, and of one on either side
    middles = (np.arange(gain.size) - 0.5) * FRAME
    curve = np.interp(np.arange(level.size * FRAME), middles, gain)
    return np.asarray(10 ** (curve / 20), np.float32).reshape(-1, FRAME)


class _Stream:
    """The judge's memory of one stream of frames."""

    def __init__(self) -> None:
        self._hidden = self._cell = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(CONTEXT, np.float32)

    def judge(self, frames: Array) -> Array:
        """Probabilities (frames,) of the next (frames, FRAME) samples."""
        samples = np.concatenate([self._context, frames.reshape(-1)])
        self._context = samples[-CONTEXT:]
        windows = np.ascontiguousarray(sliding_window_view(samples, CONTEXT + FRAME)[::FRAME])
        inputs = {"input": windows, "h": self._hidden, "c": self._cell}
        speech, self._hidden, self._cell = _session().run(["speech_probs", "hn", "cn"], inputs)
        return np.asarray(speech, np.float32)


@cache
def _session() -> Any:
    """The judge, shared by all threads: a session keeps nothing between calls, and lets other threads run."""
    spec = find_spec("silero_vad")  # finds the file without importing the package, which would import torch
    if spec is None or not spec.submodule_search_locations:
        raise MissingError("The package silero-vad is not installed", "Run: pip install silero-vad onnxruntime")
    try:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is loaded
        import onnxruntime
    except ImportError as error:
        raise MissingError("The package onnxruntime is not installed", "Run: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(spec.submodule_search_locations[0]) / "data" / "silero_vad_16k_sequence.onnx"
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
