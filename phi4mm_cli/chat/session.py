"""Conversations in files: a line of JSON for each event, only ever added to, so that a kill costs no finished turn."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, reduce
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi4mm_cli.chat import Conversation, Dropped, Event, Instructed, Reset, Turn, Undone, replay
from phi4mm_cli.errors import InputError
from phi4mm_cli.schema import Clip, Message, Part, Picture, Reply, Source, canonical_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

HEAD = '{"phi4mm_session":1}'
MODE = 0o600  # what people talk about is theirs alone

_EVENTS = (Turn, Instructed, Undone, Dropped, Reset)
_RECORDS = {record.__name__: record for record in (*_EVENTS, Message, Clip, Picture, Reply, Source)}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a file holds."""

    conversation: Conversation
    torn: int = 0  # lines that were not written to their end
    missing: tuple[str, ...] = ()  # media that are gone, or are no longer what they were

    @property
    def problems(self) -> Iterator[str]:
        """What the user should know of it."""
        if self.torn:
            yield f"{self.torn} lines were not written to their end, and are left out"
        for path in self.missing:
            yield f"{path} is gone or has changed; its name stands in its place"


def load(path: Path) -> Loaded:
    """The conversation in a file; none in one that is empty. Raises InputError where it is no session."""
    events, torn = _read(path)
    found = replay(events)
    turns, missing = [], dict[str, None]()
    for turn in found.turns:
        messages = [_checked(message, missing) for message in (turn.said, *turn.replies)]
        turns.append(Turn(messages[0], tuple(messages[1:])))
    return Loaded(replace(found, turns=tuple(turns)), torn, tuple(missing))


def _read(path: Path) -> tuple[list[Event], int]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", "Give another file") from None
    if HEAD.encode().startswith(lines[0]) and len(lines) == 1:
        return [], 0  # empty, or killed at once
    if lines[0] != HEAD.encode():
        raise InputError(f"{path}: this is no session of phi4mm", "Give one that `phi4mm chat` wrote, or a new name")
    events: list[Event] = []
    torn = 0
    for number, line in enumerate(lines[1:], 2):
        try:
            value = json.loads(line.decode("utf-8", "surrogateescape")) if line else None
        except (ValueError, RecursionError):
            torn += 1
            continue
        if value is not None:
            events.append(_event(value, f"{path}:{number}"))
    return events, torn


def _event(value: Any, where: str) -> Event:
    from pydantic import ValidationError

    try:
        event = _built(value)
    except (KeyError, TypeError, ValidationError, RecursionError):
        event = None
    if not isinstance(event, _EVENTS) or (isinstance(event, Turn) and not _is_turn(event)):
        raise InputError(f"{where}: this is nothing that happens in a conversation", "Mend the line or remove it")
    return event


def _is_turn(turn: Turn) -> bool:
    """Whether nobody speaks in it who may not: a file is no place to speak as the system from."""
    return turn.said.role == "user" and all(message.role in ("assistant", "tool") for message in turn.replies)


def _built(value: Any) -> Any:
    """The record that canonical JSON stands for."""
    if isinstance(value, list):
        return [_built(item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = {name: _built(item) for name, item in value.items() if name != "type"}
    return _adapter(value["type"]).validate_python(fields)


@cache
def _adapter(name: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(_RECORDS[name])


def _checked(message: Message, missing: dict[str, None]) -> Message:
    """The message with a note in the place of media that are not there any more.

    An answer that a file has as bare text is a Reply, whose letters are never taken for the markers of calls.
    """
    parts: list[Part] = []
    for part in message.parts:
        if isinstance(part, (Clip, Picture)) and not _unchanged(part.source):
            missing[part.source.path] = None
            kind = "recording" if isinstance(part, Clip) else "picture"
            parts.append(f"[{kind} {Path(part.source.path).name}, which is gone]\n")
        elif isinstance(part, str) and message.role == "assistant":
            parts.append(Reply(part, ()))
        else:
            parts.append(part)
    return replace(message, parts=tuple(parts))


def _unchanged(source: Source) -> bool:
    from phi4mm_cli.media import audio

    try:
        return audio.source(source.path) == source
    except InputError:
        return False


class Kept:
    """A conversation that goes on, and the file that knows of it; None keeps nothing."""

    def __init__(self, conversation: Conversation, path: Path | None) -> None:
        self.conversation = conversation
        self._path = path

    def happen(self, *events: Event) -> None:
        """Go on. What has happened is on the disk before this returns. Raises InputError where it cannot be."""
        if self._path is not None:  # first: what is not in the file has not happened, or /undo takes back another turn
            append(self._path, events if _is_there(self._path) else (*events_of(self.conversation), *events))
        self.conversation = reduce(Conversation.after, events, self.conversation)


def _is_there(path: Path) -> bool:
    """False where it is yet to be made, or has been removed as one of the oldest."""
    try:
        return path.exists()
    except OSError:  # which adding to it tells
        return True


def append(path: Path, events: Iterable[Event]) -> None:
    """Put what has happened behind what is in a file. Raises InputError."""
    try:
        _append(path, events)
    except OSError as error:
        raise InputError(f"cannot write the session {path}: {error.strerror}", "Give another file") from None


def write(path: Path, conversation: Conversation) -> None:
    """Write a file that holds this conversation alone. Raises InputError."""
    temporary = path.with_name(f".phi4mm-{os.getpid()}.part")
    try:
        temporary.unlink(missing_ok=True)
        _append(temporary, events_of(conversation))
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write the session {path}: {error.strerror}", "Give another file") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _append(path: Path, events: Iterable[Event]) -> None:
    """All that has happened, or none of it."""
    text = "".join(canonical_json(event) + "\n" for event in events)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, MODE)
    with os.fdopen(file, "r+b", buffering=0) as opened:  # closing a buffer would write what has found no room
        size = os.fstat(file).st_size
        data = _gap(opened) + text.encode("utf-8", "surrogateescape")
        try:
            while data:
                data = data[opened.write(data) :]
            os.fsync(file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)
            raise


def _gap(file: FileIO) -> bytes:
    """What has to stand between what is written and the next event: the head, or the end of a torn line."""
    head = file.read(len(HEAD) + 1)
    if len(head) <= len(HEAD):
        return HEAD.encode()[len(head) :] + b"\n"
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


def events_of(conversation: Conversation) -> Iterator[Event]:
    """What makes this conversation out of nothing."""
    if conversation.system is not None:
        yield Instructed(conversation.system)
    yield from conversation.turns
