"""What is said while a model is loaded: a bar on a terminal, lines now and then elsewhere, nothing for a short load."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from phi4mm_cli import report
from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.options import LogOptions
from phi4mm_cli.report import Loading, display

GIGABYTE = 10**9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time, in seconds, that the report sees."""
    now = [1000.0]
    monkeypatch.setattr(report.time, "monotonic", lambda: now[0])
    yield now


def load(loading: Loading, clock: list[float], seconds: int) -> None:
    """Ten gigabytes at an even speed."""
    for second in range(seconds + 1):
        loading.loaded(second * 10 * GIGABYTE // seconds, 10 * GIGABYTE)
        clock[0] += 1


def test_lines_off_a_terminal(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    load(Loading(LogOptions()), clock, 10)
    assert capsys.readouterr() == ("", "")
    load(Loading(LogOptions()), clock, 100)
    assert capsys.readouterr().err.splitlines() == [
        "phi4mm: loading the model: 2.0 of 10.0 GB, 100 MB/s",
        "phi4mm: loading the model: 8.0 of 10.0 GB, 100 MB/s",
    ]
    load(Loading(LogOptions(verbose=True)), clock, 10)
    assert capsys.readouterr().err == "phi4mm: loaded the model in 10.0 s: 10.0 of 10.0 GB, 1000 MB/s\n"
    quiet = Loading(LogOptions(quiet=True))
    load(quiet, clock, 100)
    quiet.note("something")
    assert capsys.readouterr() == ("", "")


def test_the_bar_is_of_bytes_and_then_of_media(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, other = pty.openpty()
    loading = Loading(LogOptions())
    with os.fdopen(other, "w", buffering=1) as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", screen)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "120")
        with display({"a": 90.0}, "a.wav", quiet=False) as bar:
            assert bar._progress is not None
            [task] = bar._progress.tasks
            loading.bar = bar
            loading.loaded(0, 10 * GIGABYTE)
            clock[0] += 4
            loading.loaded(3 * GIGABYTE, 10 * GIGABYTE)
            assert (task.description, task.completed, task.total) == ("loading the model", 3 * GIGABYTE, 10 * GIGABYTE)
            assert task.fields["state"] == "3.0 of 10.0 GB, 750 MB/s"
            loading.loaded(10 * GIGABYTE, 10 * GIGABYTE)
            assert (task.description, task.completed, task.total) == ("a.wav", 0, 90.0)
    os.close(terminal)


def test_speed_is_told_when_asked(tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLES / "meeting.flac", frames=3 * 16000)
    soundfile.write(tmp_path / "a.wav", samples, rate)
    command = [sys.executable, "-m", "phi4mm_cli", "transcribe", "a.wav", "--model", "demo", "--no-vad"]
    run = subprocess.run([*command, "-v"], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
    [line] = [line for line in run.stderr.splitlines() if "loaded the model" in line]
    assert line.endswith("MB/s")
