"""Files that are text already: every kind that is taken, told apart by name or content, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from phi4mm_cli import texts
from phi4mm_cli.errors import InputError
from phi4mm_cli.texts import Passage

SRT = "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i>\nthere.\n\n2\n01:00:00,000 --> 01:00:01,000\nBye.\n"
VTT = "WEBVTT\n\n00:01.000 --> 00:02.500\nHello &amp;\nthere.\n"
TRANSCRIPT = {"task": "transcript", "text": "A. B.", "segments": [{"id": 0, "start": 1.5, "end": 2, "text": " A.\nB "}]}


def saved(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", ["a.srt", "stdin"])
def test_srt(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, SRT)
    assert texts.is_text(path)
    assert texts.read(path) == (Passage("Hello there.", 1.0, 2.5), Passage("Bye.", 3600.0, 3601.0))


def test_what_comes_in_utf_16_is_told_by_its_content(tmp_path: Path) -> None:
    ours = json.dumps(TRANSCRIPT)
    for text, kind in (
        (SRT, "subtitles"),
        (VTT, "subtitles"),
        (ours, "json"),
        ("# A\n\nB", "markdown"),
        ("A", "plain"),
    ):
        path = saved(tmp_path / "stdin", text.encode("utf-16"))
        assert texts.load(path)[0] == kind
        assert texts.read(path) == texts.read(saved(tmp_path / "utf-8", text))


@pytest.mark.parametrize("name", ["a.vtt", "stdin"])
def test_vtt(tmp_path: Path, name: str) -> None:
    assert texts.read(saved(tmp_path / name, VTT)) == (Passage("Hello & there.", 1.0, 2.5),)


@pytest.mark.parametrize("name", ["a.json", "stdin"])
def test_our_json(tmp_path: Path, name: str) -> None:
    assert texts.read(saved(tmp_path / name, json.dumps(TRANSCRIPT))) == (Passage("A. B", 1.5, 2.0),)
    other = json.dumps({"task": "summary", "text": "One.\n\nTwo."})
    assert texts.read(saved(tmp_path / name, other)) == (Passage("One."), Passage("Two."))
    silent = json.dumps({"task": "transcript", "text": "", "segments": []})
    assert texts.read(saved(tmp_path / name, silent)) == ()


@pytest.mark.parametrize("name", ["a.txt", "notes.MD", "stdin"])
def test_plain_text(tmp_path: Path, name: str) -> None:
    text = "# Title\n\nBody\n  of <|end|> it."
    wanted = (Passage("# Title"), Passage("Body\n  of <|end|> it."))
    for data in (
        text.encode(),
        text.encode("utf-8-sig"),
        text.encode("utf-16"),
        text.replace("\n\n", "\n \n").encode(),
    ):
        path = saved(tmp_path / name, data)
        assert texts.is_text(path)
        assert texts.read(path) == wanted


def test_a_name_decides_before_the_content(tmp_path: Path) -> None:
    assert texts.read(saved(tmp_path / "a.txt", SRT))[0].start is None
    assert not texts.is_text(saved(tmp_path / "page.mp3", "<html>not found</html>"))


def test_halves_of_characters_are_replaced(tmp_path: Path) -> None:
    half = r'{"segments": [{"text": "bad \ud800 half", "start": 0, "end": 1}]}'
    assert [one.text for one in texts.read(saved(tmp_path / "a.json", half))] == ["bad ? half"]
    assert [one.text for one in texts.read(saved(tmp_path / "b.json", r'{"text": "\ud800 half"}'))] == ["? half"]


def test_media_are_not_text(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1000, np.float32), 16000)
    (tmp_path / "a.wav").rename(tmp_path / "stdin")
    assert not texts.is_text(tmp_path / "stdin")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9", "not UTF-8"),
        ("a.srt", "1\n00:00:01,000 --> 00:00:02,000\nПривет\n".encode("cp1251"), "not UTF-8"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[1]", "no result with a text"),
        ("a.json", '{"text": 3}', "no result with a text"),
        ("a.json", '{"segments": [{"text": "a"}]}', "segments"),
        ("a.json", '{"segments": "abc"}', "segments"),
        ("a.json", '{"segments": [{"text": null, "start": 1, "end": 2}]}', "segments"),
        ("a.json", '{"segments": [{"text": "a", "start": -5, "end": 2}]}', "segments"),
        ("a.json", '{"segments": [{"text": "a", "start": 1' + 400 * "0" + ', "end": 2}]}', "segments"),
        ("a.json", '{"segments":' + 200000 * "[" + 200000 * "]" + "}", "not JSON"),
        ("a.json", '{"segments": [{"text": "a", "start": NaN, "end": NaN}]}', "segments"),
        ("a.json", '{"segments": [{"text": "a", "start": 1, "end": 1e999}]}', "segments"),
        ("a.srt", "no times\n", "neither SRT nor VTT"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        texts.read(saved(tmp_path / name, content))
