"""Where a conversation is typed: a prompt that shows what is attached, completes commands and paths, and remembers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from phi4mm_cli import attaching, console
from phi4mm_cli.attaching import Attachment
from phi4mm_cli.chat.shell import COMMANDS, Left, Shell, is_open

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.key_binding import KeyBindings

WITH_PATHS = {*attaching.WAYS, "save", "load"}
MENU = 4  # lines kept free below the prompt


def converse(shell: Shell, history: Path | None) -> None:
    """Do what is typed until the user leaves; `history` is the file of what was typed before."""
    session = _session(history)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # it stops what says that it can be stopped, and no more
    try:
        while True:
            try:
                shell.take(session.prompt(_prompt(shell.attached)))
            except KeyboardInterrupt:
                console.tell("Ctrl-D leaves")
    except (EOFError, Left):
        return
    finally:
        signal.signal(signal.SIGINT, before)


def _session(history: Path | None) -> PromptSession[str]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.history import FileHistory, InMemoryHistory
    from prompt_toolkit.output import ColorDepth, create_output

    return PromptSession(
        history=FileHistory(str(history)) if history else InMemoryHistory(),
        completer=_completer(),
        key_bindings=_keys(),
        multiline=True,
        prompt_continuation="… ",
        reserve_space_for_menu=MENU,
        output=create_output(stdout=sys.stderr),
        color_depth=ColorDepth.MONOCHROME if os.environ.get("NO_COLOR") else None,
    )


def _prompt(attached: list[Attachment]) -> str:
    names = ", ".join(console.visible(one.name) for one in attached)
    return f"[{names}] > " if names else "> "


def _keys() -> KeyBindings:
    """Enter asks, and within quotes begins a new line, as Alt-Enter does anywhere."""
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter")
    def enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline()
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline()

    return keys


def _completer() -> Completer:
    from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    paths = PathCompleter(expanduser=True)

    class Commands(Completer):
        def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
            name, space, rest = document.text_before_cursor.partition(" ")
            if not name.startswith("/"):
                return
            if not space:
                for command in COMMANDS:
                    if command.name.startswith(name[1:]):
                        text = f"/{command.name}{' ' if command.takes else ''}"
                        yield Completion(text, -len(name), display_meta=command.help)
            elif name[1:] in WITH_PATHS and complete_event.completion_requested:  # by Tab, not while it is typed
                yield from paths.get_completions(Document(rest.lstrip()), complete_event)

    return Commands()
