"""Clips put together from the pool's utterances, disturbed as recordings are, with the words and sounds in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phi4mm_cli.demo.training.examples import Encoder
from phi4mm_cli.demo.training.pool import Pool, Utterance
from phi4mm_cli.demo.world import noises

FRAMES_PER_SECOND = 100
FRAMES_PER_SLOT = 2  # sound labels are 20 ms apart
FRAMES_PER_POSITION = 8
TELEPHONE_BAND = 62  # the first mel band above 4 kHz, which telephone speech lacks
MEL_BREAK, MEL_TOP = 700.0, 8000.0  # Hz: of the mel scale, 1127 ln(1 + f / 700), and where the bands end
SMALLEST_HEAD, LARGEST_HEAD = 0.85, 1.35  # times the frequencies of a voice
HEADS_SHARE = 0.5  # of the clips


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A clip with what is in it at every position (80 ms) of the audio encoder."""

    features: Tensor  # (frames, 80)
    sounds: Tensor  # (positions, 4): numbers of the pool's sounds, 0 for none
    words: Tensor  # (positions,): token ids, 0 for none
    spans: tuple[tuple[int, int], ...]  # of each word: its first position, and the first that is not its own


def _positions(start: float, end: float) -> tuple[int, int]:
    """The positions between two frames: the first one, and the first one after them."""
    first, last = (round(edge / FRAMES_PER_POSITION - 0.5) for edge in (start, end))
    return first, max(last, first + 1)


class Composer:
    """Draws clips from a pool, each different."""

    def __init__(self, pool: Pool, encoder: Encoder, rng: random.Random) -> None:
        self.pool, self.rng = pool, rng
        self.library = noises.library(rng.randint(0, 10**6))
        self._tokens: dict[str, list[int]] = {}
        self._encoder = encoder

    def clip(self, utterances: Sequence[Utterance], lead: float | None = None) -> Labelled:
        """The utterances one after the other with pauses between; `lead` is the silence before, in seconds."""
        rng = self.rng
        frames: list[NDArray[np.float32]] = []
        sounds: list[NDArray[np.uint8]] = []
        marks: list[tuple[int, float, float]] = []
        spans: list[tuple[int, int]] = []
        at = 0

        def silence(seconds: float) -> None:
            nonlocal at
            count = FRAMES_PER_SLOT * round(seconds * FRAMES_PER_SECOND / FRAMES_PER_SLOT)
            frames.append(np.zeros((count, 80), np.float32))
            sounds.append(np.zeros(count // FRAMES_PER_SLOT, np.uint8))
            at += count

        silence(rng.uniform(0, 0.6) if lead is None else lead)
        gain = rng.uniform(-4.5, 1.5)  # natural logarithms of power: -20 to +6 dB
        for number, utterance in enumerate(utterances):
            if number:
                silence(rng.choice((rng.uniform(0.05, 0.3), rng.uniform(0.2, 1.2))))
            features = self.pool.log_mel(utterance)
            features = features[: len(features) // FRAMES_PER_SLOT * FRAMES_PER_SLOT]
            frames.append(np.maximum(features + np.float32(gain + rng.uniform(-0.5, 0.5)), 0))
            slots = np.array(self.pool.sounds[slice(*utterance.slots)])
            wanted = len(features) // FRAMES_PER_SLOT
            sounds.append(np.pad(slots, (0, max(0, wanted - len(slots))))[:wanted])
            for word, start, end in utterance.words:
                first, last = (at + edge * FRAMES_PER_SECOND for edge in (start, end))
                marks += self._marks(word, first, last)
                spans.append(_positions(first, last))
            at += len(features)
        silence(rng.uniform(0, 0.6))
        features = np.concatenate(frames)
        features = self._disturb(features)
        positions = -(-len(features) // FRAMES_PER_POSITION)
        labels = np.concatenate(sounds)
        labels = np.pad(labels, (0, 4 * positions - len(labels))).reshape(positions, 4)
        words = np.zeros(positions, np.int64)
        for token, start, end in marks:
            words[slice(*_positions(start, end))] = token
        return Labelled(
            torch.from_numpy(features), torch.from_numpy(labels.astype(np.int64)), torch.from_numpy(words), tuple(spans)
        )

    def without_words(self, seconds: float) -> Tensor:
        """Silence, noise or music: features (frames, 80)."""
        rng, frames = self.rng, int(seconds * FRAMES_PER_SECOND)
        kind = rng.choice(("silence", *noises.KINDS))
        if kind == "silence":
            return torch.zeros(frames, 80)
        return torch.from_numpy(np.maximum(self._noise(kind, frames) + np.float32(rng.uniform(-14, 2)), 0))

    def _marks(self, word: str, start: float, end: float) -> list[tuple[int, float, float]]:
        """The word's tokens, each with its share of the time."""
        if word not in self._tokens:
            self._tokens[word] = self._encoder.text(" " + word)
        tokens = self._tokens[word]
        step = (end - start) / len(tokens)
        return [(token, start + i * step, start + (i + 1) * step) for i, token in enumerate(tokens)]

    def _noise(self, kind: str, frames: int) -> NDArray[np.float32]:
        sound = self.library[kind]
        first = self.rng.randrange(len(sound))
        return np.take(sound, range(first, first + frames), axis=0, mode="wrap")

    def _disturb(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Another size of head, noise, a tilt, telephone bandwidth, and small holes in time and frequency."""
        rng = self.rng
        if rng.random() < HEADS_SHARE:
            features = _stretched(features, SMALLEST_HEAD * (LARGEST_HEAD / SMALLEST_HEAD) ** rng.random())
        if rng.random() < 0.3:
            tilt = np.linspace(-1, 1, 80, dtype=np.float32) * np.float32(rng.uniform(-1.5, 1.5))
            features = np.maximum(features + tilt, 0)
        if rng.random() < 0.7:
            kind = rng.choice(noises.KINDS)
            decibels = rng.choice((rng.uniform(30, 60), rng.uniform(8, 35)))
            features = noises.mix(features, self._noise(kind, len(features)), decibels)
        if rng.random() < 0.08:
            features = features.copy()
            features[:, TELEPHONE_BAND:] = 0
        if rng.random() < 0.4:
            features = features.copy()
            for _ in range(rng.randint(1, 2)):
                band = rng.randrange(80)
                features[:, band : band + rng.randint(1, 10)] = rng.uniform(0, 12)
            for _ in range(len(features) // 250):
                frame = rng.randrange(len(features))
                features[frame : frame + rng.randint(1, 6)] = rng.uniform(0, 12)
        return features


def _stretched(features: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """The features (frames, 80) of a voice whose frequencies are `factor` times as high (Jaitly and Hinton, 2013)."""
    top = np.log(1 + MEL_TOP / MEL_BREAK)
    hertz = MEL_BREAK * (np.exp(np.arange(1, 81) / 81 * top) - 1)
    places = np.clip(81 / top * np.log(1 + hertz / factor / MEL_BREAK) - 1, 0, 79)
    below = np.minimum(places.astype(int), 78)
    share = (places - below).astype(np.float32)
    mixed: NDArray[np.float32] = features[:, below] * (1 - share) + features[:, below + 1] * share
    return mixed
