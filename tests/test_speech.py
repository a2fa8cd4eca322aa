"""Words stay whole, regions begin with the voice, and chunks come early: many voices whose word times are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.demo.world import noises
from phi4mm_cli.media.speech import Chunk, chunks

Array = npt.NDArray[np.float32]
Span = tuple[float, float]
RATE = 16000  # Hz

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
    assert (
        whole(cut(samples, rate, longest), words) >= 0.985
    )  # whispers, and words 25 dB fainter, lose their first sound


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


@pytest.mark.parametrize("kind", ["melody", "chords"])
@pytest.mark.parametrize("seed", [0, 3])
def test_music_and_speech_lie_in_chunks_of_their_own(kind: str, seed: int) -> None:
    first, last = (speak(text).samples for text in ("The price is forty dollars.", "I see a yellow bicycle there."))
    pause = np.zeros(RATE * 4 // 5, np.float32)
    music = 0.3 * noises.wave(kind, 6.0, np.random.default_rng(seed))
    loudness = np.float32(0.08 / np.sqrt(np.mean(np.square(first))))
    found = cut(np.concatenate([loudness * first, pause, music, pause, loudness * last]).astype(np.float32))
    begin = (len(first) + len(pause)) / RATE
    end = begin + len(music) / RATE
    assert found[0].end <= begin
    assert found[-1].start >= end
    assert len(found) > 2, "the music is not taken for speech, and this shows nothing"
