"""`--jsonl -o FILE`: one file with a line of JSON for each input, to which each run adds what it has."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from phi4mm_cli import console
from phi4mm_cli.errors import UsageError
from phi4mm_cli.files import label_of
from phi4mm_cli.journal import FOLDER, lock


class Lines:
    """Knows which inputs have a line, and gives those that are worked on again a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._results: set[str] = set()  # inputs that have a line with a result
        self._others: set[str] = set()  # ... with the reason why they have none
        self._is_torn = False

    def __contains__(self, source: str) -> bool:
        return source in self._results

    def read(self) -> None:
        """Take in what is there. Raises UsageError where that is no such file."""
        try:
            with self._path.open("rb") as file:
                for line in file:
                    self._is_torn = not line.endswith(b"\n")
                    if not self._is_torn:
                        source, is_result = self._told(line)
                        (self._results if is_result else self._others).add(source)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot read {label_of(self._path)}: {error.strerror}") from error

    @contextmanager
    def opened(self, what: str) -> Iterator[TextIO]:
        """The file, at its end, for a run that does `what`; no other writes there meanwhile. Raises UsageError."""
        with ExitStack() as stack:
            try:
                folder = self._path.parent / FOLDER
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock.held(folder / f"lock-{self._path.name}", what))
                self.read()
                self._file = stack.enter_context(self._path.open("a", encoding="utf-8", errors="replace", newline="\n"))
            except OSError as error:
                raise UsageError(f"cannot write {label_of(self._path)}: {error.strerror}", "Give another -o") from error
            yield self._file
            with console.needing_room():
                os.fsync(self._file.fileno())

    def leave_out(self, anew: Collection[str]) -> None:
        """Take out the lines of these inputs, which will have new ones, and one that is torn."""
        gone = self._results.union(self._others).intersection(anew)
        if not gone and not self._is_torn:
            return
        temporary = self._path.with_name(f".phi4mm-{secrets.token_hex(4)}.part")
        try:
            with self._path.open("rb") as old, temporary.open("wb") as new:
                new.writelines(line for line in old if line.endswith(b"\n") and self._told(line)[0] not in gone)
                new.flush()
                os.fsync(new.fileno())
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)
        with self._path.open("ab") as new:
            os.dup2(new.fileno(), self._file.fileno())  # whoever writes to the file goes on in the new one
        self._results -= gone
        self._others -= gone
        self._is_torn = False

    def renew(self, source: str) -> None:
        """The input will have a line now: take out an earlier one."""
        self.leave_out({source})
        self._others.add(source)

    def _told(self, line: bytes) -> tuple[str, bool]:
        """Which input the line is of, and whether it is a result."""
        try:
            plain = json.loads(line)
            return plain["source"], plain["task"] != "failure"
        except (ValueError, KeyError, TypeError):
            message = f"{label_of(self._path)} holds something else than lines of --jsonl; it is not written to"
            raise UsageError(message, "Give another file with -o") from None
