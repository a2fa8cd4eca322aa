"""`phi4mm chat`: a question and its answer, or a conversation, with whatever is to be seen, heard and read."""

from __future__ import annotations

import json
import os
import select
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TextIO

import typer

from phi4mm_cli import attaching, console, structured, texts
from phi4mm_cli.acting import Acts, toolbox
from phi4mm_cli.asking import asking
from phi4mm_cli.attaching import Attachment
from phi4mm_cli.chat import Conversation, Instructed, places, screen, session, terminal
from phi4mm_cli.chat.session import Kept, Loaded
from phi4mm_cli.chat.shell import Shell, counted
from phi4mm_cli.chat.talking import Acting, Talker
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.options import LogOptions, SamplingOptions, option, with_shared
from phi4mm_cli.outputs import Timings
from phi4mm_cli.paths import is_there
from phi4mm_cli.schema import Message
from phi4mm_cli.tool_options import ActingOptions, CallOptions
from phi4mm_cli.tools.records import ChatReply, Exchange

EXAMPLES = """
[b]Examples[/b]

phi4mm chat "Which quarter was best?" --image chart.png

cat log.txt | phi4mm chat "What failed?"

phi4mm chat --audio question.wav --json

phi4mm chat --continue "And the year before?"
"""

PATIENCE = 3.0  # seconds for which nothing comes from stdin before the user is told what is waited for


@dataclass(frozen=True, slots=True)
class MediaOptions:
    """What the question is about."""

    image: Annotated[list[Path] | None, typer.Option("--image", help="A picture.")] = None
    audio: Annotated[list[Path] | None, typer.Option("--audio", help="A recording; alone, it is the question.")] = None
    video: Annotated[list[Path] | None, typer.Option("--video", help="A video: 16 of its frames, and its sound.")] = (
        None
    )
    doc: Annotated[
        list[Path] | None, typer.Option("--doc", help="A text, or a PDF: its text, and pages without any as pictures.")
    ] = None

    def attachments(self) -> list[Attachment]:
        """All of them, read as far as is needed to know what they are. Raises InputError."""
        return [attaching.attached(way, path) for way, paths in self._given() for path in paths]

    def names(self) -> tuple[str, ...]:
        """As they were given."""
        return tuple(str(path) for _, paths in self._given() for path in paths)

    def _given(self) -> Iterator[tuple[str, list[Path]]]:
        yield "image", self.image or []
        yield "audio", self.audio or []
        yield "video", self.video or []
        yield "doc", self.doc or []


@dataclass(frozen=True, slots=True)
class ConversationOptions:
    """Which conversation it is, and under which rules."""

    system: Annotated[str | None, option("--system", help="What the model should know and do throughout.")] = None
    private: Annotated[
        bool | None,
        option(
            "--private/--no-private",
            help="Ask the model to guess nothing sensitive from voices.",
            show_default="where there are voices",
        ),
    ] = None
    continue_: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last conversation.")] = False
    session: Annotated[
        Path | None, typer.Option("--session", help="Go on with the conversation in this file, and keep it there.")
    ] = None
    history: Annotated[
        bool, option("--history/--no-history", help="Keep the conversation, and what is typed, for you alone.")
    ] = True

    def __post_init__(self) -> None:
        if self.continue_ and self.session is not None:
            raise UsageError("--continue and --session each name a conversation", "Leave one of them out")


@with_shared
def command(
    media: MediaOptions,
    how: ConversationOptions,
    acting: ActingOptions,
    calls: CallOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    log: LogOptions,
    words: Annotated[str | None, typer.Argument(metavar="QUESTION", help="What you ask.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer with all about it, as JSON.")] = False,
    schema: Annotated[
        Path | None, typer.Option("--schema", help="A JSON Schema; the answer is JSON that it describes.")
    ] = None,
) -> None:
    """Ask the model a question, with pictures, recordings and documents, or hold a conversation."""
    began = time.monotonic()
    form = structured.read_schema(schema) if schema else None
    if form is not None and acting.given:
        raise UsageError("--schema and tools do not go together", "Leave one of them out")
    asked = _with_stdin(words, log)
    typed = not asked and not media.audio
    if typed and (not console.can_ask() or as_json or form is not None):
        raise UsageError("nothing is asked", "Write a question behind the command, or speak it and give --audio")
    with ExitStack() as stack:
        attached = media.attachments()
        for attachment in attached:
            if attachment.damage and not log.quiet:
                console.say(f"{attachment.damage}; what could be read is used", "warning")
        kept = _kept(how, log)
        acts = _acting(stack, acting, calls, log)
        stdout = stack.enter_context(console.results())
        model = stack.enter_context(asking(engine, log))
        talker = Talker(model, sampling, how.private, acts)
        if typed:
            _converse(Shell(talker, kept, stdout, attached), kept, how, log)
            return
        said = attaching.message(asked, attached, talker.room_for_pictures)
        page = screen.unseen() if as_json else screen.page(stdout, plain=form is not None)
        reply = _answer(talker, kept, said, form, page, log)
        if as_json:
            exchange = Exchange(
                question=asked,
                media=media.names(),
                model=model.info,
                options={**_recorded(how, calls, acts), **sampling.recorded()},
                timings=Timings(time.monotonic() - began),
                usage=model.usage,
                tools=tuple(acts.tools) if acts else (),
                body=reply,
            )
            stdout.write(json.dumps(exchange.to_json(), ensure_ascii=False, indent=2) + "\n")
    if not log.quiet:
        for warning in reply.warnings:
            console.say(f"{warning.message}; {warning.action}", "warning")


def _answer(
    talker: Talker,
    kept: Kept,
    said: Message,
    form: structured.Schema | None,
    page: AbstractContextManager[screen.Page],
    log: LogOptions,
) -> ChatReply:
    """The answer to one question, shown on `page` and kept. Raises InputError, RequestError, AnswerError."""
    fitted = talker.fit(kept.conversation, said)
    if fitted.notice and (fitted.dropped or not log.quiet):
        console.say(fitted.notice, "warning" if fitted.dropped else "note")
    with page as shown:
        spoken = talker.answer(fitted.conversation, said, shown.write, form=form)
    kept.happen(*fitted.events, spoken.turn)
    return ChatReply(
        text=spoken.text,
        finish=spoken.finish or "stop",
        turns=len(kept.conversation.turns),
        left_out=fitted.dropped.turns if fitted.dropped else 0,
        steps=spoken.steps,
        warnings=spoken.warnings,
    )


def _converse(shell: Shell, kept: Kept, how: ConversationOptions, log: LogOptions) -> None:
    """Hold a conversation on the terminal until the user leaves it."""
    if not log.quiet:
        so_far = f"{counted(kept.conversation)} so far. " if kept.conversation.turns else ""
        console.tell(f"{so_far}/help shows what can be typed, Ctrl-D leaves")
    terminal.converse(shell, _place(places.history, log) if how.history else None)
    if not log.quiet and how.history and kept.conversation.turns:
        again = "--continue" if how.session is None else f"--session {shlex.quote(str(how.session))}"
        console.tell(f"phi4mm chat {again} goes on with this")


def _with_stdin(words: str | None, log: LogOptions) -> str | None:
    """The question, with what is piped in behind it. Raises InputError where that is no text."""
    if sys.stdin is None or not _is_piped(sys.stdin):
        return words
    # Windows can only wait for sockets.
    if not log.quiet and os.name != "nt" and not select.select([sys.stdin], [], [], PATIENCE)[0]:
        console.say("waiting for the end of stdin, which is not a terminal; `< /dev/null` gives none")
    try:
        text = texts.decoded(sys.stdin.buffer.read()).strip()
    except InputError as error:
        raise InputError(f"stdin: {error.message}", "Give pictures, recordings and documents as files") from None
    return "\n\n".join(part for part in (words, text) if part)


def _is_piped(stdin: TextIO) -> bool:
    """Whether there is a pipe or a file at the other end: not a terminal, not /dev/null."""
    mode = os.fstat(stdin.fileno()).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _kept(how: ConversationOptions, log: LogOptions) -> Kept:
    """The conversation to go on with, or a new one. Raises UsageError, InputError."""
    path = places.newest() if how.continue_ else how.session
    if path is None:
        kept = Kept(Conversation(), _place(places.new, log) if how.history else None)
    else:
        loaded = session.load(path) if is_there(path) else Loaded(Conversation())
        kept = Kept(loaded.conversation, path if how.history or how.session else None)
        kept.happen()  # so that a file which cannot be written is told before the model is asked
        for problem in loaded.problems:
            console.say(f"{path}: {problem}", "warning")
    if how.system is not None and how.system != kept.conversation.system:
        kept.happen(Instructed(how.system))
    return kept


def _place(find: Callable[[], Path], log: LogOptions) -> Path | None:
    """A file in the user's state folder, None where none can be: the conversation is held all the same."""
    try:
        return find()
    except OSError as error:
        if not log.quiet:
            console.say(f"what is said is not kept, for {error.filename} cannot be written: {error.strerror}")
        return None


def _acting(stack: ExitStack, acting: ActingOptions, calls: CallOptions, log: LogOptions) -> Acting | None:
    """The tools that are given, None where there are none. Raises UsageError, MissingError."""
    if not acting.given:
        return None
    box = toolbox(stack, acting)
    return Acting(box.tools, Acts(box.actors, calls, log).on, calls.max_steps)


def _recorded(how: ConversationOptions, calls: CallOptions, acts: Acting | None) -> dict[str, str | int | float | bool]:
    """What shapes the answer."""
    chosen = {"system": how.system, "private": how.private}
    known = {name: value for name, value in chosen.items() if value is not None}
    return {**known, **(calls.recorded() if acts else {})}
