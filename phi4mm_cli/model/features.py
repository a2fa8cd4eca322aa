"""Log-mel features of a clip, as the model's original code computes them from 16 kHz and from 8 kHz speech.

The numbers are those of Kaldi-style front ends: windows of 25 ms every 10 ms, pre-emphasis inside each window, 80
triangles on the mel scale. transformers' own extractor knows no 8 kHz and gives the last triangle a weight at one
FFT bin (246) that the model never saw in training.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MEL_BANDS = 80
MEL_TOP = 7690.0  # Hz
PRE_EMPHASIS = 0.97
FULL_SCALE = 32768.0  # the model was trained on 16-bit sample values
FFT_BINS = 257  # of the 512-point FFT at 16 kHz: 31.25 Hz apart, as are the 129 of the 256-point FFT at 8 kHz
FRAMES_AT_ONCE = 6000  # one minute; bounds the memory of long clips

FRAMES_PER_TOKEN = 8


def log_mel(samples: NDArray[np.float32], rate: int) -> Tensor:
    """Log-mel features of mono `samples` in [-1, 1], shape (frames, 80), float32; a frame is 10 ms.

    `rate` is 16000 or 8000 Hz. Telephone speech keeps its own spectrum, with nothing above 4 kHz, as in training:
    resampled to 16 kHz first, it would look different. A clip shorter than one window is padded with silence.
    """
    if rate not in (16000, 8000):
        raise ValueError(f"features are defined at 16000 and 8000 Hz, not at {rate}")
    window, hop, points = (400, 160, 512) if rate == 16000 else (200, 80, 256)
    wave = torch.from_numpy(samples)
    if len(wave) < window:
        wave = torch.nn.functional.pad(wave, (0, window - len(wave)))
    taper = torch.hamming_window(window, periodic=False, dtype=torch.float64)
    filters = _mel_filters()[: points // 2]  # at 8 kHz: without the bin at 4 kHz, and zeros above
    blocks = []
    windows = wave.unfold(0, window, hop)
    for first in range(0, len(windows), FRAMES_AT_ONCE):
        frames = windows[first : first + FRAMES_AT_ONCE]
        before = torch.cat((frames[:, :1], frames[:, :-1]), dim=1)
        # The original subtracts in single precision and goes on in double: it shows in the lowest bands.
        emphasised = (frames - PRE_EMPHASIS * before) * FULL_SCALE
        power = torch.fft.rfft(emphasised * taper, n=points).abs().square()[:, : points // 2]
        blocks.append((power @ filters).clamp(min=1.0).log().float())
    return torch.cat(blocks)


def audio_tokens(frames: int) -> int:
    """How many positions of the prompt a clip of `frames` frames takes: one for every 80 ms begun."""
    return math.ceil(frames / FRAMES_PER_TOKEN)


@cache
def _mel_filters() -> Tensor:
    """Weight of each FFT bin in each mel band, shape (256, 80): mel = 1127 ln(1 + f / 700), triangles from 0 Hz up."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    bins = torch.arange(FFT_BINS - 1, dtype=torch.float64)
    edges = mel(torch.tensor([0.0, MEL_TOP], dtype=torch.float64))
    spacing = (edges[1] - edges[0]) / (MEL_BANDS + 1)
    centres = edges[0] + spacing * torch.arange(1, MEL_BANDS + 1)
    weights = (1.0 - (mel(bins * 31.25)[:, None] - centres).abs() / spacing).clamp(min=0.0)
    last = int(MEL_TOP / 31.25 + 0.5)  # the original's triangles stand on the bins between the two edges' nearest ones
    weights[0] = weights[last:] = 0.0
    return weights
