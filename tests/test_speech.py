"""Finding speech and cutting it into chunks, judged by synthetic voices whose word times are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.media import activity
from phi4mm_cli.media.speech import Chunk, chunks

Array = npt.NDArray[np.float32]
Span = tuple[float, float]

WORDS = [
    "the",
    "meeting",
    "starts",
    "at",
    "six",
    "o'clock",
    "please",
    "send",
    "a",
    "budget",
    "to",
    "Nina",
    "before",
    "Tuesday",
    "Oscar",
    "forgot",
    "letter",
    "we",
    "need",
]
VOICES = ["en", "en+m3", "en+m7", "en+f2", "en+f4", "en-us", "en+whisper", "en+whisperf"]


@dataclass
class Heard:
    """A recording in memory, given in blocks of any size."""

    samples: Array
    rate: int = 16000
    block: int = 50_000

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def blocks(self) -> Iterator[Array]:
        for first in range(0, len(self.samples), self.block):
            yield self.samples[first : first + self.block]


def cut(samples: Array, rate: int = 16000, longest: float = 30.0, vad: bool = True, block: int = 50_000) -> list[Chunk]:
    found = list(chunks(Heard(samples, rate, block), longest, vad))
    duration = len(samples) / rate
    for chunk in found:
        assert 0 <= chunk.start < chunk.end <= duration
        assert chunk.end - chunk.start <= longest + 1e-9
        assert all(chunk.start <= region.start < region.end <= chunk.end for region in chunk.speech)
    assert all(first.end <= second.start for first, second in pairwise(found))
    return found


@cache
def conversation(count: int, seed: int, rate: int, pauses: Span = (0.15, 3.0)) -> tuple[Array, tuple[Span, ...]]:
    """`count` words in short sentences with pauses between, in all VOICES, every other one 25 dB fainter, in noise."""
    choice = random.Random(seed)
    parts: list[Array] = [np.zeros(rate // 2, np.float32)]
    words: list[Span] = []
    while len(words) < count:
        text = " ".join(choice.choice(WORDS) for _ in range(choice.randint(2, 9))).capitalize() + "."
        said = speak(text, voice=choice.choice(VOICES), rate_wpm=choice.randint(140, 200), sample_rate=rate)
        at = sum(map(len, parts)) / rate
        words += [(at + word.start, at + word.end) for word in said.words]
        parts.append(said.samples * np.float32(choice.choice([1.0, 10 ** (-25 / 20)])))
        parts.append(np.zeros(round(rate * choice.uniform(*pauses)), np.float32))
    samples = np.concatenate(parts)
    loud = np.sqrt(np.mean(np.square(samples[np.abs(samples) > 1e-3])))
    noise = np.random.default_rng(seed).normal(0, loud * 10 ** (-50 / 20), len(samples))
    return (samples + noise).astype(np.float32), tuple(words)


def whole(found: list[Chunk], words: tuple[Span, ...]) -> float:
    """The share of words that lie in one chunk from start to end."""
    kept = sum(any(c.start <= start and end <= c.end for c in found) for start, end in words)
    return kept / len(words)


@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("longest", [5.0, 30.0])
def test_words_are_whole_in_one_chunk(rate: int, longest: float) -> None:
    samples, words = conversation(500, 1, rate)
    assert whole(cut(samples, rate, longest), words) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16000, 8000])
@pytest.mark.parametrize("longest", [5.0, 10.0, 30.0])
def test_words_are_whole_in_many_sentences(rate: int, longest: float) -> None:
    samples, words = conversation(3000, 2, rate)
    assert whole(cut(samples, rate, longest), words) >= 0.995


def test_regions_begin_with_the_voice() -> None:
    samples, words = conversation(300, 3, 16000)
    starts = [region.start for chunk in cut(samples) for region in chunk.speech]
    after_pause = [second[0] for first, second in pairwise(words) if second[0] - first[1] >= 0.3]
    errors = [min(abs(start - at) for start in starts) for at in after_pause]
    assert np.median(errors) <= 0.1


@pytest.mark.parametrize("vad", [True, False])
def test_chunks_do_not_depend_on_how_the_recording_is_decoded(vad: bool) -> None:
    samples, _ = conversation(120, 4, 16000)
    usual = cut(samples, longest=5.0, vad=vad)
    for block in (777, 16000, len(samples)):
        assert cut(samples, longest=5.0, vad=vad, block=block) == usual


def test_chunks_come_before_the_recording_ends() -> None:
    samples, _ = conversation(300, 3, 16000)
    taken = 0

    class Counted(Heard):
        def blocks(self) -> Iterator[Array]:
            nonlocal taken
            for block in super().blocks():
                taken += len(block)
                yield block

    first = next(chunks(Counted(samples, block=16000), 5.0))
    assert taken / 16000 < first.end + 12


def test_five_minutes_without_a_pause_are_cut_at_the_quietest_places() -> None:
    samples, _ = conversation(900, 5, 16000, pauses=(0.0, 0.01))
    loud = samples[np.abs(samples) > 0]
    samples = np.clip(loud[: 300 * 16000], -1, 1).astype(np.float32)
    # A dip of 80 ms every two seconds, in sound that is as loud as speech everywhere else.
    steady = np.random.default_rng(6).normal(0, 0.1, len(samples)).astype(np.float32) + samples
    dips = np.arange(2.0, len(steady) / 16000, 2.0)
    for dip in dips:
        steady[round((dip - 0.04) * 16000) : round((dip + 0.04) * 16000)] *= 0.1
    found = cut(steady, longest=30.0, vad=False)
    assert len(found) < 22
    for chunk in found[:-1]:
        assert min(abs(dips - chunk.end)) <= 0.04


def test_without_judging_nothing_is_left_out() -> None:
    samples, _ = conversation(200, 7, 16000)
    found = cut(samples, longest=10.0, vad=False)
    assert found[0].start == 0.0
    assert found[-1].end == len(samples) / 16000
    assert all(first.end == second.start for first, second in pairwise(found))
    assert all(chunk.speech == () for chunk in found)


def noises() -> Iterator[tuple[str, Array]]:
    random, time = np.random.default_rng(8), np.arange(60 * 16000) / 16000
    yield "digital silence", np.zeros(time.size, np.float32)
    for level in (1e-4, 1e-3, 1e-2, 1e-1):
        yield f"hiss {level}", random.normal(0, level, time.size).astype(np.float32)
    hum = sum(np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 2, 3, 5))
    yield "hum", (0.05 * hum).astype(np.float32)


@pytest.mark.parametrize(("name", "noise"), list(noises()), ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_no_speech_gives_no_chunk(name: str, noise: Array) -> None:
    assert cut(noise) == []


def test_the_judge_is_silero_frame_by_frame() -> None:
    """The form that takes many frames at once gives the probabilities of the form that takes one."""
    samples, _ = conversation(120, 9, 16000)
    samples = samples[: len(samples) // 512 * 512]
    spec = find_spec("silero_vad")
    assert spec is not None and spec.submodule_search_locations is not None
    session = onnxruntime.InferenceSession(
        Path(spec.submodule_search_locations[0], "data", "silero_vad.onnx"), providers=["CPUExecutionProvider"]
    )
    state, context, one_by_one = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for frame in samples.reshape(-1, 1, 512):
        inputs = {"input": np.hstack([context, frame]), "state": state, "sr": np.array(16000)}
        speech, state = session.run(None, inputs)
        context = frame[:, -64:]
        one_by_one.append(float(speech[0, 0]))
    stream = activity._Stream()
    together = np.concatenate([stream.judge(block) for block in np.array_split(samples.reshape(-1, 512), 7)])
    assert np.abs(together - one_by_one).max() < 1e-4
