"""Video files for the tests, made frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

RATE = 10  # frames a second


def shade(number: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A frame of one grey."""
    return Image.new("RGB", size, (number,) * 3)


def write_film(
    path: Path,
    frames: Iterable[Image.Image],
    gop: int = 5,
    first: float = 0.0,
    sound: NDArray[np.float32] | None = None,
) -> Path:
    """Frames at RATE, one in `gop` of which stands for itself; `sound` is at 16 kHz."""
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"sc_threshold": "1000000000"})
        track = container.add_stream("aac", rate=16000, layout="mono") if sound is not None else None
        stream.gop_size, stream.bit_rate = gop, 4_000_000
        for number, picture in enumerate(frames):
            if not number:
                stream.width, stream.height = picture.size
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number + round(RATE * first), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None and sound is not None:
            samples = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 16000, 0
            container.mux(track.encode(samples))
            container.mux(track.encode(None))
    return path
