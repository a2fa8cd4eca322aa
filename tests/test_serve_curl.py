"""`phi4mm serve` as curl sees it, where there is one: what the official client gets."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import pytest
from serving import Server, client

from phi4mm_cli.commands.sample import SAMPLES

MEETING = SAMPLES / "meeting.flac"
JSON = ("-H", "Content-Type: application/json")
ASKED: dict[str, Any] = {"model": "phi4mm", "messages": [{"role": "user", "content": "Where is the letter?"}]}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def curl(server: Server, path: str, *arguments: str) -> tuple[int, str]:
    """Status and body of what is asked for."""
    run = subprocess.run(
        ["curl", "-sS", "--noproxy", "*", "-w", "\n%{http_code}", server.url + path, *arguments],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    body, _, status = run.stdout.rpartition("\n")
    return int(status), body


def test_chat_whole_and_streamed(echo_server: Server) -> None:
    said = client(echo_server).chat.completions.create(**ASKED).choices[0].message.content
    assert said and "Where is the letter?" in said
    status, whole = curl(echo_server, "/v1/chat/completions", *JSON, "-d", json.dumps(ASKED))
    assert (status, json.loads(whole)["choices"][0]["message"]["content"]) == (200, said)

    status, streamed = curl(echo_server, "/v1/chat/completions", *JSON, "-d", json.dumps(ASKED | {"stream": True}))
    *events, end = (event.removeprefix("data: ") for event in streamed.split("\n\n") if event)
    assert (status, end) == (200, "[DONE]")
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == said


@pytest.mark.parametrize("form", ["text", "json", "verbose_json", "srt", "vtt"])
def test_transcription_in_each_format(echo_server: Server, form: Any) -> None:
    expected = client(echo_server).audio.transcriptions.create(model="phi4mm", file=MEETING, response_format=form)
    status, body = curl(
        echo_server, "/v1/audio/transcriptions", "-F", f"file=@{MEETING}", "-F", f"response_format={form}"
    )
    assert status == 200
    found = json.loads(body) if "json" in form else body
    if form == "verbose_json":
        assert [segment["text"] for segment in found["segments"]] == [part.text for part in expected.segments]
    assert (found["text"] if "json" in form else found) == getattr(expected, "text", expected)
    assert "the audio clip into text." in body  # captions may begin after the first word


def test_errors(echo_server: Server) -> None:
    for status, path, *arguments in (
        (400, "/v1/chat/completions", *JSON, "-d", "{"),
        (400, "/v1/chat/completions", *JSON, "-d", json.dumps(ASKED | {"messages": []})),
        (400, "/v1/audio/transcriptions", "-F", "response_format=srt"),
        (400, "/v1/audio/transcriptions", "-F", f"file=@{MEETING}", "-F", "response_format=rtf"),
        (404, "/v1/elsewhere"),
        (405, "/v1/chat/completions"),
    ):
        found, body = curl(echo_server, path, *arguments)
        assert found == status, body
        assert json.loads(body)["error"]["message"]
