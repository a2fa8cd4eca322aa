"""Reading journals: where each input stands, by the latest of its lines in any of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from phi4mm_cli.errors import UsageError
from phi4mm_cli.journal.records import FOLDER, VERSION, Key, Stamp
from phi4mm_cli.outputs import Coverage

Kind = Literal["started", "done", "failed"]


@dataclass(frozen=True, slots=True)
class State:
    """Where an input stands."""

    kind: Kind
    at: float  # seconds since 1970
    task: str
    stamp: Stamp | None  # None where it could not be read
    attempt: int  # counted from 1, of the same content and task
    rest: Mapping[str, Any]  # what the line has besides: see the package's documentation


@dataclass(frozen=True, slots=True)
class Mark:
    """What an output was when it was written."""

    size: int  # bytes
    hash: str  # hex BLAKE2b of 8 bytes


def marked(path: Path) -> Mark | None:
    """That of an output as it is now; None where it cannot be read."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return Mark(len(content), hashlib.blake2b(content, digest_size=8).hexdigest())


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has written an output."""

    at: float  # seconds since 1970
    key: Key
    mark: Mark | None  # of the output as it was written; None where that is not known


@dataclass(slots=True)
class States:
    """What the journals of a folder say."""

    of: dict[Key, State] = field(default_factory=dict)
    owners: dict[str, Owner] = field(default_factory=dict)  # of outputs: who has written them last

    def add(self, event: Mapping[str, Any]) -> None:
        """Take a line in. Raises KeyError, TypeError or ValueError where it is not as it should be."""
        if event["event"] not in ("started", "done", "failed"):
            return
        if event["event"] == "done" and not event.keys() >= _OF_DONE:
            raise KeyError(_OF_DONE - event.keys())
        key = (event["family"], event["name"])
        at = float(event["at"])
        stamp = Stamp(**event["stamp"]) if event["stamp"] else None
        for output in event.get("outputs", ()):
            if output not in self.owners or self.owners[output].at <= at:
                mark = event.get("marks", {}).get(output)
                self.owners[output] = Owner(at, key, Mark(**mark) if mark else None)
        if key not in self.of or self.of[key].at <= at:
            rest = {name: value for name, value in event.items() if name not in _OWN}
            if event["event"] == "done":
                rest["coverage"] = Coverage(**event["coverage"])
            self.of[key] = State(event["event"], at, event["task"], stamp, int(event["attempt"]), rest)


_OF_DONE = {"form", "outputs", "kept", "seconds", "coverage", "calls", "replayed", "warnings"}
_OWN = {"event", "at", "family", "name", "task", "stamp", "attempt"}


def journals(folder: Path) -> list[Path]:
    """The journals of the output folder: its own, and those of shards."""
    return sorted((folder / FOLDER).glob("journal*.jsonl"))


def read(folder: Path) -> States:
    """What the journals of the output folder say. Raises UsageError where a later version has written them."""
    states = States()
    for path in journals(folder):
        for event in events(path):
            try:
                states.add(event)
            except (KeyError, TypeError, ValueError):
                continue  # no line of ours
    return states


def events(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a journal that can be read. Raises UsageError where a later version has written it."""
    with path.open("rb") as file:
        for text in file:
            try:
                event = json.loads(text)
            except ValueError:
                continue  # torn
            if isinstance(event, dict):
                if event.get("event") == "run" and event.get("layout") != VERSION:
                    advice = "Use that version, or another output folder"
                    raise UsageError(f"{path} is of another version of phi4mm, {event.get('version')}", advice)
                yield event
