"""Lines of JSON in one file, whole or not there: journals, and what is kept of many short inputs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any


class Pile:
    """Lines of JSON, each added by handing it to the system in one piece. One run at a time adds to them."""

    def __init__(self, path: Path) -> None:
        self.path = path  # there need be nothing
        self._file: FileIO | None = None
        self._end = 0  # of it, while it is open: nobody else adds to it, and asking lets other threads in
        self._torn = False  # the last line has no end

    @property
    def size(self) -> int:
        """In bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def is_open(self) -> bool:
        """Whether something has been added."""
        return self._file is not None

    def open(self) -> None:
        """Make ready to add. Raises OSError."""
        self._file = self.path.open("a+b", buffering=0)
        self._end = self._file.tell()
        if self._end:
            self._file.seek(-1, os.SEEK_END)
            self._torn = self._file.read() != b"\n"

    def add(self, text: bytes) -> int:
        """Put lines on top, and tell where they begin. Raises OSError."""
        if self._file is None:
            self.open()
        assert self._file is not None
        place, rest = self._end + self._torn, b"\n" * self._torn + text
        self._torn = True
        while rest:
            count = self._file.write(rest)
            rest, self._end = rest[count:], self._end + count
        self._torn = False
        return place

    def lines(self) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """Those that can be read, in order, with where each begins and how long it is."""
        place = 0
        try:
            with self.path.open("rb") as file:
                for text in file:
                    if (plain := _plain(text)) is not None:
                        yield place, len(text), plain
                    place += len(text)
        except FileNotFoundError:
            return

    def at(self, place: int) -> Mapping[str, Any] | None:
        """The line that begins there."""
        with self.path.open("rb") as file:
            file.seek(place)
            return _plain(file.readline())

    def texts(self, places: Sequence[int]) -> Iterator[bytes]:
        """The lines that begin there, as they are."""
        if not places:
            return
        with self.path.open("rb") as file:
            for place in places:
                file.seek(place)
                yield file.readline().removesuffix(b"\n") + b"\n"

    def replace(self, texts: Iterable[bytes]) -> None:
        """Hold these lines instead, even should the power go now. Raises OSError, with its own lines or with these.

        Only while nothing has been added.
        """
        temporary = self.path.with_suffix(".part")
        try:
            with temporary.open("wb") as file:
                file.writelines(texts)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Nothing more is added."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close it and throw it away."""
        self.close()
        self.path.unlink(missing_ok=True)


def _plain(text: bytes) -> Mapping[str, Any] | None:
    try:
        plain = json.loads(text)
    except ValueError:
        return None  # torn
    return plain if isinstance(plain, dict) else None
