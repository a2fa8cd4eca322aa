"""What is kept of many short inputs in one file: a file for each would take longer to make than the work itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any


class Pile:
    """Lines of JSON that are only added to, each handed to the system in one piece. One run at a time adds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def add(self, text: bytes) -> int:
        """Put a line on top, and tell where it begins. Raises OSError."""
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
            if self._file.tell():
                self._file.write(b"\n")  # ends a line that is torn; an empty one is passed over
        place = self._file.tell()
        while text:
            text = text[self._file.write(text) :]
        return place

    def lines(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Those that can be read, in order, with where each begins."""
        place = 0
        try:
            with self._path.open("rb") as file:
                for text in file:
                    if (plain := _plain(text)) is not None:
                        yield place, plain
                    place += len(text)
        except FileNotFoundError:
            return

    def at(self, place: int) -> Mapping[str, Any] | None:
        """The line that begins there."""
        with self._path.open("rb") as file:
            file.seek(place)
            return _plain(file.readline())

    def close(self) -> None:
        """Nothing more is added."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Close it and throw it away."""
        self.close()
        self._path.unlink(missing_ok=True)


def _plain(text: bytes) -> Mapping[str, Any] | None:
    try:
        plain = json.loads(text)
    except ValueError:
        return None  # torn
    return plain if isinstance(plain, dict) else None
