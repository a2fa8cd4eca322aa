"""Sounds and pictures as bytes that go to a server: WAV and PNG, which lose nothing."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

_STEPS = 1 << 15  # of 16-bit sound, on each side of zero


def wav(samples: NDArray[np.float32], rate: int) -> bytes:
    """Mono float32 `samples` in [-1, 1) as a WAV file that decodes to the same: in 16 bits where these are enough."""
    steps = samples * _STEPS
    exact = bool(np.all(steps == np.rint(steps)) and np.all(steps < _STEPS))
    file = io.BytesIO()
    values = steps.astype(np.int16) if exact else samples
    soundfile.write(file, values, rate, format="WAV", subtype="PCM_16" if exact else "FLOAT")
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    """An RGB image as a PNG file, without what else its file said of it."""
    file = io.BytesIO()
    Image.frombytes(image.mode, image.size, image.tobytes()).save(file, "PNG", compress_level=1)
    return file.getvalue()
