"""What `phi4mm transcribe` asks of the model and of the recording: languages, names and terms, channels, pipes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from conftest import Phi4mm
from recordings import encode, tone

from phi4mm_cli import languages
from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.demo.world import prompts
from phi4mm_cli.flows import transcribe

ECHO = ("--engine", "echo", "--no-vad", "--jsonl")
CARD = "Transcribe the audio clip into text."


@pytest.fixture
def talk(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "talk.wav", tone(16000, 8.0), 16000)


def ask(phi4mm: Phi4mm, *arguments: str) -> dict[str, object]:
    run = phi4mm("transcribe", "talk.wav", *ECHO, *arguments)
    assert run.returncode == 0, run.stderr
    result: dict[str, object] = json.loads(run.stdout)
    return result


@pytest.mark.usefixtures("talk")
@pytest.mark.parametrize(
    ("arguments", "instruction"),
    [
        ((), CARD),
        (("-l", "auto"), CARD),
        (("-l", "ja"), "Transcribe the Japanese audio clip into text."),
        (("-l", "Portuguese"), "Transcribe the Portuguese audio clip into text."),
        (("--hotwords", "Kowalski, Zoltan ,"), CARD + " Names and terms: Kowalski, Zoltan."),
        (("--hotwords", "A b", "--hotwords", "C"), CARD + " Names and terms: A b, C."),
        (("--prompt", "A talk on bees. "), CARD + " A talk on bees."),
        (
            ("-l", "de", "--hotwords", "A", "--prompt", "Bees."),
            "Transcribe the German audio clip into text. Names and terms: A. Bees.",
        ),
    ],
)
def test_the_instruction(phi4mm: Phi4mm, arguments: tuple[str, ...], instruction: str) -> None:
    assert ask(phi4mm, *arguments)["text"] == "[0.000-8.000] " + instruction


@pytest.mark.usefixtures("talk")
def test_names_in_the_variable_keep_their_spaces(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "talk.wav", *ECHO, env={"PHI4MM_HOTWORDS": "New York, Zoltan Kowalski"})
    assert json.loads(run.stdout)["text"] == f"[0.000-8.000] {CARD} Names and terms: New York, Zoltan Kowalski."


@pytest.mark.usefixtures("talk")
def test_what_shaped_a_transcript_is_recorded(phi4mm: Phi4mm) -> None:
    options = ask(phi4mm, "-l", "fr", "--hotwords", "A,B", "--prompt", "Bees.", "--channel", "1")["options"]
    assert isinstance(options, dict)
    assert {
        "language": "fr",
        "hotwords": "A, B",
        "prompt": "Bees.",
        "channel": 1,
        "vad": False,
    }.items() <= options.items()
    plain = ask(phi4mm)["options"]
    assert isinstance(plain, dict)
    assert not {"hotwords", "prompt", "channel", "range"} & plain.keys()


def test_the_languages_by_code_and_name() -> None:
    expected = {"en", "zh", "de", "fr", "it", "ja", "es", "pt"}
    assert {languages.audio_code(name) for name in languages.AUDIO.values()} == expected
    assert {languages.audio_code(code.upper()) for code in languages.AUDIO} == expected


@pytest.mark.usefixtures("talk")
def test_another_language_is_refused_with_the_list(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "talk.wav", *ECHO, "-l", "ko")
    assert run.returncode == 2
    message = " ".join(run.stderr.split())
    assert all(f"{code} ({name})" in message for code, name in languages.AUDIO.items())


def test_the_demo_learns_the_sentences_that_the_command_says() -> None:
    assert (prompts.TRANSCRIBE, prompts.TERMS) == (transcribe.PROMPT, transcribe.TERMS)


def test_one_channel_is_heard_alone(phi4mm: Phi4mm, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLES / "meeting.flac", dtype="float32", frames=16000 * 8)
    soundfile.write(tmp_path / "two.wav", np.stack([samples, np.zeros_like(samples)], axis=1), rate)
    heard = [
        json.loads(phi4mm("transcribe", "two.wav", "--engine", "echo", "--jsonl", "--channel", channel).stdout)
        for channel in (1, 2)
    ]
    assert heard[0]["coverage"]["speech"] > 4
    assert heard[1]["coverage"]["speech"] == 0
    assert phi4mm("transcribe", "two.wav", *ECHO, "--channel", "3").returncode == 4
    assert phi4mm("transcribe", "two.wav", *ECHO, "--channel", "0").returncode == 2


def piped_wav() -> bytes:
    """A WAV as ffmpeg writes it to a pipe, where it cannot go back to fill in the lengths."""
    written = io.BytesIO()

    class Pipe:
        write = written.write

    with av.open(Pipe(), "w", format="wav") as container:  # type: ignore[call-overload]
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone(16000, 8.0) * 32767).astype(np.int16)[None], "s16", "mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return written.getvalue()


@pytest.mark.parametrize("form", ["wav", "m4a", "mkv", "mp4"])
def test_any_format_from_a_pipe(phi4mm: Phi4mm, tmp_path: Path, form: str) -> None:
    if form == "wav":
        content = piped_wav()
        assert content[4:8] == b"\xff\xff\xff\xff", "no length"
    else:
        content = encode(tmp_path / f"x.{form}", tone(16000, 8.0), 16000, "aac", video=form == "mp4").read_bytes()
    (tmp_path / "piped").write_bytes(content)
    with (tmp_path / "piped").open("rb") as pipe:
        run = phi4mm("transcribe", "-", *ECHO, stdin=pipe)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["source"] == "stdin"
    assert result["duration"] == pytest.approx(8.0, abs=0.1)
    assert result["warnings"] == []
