"""Damaged, cut and wrong files: what can be read is kept at its right time, the rest is told in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from recordings import CLICKS, add_video, clicks, cut, decode, encode, onsets, tone, write

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio


@pytest.fixture(autouse=True)
def _nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    yield
    assert capfd.readouterr() == ("", "")


CUTTABLE = [
    ("WAV", "PCM_16"),
    ("WAV", "ULAW"),
    ("WAV", "MS_ADPCM"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("form", "subtype"), CUTTABLE)
def test_half_a_file_is_read_and_said_to_be_half(tmp_path: Path, form: str, subtype: str) -> None:
    path = write(tmp_path / "a.x", clicks(48000), 48000, form, subtype)
    whole, rate, truncated = decode(path)
    assert truncated is None
    half, _, truncated = decode(cut(path))
    assert truncated is not None and "\n" not in truncated
    assert 0.35 * len(whole) < len(half) < 0.65 * len(whole)
    assert onsets(half, rate) == pytest.approx(CLICKS[:3], abs=0.003)
    if form not in ("OGG", "CAF"):
        assert "but its header promises" in truncated
        # ADPCM decodes in blocks: the length that is missing is judged by whole ones.
        assert audio.probe(cut(path)).seconds == pytest.approx(10.0, abs=0.2 if subtype == "MS_ADPCM" else 0.05)


@pytest.mark.parametrize(
    ("name", "codec", "options", "video"),
    [
        ("a.m4a", "aac", {"movflags": "faststart"}, False),
        ("a.mp4", "aac", {"movflags": "faststart"}, True),
        ("frag.mp4", "aac", {"movflags": "empty_moov+default_base_moof", "frag_duration": "500000"}, False),
        ("a.webm", "libopus", {}, True),
        ("a.mka", "libopus", {}, False),
        ("a.mp3", "libmp3lame", {}, False),
        ("a.opus", "libopus", {}, False),
    ],
)
def test_half_a_container_is_read_and_said_to_be_half(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], video: bool
) -> None:
    path = encode(tmp_path / name, clicks(48000), 48000, codec, options=options, video=video)
    assert decode(path)[2] is None
    half, rate, truncated = decode(cut(path))
    assert truncated is not None and "\n" not in truncated
    assert 3.5 < len(half) / rate < 6.5
    # A fragmented file has no record of its coder's delay of 21 ms.
    assert onsets(half, rate) == pytest.approx(CLICKS[:3], abs=0.003 if name != "frag.mp4" else 0.025)


def test_sound_that_ends_before_its_video_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", options={"write_crc32": "0"}) as container:
        stream = container.add_stream("libopus", rate=48000, layout="mono")
        add_video(container, 8.0)
        frame = av.AudioFrame.from_ndarray((tone(48000, 2.0) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    # Other writers leave out the length of each track, and only the length of the file is known.
    content = path.read_bytes()
    assert content.count(b"DURATION") == 2
    path.write_bytes(content.replace(b"DURATION", b"XXRATION"))
    assert audio.probe(path).seconds == pytest.approx(8.0, abs=0.1)
    samples, rate, truncated = decode(path)
    assert truncated is None and len(samples) / rate == pytest.approx(2.0, abs=0.03)
    assert decode(cut(path, 0.8))[2] is not None


def test_an_mp4_without_its_index_says_so(tmp_path: Path) -> None:
    path = cut(encode(tmp_path / "a.m4a", clicks(44100), 44100, "aac"))
    with pytest.raises(InputError, match="cut off: the index at its end is missing") as error:
        audio.probe(path)
    assert "Copy it again" in error.value.advice


def test_a_raw_stream_cut_inside_a_frame(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.aac", clicks(44100), 44100, "aac", form="adts")
    samples, rate, truncated = decode(cut(path))
    assert truncated is not None and 4 < len(samples) / rate < 6


@pytest.mark.parametrize(
    ("name", "codec", "lost"),
    [("a.flac", "flac", 0.3), ("a.m4a", "aac", 0.3), ("a.opus", "libopus", 1.1), ("a.mp3", "libmp3lame", 0.3)],
)
def test_damage_in_the_middle_costs_only_itself(tmp_path: Path, name: str, codec: str, lost: float) -> None:
    path = encode(tmp_path / name, clicks(48000), 48000, codec)
    content = bytearray(path.read_bytes())
    place = len(content) * 6 // 10
    content[place : place + 400] = np.random.default_rng(3).bytes(400)
    path.write_bytes(content)
    samples, rate, truncated = decode(path)
    assert truncated is not None and "damaged" in truncated
    assert len(samples) / rate == pytest.approx(10.0, abs=0.2 if codec == "libmp3lame" else 0.03)
    # MP3 frames carry no time: what is lost there moves the rest forward by as much.
    assert onsets(samples, rate)[-1] == pytest.approx(9.0, abs=0.2 if codec == "libmp3lame" else 0.003)
    reference = clicks(16000)
    silent = np.mean(np.abs(samples[: len(reference)]) < 1e-5) * 10
    assert silent < lost


def test_unknown_lengths_are_not_damage(tmp_path: Path) -> None:
    wav = write(tmp_path / "a.wav", tone(16000, 3.0), 16000, "WAV", "PCM_16")
    content = bytearray(wav.read_bytes())
    size = content.index(b"data") + 4
    for unknown in (0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000):
        content[size : size + 4] = unknown.to_bytes(4, "little")
        wav.write_bytes(content)
        assert audio.probe(wav).seconds is None, hex(unknown)
        samples, _, truncated = decode(wav)
        assert len(samples) == 48000 and truncated is None, hex(unknown)
    flac = write(tmp_path / "a.flac", tone(16000, 3.0), 16000, "FLAC", "PCM_16")
    content = bytearray(flac.read_bytes())
    content[21] &= 0xF0  # the number of samples: the 36 bits up to byte 26
    content[22:26] = bytes(4)
    flac.write_bytes(content)
    assert audio.probe(flac).seconds is None
    samples, _, truncated = decode(flac)
    assert len(samples) == 48000 and truncated is None


def test_a_wav_beyond_4_gib_is_read_to_its_end(tmp_path: Path) -> None:
    seconds, rate = 5.0, 48000
    path = write(tmp_path / "a.wav", np.tile(tone(rate, seconds)[:, None], 8), rate, "WAV", "DOUBLE")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size + (1 << 32))  # the header's 32 bits still count only the first seconds
    assert audio.probe(path).seconds is None
    with audio.open_recording(audio.source(path)) as recording:
        for _ in recording.blocks():
            if recording.seconds > seconds + 5:
                break
        samples = recording.read(0, seconds + 5)
        assert np.abs(samples[: 16000 * 5] - tone(16000, 5.0)).max() < 0.02
        assert len(samples) == 16000 * 10


def test_voice_messages_without_an_end_mark_are_whole(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.ogg", clicks(48000), 48000, "libopus")
    content = bytearray(path.read_bytes())
    last = content.rfind(b"OggS")
    assert content[last + 5] & 4
    content[last + 5] &= ~4
    content[last + 22 : last + 26] = ogg_checksum(content[last:])
    path.write_bytes(content)
    samples, rate, truncated = decode(path)
    assert truncated is None and len(samples) / rate == pytest.approx(10.0, abs=0.03)


def ogg_checksum(page: bytearray) -> bytes:
    """CRC-32 of polynomial 0x04c11db7, most significant bit first, over the page with a checksum of 0."""
    page = page.copy()
    page[22:26] = bytes(4)
    crc = 0
    for byte in page:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc.to_bytes(4, "little")


def wrong_files(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "missing.wav", "there is no such file"
    yield folder, "it is a folder"
    for name, content, message in (
        ("empty.wav", b"", "the file is empty"),
        ("text.wav", "Grüße aus Köln\n".encode() * 99, "it is a text file"),
        ("notes.mp3", b"1\n00:00:01,000 --> 00:00:02,000\nhello\n\n", "it is a text file"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\nhttp://localhost:1/x.ts\n#EXT-X-ENDLIST\n", "it is a playlist"),
        ("paper.wav", b"%PDF-1.7\n" + bytes(2000), "it is a PDF"),
        ("zeros.wav", bytes(50_000), "not a recording"),
        ("noise.flac", np.random.default_rng(0).bytes(50_000), "not a recording"),
        (
            "header.wav",
            b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\x3e\0\0\0\x7d\0\0\2\0\x10\0data\0\0\0\0",
            "no sound",
        ),
        ("header.flac", b"fLaC", "not a recording"),
    ):
        (folder / name).write_bytes(content)
        yield folder / name, message
    for suffix in ("png", "jpg", "gif", "bmp"):
        path = folder / f"picture.{suffix}"
        Image.new("RGB", (64, 64)).save(path)
        path.rename(path.with_suffix(f".{suffix}.wav"))
        yield path.with_suffix(f".{suffix}.wav"), "it is a picture"
    with av.open(str(folder / "silent.mp4"), "w") as container:
        add_video(container, 2.0)
    yield folder / "silent.mp4", "no sound track"


def test_wrong_files_are_refused_in_one_plain_line(tmp_path: Path) -> None:
    for path, message in wrong_files(tmp_path):
        with pytest.raises(InputError) as error:
            audio.probe(path)
        assert message in error.value.message, path
        assert path.name not in str(error.value) and "\n" not in str(error.value)
        assert error.value.advice


def test_a_list_of_other_files_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "secret.wav", tone(16000, 1.0), 16000, "WAV", "PCM_16")
    path = tmp_path / "talk.wav"
    path.write_text("ffconcat version 1.0\nfile secret.wav\n")
    with pytest.raises(InputError, match="it is a text file"):
        audio.probe(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        audio.probe(tmp_path / "pipe")


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16000, 1.0), 16000, "WAV", "PCM_16")
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # nobody: to root, every file is open
        with pytest.raises(InputError, match="you may not read it"):
            audio.probe(path)
    finally:
        os.seteuid(user)
