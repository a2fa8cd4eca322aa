"""Sounds without words, as log-mel features: noise to mix under speech, and noise and music that have no transcript."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from phi4mm_cli.model.features import log_mel

RATE = 16000  # Hz
SECONDS = 45
KINDS = ("white", "pink", "brown", "hum", "crackle", "chords", "melody", "beeps")
Features = NDArray[np.float32]


def wave(kind: str, seconds: float, random: np.random.Generator) -> NDArray[np.float32]:
    """A sound of one of KINDS at 16 kHz, with a root mean square of 0.1."""
    samples = int(seconds * RATE)
    time = np.arange(samples) / RATE
    if kind in ("white", "pink", "brown"):
        spectrum = np.fft.rfft(random.normal(size=samples))
        slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
        sound = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** slope, samples)
    elif kind == "hum":
        harmonics = [np.sin(2 * np.pi * 50 * k * time) / k for k in (1, 2, 3, 5, 7)]
        sound = np.sum(harmonics, axis=0) + 0.05 * random.normal(size=samples)
    elif kind == "crackle":
        sound = random.normal(size=samples) * (random.random(samples) < 0.002)
        sound = sound + 0.01 * random.normal(size=samples)
    else:
        sound = _music(kind, samples, random)
    scaled: NDArray[np.float32] = (0.1 * sound / (np.sqrt(np.mean(sound**2)) + 1e-9)).astype(np.float32)
    return scaled


def _music(kind: str, samples: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Notes of a few harmonics that fade, one after the other; three at a time for chords, bare tones for beeps."""
    sound = np.zeros(samples)
    at = 0
    while at < samples:
        length = int(RATE * random.uniform(0.15, 0.8))
        time = np.arange(min(length, samples - at)) / RATE
        for _ in range(3 if kind == "chords" else 1):
            pitch = 440 * 2 ** (random.integers(-24, 13) / 12)
            harmonics = 1 if kind == "beeps" else random.integers(2, 8)
            fade = np.exp(-time * random.uniform(0.5, 6))
            sound[at : at + len(time)] += fade * sum(
                np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, harmonics + 1)
            )
        at += length if kind != "beeps" else length + int(RATE * random.uniform(0, 0.5))
    return sound + 1e-4 * random.normal(size=samples)


def library(seed: int) -> dict[str, Features]:
    """Features of SECONDS of every kind, (frames, 80) each."""
    random = np.random.default_rng(seed)
    return {kind: log_mel(wave(kind, SECONDS, random), RATE).numpy() for kind in KINDS}


def level(features: Features) -> float:
    """The mean power, as the natural logarithm of it."""
    return float(np.log(np.mean(np.exp(features))))


def mix(features: Features, noise: Features, decibels: float) -> Features:
    """Noise under features, its mean power `decibels` below the features'."""
    shift = level(features) - decibels * np.log(10) / 10 - level(noise)
    mixed: Features = np.maximum(np.logaddexp(features, noise + np.float32(shift)), 0)
    return mixed
