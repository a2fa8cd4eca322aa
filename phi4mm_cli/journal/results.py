"""Results as they were before they were written: another form of them needs no model.

A short one is a line of `results.jsonl` (of a shard `results-3-of-8.jsonl`), the latest of an input counts. Each other
has a file of its own in `results`, which is replaced as a whole: a line says what the result is of, the next holds it.
A run that has the folder for itself takes in those of shards, and leaves out lines that no longer count once they are
many.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi4mm_cli.journal.pile import Pile
from phi4mm_cli.journal.records import Key, Stamp, file_name, line, restored
from phi4mm_cli.outputs import Document

SHORT = 4096  # bytes
SLACK = 2**20  # bytes that do not count and are left where they are

_Places = dict[str, dict[str, tuple[Pile, int, int]]]  # pile, begin, size; by input, and by task


@dataclass(slots=True)
class Results:
    """Those of a folder, of which a run adds its own."""

    folder: Path
    suffix: str = ""  # of the run's own short ones
    alone: bool = False  # no other run is at work in the folder
    _own: Pile = field(init=False)
    _short: _Places | None = None  # where they are, by the name that `file_name` gives inputs; the latest are the last
    _long: set[str] | None = None
    _reading: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._own = Pile(self.folder.with_name(f"results{self.suffix}.jsonl"))

    def keep(self, key: Key, task: str, stamp: Stamp, document: Document) -> None:
        """Put the result of an input where `kept` finds it. Raises OSError."""
        name, text = file_name(key), line(document)
        head = {"task": task, "stamp": stamp}
        path = self._path(key)
        if len(text) <= SHORT:
            if path.name in self._files():
                path.unlink(missing_ok=True)
                self._files().remove(path.name)
            text = line({"of": name, **head})[:-2] + b',"document":' + text[:-1] + b"}\n"
            place = self._own.add(text)
            if self._short is not None:
                _put(self._short, name, head, (self._own, place, len(text)))
            return
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            temporary.write_bytes(line(head) + text)
            temporary.replace(path)
            self._files().add(path.name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._own.add(line({"of": name}))  # a short one that was there before counts no more
        if self._short is not None:
            self._short.pop(name, None)

    def kept(self, key: Key, task: str) -> tuple[Stamp, Document] | None:
        """The result of an input, and what the input was like then; None where there is none for `task`."""
        try:
            for found in self._of(key):
                if found["task"] == task:
                    return Stamp(**found["stamp"]), restored(Document, found["document"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or damaged: it is made again
        return None

    def close(self) -> None:
        """Nothing more is kept."""
        self._own.close()

    def _of(self, key: Key) -> Iterator[Mapping[str, Any]]:
        """All that there are, the short ones first, from the latest on."""
        with self._reading:
            if self._short is None:
                self._short = self._places()
            self._files()
        name = file_name(key)
        for pile, place, _ in reversed([*self._short.get(name, {}).values()]):
            if (found := pile.at(place)) is not None and found.get("of") == name:  # another run may have rewritten it
                yield found
        path = self._path(key)
        if path.name not in self._files():
            return
        with path.open("rb") as file:
            head = json.loads(file.readline())
            yield {**head, "document": json.loads(file.readline())}

    def _places(self) -> _Places:
        others = [Pile(path) for path in sorted(self.folder.parent.glob("results*.jsonl")) if path != self._own.path]
        found = _read([*others, self._own])
        counting = sum(size for tasks in found.values() for pile, _, size in tasks.values() if pile is self._own)
        if self.alone and not self._own.is_open and (others or self._own.size > 2 * counting + SLACK):
            with suppress(OSError):
                self._gather(others, found)
            found = _read([*others, self._own])
        return found

    def _gather(self, others: Sequence[Pile], found: _Places) -> None:
        """Have one pile of all that count. Raises OSError; whatever it has come to by then, the same ones count."""
        self._own.replace(self._counting(others, found))
        for pile in others:
            pile.remove()

    def _counting(self, others: Sequence[Pile], found: _Places) -> Iterator[bytes]:
        for name in {str(plain.get("of")) for pile in others for *_, plain in pile.lines()}:
            yield line({"of": name})  # behind which they count no more, should one of these piles stay
        for pile in (*others, self._own):
            places = [place for tasks in found.values() for of, place, _ in tasks.values() if of is pile]
            yield from pile.texts(sorted(places))

    def _files(self) -> set[str]:
        """The files there are: those that were there when it was first asked, and the run's own."""
        if self._long is None:
            self._long = {path.name for path in self.folder.glob("*.json")}
        return self._long

    def _path(self, key: Key) -> Path:
        return self.folder / f"{file_name(key)}.json"


def _read(piles: Iterable[Pile]) -> _Places:
    found: _Places = {}
    for pile in piles:
        for place, size, plain in pile.lines():
            if "document" in plain:
                _put(found, str(plain.get("of")), plain, (pile, place, size))
            else:
                found.pop(str(plain.get("of")), None)
    return found


def _put(places: _Places, name: str, head: Mapping[str, Any], place: tuple[Pile, int, int]) -> None:
    task = str(head.get("task"))
    tasks = places.setdefault(name, {})
    tasks.pop(task, None)
    tasks[task] = place
