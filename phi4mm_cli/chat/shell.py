"""A conversation that is typed: what each line does, apart from the terminal that it comes from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TextIO

from phi4mm_cli import attaching, console
from phi4mm_cli.attaching import Attachment
from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.chat import Conversation, Event, Instructed, Reset, Turn, Undone, screen, session
from phi4mm_cli.chat.session import Kept
from phi4mm_cli.chat.stopping import stoppable, unechoed
from phi4mm_cli.chat.talking import Spoken, Talker
from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.paths import from_home, is_there
from phi4mm_cli.schema import Clip, Message

_COMMAND = re.compile(r"/([a-z?]+)(?:\s+(.*))?", re.DOTALL)
QUOTES = '"""'  # around a question of several lines


@dataclass(frozen=True, slots=True)
class Command:
    """What can be typed instead of a question."""

    name: str
    takes: str  # as the help shows it
    help: str


COMMANDS = (
    Command("image", "PATH", "Attach a picture to the next question."),
    Command("audio", "PATH", "Attach a recording; Enter alone asks what it asks."),
    Command("video", "PATH", "Attach frames of a video, and its sound."),
    Command("doc", "PATH", "Attach a text or a PDF."),
    Command("system", "[TEXT|none]", "Show or set what the model should know and do."),
    Command("retry", "", "Ask the last question again, for another answer."),
    Command("undo", "", "Take back what is attached, else the last turn."),
    Command("reset", "", "Take back all questions and answers."),
    Command("save", "PATH", "Write the conversation to a file."),
    Command("load", "PATH", "Go on with the conversation in a file instead."),
    Command("tokens", "", "Say how much of the context is taken."),
    Command("help", "", "Show this."),
    Command("quit", "", "Leave, as Ctrl-D does."),
)
KEYS = (
    'Alt-Enter begins a new line; so does Enter after """, up to the next """.',
    "Ctrl-C stops an answer: what was said of it is kept. Ctrl-D leaves.",
)


class Left(Exception):  # noqa: N818 - not an error
    """The user has left the conversation."""


class Shell:
    """Does what lines say, in a conversation that goes on. What it has to say besides answers goes to stderr."""

    def __init__(self, talker: Talker, kept: Kept, stdout: TextIO, attached: list[Attachment]) -> None:
        self._talker, self._kept, self._stdout, self.attached = talker, kept, stdout, attached
        self._asked_again = 0
        self._done: dict[str, Callable[[str], None]] = {
            "system": self._system,
            "retry": lambda _: self._retry(),
            "undo": lambda _: self._undo(),
            "reset": lambda _: self._reset(),
            "save": self._save,
            "load": self._load,
            "tokens": lambda _: self._tokens(),
            "help": lambda _: self._help(),
            "quit": lambda _: self._quit(),
        }

    def take(self, line: str) -> None:
        """Do what a line says: it is a command, or a question. Raises Left."""
        text = unquoted(line)
        if not text and not any(isinstance(part, Clip) for attached in self.attached for part in attached.parts):
            return
        command = _COMMAND.fullmatch(text)
        try:
            if command is None:
                self._ask(text)
            else:
                self._command(command[1], (command[2] or "").strip())
        except Phi4Error as error:
            console.tell(str(error), "error")
            if command is None and self.attached:
                console.tell("what is attached stays; /undo takes it back")
        except Cancelled:
            console.write("\n")
            console.tell("stopped")

    def _command(self, typed: str, rest: str) -> None:
        name = {"exit": "quit", "bye": "quit", "?": "help"}.get(typed, typed)
        if name in attaching.WAYS:
            self._attach(name, rest)
        elif name in self._done:
            self._done[name](rest)
        else:
            console.tell(f"there is no command /{name}; /help shows all", "error")

    # ------------------------------------------------------------------------------------------------- asking

    def _ask(self, text: str) -> None:
        said = self._message(text)
        self._asked_again = 0
        if self._answer(said, ()):
            self.attached = []

    def _message(self, text: str | None) -> Message:
        return attaching.message(text, self.attached, self._talker.room_for_pictures)

    def _retry(self) -> None:
        if not self._kept.conversation.turns:
            console.tell("nothing was asked yet", "error")
            return
        self._asked_again += 1
        self._answer(self._kept.conversation.turns[-1].said, (Undone(),))

    def _answer(self, said: Message, before: tuple[Event, ...]) -> bool:
        """Ask, and keep what is answered behind `before`; False where nothing was."""
        conversation = self._kept.conversation
        for event in before:
            conversation = conversation.after(event)
        fitted = self._talker.fit(conversation, said)
        if fitted.notice:
            console.tell(fitted.notice, "warning" if fitted.dropped else "note")
        spoken = self._spoken(lambda show: self._talker.answer(fitted.conversation, said, show, self._asked_again))
        if spoken.finish is None and not spoken.text:
            console.tell("stopped before a word was said; the question is taken back")
            return False
        self._kept.happen(*before, *fitted.events, spoken.turn)
        if spoken.finish is None:
            console.tell("stopped; what was said is kept, and /undo takes it back")
        for warning in spoken.warnings:
            console.tell(f"{warning.message}; {warning.action}", "warning")
        return True

    def _spoken(self, answer: Callable[[Callable[[str], None]], Spoken]) -> Spoken:
        hushed = nullcontext() if self._talker.may_ask else unechoed()
        with screen.page(self._stdout) as page, hushed, stoppable():
            spoken = answer(page.write)
        if spoken.text:
            console.tell("")  # between an answer and what comes after it
        return spoken

    # ------------------------------------------------------------------------------------------------- the rest

    def _attach(self, way: str, rest: str) -> None:
        if not rest:
            console.tell("which file?", "error")
        for path in paths(rest):
            with stoppable():
                attachment = attaching.attached(way, path)
            if attachment.damage:
                console.tell(f"{attachment.damage}; what could be read is used", "warning")
            self.attached.append(attachment)

    def _system(self, rest: str) -> None:
        if rest:
            self._kept.happen(Instructed(None if rest == "none" else rest))
        else:
            console.tell(console.harmless(self._kept.conversation.system or "there is no system prompt"))

    def _undo(self) -> None:
        if self.attached:
            console.tell(f"{self.attached.pop().name} is no longer attached")
        elif self._kept.conversation.turns:
            taken = self._kept.conversation.turns[-1]
            self._kept.happen(Undone())
            console.tell(f"taken back: {_begin(taken)}")
        else:
            console.tell("there is nothing to take back")

    def _reset(self) -> None:
        self._kept.happen(Reset())
        self.attached = []
        console.tell("the conversation begins anew")

    def _save(self, rest: str) -> None:
        if not rest:
            console.tell("to which file?", "error")
            return
        path = paths(rest)[0]
        with stoppable():
            if is_there(path) and not console.confirm(f"replace {console.visible(str(path))}?"):
                return
        session.write(path, self._kept.conversation)
        console.tell(f"{counted(self._kept.conversation)} in {path}")

    def _load(self, rest: str) -> None:
        if not rest:
            console.tell("from which file?", "error")
            return
        path = paths(rest)[0]
        with stoppable():
            loaded = session.load(path)
        for problem in loaded.problems:
            console.tell(problem, "warning")
        self._kept.happen(Reset(), Instructed(None), *session.events_of(loaded.conversation))
        console.tell(f"{counted(loaded.conversation)} from {path}")

    def _tokens(self) -> None:
        said = self._message(None)
        conversation = self._kept.conversation
        taken = self._talker.tokens(self._talker.messages(conversation, said))
        attached = f", {len(self.attached)} attached" if self.attached else ""
        console.tell(f"{taken:,} of {self._talker.context:,} tokens: {counted(conversation)}{attached}")

    def _help(self) -> None:
        for command in COMMANDS:
            console.tell(f"  /{f'{command.name} {command.takes}':<19} {command.help}")
        for line in KEYS:
            console.tell(line)

    def _quit(self) -> NoReturn:
        raise Left


def counted(conversation: Conversation) -> str:
    """How long a conversation is, for people."""
    turns = len(conversation.turns)
    return "1 turn" if turns == 1 else f"{turns} turns"


def paths(text: str) -> list[Path]:
    """The files that are named: one whose name is all of it, else as many as a shell would read there."""
    whole = from_home(text)
    if is_there(whole):
        return [whole]
    try:
        return [from_home(word) for word in shlex.split(text)]
    except ValueError:
        return [whole]


def is_open(text: str) -> bool:
    """Whether a question is being typed that its closing quotes are still to come of."""
    return text.lstrip().startswith(QUOTES) and not (len(text.strip()) >= 6 and text.rstrip().endswith(QUOTES))


def unquoted(line: str) -> str:
    """What is typed, without the quotes around several lines."""
    text = line.strip()
    return text.removeprefix(QUOTES).removesuffix(QUOTES).strip() if text.startswith(QUOTES) else text


def _begin(turn: Turn) -> str:
    """The beginning of a question, on one line."""
    text = " ".join(part for part in turn.said.parts if isinstance(part, str))
    words = console.visible(" ".join(text.split())) or "what was attached"
    return words if len(words) <= 60 else f"{words[:59]}…"
