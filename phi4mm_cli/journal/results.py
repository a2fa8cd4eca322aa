"""Results as they were before they were written: another form of them needs no model.

Each input has one file, which is replaced as a whole: a line says what the result is of, the next one holds it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from phi4mm_cli.journal.records import Key, Stamp, file_name, line, restored
from phi4mm_cli.outputs import Document


def keep(folder: Path, key: Key, task: str, stamp: Stamp, timed: bool, document: Document) -> None:
    """Put the result of an input where `kept` finds it. Raises OSError."""
    path = _path(folder, key)
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        temporary.write_bytes(line({"task": task, "stamp": stamp, "timed": timed}) + line(document))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def kept(folder: Path, key: Key, task: str, timed: bool) -> tuple[Stamp, Document] | None:
    """The result that was kept of an input, and what the input was like then; None where there is none for `task`."""
    try:
        with _path(folder, key).open("rb") as file:
            head = json.loads(file.readline())
            if head["task"] != task or head["timed"] < timed:
                return None
            return Stamp(**head["stamp"]), restored(Document, json.loads(file.readline()))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or damaged: it is made again


def _path(folder: Path, key: Key) -> Path:
    return folder / f"{file_name(key)}.json"
