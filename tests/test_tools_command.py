"""`phi4mm tools` as people run it: what is on stdout, what is asked before a call, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from at_work import PATIENCE, wait_for
from conftest import Phi4mm, Scripted, environment, program
from journalled import HereRun
from jsonschema import Draft202012Validator
from PIL import Image
from recordings import cut

from phi4mm_cli.commands.schema import json_schema

FUNCTIONS = '''
import time
from pathlib import Path

def get_weather(city: str) -> dict[str, int]:
    """Get the weather in a city.

    Args:
        city: The city.
    """
    with Path("made").open("a") as made:
        made.write(city + "\\n")
    print("looking out of the window")
    return {"degrees": 5}

def wait() -> str:
    """Wait for ever."""
    Path("waiting").touch()
    time.sleep(1000)
    return ""
'''
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}},
]
ECHO = ("--engine", "echo")
CALL = '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Zürich"}}]<|/tool_call|>'


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(FUNCTIONS, encoding="utf-8")
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    soundfile.write(tmp_path / "q.wav", np.zeros(24000, "float32"), 16000)
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")


def made(folder: Path) -> list[str]:
    path = folder / "made"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


# ---------------------------------------------------------------------------------------------------- list, check


def test_list_shows_what_is_offered(phi4mm: Phi4mm) -> None:
    run = phi4mm("tools", "list", "--functions", "tools.py", "--command", "wc -l {path} # Count lines")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "get_weather(city: str)",
        "    Get the weather in a city.",
        "wait()",
        "    Wait for ever.",
        "wc(path: str)",
        "    Count lines",
    ]
    as_json = phi4mm("tools", "list", "--functions", "tools.py", "--json")
    assert json.loads(as_json.stdout)[0]["parameters"] == {"city": {"description": "The city.", "type": "str"}}


def test_check_says_all_that_is_wrong(phi4mm: Phi4mm, tmp_path: Path) -> None:
    assert phi4mm("tools", "check", "tools.py").stdout == "get_weather(city: str)\nwait()\n"
    assert phi4mm("tools", "check", "tools.json").returncode == 0
    (tmp_path / "bad.py").write_text("def f(x): ...\ndef g(x: int):\n 'Do.'\ndef h(x):\n 'Do.'", encoding="utf-8")
    run = phi4mm("tools", "check", "bad.py")
    assert (run.returncode, run.stdout) == (2, "g(x: int)\n")
    assert [line[:24] for line in run.stderr.splitlines()] == ["phi4mm: error: bad.py: '"] * 2
    (tmp_path / "empty.json").write_text("[]", encoding="utf-8")
    assert "empty.json has no tools" in phi4mm("tools", "check", "empty.json").stderr
    for missing in ("missing.py", "missing.json"):
        run = phi4mm("tools", "check", missing)
        assert (run.returncode, run.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["call", "hi"], 2, "no tools are given"),
        (["call", "--tools", "tools.json"], 2, "no question is asked"),
        (["run", "hi", "--functions", "missing.py"], 2, "missing.py: there is no such file"),
        (["run", "hi", "--command", "no_such_program"], 5, "no program"),
        (["run", "hi", "--functions", "tools.py", "--functions", "tools.py"], 2, "two tools are called 'get_weather'"),
        (["run", "hi", "--functions", "tools.py", "--max-steps", "0"], 2, "--max-steps"),
        (["call", "hi", "--tools", "tools.json", "--audio", "missing.wav"], 4, "missing.wav: there is no such file"),
        (["call", "hi", "--tools", "tools.json", "--image", "q.wav"], 4, "q.wav: "),
        (["call", "hi", "--tools", "tools.json"], 5, "--model demo"),
    ],
)
def test_refusals_are_one_line(phi4mm: Phi4mm, arguments: list[str], code: int, message: str) -> None:
    run = phi4mm("tools", *arguments)
    assert run.returncode == code
    assert run.stdout == ""
    assert run.stderr.startswith("phi4mm: error: ")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["tools", "functions", "command", "approve"])
def test_a_project_file_brings_no_tools(phi4mm: Phi4mm, tmp_path: Path, name: str) -> None:
    (tmp_path / "phi4mm.toml").write_text(f'[tools]\n{name} = "all"', encoding="utf-8")
    run = phi4mm("tools", "list", "--functions", "tools.py")
    assert run.returncode == 2
    assert f"may not set '{name}'" in run.stderr


def test_the_users_file_is_for_all_commands_of_the_group(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "user.toml").write_text('engine = "echo"\n[tools]\nfunctions = ["tools.py"]', encoding="utf-8")
    env = {"PHI4MM_CONFIG": str(tmp_path / "user.toml")}
    assert phi4mm("tools", "list", env=env).stdout.startswith("get_weather")
    run = phi4mm("tools", "run", "hi", "--json", env=env)
    assert json.loads(run.stdout)["model"]["engine"] == "echo"


# ------------------------------------------------------------------------------------------------------------ call


def test_call_prints_the_calls_and_nothing_else(scripted: Scripted, tmp_path: Path) -> None:
    run = scripted([f"Let me see. {CALL}"], "tools", "call", "How cold?", "--functions", "tools.py")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == '[{"name": "get_weather", "arguments": {"city": "Zürich"}}]\n'
    assert made(tmp_path) == []


def test_call_asks_again_once(scripted: Scripted) -> None:
    wrong = CALL.replace("city", "town")
    asked = ("tools", "call", "How cold?", "--functions", "tools.py")
    assert json.loads(scripted([wrong, CALL], *asked).stdout)[0]["arguments"] == {"city": "Zürich"}
    run = scripted([wrong, wrong], *asked)
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (8, "", 1)
    run = scripted(["I do \x1b[2J not know."], *asked)
    assert (run.returncode, run.stdout) == (8, "")
    assert run.stderr == "phi4mm: error: the model calls nothing, and says: I do \\x1b[2J not know.\n"


def test_a_question_may_be_spoken_and_about_a_picture(phi4mm: Phi4mm) -> None:
    media = ("--audio", "q.wav", "--image", "p.png")
    run = phi4mm("tools", "run", "--functions", "tools.py", *media, *ECHO)
    assert run.stdout == "You are a helpful assistant with some tools. [picture] [0.000-1.500]\n"
    run = phi4mm("tools", "run", "Why?", "--functions", "tools.py", *media, *ECHO)
    assert run.stdout == "You are a helpful assistant with some tools. [picture] [0.000-1.500] Why?\n"


def test_a_spoken_question_that_is_cut_off_is_told(phi4mm_here: HereRun, tmp_path: Path) -> None:
    run = phi4mm_here("tools", "run", "--command", "wc {path}", "--audio", cut(tmp_path / "q.wav"))
    assert (run.code, run.asked) == (0, 1)
    assert "warning: " in run.stderr and "q-cut.wav: " in run.stderr


# ------------------------------------------------------------------------------------------------------------- run

RUN = ("tools", "run", "How cold is Zürich?", "--functions", "tools.py")
ANSWERS = [CALL, "It is 5 degrees in Zürich."]


def test_run_calls_what_is_approved_and_prints_the_answer(scripted: Scripted, tmp_path: Path) -> None:
    run = scripted(ANSWERS, *RUN, "--approve", "all")
    assert (run.returncode, run.stdout) == (0, "It is 5 degrees in Zürich.\n")
    assert run.stderr == 'phi4mm: call get_weather(city="Zürich")\nlooking out of the window\n'
    assert made(tmp_path) == ["Zürich"]


@pytest.mark.parametrize(
    ("approve", "reason"), [((), "; there is nobody to ask, see --approve"), (("--approve", "none"), "")]
)
def test_nothing_is_called_unasked(scripted: Scripted, tmp_path: Path, approve: tuple[str, ...], reason: str) -> None:
    run = scripted([CALL, "I cannot tell."], *RUN, *approve)
    assert (run.returncode, run.stdout) == (0, "I cannot tell.\n")
    assert run.stderr == f'phi4mm: not called: get_weather(city="Zürich"){reason}\n'
    assert made(tmp_path) == []


def test_json_is_the_whole_trace(scripted: Scripted) -> None:
    run = scripted(ANSWERS, *RUN, "--approve", "all", "--json")
    trace = json.loads(run.stdout)
    Draft202012Validator(json_schema()).validate(trace)
    assert trace["task"] == "calls"
    assert trace["question"] == "How cold is Zürich?"
    assert (trace["text"], trace["ending"]) == ("It is 5 degrees in Zürich.", "answered")
    assert trace["tools"] == ["get_weather", "wait"]
    assert trace["usage"]["calls"] == 2
    assert trace["options"]["approve"] == "all"
    [step] = trace["steps"]
    assert step["answer"] == CALL
    [result] = step["results"]
    assert result.pop("seconds") >= 0
    assert result == {
        "call": {"name": "get_weather", "arguments": {"city": "Zürich"}},
        "ending": "done",
        "content": '{"degrees": 5}',
        "truncated": False,
    }


def test_a_run_without_an_answer_ends_with_8_and_still_tells_its_steps(scripted: Scripted) -> None:
    run = scripted([CALL] * 3, *RUN, "--approve", "all", "--json", "--max-steps", "2")
    assert run.returncode == 8
    trace = json.loads(run.stdout)
    Draft202012Validator(json_schema()).validate(trace)
    assert (trace["ending"], len(trace["steps"])) == ("too_many_steps", 2)
    assert "--max-steps" in run.stderr
    run = scripted([CALL.replace("city", "town")] * 2, *RUN, "--approve", "all")
    assert (run.returncode, run.stdout) == (8, "")


def test_programs_are_called_with_their_arguments(scripted: Scripted) -> None:
    call = '<|tool_call|>[{"name": "wc", "arguments": {"path": "a; echo b"}}]<|/tool_call|>'
    answers = [call, "There is none."]
    run = scripted(answers, "tools", "run", "How long?", "--command", "wc -l {path}", "--approve", "all", "--json")
    [result] = json.loads(run.stdout)["steps"][0]["results"]
    assert result["ending"] == "failed"
    assert "a; echo b" in result["content"]
    assert "phi4mm: call wc -l 'a; echo b'\n" in run.stderr


# --------------------------------------------------------------------------------------------------- on a terminal


class Terminal:
    """A program that has a terminal for stdin and stderr; stdout is a pipe."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder),
            stdin=slave,
            stderr=slave,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.shown and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.master, 4096).decode()
                except OSError:  # the other side is closed
                    break
        assert text in self.shown, self.shown

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        stdout = self.process.stdout.read().decode()
        code = self.process.wait(PATIENCE)
        os.close(self.master)
        return code, stdout


@pytest.mark.parametrize(
    ("typed", "called"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("yy\n", False), ("\x04", False)],
)
def test_each_call_is_asked_for(tmp_path: Path, typed: str, called: bool) -> None:
    terminal = Terminal(program(tmp_path, [CALL, "Done."], RUN), tmp_path)
    terminal.wait_for('phi4mm: call get_weather(city="Zürich")? [y/N] ')
    assert made(tmp_path) == []
    terminal.type(typed)
    assert terminal.end() == (0, "Done.\n")
    assert made(tmp_path) == (["Zürich"] if called else [])


def test_what_is_typed_before_it_asks_is_no_answer(tmp_path: Path) -> None:
    terminal = Terminal(program(tmp_path, [CALL, "Done."], RUN), tmp_path)
    terminal.type("y\n")
    terminal.wait_for('phi4mm: call get_weather(city="Zürich")? [y/N] ')
    assert not select.select([terminal.master], [], [], 0.5)[0]
    terminal.type("n\n")
    assert terminal.end() == (0, "Done.\n")
    assert made(tmp_path) == []


def test_what_is_asked_shows_all_that_would_be_hidden(tmp_path: Path) -> None:
    hidden = CALL.replace("Zürich", "a\\u001b[2K\\r\\u202eb\\nc")
    terminal = Terminal(program(tmp_path, [hidden, "Done."], RUN), tmp_path)
    terminal.wait_for('call get_weather(city="a\\u001b[2K\\r\\u202eb\\nc")? [y/N] ')
    terminal.type("n\n")
    assert terminal.end() == (0, "Done.\n")


def test_an_interrupt_while_it_asks_calls_nothing(tmp_path: Path) -> None:
    terminal = Terminal(program(tmp_path, [CALL, "Done."], RUN), tmp_path)
    terminal.wait_for("[y/N]")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == (130, "")
    assert made(tmp_path) == []


def test_an_interrupt_ends_the_call_too(tmp_path: Path) -> None:
    call = '<|tool_call|>[{"name": "wait", "arguments": {}}]<|/tool_call|>'
    terminal = Terminal(program(tmp_path, [call, "Done."], (*RUN, "--approve", "all")), tmp_path)
    wait_for((tmp_path / "waiting").exists)
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == (130, "")  # long before what was called would end
