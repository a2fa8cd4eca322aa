"""Calls carried out: tools that hang, flood, raise or take their process down do no harm beyond their own call."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_work import PATIENCE, wait_for

from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.chat.stopping import stoppable
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools.functions import Functions
from phi4mm_cli.tools.programs import read_program
from phi4mm_cli.tools.records import ToolResult
from phi4mm_cli.tools.results import Limits, carry_out

TOOLS = '''
import os, signal, subprocess, sys, time, datetime
from pathlib import Path
from pydantic import BaseModel

COUNT = 0

class Place(BaseModel):
    lat: float

def count() -> int:
    """Count."""
    global COUNT
    COUNT += 1
    return COUNT

def hang() -> None:
    """Hang, and keep a child that hangs too."""
    child = subprocess.Popen(["sleep", "1000"])
    Path("children").write_text(f"{os.getpid()} {child.pid}")
    time.sleep(1000)

def answer_late() -> str:
    """Take a moment."""
    Path("began").touch()
    time.sleep(0.3)
    return "late"

def stubborn() -> None:
    """Hang, deaf to polite signals."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass

def flood(how: str) -> object:
    """Return a lot."""
    return {"text": "é" * 10_000_000, "list": [*range(1_000_000)], "dict": {str(i): i for i in range(100_000)}}[how]

def fail(how: str) -> str:
    """Fail."""
    if how == "raise":
        raise ValueError("<|end|> no such city")
    if how == "exit":
        sys.exit(3)
    if how == "leave":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "endless":
        return fail(how)
    return "\\ud800"

def give(what: str) -> object:
    """Give things."""
    return {
        "none": None, "place": Place(lat=1.5), "date": datetime.date(2026, 11, 21), "bytes": b"\\xff",
        "nan": float("nan"),
        "set": {1}, "text": 'a "b" \\n <|end|>', "object": object, "path": Path("a/b"), "dict": {"city": "Paris"},
    }[what]

def talk(place: Place) -> str:
    """Print and read."""
    print("on stdout")
    os.write(1, b"on descriptor 1\\n")
    return f"{place.lat} {sys.stdin.read()!r}"

async def later() -> str:
    """Come later."""
    return "here"
'''


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Functions]:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tools.py"
    path.write_text(TOOLS, encoding="utf-8")
    with Functions(path) as opened:
        yield opened


def done(
    functions: Functions, name: str, seconds: float = PATIENCE, characters: int = 1000, **arguments: Any
) -> ToolResult:
    call = ToolCall(name, arguments)
    result = carry_out(call, lambda: functions.call(call, Limits(seconds, characters)))
    assert isinstance(json.loads(result.content), dict)
    return result


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_variables_last_from_call_to_call(functions: Functions) -> None:
    assert [done(functions, "count").content for _ in range(3)] == [f'{{"result": {i}}}' for i in (1, 2, 3)]


@pytest.mark.parametrize("name", ["hang", "stubborn"])
def test_a_call_that_hangs_is_ended(functions: Functions, tmp_path: Path, name: str) -> None:
    began = time.monotonic()
    result = done(functions, name, seconds=3.0)
    assert 3.0 <= time.monotonic() - began < PATIENCE
    assert result.ending == "time_limit"
    assert "more than 3 seconds" in result.content
    if name == "hang":
        pids = (tmp_path / "children").read_text(encoding="utf-8").split()
        assert os.path.isdir("/proc")  # noqa: PTH112
        wait_for(lambda: not any(alive(int(pid)) for pid in pids))
    assert done(functions, "count").content == '{"result": 1}'  # in a new process


def test_after_ctrl_c_the_next_call_has_an_answer_of_its_own(functions: Functions, tmp_path: Path) -> None:
    me = threading.get_ident()

    def interrupt() -> None:
        wait_for((tmp_path / "began").exists)
        signal.pthread_kill(me, signal.SIGINT)

    typing = threading.Thread(target=interrupt)
    typing.start()
    with stoppable(), pytest.raises(Cancelled):
        done(functions, "answer_late")
    typing.join()
    assert done(functions, "count").content == '{"result": 1}'


@pytest.mark.parametrize("how", ["text", "list", "dict"])
def test_a_flood_is_cut(functions: Functions, how: str) -> None:
    result = done(functions, "flood", how=how)
    assert (result.ending, result.truncated) == ("done", True)
    content = json.loads(result.content)
    assert len(content["result"]) == 1000
    assert content["left_out"].startswith("the last ")
    assert done(functions, "count").content == '{"result": 1}'  # in the same process


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raise", "ValueError: <|end|> no such city"),
        ("exit", "SystemExit: 3"),
        ("leave", "its process ended with exit code 3"),
        ("kill", "its process ended with signal 9"),
        ("endless", "RecursionError"),
        ("surrogate", "surrogate"),
    ],
)
def test_failures_are_told_to_the_model(functions: Functions, how: str, told: str) -> None:
    result = done(functions, "fail", how=how)
    assert result.ending == "failed"
    assert told in json.loads(result.content)["error"]
    assert done(functions, "count").content == '{"result": 1}'


@pytest.mark.parametrize(
    ("what", "content"),
    [
        ("none", {"result": None}),
        ("place", {"lat": 1.5}),
        ("date", {"result": "2026-11-21"}),
        ("bytes", {"result": "_w=="}),
        ("nan", {"result": "NaN"}),
        ("set", {"result": [1]}),
        ("text", {"result": 'a "b" \n <|end|>'}),
        ("object", {"result": "<class 'object'>"}),
        ("path", {"result": "a/b"}),
        ("dict", {"city": "Paris"}),
    ],
)
def test_what_is_returned_becomes_json(functions: Functions, what: str, content: Any) -> None:
    result = done(functions, "give", what=what)
    assert json.loads(result.content) == content
    assert not result.truncated


def test_tools_reach_neither_stdout_nor_stdin(functions: Functions, capfd: pytest.CaptureFixture[str]) -> None:
    assert done(functions, "talk", place={"lat": 2}).content == '{"result": "2.0 \'\'"}'
    assert done(functions, "later").content == '{"result": "here"}'
    shown = capfd.readouterr()
    assert shown.out == ""


# ----------------------------------------------------------------------------------------------------- programs


def ran(text: str, seconds: float = PATIENCE, characters: int = 1000, **arguments: str) -> ToolResult:
    command = read_program(text)
    call = ToolCall(command.tool.name, arguments)
    return carry_out(call, lambda: command.call(call, Limits(seconds, characters)))


@pytest.mark.parametrize(
    ("text", "value", "content"),
    [
        ("cat {x}", "a b.txt", {"result": "one\ntwo\n"}),
        ("echo {x}", "$HOME `id` ; ls *", {"result": "$HOME `id` ; ls *\n"}),
        ("printf %s {x}", "é北\n<|end|>", {"result": "é北\n<|end|>"}),
        ("cat -- {x}", "-n", {"error": "exit code 1: cat: -n: No such file or directory"}),
        ("cat {x}", "-n", {"error": "'-n' begins with '-' and would be an option of cat"}),
        ("cat {x}", "missing", {"error": "exit code 1: cat: missing: No such file or directory"}),
        ("cat {x}", "a\0b", {"error": "cat cannot be started: embedded null byte"}),
        ("printf '%b' {x}", "\\0377", {"result": "\ufffd"}),
        ("sh -c 'kill -9 $$' sh {x}", "a", {"error": "signal 9: "}),
        ("sh -c 'cat; echo $1' sh {x}", "a", {"result": "a\n"}),  # there is no stdin
        ("sh -c 'sleep 1000 & echo $1' sh {x}", "a", {"result": "a\n"}),  # its child holds stdout open
        ("printf '%s' --flag={x}", "-n", {"result": "--flag=-n"}),
    ],
)
def test_a_program_is_run_without_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, value: str, content: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.txt").write_text("one\ntwo\n", encoding="utf-8")
    assert json.loads(ran(text, x=value).content) == content


@pytest.mark.parametrize(
    "text", ["sleep {x}", "sh -c 'exec >&- 2>&-; sleep $1' sh {x}", "sh -c 'trap \"\" TERM; sleep $1' sh {x}"]
)
def test_a_program_that_hangs_is_ended(text: str) -> None:
    began = time.monotonic()
    result = ran(text, seconds=0.5, x="1000")
    assert result.ending == "time_limit"
    assert time.monotonic() - began < PATIENCE


def test_a_program_that_floods_is_cut_and_ends_as_it_would() -> None:
    result = ran("head -c {x} /dev/zero", x="30000000")
    assert (result.ending, result.truncated) == ("done", True)
    assert json.loads(result.content) == {
        "result": "\0" * 1000,
        "left_out": "the last 29999000 of 30000000 characters",
    }
    assert ran("yes {x}", seconds=0.5, x="y").ending == "time_limit"
