"""Runs that nobody sits by: inputs that are named while others run, what is said meanwhile, how a run is stopped."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import soundfile
from at_work import PATIENCE, PROGRAM, begun, let_go, said_of_stopping, wait_for
from conftest import Phi4mm
from recordings import tone
from scripted import MEETING

from phi4mm_cli import console, display
from phi4mm_cli.jobs import Job
from phi4mm_cli.schema import Clip, Message, Request, Result, Sampling, Source

ECHO = ("--engine", "echo", "--no-vad")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHI4MM_CONFIG", "")


def record(*names: str, seconds: float = 1.0) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, tone(16000, seconds), 16000)


def begin(*arguments: str, hold: int | None = None) -> subprocess.Popen[str]:
    return begun(Path(), "transcribe", "--no-vad", *arguments, hold=hold)


# ------------------------------------------------------------------------------------------ named while others run


def test_each_line_is_answered_before_the_next_is_named() -> None:
    record("a.wav", "b.wav")
    run = begin("--files-from", "-", "--jsonl")
    assert run.stdin is not None and run.stdout is not None
    for name, task in (
        ("a.wav", "transcript"),
        ("none.wav", "failure"),
        ("b.wav", "transcript"),
        ("a.wav", "transcript"),
    ):
        run.stdin.write(f"{name}\n")
        line = json.loads(run.stdout.readline())  # waits for it, while there is no other line to come
        assert (line["source"], line["task"]) == (name, task)
    _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == 3
    assert stderr.splitlines()[-1] == "phi4mm: 4 inputs: 3 done, 1 failed"


def test_what_is_wrong_with_one_line_is_its_own_failure(phi4mm: Phi4mm) -> None:
    record("a/talk.wav", "b/talk.wav", "talk.wav", "new.wav")
    Path("talk.txt").write_text("old", encoding="utf-8")
    lines = "talk.wav\na\nb/none\nnew.wav\n"
    run = phi4mm("transcribe", "b/talk.wav", "--files-from", "-", "--no-overwrite", *ECHO, input=lines)
    assert run.returncode == 3
    assert "b/talk.wav: talk.txt exists" in run.stderr
    assert "would both write talk.txt" in run.stderr
    assert Path("talk.txt").read_text(encoding="utf-8") == "old"
    assert Path("a/talk.txt").exists() and Path("new.txt").exists()


def test_a_list_of_no_use_is_all_that_is_told_of(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "--files-from", "-", "--jsonl", "-m", "demo", input="a.wav\0b.wav\0")
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (2, "", 1)
    assert "the list has NUL bytes in it" in run.stderr
    empty = phi4mm("transcribe", "--files-from", "-", "--jsonl", "-m", "demo", input="")
    assert (empty.returncode, empty.stderr) == (0, "")
    first, *_ = phi4mm("transcribe", "--files-from", "-", "-m", "demo", input="none.wav\n").stderr.splitlines()
    assert "demo" in first


def test_names_that_clash_do_so_in_every_run(phi4mm: Phi4mm, tmp_path: Path) -> None:
    for name in ("a.flac", "a.wav"):
        shutil.copy(MEETING, tmp_path / name)
    for _ in range(3):
        run = phi4mm("transcribe", "--files-from", "-", "-o", "out", "--json", *ECHO, input="a.flac\na.wav\n")
        assert run.returncode == 3
        assert "would both write" in run.stderr
        assert json.loads((tmp_path / "out" / "a.json").read_text(encoding="utf-8"))["source"] == "a.flac"


def test_what_is_in_the_way_of_a_list_stays(phi4mm: Phi4mm, tmp_path: Path) -> None:
    shutil.copy(MEETING, tmp_path / "a.flac")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("mine", encoding="utf-8")
    to_folder, to_file = ("-o", "out", "--txt"), ("--jsonl", "-o", "a.jsonl")
    listed = ("transcribe", "--files-from", "-", "--no-overwrite", *ECHO)
    assert phi4mm("transcribe", "a.flac", *to_file, *ECHO).returncode == 0
    before = (tmp_path / "a.jsonl").read_bytes()
    for _ in range(2):
        assert "exists" in phi4mm(*listed, *to_folder, input="a.flac\n").stderr
        assert "a line of a.flac already" in phi4mm(*listed, *to_file, "--prompt", "More", input="a.flac\n").stderr
    assert (tmp_path / "out" / "a.txt").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_report_goes_where_results_do_not(phi4mm: Phi4mm, tmp_path: Path) -> None:
    run = phi4mm("transcribe", str(MEETING), "--jsonl", "-o", "a.jsonl", "--report", "-", *ECHO)
    assert json.loads(run.stdout)["done"] == 1, run.stderr
    assert len((tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_a_report_takes_the_place_of_no_device(phi4mm: Phi4mm, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    assert phi4mm("transcribe", str(MEETING), "--report", "pipe", *ECHO).returncode == 0
    assert json.loads(reader.communicate(timeout=PATIENCE)[0])["done"] == 1
    assert (tmp_path / "pipe").is_fifo()


def test_what_is_done_before_is_not_done_again(phi4mm: Phi4mm) -> None:
    record("a.wav", "b.wav")
    arguments = ("transcribe", "--files-from", "-", "-o", "out", *ECHO)
    assert phi4mm(*arguments, input="a.wav\n").stderr == ""
    run = phi4mm(*arguments, input="b.wav\na.wav\n")
    assert run.stderr == "phi4mm: 2 inputs: 1 done, 1 done before\n"
    assert phi4mm(*arguments, "--srt", input="b.wav\na.wav\n").stderr == "phi4mm: 2 inputs: 2 done\n"


def test_a_file_that_is_named_twice_is_written_twice() -> None:
    record("a/talk.wav")
    run = begin("--files-from", "-", "-o", "out", hold=0)
    assert run.stdin is not None
    run.stdin.write("a/talk.wav\n" * 2)
    journal = Path("out/.phi4mm/journal.jsonl")
    wait_for(lambda: journal.exists() and journal.read_bytes().count(b'"started"') == 2, run)  # both are in hand
    let_go(Path())
    _, stderr = run.communicate(timeout=PATIENCE)
    assert (run.returncode, stderr) == (0, "phi4mm: 2 inputs: 2 done\n")
    assert [str(path) for path in Path("out").rglob("*.txt")] == ["out/a/talk.txt"]


# ------------------------------------------------------------------------------------------ stopped


def outputs() -> list[str]:
    return sorted(path.name for path in Path("out").glob("*.txt"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_what_is_in_hand_be_finished(number: signal.Signals, code: int) -> None:
    record(*(f"rec/{i:02}.wav" for i in range(30)), seconds=1.5)
    run = begin("rec", "-o", "out", "--chunk-seconds", "1", hold=32)  # of two chunks each: two files are whole
    wait_for(lambda: len(outputs()) > 1, run)
    said_of_stopping(run, number)
    let_go(Path())
    _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == code
    assert 2 <= len(outputs()) < 30
    assert stderr.splitlines()[-1] == f"phi4mm: {len(outputs())} inputs: {len(outputs())} done"
    assert {len(Path("out", name).read_text(encoding="utf-8").splitlines()) for name in outputs()} == {2}
    again = begin("rec", "-o", "out", "--chunk-seconds", "1")
    again.communicate(timeout=PATIENCE)
    assert (again.returncode, len(outputs())) == (0, 30)


def test_a_second_signal_ends_it_at_once() -> None:
    record(*(f"rec/{i}.wav" for i in range(9)), seconds=1.5)
    run = begin("rec", "-o", "out", "--chunk-seconds", "1", hold=10)  # of two chunks each: one file is whole
    wait_for(outputs, run)
    said_of_stopping(run, signal.SIGINT)
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=PATIENCE)  # what it has in hand is never answered
    assert run.returncode == 130
    told = r"phi4mm: interrupted; finished outputs are kept\n(phi4mm: (\d) inputs?: \2 done\n)?"  # if any was told of
    assert re.fullmatch(told, stderr), stderr


def test_one_file_alone_is_not_finished_and_neither_is_what_nothing_is_answered_of() -> None:
    record("long.wav", seconds=20.0)
    run = begin("long.wav", "-o", "out", "--chunk-seconds", "1", hold=4)
    wait_for(lambda: [*Path("out/.phi4mm/requests").glob("*")], run)  # it has answers
    run.send_signal(signal.SIGINT)
    _, stderr = run.communicate(timeout=PATIENCE)
    assert (run.returncode, stderr) == (130, "phi4mm: interrupted; finished outputs are kept\n")
    waiting = begin("--files-from", "-", "--jsonl")
    assert waiting.stdin is not None and waiting.stdout is not None
    waiting.stdin.write("none.wav\n")
    assert "failure" in waiting.stdout.readline()
    waiting.send_signal(signal.SIGTERM)
    waiting.communicate(timeout=PATIENCE)
    assert waiting.returncode == 143


# ------------------------------------------------------------------------------------------ what is said


def clip(name: str, start: float, end: float) -> Request:
    return Request((Message("user", (Clip(Source(name, 1, ""), start, end),)),), Sampling(10))


def test_off_a_terminal_a_line_a_minute(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    result, lengths = Result("a", (1,), "stop", 1), dict.fromkeys("abcd", 600.0)
    with display.display(lengths, "a", quiet=False, tally=lambda: "1 failed, 2 warnings") as shown:
        for name in "abc":
            for start in range(0, 600, 30):
                now[0] += 1.5
                shown.advance(Job(name, tuple), clip(name, start, start + 30.0), result)
            shown.finish(Job(name, tuple))
    said = capsys.readouterr().err.splitlines()
    assert said == ["phi4mm: 1/4 files, 20:00/40:00 heard, 20x, 1 failed, 2 warnings, 1:00 left"]
    with display.display(lengths, "a", quiet=True) as shown:
        now[0] += 100
        shown.finish(Job("a", tuple))
    assert capsys.readouterr().err == ""


def test_two_lines_on_a_terminal() -> None:
    record("a.wav", "b.wav", "c.wav", seconds=4.0)
    Path("faults.json").write_text('{"seconds": 0.3}', encoding="utf-8")
    parent, child = pty.openpty()
    command = [sys.executable, PROGRAM, "faults.json", "transcribe", "a.wav", "b.wav", "c.wav", "none.wav", "-o", "out"]
    run = subprocess.Popen(
        [*command, "--no-vad", "--chunk-seconds", "1"],
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    seen = b""
    try:
        while piece := os.read(parent, 65536):
            seen += piece
    except OSError:  # Linux: the other side is closed
        pass
    os.close(parent)
    assert run.wait(PATIENCE) == 3
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert re.search(r"[012]/3 files, 0:\d\d/0:12 heard, \d+x, 1 failed, \d+:\d\d left", text), text
    assert "4 inputs: 3 done, 1 failed" in text


def test_the_log_has_all_that_is_said_and_more(phi4mm: Phi4mm) -> None:
    record("a.wav", "b.wav")
    run = phi4mm("transcribe", "a.wav", "b.wav", "none.wav", "-o", "out", "--log", "night.log", "-q", *ECHO)
    assert run.stderr.count("\n") == 1
    phi4mm("transcribe", "a.wav", "b.wav", "-o", "a.wav/out", "--log", "night.log", *ECHO)
    lines = [line.split(" ", 1) for line in Path("night.log").read_text(encoding="utf-8").splitlines()]
    assert all(datetime.fromisoformat(at).tzinfo for at, _ in lines)
    said = [what for _, what in lines]
    assert said[0].startswith("error: none.wav: ")
    assert {what.split(":")[0] for what in said[1:3]} == {"a.wav", "b.wav"}
    assert said[3] == "3 inputs: 2 done, 1 failed"
    assert said[4].startswith("error: cannot write to")
    refused = phi4mm("transcribe", "a.wav", "--log", "none/night.log", *ECHO)
    assert (refused.returncode, "cannot write the log" in refused.stderr) == (2, True)


def test_a_log_on_a_full_disk_is_no_reason_to_stop() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    with console.logged(Path("/dev/full")):
        console.say("something", shown=False)
        console.say("something else", shown=False)
