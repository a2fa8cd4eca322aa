"""Recordings of synthetic speech in which the time of every word is known."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from phi4mm_cli.demo.voice import Word, speak

Samples = NDArray[np.float32]

VOICES = ("en", "en-us", "en+m3", "en+m7", "en+f2", "en+f4", "en+Alicia", "en+Michael")
WHISPERS = ("en+whisper", "en+whisperf")
QUIET = 10 ** (-25 / 20)
WORDS = """the of and a to in is you that it he was for on are as with his they at be this have from or one had by
word but not what all were we when your can said there use an each which she do how their if will up other about out
many then them these so some her would make like him into time has look two more write go see number no way could people
my than first water been call who oil its now find long down day did get come made may part over new sound take only
little work know place year live me back give most very after thing our just name good sentence man think say great
where help through much before line right too mean old any same tell boy follow came want show also around form three
small set put end does another well large must big even such because turn here why ask went men read need land different
home us move try kind hand picture again change off play spell away animal house point page letter mother answer found
study still learn should america world"""
VOCABULARY = tuple(WORDS.split())


class InMemory:
    """What the cutter needs of a recording, for samples at hand; blocks of any size."""

    def __init__(self, samples: Samples, rate: int = 16000, block: int = 48000) -> None:
        self.rate = rate
        self.seconds = 0.0
        self._samples = samples
        self._block = block

    def blocks(self) -> Iterator[Samples]:
        for start in range(0, self._samples.size, self._block):
            block = self._samples[start : start + self._block]
            self.seconds = (start + block.size) / self.rate
            yield block


@dataclass(frozen=True)
class Conversation:
    """Samples, and the words in them."""

    samples: Samples
    rate: int
    words: tuple[Word, ...]

    def __mul__(self, gain: float) -> Conversation:
        return Conversation(self.samples * np.float32(gain), self.rate, self.words)

    def __add__(self, other: Samples) -> Conversation:
        return Conversation(self.samples + other[: self.samples.size], self.rate, self.words)

    def noise(self, snr_db: float, seed: int = 0) -> Samples:
        """White noise, `snr_db` below the speech."""
        speech = self.samples[np.abs(self.samples) > 1e-3]
        scale = np.sqrt(np.mean(speech**2)) * 10 ** (-snr_db / 20)
        return np.random.default_rng(seed).normal(0, scale, self.samples.size).astype(np.float32)


@cache
def converse(
    word_count: int,
    seed: int = 0,
    voices: Sequence[str] = VOICES,
    rate: int = 16000,
    pauses: tuple[float, float] = (0.15, 3.0),
    sentence: tuple[int, int] = (2, 8),
    gains: Sequence[float] = (1.0,),
    whispered: bool = False,
) -> Conversation:
    """Random sentences of random voices at 140 to 205 words a minute; half of the pauses are below 0.6 s."""
    chance = random.Random(seed)
    parts: list[Samples] = []
    words: list[Word] = []
    count = 0
    while len(words) < word_count:
        pause = chance.uniform(pauses[0], pauses[1] if chance.random() < 0.5 else min(0.6, pauses[1]))
        parts.append(np.zeros(round(pause * rate), np.float32))
        start = count + parts[-1].size
        text = " ".join(chance.choice(VOCABULARY) for _ in range(chance.randint(*sentence))).capitalize() + "."
        voice, speed, pitch = chance.choice(voices), chance.randint(140, 205), chance.randint(30, 70)
        speech = speak(text, voice, speed, pitch, seed=chance.randint(1, 10**6), sample_rate=rate)
        samples = whisper(speech.samples, rate, chance.randint(0, 10**6)) if whispered else speech.samples
        parts.append(samples * np.float32(chance.choice(gains)))
        words += [Word(word.text, word.start + start / rate, word.end + start / rate) for word in speech.words]
        count = start + speech.samples.size
    parts.append(np.zeros(rate // 2, np.float32))
    return Conversation(np.concatenate(parts), rate, tuple(words))


@cache
def unbroken(word_count: int, gap: tuple[float, float], seed: int = 0) -> Conversation:
    """Single words with short gaps between them, and no pause."""
    chance = random.Random(seed)
    parts: list[Samples] = []
    words: list[Word] = []
    count = 0
    for _ in range(word_count):
        speech = speak(chance.choice(VOCABULARY), chance.choice(VOICES), chance.randint(150, 190))
        first, last = round(speech.words[0].start * 16000), round(speech.words[-1].end * 16000)
        words.append(Word(speech.words[0].text, count / 16000, (count + last - first) / 16000))
        parts += [speech.samples[first:last], np.zeros(round(chance.uniform(*gap) * 16000), np.float32)]
        count += parts[-2].size + parts[-1].size
    return Conversation(np.concatenate(parts), 16000, tuple(words))


def whisper(samples: Samples, rate: int, seed: int) -> Samples:
    """Speech with its harmonics smoothed away and noise for phases: no pitch, the same words."""
    window_size, hop = rate // 40, rate // 160
    window = np.hanning(window_size + 1)[:-1]
    padded = np.pad(samples, window_size)
    starts = np.arange(0, padded.size - window_size, hop)
    spectra = np.fft.rfft(padded[starts[:, None] + np.arange(window_size)] * window)
    smooth = np.apply_along_axis(np.convolve, 1, np.abs(spectra), np.full(9, 1 / 9), mode="same")
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random(smooth.shape))
    frames = np.fft.irfft(smooth * phases, window_size) * window
    out = np.zeros(padded.size)
    for start, frame in zip(starts, frames, strict=True):
        out[start : start + window_size] += frame
    return (out[window_size : window_size + samples.size] / 1.5).astype(np.float32)


def chords(seconds: float, rate: int = 16000, seed: int = 0) -> Samples:
    """Plucked chords with overtones."""
    chance = random.Random(seed)
    parts: list[Samples] = []
    while sum(part.size for part in parts) < seconds * rate:
        time = np.arange(int(chance.uniform(0.3, 1.5) * rate)) / rate
        tones = [
            chance.choice((110.0, 130.8, 146.8, 164.8, 196.0, 220.0, 261.6)) * chance.choice((1, 2)) for _ in "123"
        ]
        sound = sum(np.sin(2 * np.pi * tone * n * time) / n for tone in tones for n in range(1, 6))
        parts.append(np.float32(0.05) * (sound * np.exp(-2 * time) * np.minimum(1, 200 * time)).astype(np.float32))
    return np.concatenate(parts)[: round(seconds * rate)]


def noises(seconds: float, rate: int = 16000, seed: int = 0) -> dict[str, Samples]:
    """Sounds without speech, each with a mean power of 1."""
    random_state = np.random.default_rng(seed)
    count = round(seconds * rate)
    time = np.arange(count) / rate
    spectrum = np.fft.rfft(random_state.normal(size=count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1 / rate), 20.0)
    breath = np.fft.irfft(spectrum * np.exp(-(((frequency - 1800) / 1500) ** 2)), count)
    sounds = {
        "white": random_state.normal(size=count),
        "hiss": np.fft.irfft(spectrum * np.minimum(frequency / 4000, 1), count),
        "pink": np.fft.irfft(spectrum / np.sqrt(frequency), count),
        "rumble": np.fft.irfft(spectrum * (frequency < 300), count),
        "hum": sum(np.sin(2 * np.pi * 50 * n * time + n) / n for n in range(1, 12))
        + random_state.normal(0, 0.01, count),
        "breath": breath / breath.std() * np.maximum(0, np.sin(2 * np.pi * time / 3) - 0.6),
    }
    return {name: np.asarray(sound / np.sqrt(np.mean(sound**2)), np.float32) for name, sound in sounds.items()}
