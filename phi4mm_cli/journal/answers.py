"""The model's answers for inputs that are in hand: one long recording goes on where it was.

`requests/HASH.jsonl` is of one input: a line that says what it is of, then one for each answer: `key` (of the
request), `result`, and how far into the input it reaches, `end` in seconds or `page`. The file is removed as soon as
the input has its result, and begun anew where the input or its task is another. So there is at most one for each input
that was begun and has no result: those in hand when a run was stopped, and those that failed.

Those for short inputs are lines of one file, `requests.jsonl` (of a shard `requests-3-of-8.jsonl`), which is removed by
a run that comes to its end without failures. A line has what it is of, too.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from phi4mm_cli.closing import Closing
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.journal.pile import Pile
from phi4mm_cli.journal.records import Key, Stamp, file_name, line, restored
from phi4mm_cli.schema import ModelInfo, Profile, Request, Result


class Answers:
    """Those of one input, on disk."""

    def __init__(self, folder: Path, key: Key, task: str, stamp: Stamp) -> None:
        self._path = folder / f"{file_name(key)}.jsonl"
        self._head = _head(task, stamp)

    def known(self) -> dict[str, Result]:
        """What an earlier run has been answered, by the requests' keys. What is of something else is removed."""
        lines = list(read(self._path))
        if not lines and not self._path.exists():
            return {}
        if lines and lines[0] == self._head:
            with self._path.open("ab") as file:
                file.write(b"\n")  # ends a line that is torn; an empty one is passed over
            return _answers(lines[1:])
        self.remove()
        return {}

    def add(self, request: Request, result: Result) -> None:
        """Keep an answer. Raises OSError."""
        ends, pages = [clip.end for clip in request.clips], [picture.page or 1 for picture in request.pictures]
        reach = {"end": max(ends)} if ends else {"page": max(pages)} if pages else {}
        text = line({"key": request.key, "result": result, **reach})
        with self._path.open("ab") as file:
            file.write(text if file.tell() else line(self._head) + text)

    def remove(self) -> None:
        """They are needed no more."""
        self._path.unlink(missing_ok=True)


class ShortAnswers:
    """Those of one short input, among others'."""

    def __init__(self, pile: Pile, key: Key, task: str, stamp: Stamp, earlier: Sequence[Mapping[str, Any]]) -> None:
        self._pile, self._head = pile, {"of": file_name(key), **_head(task, stamp)}
        self._earlier = [line for line in earlier if self._head.items() <= line.items()]

    def known(self) -> dict[str, Result]:
        """What an earlier run has been answered, by the requests' keys."""
        return _answers(self._earlier)

    def add(self, request: Request, result: Result) -> None:
        """Keep an answer. Raises OSError."""
        self._pile.add(line({**self._head, "key": request.key, "result": result}))

    def remove(self) -> None:
        """They are needed no more, and are removed with the others."""
        self._earlier = []


def _head(task: str, stamp: Stamp) -> dict[str, Any]:
    return {"task": task, "size": stamp.size, "hash": stamp.hash}


def read(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines of a file of answers that can be read; none where there is no file."""
    try:
        with path.open("rb") as file:
            for text in file:
                try:
                    plain = json.loads(text)
                except ValueError:
                    continue  # torn
                if isinstance(plain, dict):
                    yield plain
    except FileNotFoundError:
        return


def _answers(lines: Iterable[Mapping[str, Any]]) -> dict[str, Result]:
    found: dict[str, Result] = {}
    for plain in lines:
        with suppress(KeyError, ValueError):
            found[plain["key"]] = restored(Result, plain["result"])
    return found


class Replaying(Closing):
    """An engine that has some answers already; the others are another engine's."""

    def __init__(self, engine: Engine, known: Mapping[str, Result]) -> None:
        self._engine, self._known = engine, known
        self._ready: deque[tuple[str, Result]] = deque()

    @property
    def info(self) -> ModelInfo:
        """The other engine's model."""
        return self._engine.info

    @property
    def profile(self) -> Profile:
        """What its checkpoint says of itself."""
        return self._engine.profile

    def count_tokens(self, text: str) -> int:
        """How many tokens of its vocabulary `text` is."""
        return self._engine.count_tokens(text)

    def room(self) -> int:
        """That of the other engine: what is known takes none of it."""
        return self._engine.room()

    def submit(self, request: Request) -> None:
        """Take a request in hand."""
        if (result := self._known.get(request.key)) is not None:
            self._ready.append((request.key, result))
        else:
            self._engine.submit(request)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        """What is known, at once; then what the other engine has finished."""
        if self._ready:
            ready = [*self._ready]
            self._ready.clear()
            return [*ready]
        return self._engine.poll(timeout)

    def cancel(self, key: str) -> None:
        """Drop the request."""
        self._ready = deque(one for one in self._ready if one[0] != key)
        self._engine.cancel(key)

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Have the other engine answer."""
        return self._engine.stream(request)

    def close(self) -> None:
        """Forget what has not been given."""
        self._ready.clear()
