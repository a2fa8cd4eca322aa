"""Where conversations are kept that nobody gave a file for: the user's state folder, which no one else may read."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from phi4mm_cli.errors import UsageError

MOST_KEPT = 50  # conversations; older ones are removed


def history() -> Path:
    """The file of what was typed, there and for the user's eyes alone. Raises OSError where none can be."""
    path = _folder() / "history"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return path


def new() -> Path:
    """The file of a conversation that begins. Raises OSError where none can be."""
    folder = _conversations()
    for old in _by_age(folder)[: -MOST_KEPT + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"


def newest() -> Path:
    """The file of the conversation that was last added to. Raises UsageError where there is none."""
    try:
        found = _by_age(_conversations())
    except OSError:
        found = []
    if not found:
        raise UsageError("there is no conversation to go on with", "Leave --continue out")
    return found[-1]


def _by_age(folder: Path) -> list[Path]:
    """Its conversations; the one that was added to last comes last."""
    times: dict[Path, float] = {}
    for path in folder.glob("*.jsonl"):
        with suppress(FileNotFoundError):  # another program is at the same
            times[path] = path.stat().st_mtime
    return sorted(times, key=lambda path: times[path])


def _conversations() -> Path:
    folder = _folder() / "conversations"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _folder() -> Path:
    from platformdirs import user_state_path

    folder = user_state_path("phi4mm", appauthor=False)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
