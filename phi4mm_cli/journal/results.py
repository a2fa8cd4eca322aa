"""Results as they were before they were written: another form of them needs no model.

A short one is a line of `results.jsonl` (of a shard `results-3-of-8.jsonl`), the latest of an input counts. Each other
has a file of its own in `results`, which is replaced as a whole: a line says what the result is of, the next holds it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi4mm_cli.journal.pile import Pile
from phi4mm_cli.journal.records import Key, Stamp, file_name, line, restored
from phi4mm_cli.outputs import Document

SHORT = 4096  # bytes


@dataclass(slots=True)
class Results:
    """Those of a folder, of which a run adds its own."""

    folder: Path
    suffix: str = ""  # of the run's own short ones
    _own: Pile = field(init=False)
    _short: dict[str, list[tuple[Pile, int]]] | None = None  # where they are, by the name that `file_name` gives inputs

    def __post_init__(self) -> None:
        self._own = Pile(self.folder.with_name(f"results{self.suffix}.jsonl"))

    def keep(self, key: Key, task: str, stamp: Stamp, timed: bool, document: Document) -> None:
        """Put the result of an input where `kept` finds it. Raises OSError."""
        name, text = file_name(key), line(document)
        head = {"task": task, "stamp": stamp, "timed": timed}
        path = self._path(key)
        if len(text) <= SHORT:
            path.unlink(missing_ok=True)
            place = self._own.add(line({"of": name, **head})[:-2] + b',"document":' + text[:-1] + b"}\n")
            if self._short is not None:
                self._short.setdefault(name, []).append((self._own, place))
            return
        temporary = path.with_suffix(f".{os.getpid()}.part")
        try:
            temporary.write_bytes(line(head) + text)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._own.add(line({"of": name}))  # a short one that was there before counts no more
        if self._short is not None:
            self._short.pop(name, None)

    def kept(self, key: Key, task: str, timed: bool) -> tuple[Stamp, Document] | None:
        """The result of an input, and what the input was like then; None where there is none for `task`."""
        try:
            for found in self._of(key):
                if found["task"] == task and found["timed"] >= timed:
                    return Stamp(**found["stamp"]), restored(Document, found["document"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or damaged: it is made again
        return None

    def close(self) -> None:
        """Nothing more is kept."""
        self._own.close()

    def _of(self, key: Key) -> Iterator[Mapping[str, Any]]:
        """All that there are, the short ones first, from the latest on."""
        if self._short is None:
            self._short = self._places()
        for pile, place in reversed(self._short.get(file_name(key), [])):
            if (found := pile.at(place)) is not None:
                yield found
        with self._path(key).open("rb") as file:
            head = json.loads(file.readline())
            yield {**head, "document": json.loads(file.readline())}

    def _places(self) -> dict[str, list[tuple[Pile, int]]]:
        found: dict[str, list[tuple[Pile, int]]] = {}
        for path in sorted(self.folder.parent.glob("results*.jsonl")):
            pile = Pile(path)
            for place, plain in pile.lines():
                if "document" in plain:
                    found.setdefault(plain["of"], []).append((pile, place))
                else:
                    found.pop(plain["of"], None)
        return found

    def _path(self, key: Key) -> Path:
        return self.folder / f"{file_name(key)}.json"
