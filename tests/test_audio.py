"""Recordings come out at their own pitch, level and length, and everything happens at the time it happened."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from at_work import PATIENCE
from recordings import CLICKS, clicks, decode, encode, onsets, tone, write

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio
from phi4mm_cli.media.spool import check_room
from phi4mm_cli.schema import Clip

UNCOMPRESSED = [
    ("WAV", "PCM_U8", 2e-2),
    ("WAV", "PCM_16", 1e-4),
    ("WAV", "PCM_24", 1e-4),
    ("WAV", "PCM_32", 1e-4),
    ("WAV", "FLOAT", 1e-4),
    ("WAV", "DOUBLE", 1e-4),
    ("WAV", "ULAW", 2e-2),
    ("WAV", "ALAW", 2e-2),
    ("WAV", "IMA_ADPCM", 5e-2),
    ("WAV", "MS_ADPCM", 5e-2),
    ("WAV", "GSM610", 2e-1),
    ("WAVEX", "PCM_24", 1e-4),
    ("RF64", "PCM_16", 1e-4),
    ("W64", "PCM_16", 1e-4),
    ("AIFF", "PCM_24", 1e-4),
    ("AU", "ULAW", 2e-2),
    ("CAF", "ALAC_16", 1e-4),
    ("FLAC", "PCM_16", 1e-4),
    ("FLAC", "PCM_24", 1e-4),
    ("FLAC", "PCM_S8", 2e-2),
]


@pytest.mark.parametrize(("form", "subtype", "tolerance"), UNCOMPRESSED)
def test_levels_and_lengths_are_kept(tmp_path: Path, form: str, subtype: str, tolerance: float) -> None:
    written = tone(16000, 3.217)
    path = write(tmp_path / "talk.bin", written, 16000, form, subtype)  # judged by its content, not by its name
    info = audio.probe(path)
    assert (info.rate, info.channels) == (16000, 1)
    samples, rate, truncated = decode(path)
    assert rate == 16000 and truncated is None
    learns = "ADPCM" in subtype or subtype == "GSM610"
    if learns:
        assert 0 <= len(samples) - len(written) < 2048  # their last block is filled up
    else:
        assert len(samples) == len(written)
        assert info.seconds == pytest.approx(3.217, abs=1e-6)
    settled = slice(1600 if learns else 0, len(written))  # these coders have to learn the level first
    assert np.abs(samples[settled] - written[settled]).max() < tolerance


def test_16_bit_samples_are_given_exactly(tmp_path: Path) -> None:
    pcm = np.random.default_rng(0).integers(-32768, 32768, 50_000, dtype=np.int16)
    for form in ("WAV", "FLAC", "AIFF"):
        path = tmp_path / form
        soundfile.write(path, pcm, 16000, subtype="PCM_16", format=form)
        samples, _, _ = decode(path)
        assert samples.dtype == np.float32
        assert np.array_equal(samples * 32768, pcm)


@pytest.mark.parametrize("rate", [4000, 6000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000])
def test_pitch_and_level_survive_resampling(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "tone.flac", tone(rate, 5.0, 997.0), rate, "FLAC", "PCM_16")
    samples, useful, _ = decode(path)
    assert useful == (8000 if rate <= 8000 else 16000)
    assert abs(len(samples) - 5 * useful) <= 1
    spectrum = np.abs(np.fft.rfft(samples[: 5 * useful] * np.hanning(min(len(samples), 5 * useful))))
    assert np.argmax(spectrum) / 5 == pytest.approx(997.0, abs=0.3)
    assert np.sqrt(2 * np.mean(samples**2)) == pytest.approx(0.5, rel=0.01)


def test_what_the_useful_rate_cannot_carry_is_filtered_out(tmp_path: Path) -> None:
    path = write(tmp_path / "hiss.wav", tone(48000, 2.0, 15000.0), 48000, "WAV", "PCM_16")
    samples, _, _ = decode(path)
    assert np.abs(samples[1000:-1000]).max() < 1e-3


def test_channels_are_averaged_or_picked(tmp_path: Path) -> None:
    rate = 16000
    tracks = np.stack([tone(rate, 2.0, 200.0 * (n + 1), 0.1 * (n + 1)) for n in range(6)], axis=1)
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16")):
        path = write(tmp_path / form, tracks, rate, form, subtype)
        assert audio.probe(path).channels == 6
        assert np.abs(decode(path)[0] - tracks.mean(axis=1)).max() < 1e-4
        for number in (1, 6):
            assert np.abs(decode(path, number)[0] - tracks[:, number - 1]).max() < 1e-4
        stereo = write(tmp_path / f"2{form}", tracks[:, :2], rate, form, subtype)
        assert np.abs(decode(stereo)[0] - tracks[:, :2].mean(axis=1)).max() < 1e-4
        for number in (0, -1, 7):
            with pytest.raises(InputError, match=f"no channel {number}"):
                audio.open_recording(audio.source(path), number)


def test_a_channel_that_is_reversed_or_broken_silences_no_other(tmp_path: Path) -> None:
    own = tone(16000, 2.0)
    for other in (-own, np.full_like(own, np.nan)):
        path = write(tmp_path / "two.wav", np.stack([own, other], axis=1), 16000, "WAV", "FLOAT")
        assert np.abs(decode(path)[0]).max() >= 0.5 * np.abs(own).max()


def test_values_that_are_no_samples_do_no_harm(tmp_path: Path) -> None:
    written = tone(44100, 2.0)
    written[1000], written[2000], written[3000] = np.nan, np.inf, -7.0
    samples, _, _ = decode(write(tmp_path / "odd.wav", written, 44100, "WAV", "FLOAT"))
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 1.0
    assert np.sqrt(2 * np.mean(samples[16000:] ** 2)) == pytest.approx(0.5, rel=0.01)


# name, codec, rate, container, options, how far its end may be off in seconds
COMPRESSED = [
    ("a.m4a", "aac", 44100, None, {}, 0.03),
    ("a48.m4a", "aac", 48000, None, {"movflags": "faststart"}, 0.03),
    ("alac.m4a", "alac", 44100, None, {}, 0.001),
    ("a.mp3", "libmp3lame", 44100, None, {}, 0.001),
    ("a16.mp3", "libmp3lame", 16000, None, {}, 0.001),
    ("a.opus", "libopus", 48000, "ogg", {}, 0.001),
    ("a.webm", "libopus", 48000, None, {}, 0.001),
    ("a.mka", "flac", 44100, None, {}, 0.001),
    ("a.mkv", "aac", 48000, None, {}, 0.03),
    ("a.3gp", "aac", 16000, None, {}, 0.07),
    ("a.mov", "pcm_s16le", 48000, None, {}, 0.001),
    ("a24.mkv", "pcm_s24le", 48000, None, {}, 0.001),
    ("a8.mkv", "pcm_u8", 44100, None, {}, 0.001),
    ("a64.mkv", "pcm_f64le", 44100, None, {}, 0.001),
    ("opus.mp4", "libopus", 48000, None, {}, 0.02),
    ("a.wv", "wavpack", 44100, None, {}, 0.001),
]


@pytest.mark.parametrize(("name", "codec", "rate", "form", "options", "end"), COMPRESSED)
def test_times_are_right_in_what_phones_and_meetings_make(
    tmp_path: Path, name: str, codec: str, rate: int, form: str | None, options: dict[str, str], end: float
) -> None:
    path = encode(tmp_path / name, clicks(rate), rate, codec, form=form, options=options)
    samples, useful, truncated = decode(path)
    assert useful == 16000 and truncated is None
    assert onsets(samples, useful) == pytest.approx(CLICKS, abs=0.003)
    assert len(samples) / useful == pytest.approx(10.0, abs=end)
    assert audio.probe(path).seconds == pytest.approx(10.0, abs=0.05)


def test_vorbis_and_telephone_codecs(tmp_path: Path) -> None:
    vorbis = write(tmp_path / "a.ogg", clicks(44100), 44100, "OGG", "VORBIS")
    assert onsets(*decode(vorbis)[:2]) == pytest.approx(CLICKS, abs=0.003)
    amr = encode(tmp_path / "a.amr", tone(8000, 5.0), 8000, "libopencore_amrnb")
    samples, rate, _ = decode(amr)
    assert rate == 8000 and len(samples) == pytest.approx(5 * rate, abs=400)
    assert np.argmax(np.abs(np.fft.rfft(samples[: 4 * rate]))) / 4 == pytest.approx(440, abs=2)


def test_streams_of_bare_frames(tmp_path: Path) -> None:
    # They carry no record of their coder's delay, which stays in as in every player; most do not know their length.
    for name, codec, form, options, delay in (
        ("a.aac", "aac", "adts", {}, 0.024),
        ("a.mp3", "libmp3lame", None, {"write_xing": "0"}, 0.026),
        ("a.wma", "wmav2", "asf", {}, 0.046),
    ):
        path = encode(tmp_path / name, clicks(44100), 44100, codec, form=form, options=options)
        assert audio.probe(path).seconds == (None if form != "asf" else pytest.approx(10.0, abs=0.1))
        samples, rate, truncated = decode(path)
        assert truncated is None
        assert onsets(samples, rate) == pytest.approx(np.add(CLICKS, delay), abs=0.004)


def test_bare_frames_whose_rate_rises_on_the_way(tmp_path: Path) -> None:
    """Their times are counted at the first rate, and say nothing of gaps."""
    first = encode(tmp_path / "a.aac", clicks(16000), 16000, "aac", form="adts")
    then = encode(tmp_path / "b.aac", clicks(44100), 44100, "aac", form="adts")
    (tmp_path / "ab.aac").write_bytes(first.read_bytes() + then.read_bytes())
    samples, rate, _ = decode(tmp_path / "ab.aac")
    assert len(samples) / rate == pytest.approx(20.0, abs=0.2)
    assert onsets(samples, rate) == pytest.approx([*CLICKS, *np.add(CLICKS, 10.0)], abs=0.2)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.ts", "aac"), ("a.webm", "libopus")]
)
def test_sound_that_starts_late_keeps_the_times_of_its_video(tmp_path: Path, name: str, codec: str) -> None:
    form = "mpegts" if name.endswith("ts") else None
    path = encode(tmp_path / name, clicks(48000), 48000, codec, form=form, video=True, start=2.0)
    samples, rate, truncated = decode(path)
    assert truncated is None
    assert onsets(samples, rate) == pytest.approx(np.add(CLICKS, 2.0), abs=0.003)
    assert np.abs(samples[: round(1.9 * rate)]).max() == 0


def test_a_gap_in_the_times_is_filled_with_silence(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mkv", clicks(48000), 48000, "libopus", gap=(2.0, 3.5))
    samples, rate, truncated = decode(path)
    assert truncated is None
    assert onsets(samples, rate) == pytest.approx([0.5, 1.5, 6.75, 12.5], abs=0.003)
    assert np.abs(samples[round(2.2 * rate) : round(5.4 * rate)]).max() < 1e-3
    assert len(samples) / rate == pytest.approx(13.5, abs=0.02)


def test_a_tag_in_any_encoding_is_no_obstacle(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp3", clicks(16000), 16000, "libmp3lame", tags={"title": "QQQQ"})
    content = path.read_bytes()
    assert b"QQQQ" in content
    path.write_bytes(content.replace(b"QQQQ", b"\xe9\xff\xfe\x80"))
    assert onsets(*decode(path)[:2]) == pytest.approx(CLICKS, abs=0.003)


def test_a_file_name_of_any_bytes_is_no_obstacle(tmp_path: Path) -> None:
    for form in ("WAV", "FLAC"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n.") + form)
        try:
            path.write_bytes(write(tmp_path / "plain", tone(16000, 1.0), 16000, form, "PCM_16").read_bytes())
        except OSError:
            pytest.skip("this file system allows only UTF-8 names")
        assert len(decode(path)[0]) == 16000
        path.write_bytes(b"no sound")
        with pytest.raises(InputError) as error:
            audio.probe(path)
        assert error.value.message.isprintable()


def test_reading_while_another_thread_decodes(tmp_path: Path) -> None:
    path = write(tmp_path / "long.wav", tone(44100, 120.0), 44100, "WAV", "PCM_16")
    expected, rate, _ = decode(path)
    with audio.open_recording(audio.source(path)) as recording:
        worker = threading.Thread(target=lambda: [None for _ in recording.blocks()])
        worker.start()
        reads = 0
        while worker.is_alive() or not reads:
            end = recording.seconds
            assert np.array_equal(recording.read(end / 2, end), expected[round(end / 2 * rate) : round(end * rate)])
            reads += 1
        worker.join()
        assert recording.seconds == len(expected) / rate
        with pytest.raises(ValueError, match="only once"):
            next(recording.blocks())


@pytest.mark.parametrize("form", ["WAV", "FLAC", "MP3", "OGG"])
def test_clips_are_the_same_from_the_spool_and_from_the_file(tmp_path: Path, form: str) -> None:
    subtype = {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS"}.get(form, "PCM_16")
    stereo = np.stack([clicks(44100), tone(44100, 10.0)], axis=1)
    source = audio.source(write(tmp_path / "a", stereo, 44100, form, subtype))
    for channel in (None, 2):
        clips = [Clip(source, *span, channel) for span in ((0.0, 1.0), (7.0, 8.5), (2.0, 3.0), (9.5, 99.0))]
        alone = [audio.read(clip)[0] for clip in clips]
        with audio.open_recording(source, channel) as recording:
            half = audio.read(clips[1])[0]  # not decoded yet
            list(recording.blocks())
            held = [audio.read(clip) for clip in clips]
        after = [audio.read(clip)[0] for clip in clips]
        assert all(rate == 16000 for _, rate in held)
        assert [len(samples) for samples, _ in held] == [16000, 24000, 16000, 8000]
        assert np.array_equal(half, held[1][0])
        for (samples, _), before, later in zip(held, alone, after, strict=True):
            assert np.array_equal(samples, before) and np.array_equal(samples, later)


def test_a_full_disk_is_told_again_to_whoever_asks_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16000, 60.0), 16000, "WAV", "PCM_16")
    program = f"""
import resource
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio
from phi4mm_cli.schema import Clip
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
clip = Clip(audio.source({str(path)!r}), 50.0, 60.0)
for _ in range(2):
    try:
        audio.read(clip)
    except InputError as error:
        print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.count("could not be kept") == 2


def test_closing_waits_for_the_thread_that_decodes(tmp_path: Path) -> None:
    path = write(tmp_path / "long.flac", tone(44100, 60.0), 44100, "FLAC", "PCM_16")
    for wait in (0.0, 0.001, 0.01, 0.05):
        recording = audio.open_recording(audio.source(path))
        worker = threading.Thread(target=lambda held=recording: [None for _ in held.blocks()])
        worker.start()
        worker.join(wait)
        recording.close()
        recording.close()
        worker.join(PATIENCE)
        assert not worker.is_alive()
        assert recording.seconds <= 60.0


def test_a_rate_that_changes_on_the_way(tmp_path: Path) -> None:
    stretches = [(tone(rate, 2.0, 440.0), rate) for rate in (44100, 16000, 22050, 22050, 8000)]
    samples = np.concatenate(list(audio.resampled(audio.gathered(iter(stretches)), 16000)))
    assert abs(len(samples) - 10 * 16000) <= 2
    for second in range(10):
        spectrum = np.abs(np.fft.rfft(samples[second * 16000 : (second + 1) * 16000]))
        assert np.argmax(spectrum) == pytest.approx(440, abs=1)
        assert spectrum.max() / 8000 == pytest.approx(0.5, rel=0.05)


def test_many_recordings_read_by_turns(tmp_path: Path) -> None:
    sources = [
        audio.source(write(tmp_path / f"{n}.wav", tone(8000, 3.0, 300.0 + 100 * n), 8000, "WAV", "ULAW"))
        for n in range(audio.KEPT_OPEN + 4)
    ]
    for start in (0.0, 1.0, 2.0):
        for number, source in enumerate(sources):
            samples, rate = audio.read(Clip(source, start, start + 1.0))
            assert rate == 8000
            assert np.argmax(np.abs(np.fft.rfft(samples))) == 300 + 100 * number


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16000, 1.0), 16000, "WAV", "PCM_16")
    before = audio.source(path)
    assert audio.source(str(path)) == before and before.size == path.stat().st_size
    write(path, tone(16000, 1.0, 441.0), 16000, "WAV", "PCM_16")
    assert audio.source(path).fingerprint != before.fingerprint
    for use in (lambda: audio.open_recording(before), lambda: audio.read(Clip(before, 0.0, 1.0))):
        with pytest.raises(InputError, match="changed"):
            use()


def test_disk_space_is_checked_before_and_while_decoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs 3 GB in /spool, where 1 GB are free") as error:
        check_room("/spool", 3 * 10**9, 10**9)
    assert "TMPDIR" in error.value.advice
    path = write(tmp_path / "a.wav", tone(16000, 60.0), 16000, "WAV", "PCM_16")
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "from phi4mm_cli.media import audio; from phi4mm_cli.errors import InputError\n"
        f"recording = audio.open_recording(audio.source({str(path)!r}))\n"
        "try: list(recording.blocks())\n"
        "except InputError as error: print(recording.seconds, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    seconds, message = done.stdout.split(" ", 1)
    assert float(seconds) > 10 and "could not be kept" in message and "TMPDIR" in message


def test_the_spool_follows_tmpdir_and_leaves_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(16000, 30.0), 16000, "WAV", "PCM_16")
    folder = tmp_path / "spool"
    folder.mkdir()
    program = (
        "import os, signal; from phi4mm_cli.media import audio\n"
        f"recording = audio.open_recording(audio.source({str(path)!r})); list(recording.blocks())\n"
        f"there = [os.readlink(f'/proc/self/fd/{{n}}') for n in os.listdir('/proc/self/fd') if n > '2' "
        f"and os.path.islink(f'/proc/self/fd/{{n}}')] if os.path.isdir('/proc/self/fd') else [{str(folder)!r}]\n"
        f"assert any(name.startswith({str(folder)!r}) for name in there), there\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"TMPDIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert list(folder.iterdir()) == []


MEMORY = """
import resource, sys
from phi4mm_cli.media import audio, container
unit = 1 if sys.platform == "darwin" else 1024
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with audio.open_recording(audio.source(sys.argv[1])) as recording:
    for block in recording.blocks():
        assert block.size <= 30 * recording.rate
    print(recording.seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 1e6)
"""


def decoded_in_memory(path: Path) -> tuple[float, float]:
    """Seconds decoded, and the MB that it took above what the imports take."""
    # Through a shell: a process inherits the peak of the one that it was forked from, and that is the tests' own here.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def long_recording(path: Path, hours: int, rate: int, form: str, subtype: str) -> Path:
    minute = 0.01 * np.random.default_rng(0).standard_normal(60 * rate).astype(np.float32)
    with soundfile.SoundFile(path, "w", rate, 1, subtype, format=form) as file:
        for _ in range(60 * hours):
            file.write(minute)
    return path


def test_an_hour_takes_little_memory(tmp_path: Path) -> None:
    seconds, megabytes = decoded_in_memory(long_recording(tmp_path / "a.wav", 1, 8000, "WAV", "ULAW"))
    assert seconds == 3600 and megabytes < 50


@pytest.mark.slow
def test_a_day_takes_little_memory(tmp_path: Path) -> None:
    for form in ("FLAC", "WAV"):
        seconds, megabytes = decoded_in_memory(long_recording(tmp_path / "a", 24, 16000, form, "PCM_16"))
        assert seconds == 86400 and megabytes < 150
