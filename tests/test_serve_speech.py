"""Transcriptions of `phi4mm serve`: the same as the program's, in each format."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest
import soundfile
from conftest import Phi4mm
from serving import Server, call, client

from phi4mm_cli.commands.sample import SAMPLES

MEETING = SAMPLES / "meeting.flac"


def _transcribed(server: Server, **settings: Any) -> Any:
    return client(server).audio.transcriptions.create(**{"model": "phi4mm", "file": MEETING} | settings)


def test_each_format_is_what_the_program_writes(demo_server: Server, phi4mm: Phi4mm, tmp_path: Path) -> None:
    samples, rate = soundfile.read(MEETING, dtype="int16", frames=20 * 16000)
    soundfile.write(tmp_path / "meeting.wav", samples, rate)
    transcribed = partial(_transcribed, demo_server, file=tmp_path / "meeting.wav")
    run = phi4mm("transcribe", "meeting.wav", "--model", "demo", "-f", "srt,vtt,json")
    assert run.returncode == 0, run.stderr
    local = json.loads((tmp_path / "meeting.json").read_text(encoding="utf-8"))
    assert len(local["text"]) > 100

    for format in ("srt", "vtt"):
        written = (tmp_path / f"meeting.{format}").read_text(encoding="utf-8")
        assert transcribed(response_format=format) == written
    assert transcribed(response_format="text") == local["text"] + "\n"
    assert transcribed().text == local["text"]
    verbose = transcribed(response_format="verbose_json", timestamp_granularities=["segment", "word"]).model_dump()
    segments = [{name: segment[name] for name in ("id", "start", "end", "text")} for segment in verbose["segments"]]
    assert segments == local["segments"]
    for name in ("text", "language", "duration", "coverage", "warnings"):
        assert verbose[name] == local.get(name, []), name
    assert [word["word"] for word in verbose["words"]] == local["text"].split()


def test_translations_have_a_form_of_their_own(echo_server: Server) -> None:
    verbose = (
        client(echo_server)
        .audio.translations.create(model="phi4mm", file=MEETING, response_format="verbose_json")
        .model_dump()
    )
    assert (verbose["task"], verbose["language"]) == ("translate", "en")
    assert "Translate the audio to English." in verbose["text"]


def test_what_is_told_beside_the_recording_reaches_the_model(echo_server: Server) -> None:
    text = _transcribed(
        echo_server, language="de", prompt="A quarrel.", extra_body={"hotwords": "Kowalski, Zoltan"}
    ).text
    assert "Transcribe the German audio clip into text. Names and terms: Kowalski, Zoltan. A quarrel." in text


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"file": b"no recording"}, "file"),
        ({"language": "klingon"}, "language"),
        ({"response_format": "docx"}, "response_format"),
        ({"temperature": 9}, "temperature"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities[]"),
        ({"extra_body": {"include": "logprobs"}}, "include"),
    ],
)
def test_refusals_say_what_is_wrong(echo_server: Server, settings: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        _transcribed(echo_server, **settings)
    assert caught.value.param == param


def test_a_form_without_a_recording(echo_server: Server) -> None:
    for body, headers in ((b"{}", {}), (b"nothing", {"Content-Type": "multipart/form-data; boundary=x"})):
        reply = call(echo_server, "POST", "/v1/audio/transcriptions", body, headers)
        assert reply.status == 400
        assert reply.json()["error"]["message"]
