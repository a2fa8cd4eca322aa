"""`--range`: parts of recordings as people write them, decoded alone, at the times that they have in the whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Phi4mm
from recordings import encode, write
from scripted import MEETING, ScriptedEngine, hears, run_alone, words_in

from phi4mm_cli import hearing, media, ranges
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.hearing import Listening, Question
from phi4mm_cli.media import audio


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10:00-20:00", ((600.0, 1200.0),)),
        ("1:02:03.5-", ((3723.5, math.inf),)),
        ("-5:00", ((0.0, 300.0),)),
        ("90s-2m", ((90.0, 120.0),)),
        ("90-1h2m3.5s", ((90.0, 3723.5),)),
        ("0:10-0:20, 0:20-30s,1:00-", ((10.0, 30.0), (60.0, math.inf))),
    ],
)
def test_ranges(text: str, expected: tuple[ranges.Span, ...]) -> None:
    assert ranges.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "-", "10:00", "20:00-10:00", "5-5", "a-b", "1:2:3:4-", "0-30,20-40", "30-40,0-10"]
)
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(UsageError):
        ranges.parse(text)


RATE = 44100
AT = (3.0, 7.25, 12.4)  # seconds: where the sound of `landmarks` bursts


def landmarks() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """20 s of soft noise with a burst at each time of AT."""
    samples = 0.01 * np.random.default_rng(2).standard_normal(20 * RATE).astype(np.float32)
    for time in AT:
        start = round(time * RATE)
        samples[start : start + 441] += 0.8 * np.sin(np.arange(441) * 0.14).astype(np.float32)
    return samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranges")


FORMATS = ("wav", "adpcm.wav", "flac", "m4a", "mp3", "ogg", "opus.ogg", "mkv", "ts")


def recording(folder: Path, form: str) -> Path:
    path = folder / f"sound.{form}"
    match form:
        case "wav":
            return write(path, landmarks(), RATE, "WAV", "PCM_16")
        case "adpcm.wav":
            return write(path, landmarks(), RATE, "WAV", "IMA_ADPCM")
        case "ogg":
            return write(path, landmarks(), RATE, "OGG", "VORBIS")
        case "opus.ogg":
            return encode(path, landmarks(), 48000, "libopus")
    codec = {"flac": "flac", "m4a": "aac", "mp3": "libmp3lame", "mkv": "aac", "ts": "aac"}[form]
    return encode(path, landmarks(), RATE, codec)


@pytest.mark.parametrize("form", FORMATS)
def test_a_part_is_the_same_sound_at_the_same_time(folder: Path, form: str) -> None:
    source = audio.source(recording(folder, form))
    with audio.open_recording(source) as whole:
        for _ in whole.blocks():
            pass
        expected = whole.read(5.5, 13.0)
    with audio.open_recording(source, span=(5.5, 13.0)) as part:
        for _ in part.blocks():
            pass
        samples = part.read(5.5, 13.0)
        assert (part.start, part.end) == (5.5, pytest.approx(13.0, abs=1e-4))
        assert part.truncated is None
    assert samples.size == expected.size
    inner = slice(1600, -1600)  # a filter that starts here has not heard what was before
    assert np.corrcoef(samples[inner], expected[inner])[0, 1] > 0.999


@pytest.mark.parametrize("form", ["wav", "flac", "m4a", "ogg", "mkv"])
def test_what_is_before_a_part_is_not_decoded(folder: Path, form: str) -> None:
    with recording(folder, form).open("rb") as file:
        decoder = audio.open_decoder(file)
        assert 9.0 <= (decoder.seek(12.0) or 0.0) <= 12.0
        decoder.close()


def test_a_range_behind_the_end(folder: Path) -> None:
    source = audio.source(recording(folder, "wav"))
    with pytest.raises(InputError, match=r"it ends at 0:20\.0"):
        audio.open_recording(source, span=(20.0, 30.0))


@pytest.mark.parametrize("form", ["ogg", "opus.ogg", "ts"])
def test_a_part_of_recordings_that_were_put_one_behind_another(folder: Path, form: str) -> None:
    """Their headers tell of one alone."""
    path = folder / f"twice.{form}"
    path.write_bytes(recording(folder, form).read_bytes() * 2)
    source = audio.source(path)
    with audio.open_recording(source) as whole:
        for _ in whole.blocks():
            pass
        assert whole.seconds > 36  # of the Opus, which is a little shorter; of the others 40
        expected = {start: whole.read(start, start + 8) for start in (15.0, 25.0)}
    for start, samples in expected.items():
        with audio.open_recording(source, span=(start, start + 8)) as part:
            for _ in part.blocks():
                pass
            found = part.read(start, start + 8)
        assert found.size == samples.size
        assert np.corrcoef(found[1600:-1600], samples[1600:-1600])[0, 1] > 0.99


def test_how_far_parts_are() -> None:
    spans = ranges.parse("10-20,30-")
    assert [ranges.covered(spans, until) for until in (0.0, 15.0, 25.0, 33.0)] == [0.0, 5.0, 10.0, 13.0]


@pytest.mark.parametrize("copies", [1, 3])
def test_times_and_words_of_parts(tmp_path: Path, copies: int) -> None:
    spans = ((5.0, 20.0), (25.0, 30.0), (40.0, math.inf))[:copies]
    heard = run_alone(
        lambda: hearing.hear(media.source(MEETING), Question("Transcribe."), Listening(spans=spans)),
        ScriptedEngine(hears),
    )
    assert " ".join(answer.text for answer in heard.answers) == " ".join(words_in(*span) for span in spans)
    for answer in heard.answers:
        assert any(start <= answer.chunk.start and answer.chunk.end <= end for start, end in spans)
        assert all(
            answer.chunk.start <= region.start < region.end <= answer.chunk.end for region in answer.chunk.speech
        )
    length = soundfile.info(MEETING).duration
    assert heard.duration == pytest.approx(length, abs=0.01)
    assert heard.coverage.read == pytest.approx(sum(min(end, length) - start for start, end in spans), abs=0.01)
    assert heard.coverage.total == pytest.approx(heard.coverage.read, abs=0.01)


def test_through_the_program(phi4mm: Phi4mm, tmp_path: Path) -> None:
    shape = ("--engine", "echo", "--no-vad", "--jsonl")
    result = json.loads(phi4mm("transcribe", MEETING, "--range", "0:10-15s", *shape).stdout)
    assert result["text"].startswith("[10.000-15.000]")
    assert (result["segments"][0]["start"], result["segments"][-1]["end"]) == (10.0, 15.0)
    assert result["options"]["range"] == "0:10-15s"
    assert result["coverage"] == {"unit": "seconds", "total": 5.0, "read": 5.0}
    assert phi4mm("transcribe", MEETING, "--range", "20-10", *shape).returncode == 2
    samples, _ = soundfile.read(MEETING, stop=16000 * 7)
    soundfile.write(tmp_path / "part.wav", samples, 16000)  # which no resampler looks ahead in
    for part in ("-6", "4-6", "5-5.01", "2-4,4-6"):
        run = phi4mm("transcribe", "part.wav", "--range", part, "--strict", *shape)
        assert (run.returncode, run.stderr) == (0, "")
    behind = phi4mm("transcribe", MEETING, "--range", "9:00-", *shape)
    assert behind.returncode == 4
    assert "before the range begins" in behind.stderr
