"""Recordings for the tests, written with soundfile and PyAV: clicks at known times, tones of known pitch."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from phi4mm_cli.media import audio

CLICKS = (0.5, 1.5, 3.25, 9.0)  # seconds
Samples = NDArray[np.float32]


def tone(rate: int, seconds: float, hz: float = 440.0, level: float = 0.5) -> Samples:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def clicks(rate: int, seconds: float = 10.0) -> Samples:
    """Bursts of 5 ms at CLICKS in a little noise, which keeps a coder's frames filled."""
    samples = 0.01 * np.random.default_rng(1).standard_normal(round(rate * seconds)).astype(np.float32)
    for time in CLICKS:
        start = round(time * rate)
        samples[start : start + round(0.005 * rate)] += tone(rate, 0.005, 1000, 0.8)
    return samples


def onsets(samples: Samples, rate: int) -> NDArray[np.float64]:
    """Times, in seconds, at which bursts begin."""
    loud = np.flatnonzero(np.abs(samples) > 0.3)
    return loud[np.r_[True, np.diff(loud) > 0.1 * rate]] / rate


def encode(
    path: Path,
    samples: Samples,
    rate: int,
    codec: str,
    *,
    form: str | None = None,
    options: dict[str, str] | None = None,
    video: bool = False,
    start: float = 0.0,
    gap: tuple[float, float] = (0.0, 0.0),
    tags: dict[str, str] | None = None,
) -> Path:
    """Encode mono `samples` to `path`; `start` delays them, and `gap` (when, how long) leaves a hole in their times."""
    with av.open(str(path), "w", format=form, options=options or {}) as container:
        container.metadata.update(tags or {})
        # FFmpeg aborts where a track is added after the first packet.
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 96_000
        if video:
            add_video(container, start + len(samples) / rate)
        if not stream.codec_context.is_open:
            stream.codec_context.open()
        whole = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        whole.rate = rate
        size = stream.codec_context.frame_size or 1024
        shape = av.AudioResampler(stream.codec_context.format, "mono", rate, size)
        time = round(start * rate)
        for frame in [*shape.resample(whole), *shape.resample(None)]:
            late = round(gap[1] * rate) if time >= (start + gap[0]) * rate else 0
            frame.pts, frame.time_base = time + late, Fraction(1, rate)
            time += frame.samples
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_video(container: av.container.OutputContainer, seconds: float) -> None:
    stream = container.add_stream("libvpx" if container.format.name == "webm" else "mpeg4", rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
    for index in range(round(seconds * 25)):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), index % 200, np.uint8), format="rgb24")
        frame.pts = index
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def in_tracks(path: Path, *recordings: Path) -> Path:
    """The sound of the recordings, each in a track of its own."""
    with av.open(str(path), "w") as container:
        opened = [av.open(str(recording)) for recording in recordings]
        streams = [container.add_stream_from_template(one.streams.audio[0]) for one in opened]
        for one, stream in zip(opened, streams, strict=True):
            for packet in one.demux(audio=0):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
            one.close()
    return path


def write(path: Path, samples: Samples, rate: int, form: str, subtype: str) -> Path:
    """`samples` (samples,) or (samples, channels) in a format of soundfile's, in blocks, which its coders need."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, subtype, format=form) as file:
        for start in range(0, len(samples), rate):
            file.write(samples[start : start + rate])
    return path


def cut(path: Path, share: float = 0.5) -> Path:
    """The first part of a file, beside it."""
    content = path.read_bytes()
    short = path.with_stem(path.stem + "-cut")
    short.write_bytes(content[: round(len(content) * share)])
    return short


def decode(path: Path, channel: int | None = None) -> tuple[Samples, int, str | None]:
    """All samples of a recording, their rate, and why they are not all."""
    with audio.open_recording(audio.source(path), channel) as recording:
        samples = np.concatenate(list(recording.blocks()))
        assert np.array_equal(recording.read(0, recording.seconds), samples)
        return samples, recording.rate, recording.truncated
