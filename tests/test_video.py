"""Videos: which frames are looked at, that they are those of their times, and how little of the file is read for it."""

from __future__ import annotations

import io
import math
import random
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from films import RATE, shade, write_film
from PIL import Image

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import FRAMES, audio, document, video
from phi4mm_cli.media.video import Choice
from phi4mm_cli.schema import Picture


def rising(path: Path, seconds: int = 20, **settings: object) -> Path:
    """A film whose grey is the second that is shown, times ten."""
    return write_film(path, (shade(number // RATE * 10) for number in range(seconds * RATE)), **settings)  # type: ignore[arg-type]


def times(path: Path, **choice: object) -> list[float | None]:
    return [picture.time for picture in video.frames(audio.source(path), Choice(**choice))]  # type: ignore[arg-type]


def grey(picture: Picture) -> float:
    return float(np.asarray(document.read(picture)).mean())


# -------------------------------------------------------------------------------------------------- which frames


def test_evenly_spread(tmp_path: Path) -> None:
    film = rising(tmp_path / "a.mp4")
    assert times(film, frames=4) == [2.5, 7.5, 12.5, 17.5]
    assert times(film, frames=1) == [10.0]
    assert len(times(film)) == FRAMES
    spans = ((2.0, 4.0), (10.0, 14.0), (19.0, math.inf), (30.0, 31.0))
    assert times(film, frames=7, spans=spans) == [2.5, 3.5, 10.5, 11.5, 12.5, 13.5, 19.5]
    with pytest.raises(InputError, match="before the range begins"):
        times(film, spans=((20.0, math.inf),))


def test_equal_steps(tmp_path: Path) -> None:
    film = rising(tmp_path / "a.mkv")
    assert times(film, every=5.0) == [0, 5, 10, 15]
    assert times(film, every=0.1, spans=((1.0, 1.4),)) == [1.0, 1.1, 1.2, 1.3]
    assert times(film, every=60.0) == [0]
    assert times(film, every=1.0, frames=5) == [0, 5, 10, 14, 19]
    assert video.steps(((0.0, 20.0),), 1.0) == 20


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "m2ts"])
@pytest.mark.parametrize("gop", [RATE, 10 * RATE])
def test_each_frame_is_that_of_its_time(tmp_path: Path, suffix: str, gop: int) -> None:
    """Also where a place that is sought is not a key frame, as in MPEG's own streams."""
    source = audio.source(rising(tmp_path / f"a.{suffix}", gop=gop))
    for moment in random.Random(0).sample(range(1, 20 * RATE), 12):
        picture = Picture(source, time=moment / RATE + 0.01)
        assert abs(grey(picture) - moment // RATE * 10) < 4, moment


# -------------------------------------------------------------------------------------------------- scenes


def cut_film(path: Path, lengths: list[float], gop: int) -> list[float]:
    """A film of moving noise in another colour for each scene; when the scenes end."""
    rng, frames = np.random.default_rng(1), []
    for number, length in enumerate(lengths):
        colour = np.array(((200, 40, 40), (40, 200, 40), (40, 40, 200), (220, 220, 220), (20, 20, 20)))[number % 5]
        for _ in range(round(length * RATE)):
            noise = rng.integers(-20, 21, (6, 8, 1)) + colour
            frames.append(Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((64, 48)))
    write_film(path, frames, gop)
    return [*np.cumsum(lengths)]


@pytest.mark.parametrize("gop", [2, 400])
def test_one_frame_of_each_scene(tmp_path: Path, gop: int) -> None:
    """With key frames and, as of a screen that was recorded, without any but the first."""
    ends = cut_film(tmp_path / "a.mkv", [6.0, 3.0, 9.0, 4.0], gop)
    found = times(tmp_path / "a.mkv", scenes=True)
    assert len(found) == 4
    for time_of, start, end in zip(found, [0.0, *ends], ends, strict=False):
        assert time_of == pytest.approx((start + end) / 2, abs=0.6)
    assert len(times(tmp_path / "a.mkv", scenes=True, frames=2)) == 2
    part = times(tmp_path / "a.mkv", scenes=True, spans=((7.0, 12.0),))
    assert len(part) == 2
    assert 7 < part[0] < 9 < part[1] < 12  # type: ignore[operator]


def test_scenes_of_a_stream_with_few_key_frames(tmp_path: Path) -> None:
    cut_film(tmp_path / "a.ts", [6.0, 3.0, 9.0, 4.0], gop=400)
    assert [round(time) for time in times(tmp_path / "a.ts", scenes=True, spans=((4.0, 12.0),))] == [5, 8, 10]


def test_a_still_film_is_one_scene(tmp_path: Path) -> None:
    assert times(write_film(tmp_path / "a.mp4", [shade(90)] * 100), scenes=True) == [5.0]


# -------------------------------------------------------------------------------------------------- what is read


def test_only_what_is_looked_at_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = (
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8)) for n in range(900)
    )
    film = write_film(tmp_path / "a.mp4", noise, gop=10)
    read: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            read.append(super().readinto(buffer) or 0)
            return read[-1]

    monkeypatch.setattr(video, "open_file", lambda path: io.BufferedReader(Counted(path), 4096))
    source = audio.source(film)
    for picture in video.frames(source, Choice(frames=2)):
        with video.open_file(film) as file:
            video.frame(file, picture.time or 0.0)
    assert 0 < sum(read) < film.stat().st_size / 3


# -------------------------------------------------------------------------------------------------- what is told


def test_what_is_told_before_frames_are_looked_at(tmp_path: Path) -> None:
    sound = np.zeros(16000 * 2, np.float32)
    info = video.probe(rising(tmp_path / "a.mp4", 2, sound=sound))
    assert (info.seconds, info.size, info.has_sound, info.truncated) == (
        pytest.approx(2, abs=0.1),
        (64, 48),
        True,
        None,
    )
    assert video.probe(rising(tmp_path / "b.mkv", 2, first=3.0)).has_sound is False
    source = audio.source(tmp_path / "a.mp4")
    assert document.shown_size(Picture(source, time=1.0)) == (64, 48)
    assert document.read(Picture(source, time=1.0, size=(32, 24))).size == (32, 24)


def test_oblong_pixels_are_made_square(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = 64, 48
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.mux(stream.encode(av.VideoFrame.from_image(shade(9))))
        container.mux(stream.encode(None))
    assert video.probe(tmp_path / "a.mkv").size == (85, 48)
    assert document.read(Picture(audio.source(tmp_path / "a.mkv"), time=0.0)).size == (85, 48)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_film_that_was_cut_off_ends_where_it_ends(tmp_path: Path, suffix: str) -> None:
    noise = (
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (48, 64, 3), dtype=np.uint8)) for n in range(200)
    )
    whole = write_film(tmp_path / f"whole.{suffix}", noise)
    if suffix == "mp4":  # with its index in front
        with av.open(whole) as old, av.open(tmp_path / "a.mp4", "w", options={"movflags": "faststart"}) as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
        whole = tmp_path / "a.mp4"
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    info = video.probe(cut)
    assert 8 < info.seconds < 11
    assert "header promises 0:20.0" in (info.truncated or "")
    last = video.frames(audio.source(cut), Choice(frames=4))[-1]
    assert info.seconds / 2 < (last.time or 0) < info.seconds


# -------------------------------------------------------------------------------------------------- refusals


def test_what_is_no_video_is_refused_at_once(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", np.zeros(16000), 16000)
    (tmp_path / "text.mp4").write_text("This is no film.")
    (tmp_path / "empty.mp4").touch()
    with av.open(tmp_path / "record.mp3", "w") as container:  # with a cover, which is no moving picture
        stream = container.add_stream("mp3", rate=16000)
        cover = container.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_image(shade(9, (16, 16)))))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    whole = rising(tmp_path / "whole.mp4", 2).read_bytes()
    (tmp_path / "noindex.mp4").write_bytes(whole[: len(whole) // 2])
    refused = {"talk.wav": "only sound", "text.mp4": "not a video", "empty.mp4": "empty", "record.mp3": "only sound"}
    (tmp_path / "picture.mp4").write_bytes(b"\0\0\0\x18ftypavif\0\0\0\0avifmif1\0\0\0\x08meta\0\0\0\x20mdat")
    refused |= {"noindex.mp4": "cut off: the index", "picture.mp4": "not a video", "missing.mp4": "no such file"}
    for name, words in refused.items():
        began = time.process_time()
        with pytest.raises(InputError) as caught:
            video.probe(tmp_path / name)
        assert words in caught.value.message, name
        assert caught.value.advice
        assert time.process_time() - began < 1
