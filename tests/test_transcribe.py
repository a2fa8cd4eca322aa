"""`phi4mm transcribe` with the demo checkpoint, through the program: words, times and files."""

from __future__ import annotations

import io
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pysubs2
import pytest
import soundfile
import webvtt
from at_work import PATIENCE
from conftest import Phi4mm
from jsonschema import Draft202012Validator
from recordings import in_tracks, tone

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.commands.schema import json_schema

DEMO = ("--model", "demo")
MEETING = SAMPLES / "meeting.flac"
REFERENCE = json.loads((SAMPLES / "meeting.reference.json").read_text(encoding="utf-8"))


def plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())


@pytest.fixture(scope="module")
def transcribed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample in every format, from one run."""
    folder = tmp_path_factory.mktemp("sample")
    subprocess.run(
        [sys.executable, "-m", "phi4mm_cli", "transcribe", str(MEETING), *DEMO, "-f", "txt,json,srt,vtt,tsv"],
        cwd=folder,
        check=True,
        timeout=PATIENCE,
    )
    return folder


def test_words_of_the_sample(transcribed: Path) -> None:
    text = (transcribed / "meeting.txt").read_text(encoding="utf-8")
    assert jiwer.wer(plain(REFERENCE["text"]), plain(text)) <= 0.03


def test_times_of_the_sample(transcribed: Path) -> None:
    segments = json.loads((transcribed / "meeting.json").read_text(encoding="utf-8"))["segments"]
    starts = [sentence["start"] for sentence in REFERENCE["sentences"]]
    errors = [min(abs(segment["start"] - start) for start in starts) for segment in segments]
    assert len(segments) >= 0.8 * len(starts)
    assert statistics.median(errors) <= 0.12
    assert np.quantile(errors, 0.95) <= 0.4
    assert "words" not in segments[0]


def test_times_of_the_words_of_the_sample(phi4mm: Phi4mm, tmp_path: Path, transcribed: Path) -> None:
    run = phi4mm("transcribe", MEETING, "--json", "--vtt", "--word-timestamps", *DEMO)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "meeting.json").read_text(encoding="utf-8"))
    Draft202012Validator(json_schema()).validate(result)
    words = [word for segment in result["segments"] for word in segment["words"]]
    assert " ".join(word["word"] for word in words) == result["text"]
    for segment in result["segments"]:
        assert (segment["start"], segment["end"]) == (segment["words"][0]["start"], segment["words"][-1]["end"])
    times = [time for word in words for time in (word["start"], word["end"])]
    assert times == sorted(times)
    known: dict[str, list[float]] = {}
    for word in (word for sentence in REFERENCE["sentences"] for word in sentence["words"]):
        known.setdefault(word["word"], []).append(word["start"])
    errors = [min(abs(word["start"] - at) for at in known[word["word"]]) for word in words if word["word"] in known]
    assert len(errors) >= 0.9 * len(words)
    assert statistics.median(errors) <= 0.06
    assert np.quantile(errors, 0.95) <= 0.25
    cues = (tmp_path / "meeting.vtt").read_text(encoding="utf-8")
    assert cues.count("<00:") >= len(words) - len(result["segments"]) - 5  # a cue begins with its first word
    assert re.sub(r"<00:[\d:.]+>", "", cues) == (transcribed / "meeting.vtt").read_text(encoding="utf-8")


def test_captions_of_the_sample(transcribed: Path) -> None:
    duration = soundfile.info(MEETING).duration
    srt = pysubs2.load(str(transcribed / "meeting.srt"))
    vtt = webvtt.read(str(transcribed / "meeting.vtt")).captions
    assert [event.plaintext for event in srt] == [caption.text for caption in vtt]
    at = 0
    for event in srt:
        assert at <= event.start < event.end
        at = event.end
        assert 1 <= len(event.plaintext.split("\n")) <= 2
        assert all(len(line) <= 42 for line in event.plaintext.split("\n"))
    assert at <= duration * 1000
    text = (transcribed / "meeting.txt").read_text(encoding="utf-8")
    assert " ".join(event.plaintext.replace("\n", " ") for event in srt) == " ".join(text.split())


def test_json_of_the_sample(transcribed: Path) -> None:
    result = json.loads((transcribed / "meeting.json").read_text(encoding="utf-8"))
    Draft202012Validator(json_schema()).validate(result)
    assert result["model"] == {
        "id": "demo",
        "engine": "local",
        "device": "cpu",
        "dtype": "float32",
        "attention": "sdpa",
    }
    assert result["source"] == str(MEETING)
    assert result["language"] == "en"  # judged by its words
    assert result["duration"] == pytest.approx(soundfile.info(MEETING).duration, abs=0.001)
    assert 0.5 < result["coverage"]["speech"] / result["coverage"]["read"] < 1
    assert result["warnings"] == []


def test_ten_copies_are_alike_and_like_one_alone(phi4mm: Phi4mm, tmp_path: Path, transcribed: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(10):
        (tmp_path / "in" / f"copy{i}.flac").write_bytes(MEETING.read_bytes())
    run = phi4mm("transcribe", "in", "-o", "out", "--srt", "--vtt", "--txt", *DEMO)
    assert run.returncode == 0, run.stderr
    for name in ("srt", "vtt", "txt"):
        alone = (transcribed / f"meeting.{name}").read_bytes()
        assert [(tmp_path / "out" / f"copy{i}.{name}").read_bytes() for i in range(10)] == [alone] * 10
    assert run.stderr.count("demo checkpoint") == 1


def test_a_bad_file_does_not_stop_the_others(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "bad.mp3").write_text("not music", encoding="utf-8")
    run = phi4mm("transcribe", "bad.mp3", MEETING, "--txt", *DEMO)
    assert run.returncode == 3
    assert "bad.mp3" in run.stderr
    assert plain((tmp_path / "meeting.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_file_cut_in_half(phi4mm: Phi4mm, tmp_path: Path, suffix: str, transcribed: Path) -> None:
    samples, rate = soundfile.read(MEETING)
    whole = io.BytesIO()
    soundfile.write(whole, samples, rate, format=suffix.upper())
    (tmp_path / f"cut.{suffix}").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    run = phi4mm("transcribe", f"cut.{suffix}", "--jsonl", "--strict", *DEMO)
    assert run.returncode == 7
    result = json.loads(run.stdout)
    assert [warning["code"] for warning in result["warnings"]] == ["truncated_input"]
    assert result["coverage"]["read"] < 0.7 * result["coverage"]["total"]
    whole_text = plain((transcribed / "meeting.txt").read_text(encoding="utf-8")).split()
    half = plain(result["text"]).split()
    assert len(whole_text) * 0.3 < len(half) < len(whole_text) * 0.7
    assert jiwer.wer(" ".join(whole_text[: len(half) - 3]), " ".join(half[:-3])) < 0.1
    assert "warning" in run.stderr
    assert phi4mm("transcribe", f"cut.{suffix}", *DEMO).returncode == 0


def test_silence_is_an_empty_transcript_and_loads_no_model(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).normal(0, 1e-4, 16000 * 20)
    soundfile.write(tmp_path / "silence.wav", noise, 16000)
    probe = (
        "import sys\nfrom phi4mm_cli.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print('transformers' in sys.modules, file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", probe, "transcribe", "silence.wav", "--jsonl", *DEMO],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    result = json.loads(run.stdout)
    assert (result["text"], result["segments"], result["coverage"]["speech"]) == ("", [], 0.0)
    assert "phi4mm: silence.wav: there is no speech in it (--no-vad has all of it heard)" in run.stderr.splitlines()
    assert run.stderr.splitlines()[-1] == "False"


def test_without_vad_everything_is_heard(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", MEETING, "--no-vad", "--jsonl", *DEMO)
    result = json.loads(run.stdout)
    assert jiwer.wer(plain(REFERENCE["text"]), plain(result["text"])) < 0.5
    assert "speech" not in result["coverage"]


def test_telephone_speech(phi4mm: Phi4mm, tmp_path: Path, transcribed: Path) -> None:
    import soxr

    samples, rate = soundfile.read(MEETING)
    soundfile.write(tmp_path / "phone.wav", soxr.resample(samples, rate, 8000), 8000, subtype="ULAW")
    result = json.loads(phi4mm("transcribe", "phone.wav", "--jsonl", *DEMO).stdout)
    # The demo has never heard 8 kHz, so its words are not judged; its times and length are.
    whole = json.loads((transcribed / "meeting.json").read_text(encoding="utf-8"))
    assert result["duration"] == pytest.approx(whole["duration"], abs=0.01)
    assert result["coverage"]["speech"] == pytest.approx(whole["coverage"]["speech"], rel=0.1)
    assert result["segments"]


def test_a_language_that_the_checkpoint_lacks(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", MEETING, "-l", "German", *DEMO)
    assert run.returncode == 2
    assert "German is no language of this checkpoint" in run.stderr
    assert run.stdout == ""


def test_of_several_sound_tracks_one_is_heard(phi4mm: Phi4mm, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "game.flac", tone(16000, 4.0), 16000)
    in_tracks(tmp_path / "two.mkv", tmp_path / "game.flac", SAMPLES / "meeting.flac")
    run = phi4mm("transcribe", "two.mkv", "--range", "-1,2-3", "--jsonl", "--strict", "--engine", "echo", "--no-vad")
    [warning] = json.loads(run.stdout)["warnings"]
    assert (warning["code"], warning["action"]) == ("one_track", "track 1 alone was heard")
    assert run.stderr == "phi4mm: warning: two.mkv: it has 2 sound tracks; track 1 alone was heard\n"
    assert run.returncode == 0
    Draft202012Validator(json_schema()).validate(json.loads(run.stdout))


def test_nothing_is_left_at_home(phi4mm: Phi4mm, tmp_path: Path) -> None:
    """onnxruntime would keep an identity of the machine there, and events to be sent."""
    (tmp_path / "home").mkdir()
    run = phi4mm("transcribe", SAMPLES / "meeting.flac", "--engine", "echo", env={"HOME": str(tmp_path / "home")})
    assert run.returncode == 0, run.stderr
    assert [*(tmp_path / "home").rglob("*")] == []
