"""`phi4mm chat` typed at: a terminal of 80 columns and 24 lines, as a person sees it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import pyte
import pytest
from at_work import PATIENCE
from conftest import environment, program
from PIL import Image

from phi4mm_cli import console

ROWS, COLUMNS = 24, 80
ENTER, UP, TAB, CTRL_C, CTRL_D, ALT_ENTER = "\r", "\x1b[A", "\t", "\x03", "\x04", "\x1b\r"


class Screen(pyte.HistoryScreen):
    """What the program has drawn; it answers when it is asked where the cursor is."""

    def __init__(self, master: int) -> None:
        super().__init__(COLUMNS, ROWS, history=1000)
        self._master = master

    def write_process_input(self, data: str) -> None:
        os.write(self._master, data.encode())


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, command: list[str], folder: Path, stdout: int | None = None, **variables: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(folder) | variables,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            start_new_session=True,
        )
        os.close(slave)
        self._screen = Screen(self.master)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def lines(self) -> list[str]:
        """All that can be seen and scrolled back to, without what is behind the last letter of each line."""
        above = ["".join(line[x].data for x in range(COLUMNS)) for line in self._screen.history.top]
        return [line.rstrip() for line in (*above, *self._screen.display)]

    def wait_for(self, *lines: str) -> None:
        """Until these lines are the last ones that are not empty."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                try:
                    self._stream.feed(os.read(self.master, 4096))
                except OSError:  # the program has ended
                    break
            elif self._last(len(lines)) == [*lines]:
                return
        assert self._last(len(lines)) == [*lines], "\n".join(self.lines)

    def wait_for_text(self, text: str) -> None:
        """Until this can be seen anywhere."""
        deadline = time.monotonic() + PATIENCE
        while text not in "\n".join(self.lines) and time.monotonic() < deadline:
            self._stream.feed(os.read(self.master, 4096))

    def _last(self, count: int) -> list[str]:
        return [line for line in self.lines if line][-count:]

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        self.type(CTRL_D)
        while True:
            try:
                if not os.read(self.master, 4096):
                    break
            except OSError:
                break
        code = self.process.wait(PATIENCE)
        os.close(self.master)
        return code


def asked(folder: Path) -> list[list[tuple[str, list[str]]]]:
    """What the model was told with each question: roles and parts."""
    requests = [json.loads(line) for line in (folder / "asked").read_text(encoding="utf-8").splitlines()]
    return [
        [
            (
                message["role"],
                [part if isinstance(part, str) else part.get("text", "media") for part in message["parts"]],
            )
            for message in request["messages"]
        ]
        for request in requests
    ]


HELLO = "/help shows what can be typed, Ctrl-D leaves"


def test_a_conversation(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20)).save(tmp_path / "chart one.png")
    answers = ["# A chart\n\nIt has **two** bars:\n\n* red\n* blue", "The red one.", "Blue."]
    at = Terminal(program(tmp_path, answers, ("chat", "--image", "chart one.png")), tmp_path)
    at.wait_for(HELLO, "[chart one.png] >")
    at.type("What is this?" + ENTER)
    at.wait_for("It has two bars:", " • red", " • blue", ">")
    at.type("/image ch")
    at.wait_for("> /image ch")
    at.type(TAB)
    at.wait_for("> /image chart one.png")
    at.type(ENTER)
    at.wait_for("[chart one.png] >")
    at.type('"""Which' + ENTER + 'is longer?"""' + ENTER)
    at.wait_for("The red one.", ">")
    at.type("/undo" + ENTER)
    at.wait_for("taken back: Which is longer?", ">")
    at.type("/save kept.jsonl" + ENTER)
    at.wait_for("1 turn in kept.jsonl", ">")
    at.type("/save kept.jsonl" + ENTER)
    at.wait_for("phi4mm: replace kept.jsonl? [y/N]")
    at.type(CTRL_C)
    at.wait_for("phi4mm: replace kept.jsonl? [y/N] ^C", "stopped", ">")
    at.type("/reset" + ENTER)
    at.wait_for("the conversation begins anew", ">")
    at.type("/load kept.jsonl" + ENTER)
    at.wait_for("1 turn from kept.jsonl", ">")
    at.type("/system Be brief." + ENTER + "/tokens" + ENTER)
    at.wait_for("485 of 131,072 tokens: 1 turn", ">")
    at.type("And" + ALT_ENTER + "now?" + ENTER)
    at.wait_for("Blue.", ">")
    at.type("/help" + ENTER)
    at.wait_for("Ctrl-C stops an answer: what was said of it is kept. Ctrl-D leaves.", ">")
    assert ["/undo", "Take back what is attached, else the last turn."] in [line.split(maxsplit=1) for line in at.lines]
    at.type("/nonsense" + ENTER)
    at.wait_for("there is no command /nonsense; /help shows all", ">")
    assert at.end() == 0
    first = [("user", ["media", "What is this?"]), ("assistant", [answers[0]])]
    assert asked(tmp_path) == [
        first[:1],
        [*first, ("user", ["media", "Which\nis longer?"])],
        [("system", ["Be brief."]), *first, ("user", ["And\nnow?"])],
    ]
    history = tmp_path / "state" / "phi4mm" / "history"
    assert "+What is this?" in history.read_text(encoding="utf-8")
    assert history.stat().st_mode & 0o777 == 0o600


def test_an_answer_is_stopped_and_the_conversation_goes_on(tmp_path: Path) -> None:
    answers = [f"It begins {'and goes on ' * 99}", "One.", "Two."]
    at = Terminal(program(tmp_path, answers, ("chat", "--no-history")), tmp_path, PAUSE="0.3")
    at.wait_for(HELLO, ">")
    at.type("Tell me." + ENTER)
    at.wait_for_text("It begins and")
    at.type(CTRL_C)
    at.wait_for("stopped; what was said is kept, and /undo takes it back", ">")
    at.type("And?" + ENTER)
    at.wait_for("One.", ">")
    at.type("So?" + ENTER)
    at.wait_for_text("thinking")
    assert "starting" not in at.lines  # as before the first answer
    at.type(CTRL_C)
    at.wait_for("stopped before a word was said; the question is taken back", ">")
    at.type("half a line" + CTRL_C)
    at.wait_for("Ctrl-D leaves", ">")
    at.type("/retry" + ENTER)
    at.wait_for("Two.", ">")
    assert at.end() == 0
    told = asked(tmp_path)
    assert told[1][1][0] == "assistant"
    assert told[1][1][1][0].startswith("It begins and")
    assert told[-1] == told[1]
    assert not [*(tmp_path / "state").rglob("*")]


def test_a_question_that_fails_is_asked_again(tmp_path: Path) -> None:
    picture, away = tmp_path / "p.png", tmp_path / "away.png"
    Image.new("RGB", (30, 20)).save(picture)
    at = Terminal(program(tmp_path, ["5."], ("chat", "--image", "p.png", "--no-history")), tmp_path)
    at.wait_for(HELLO, "[p.png] >")
    picture.rename(away)
    at.type("How many?" + ENTER)
    at.wait_for("what is attached stays; /undo takes it back", "[p.png] >")
    away.rename(picture)
    at.type(UP + ENTER)
    at.wait_for("[p.png] > How many?", "5.", ">")  # and not an empty list of Markdown
    assert at.end() == 0


def test_only_answers_go_to_a_pipe(tmp_path: Path) -> None:
    read, write = os.pipe()
    at = Terminal(program(tmp_path, ["**One.**", "Two."], ("chat",)), tmp_path, stdout=write)
    os.close(write)
    at.wait_for(HELLO, ">")
    at.type("Hi" + ENTER)
    at.wait_for("> Hi", ">")
    at.type("/tokens" + ENTER + "Ho" + ENTER)
    at.wait_for("> Ho", ">")
    assert at.end() == 0
    assert os.read(read, 4096) == b"**One.**\nTwo.\n"
    os.close(read)


@pytest.mark.parametrize("escape", ["\x1b]52;c;YQ==\x07", "\x9b2J"])
def test_answers_do_nothing_to_a_terminal(tmp_path: Path, escape: str) -> None:
    at = Terminal(program(tmp_path, [f"One {escape} two."], ("chat", "Hi")), tmp_path)
    at.wait_for(f"One {ascii(escape)[1:-1]} two.")
    assert at.process.wait(PATIENCE) == 0


def test_what_scripts_need_is_shown_and_what_turns_a_terminal_round_is_not() -> None:
    plain = "10\u202f000 \u20ac\n\t\u3000\u6771\u4eac \U0001f469\u200d\U0001f680 \u0645\u06cc\u200c\u062e \u00a0"
    assert console.harmless(plain) == plain
    assert console.harmless("\x1b[2J \u202e \u2028 \x9b \r \u2066") == r"\x1b[2J \u202e \u2028 \x9b \r \u2066"
