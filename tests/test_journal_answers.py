"""One long recording goes on where it was: the model is asked only what it had not answered, and nobody sees it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from at_work import PATIENCE, begun, let_go, wait_for
from conftest import Phi4mm
from journalled import HereRun, lines, outputs, save, untimed
from scripted import said

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.errors import RequestError
from phi4mm_cli.journal import FOLDER
from phi4mm_cli.journal.answers import Answers
from phi4mm_cli.journal.records import Stamp
from phi4mm_cli.schema import Message, Remark, Request, Result, Sampling, Word

SECONDS = 40
HEAR = ("transcribe", "long.wav", "--no-vad", "--chunk-seconds", "4", "--srt", "--json", "-o")
MEETING = ("transcribe", str(SAMPLES / "meeting.flac"), "--model", "demo", "--srt", "--json")


@pytest.fixture(autouse=True)
def recording(tmp_path: Path) -> None:
    save(tmp_path / "long.wav", 1, seconds=SECONDS)


def hears(request: Request) -> Result | RequestError:
    text = said(f"Some words that are heard at {request.clips[0].start:.3f} and no other time.")
    words = tuple(Word(i / 7, i / 7 + 1 / 9, word) for i, word in enumerate(text.text.split()))
    return Result(text.text, text.tokens, "stop", 7, words)


def until(count: int) -> Callable[[Request], Result | RequestError]:
    """Answers so many requests; then the program is stopped."""
    left = [count]

    def answer(request: Request) -> Result | RequestError:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return hears(request)

    return answer


def requests(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER / "requests").glob("*"))


def test_only_what_is_missing_is_asked(phi4mm_here: HereRun, tmp_path: Path) -> None:
    whole = phi4mm_here(*HEAR, "whole", engine=hears)
    assert (whole.code, requests(tmp_path / "whole")) == (0, [])
    assert whole.asked >= 10
    for _ in range(3):
        assert phi4mm_here(*HEAR, "out", engine=until(3)).code == 130
    [kept] = requests(tmp_path / "out")
    known = kept.read_bytes().count(b'"key"')
    assert 3 <= known < 10  # of the last two that it was asked, it lived to answer one
    again = phi4mm_here(*HEAR, "out", engine=hears)
    assert (again.code, again.asked) == (0, whole.asked - known)
    assert untimed(outputs(tmp_path / "out")) == untimed(outputs(tmp_path / "whole"))
    done = next(line for line in lines(tmp_path / "out") if line["event"] == "done")
    assert (done["calls"], done["replayed"], done["attempt"]) == (whole.asked, known, 4)
    assert requests(tmp_path / "out") == []


def test_a_failed_input_is_only_asked_what_failed(phi4mm_here: HereRun, tmp_path: Path) -> None:
    def fails(request: Request) -> Result | RequestError:
        return RequestError("no memory") if request.clips[0].start > 20 else hears(request)

    whole = phi4mm_here(*HEAR, "whole", engine=hears)
    assert phi4mm_here(*HEAR, "out", engine=fails).code == 4
    [kept] = requests(tmp_path / "out")
    known = kept.read_bytes().count(b'"key"')
    assert 0 < known < whole.asked
    again = phi4mm_here(*HEAR, "out", engine=hears)
    assert (again.code, again.asked) == (0, whole.asked - known)


def test_answers_for_something_else_are_forgotten(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR, "out", engine=until(7))
    assert phi4mm_here(*HEAR, "out", "-l", "de", engine=until(3)).code == 130
    [kept] = requests(tmp_path / "out")
    assert kept.read_bytes().count(b'"key"') in (2, 3)
    save(tmp_path / "long.wav", 2, seconds=SECONDS)
    assert phi4mm_here(*HEAR, "out", "-l", "de", engine=hears).asked >= 10
    save(tmp_path / "long.wav", 3, seconds=SECONDS)
    phi4mm_here(*HEAR, "out", "-l", "de", engine=until(7))
    assert phi4mm_here(*HEAR, "out", "-l", "de", "--force", engine=hears).asked >= 10


def test_a_torn_answer_is_asked_again(phi4mm_here: HereRun, tmp_path: Path) -> None:
    whole = phi4mm_here(*HEAR, "whole", engine=hears)
    phi4mm_here(*HEAR, "out", engine=until(6))
    [kept] = requests(tmp_path / "out")
    kept.write_bytes(kept.read_bytes()[:-30])
    known = kept.read_bytes().count(b'"key"') - 1
    assert phi4mm_here(*HEAR, "out", engine=until(0)).code == 130
    again = phi4mm_here(*HEAR, "out", engine=hears)
    assert (again.code, again.asked) == (0, whole.asked - known)


def test_short_inputs_share_a_file(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        save(tmp_path / "in" / f"{number}.wav", number, seconds=6)
    hear = ("transcribe", "in", "--no-vad", "--chunk-seconds", "2", "--srt", "--json", "-o")
    whole = phi4mm_here(*hear, "whole", engine=hears)
    assert not (tmp_path / "whole" / FOLDER / "requests.jsonl").exists()
    assert phi4mm_here(*hear, "out", engine=until(7)).code == 130
    shared = tmp_path / "out" / FOLDER / "requests.jsonl"
    assert requests(tmp_path / "out") == []
    with shared.open("ab") as file:
        file.write(b'{"of": "')  # torn
    known = shared.read_bytes().count(b'"key"')
    assert 6 <= known <= 7
    again = phi4mm_here(*hear, "out", engine=hears)
    assert (again.code, again.asked) == (0, whole.asked - known)
    assert untimed(outputs(tmp_path / "out")) == untimed(outputs(tmp_path / "whole"))
    assert not shared.exists()


def killed_at_work(folder: Path, run: subprocess.Popen[str]) -> int:
    """Kill a program once it has some answers and not all; how many it has kept."""
    wait_for(lambda: any(kept.read_bytes().count(b"\n") >= 4 for kept in requests(folder / "out")), run)
    run.kill()
    run.communicate()
    return requests(folder / "out")[0].read_bytes().count(b'"key"')


def test_killed_and_gone_on(tmp_path: Path) -> None:
    run = begun(tmp_path, *HEAR, "out", hold=6)
    known = killed_at_work(tmp_path, run)
    let_go(tmp_path)
    for out in ("out", "whole"):
        begun(tmp_path, *HEAR, out).communicate(timeout=PATIENCE)
    assert untimed(outputs(tmp_path / "out")) == untimed(outputs(tmp_path / "whole"))
    done = next(line for line in lines(tmp_path / "out") if line["event"] == "done")
    assert done["replayed"] == known
    assert 3 <= known < done["calls"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["cpu", "cpu,cpu"])
def test_the_demo_killed_and_gone_on(phi4mm: Phi4mm, tmp_path: Path, devices: str) -> None:
    """Two processes at once answer in any order."""
    hear = (*MEETING, "--batch-size", "1", "--device", devices, "-o")
    command = [sys.executable, "-m", "phi4mm_cli", *hear, "out"]
    pipe = subprocess.PIPE
    known = killed_at_work(tmp_path, subprocess.Popen(command, cwd=tmp_path, stderr=pipe, encoding="utf-8"))
    for out in ("out", "whole"):
        assert phi4mm(*hear, out).returncode == 0
    assert untimed(outputs(tmp_path / "out")) == untimed(outputs(tmp_path / "whole"))
    done = next(line for line in lines(tmp_path / "out") if line["event"] == "done")
    assert 3 <= known == done["replayed"] < done["calls"]


def test_answers_come_back_exactly(tmp_path: Path) -> None:
    stamp = Stamp(1, 2, "f00d")
    (tmp_path / "requests").mkdir()
    kept = Answers(tmp_path / "requests", ("transcribe", "a.wav"), "task", stamp)
    asked = [Request((Message("user", (text,)),), Sampling(5)) for text in "abc"]
    answers = [
        Result("é 🎙 \ud800", (1, 2), "length", 3),
        Result("", (), "stop", 0, (), (3, 4), (Remark("ignored_setting", "no beams here", "Leave them out"),)),
        Result("a b", (7,), "stop", 9, (Word(0.1 + 0.2, 1 / 3, "a"), Word(1e-17, 1.0, "b"))),
    ]
    for request, result in zip(asked, answers, strict=True):
        kept.add(request, result)
    again = Answers(tmp_path / "requests", ("transcribe", "a.wav"), "task", stamp).known()
    assert again == {request.key: result for request, result in zip(asked, answers, strict=True)}
