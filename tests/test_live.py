"""On a terminal, what is finished of one recording appears while the rest is worked on, and only once."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from at_work import PATIENCE
from recordings import tone

ECHO = ("--engine", "echo", "--no-vad", "--chunk-seconds", "5")
TRANSLATE = ("translate", "talk.wav", "--to", "en")
LINES = [f"[{start}.000-{start + 5}.000] Transcribe the audio clip into text." for start in (0, 5, 10)]


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "talk.wav", tone(16000, 15.0), 16000)
    return tmp_path


def on_terminal(folder: Path, *arguments: str, stdout: int | None = None) -> str:
    """What a person sees on a terminal of 80 columns; `stdout` may lead elsewhere."""
    parent, child = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "80", "PHI4MM_CONFIG": "", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", *arguments],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=child if stdout is None else stdout,
        stderr=child,
    )
    os.close(child)
    seen = b""
    while True:
        try:
            piece = os.read(parent, 65536)
        except OSError:  # Linux: the other side is closed
            piece = b""
        if not piece:
            break
        seen += piece
    os.close(parent)
    assert process.wait(PATIENCE) == 0, seen
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())


def spaced(text: str) -> str:
    return " ".join(text.split())


def starts(text: str) -> list[str]:
    """The times of the clips whose text is seen, in the order of their lines."""
    return re.findall(r"\[(\d+)\.000-", text)


def test_the_text_itself_appears_once(talk: Path) -> None:
    seen = on_terminal(talk, "transcribe", "talk.wav", *ECHO)
    assert starts(seen) == ["0", "5", "10"]
    assert all(line in spaced(seen) for line in LINES)


def test_segments_appear_with_their_times_where_the_result_goes_elsewhere(talk: Path) -> None:
    seen = on_terminal(talk, "transcribe", "talk.wav", "--txt", *ECHO)
    assert starts(seen) == ["0", "5", "10"]
    assert [f"0:{start:02}" in seen for start in (0, 5, 10)] == [True] * 3
    with (talk / "out").open("wb") as file:
        seen = on_terminal(talk, "transcribe", "talk.wav", *ECHO, stdout=file.fileno())
    assert starts(seen) == ["0", "5", "10"]
    written = (talk / "out").read_text(encoding="utf-8")
    assert written == (talk / "talk.txt").read_text(encoding="utf-8") == "".join(line + "\n" for line in LINES)


@pytest.mark.parametrize("arguments", [("talk.wav", "--txt", "-q"), ("talk.wav", "other.wav", "--txt")])
def test_nothing_appears_when_quiet_or_of_several_inputs(talk: Path, arguments: tuple[str, ...]) -> None:
    (talk / "other.wav").write_bytes((talk / "talk.wav").read_bytes())
    assert starts(on_terminal(talk, "transcribe", *arguments, *ECHO)) == []


def test_translations_appear_as_well_and_a_text_is_written_when_it_is_done(talk: Path) -> None:
    seen = on_terminal(talk, *TRANSLATE, *ECHO)
    assert starts(seen) == ["0", "5", "10"]
    assert spaced(seen).count("Translate the audio to English.") == 3
    seen = on_terminal(talk, *TRANSLATE, "--srt", *ECHO)
    assert [f"0:{start:02}" in seen for start in (0, 5, 10)] == [True] * 3
    (talk / "note.txt").write_text("Good morning.\n", encoding="utf-8")
    seen = on_terminal(talk, "translate", "note.txt", "--to", "en", *ECHO)
    assert spaced(seen).count("Translate the text to English. Good morning.") == 1


def test_a_transcript_appears_above_its_translation(talk: Path) -> None:
    seen = on_terminal(talk, *TRANSLATE, "--cot", *ECHO)
    with (talk / "out").open("wb") as file:
        on_terminal(talk, *TRANSLATE, "--cot", "-q", *ECHO, stdout=file.fileno())
    assert spaced((talk / "out").read_text(encoding="utf-8")) in spaced(seen)
    assert starts(seen) == ["0", "5", "10"]
