"""The sounds and the picture that the oracle model's answers are about, from integers alone: the same everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def waveform(seconds: float, variant: int) -> NDArray[np.int16]:
    """Mono samples at 16 kHz: six rising tones of parabolic waves that swell and fade, and noise. Integers only."""
    count = int(seconds * 16000 + 0.5)
    time = np.arange(count, dtype=np.int64)
    total = np.zeros(count, dtype=np.int64)
    for tone in range(6):
        low, high = 90 + (397 * tone + 211 * variant) % 900, 250 + (2731 * tone + 1297 * variant) % 6800  # Hz
        step, sweep = low * 2**32 // 16000, (high - low) * 2**32 // (16000 * count)  # of 2**32 a turn
        phase = (step * time + sweep * (time * (time - 1) // 2)) % 2**32 // 2**16 - 2**15
        total += phase * (2**15 - abs(phase)) // 2**13 * (5 - tone // 2)
    loudness = abs((7 * time + 2000 * variant) % 2**15 - 2**14) + 2**12
    samples = total * loudness // 2**19 + _noise(time, variant)
    return samples.clip(-(2**15), 2**15 - 1).astype(np.int16)


def image(width: int, height: int) -> NDArray[np.uint8]:
    """RGB pixels of shape (height, width, 3): waves of colour, a checkerboard, discs, noise. Integers only."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    red, green = (2 * abs(slope % 256 - 128) for slope in (3 * x + 2 * y, 2 * x - 5 * y + 40))
    planes = np.stack([red, green, 150 * x // width + 100 * y // height])
    planes = np.where((x // 40 + y // 40) % 2 == 0, planes * 4 // 5, planes)
    for disc in range(12):
        across, down, radius = (137 * disc + 53) % width, (211 * disc + 29) % height, 12 + 17 * disc % 50
        colour = np.array([(disc * factor + 30) % 256 for factor in (71, 113, 197)])
        planes = np.where((x - across) ** 2 + (y - down) ** 2 < radius**2, colour[:, None, None], planes)
    planes = planes + np.stack([_noise(3 * (y * width + x) + plane, 7) // 2**4 for plane in range(3)])
    return np.moveaxis(planes, 0, -1).clip(0, 255).astype(np.uint8)


def _noise(places: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """-128 to 127, a hash of each place."""
    mixed = (places.astype(np.uint64) * np.uint64(2654435761) + np.uint64(40503 * seed + 1)) & np.uint64(2**32 - 1)
    mixed ^= mixed >> np.uint64(15)
    mixed = (mixed * np.uint64(2246822519)) & np.uint64(2**32 - 1)
    mixed ^= mixed >> np.uint64(13)
    return (mixed >> np.uint64(24)).astype(np.int64) - 128
