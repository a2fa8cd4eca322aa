"""One run at a time writes a journal: a lock of the system's, which ends with its owner however that ends.

It is a record lock (`fcntl`), which also holds between machines on NFS, as far as the server has locks.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from phi4mm_cli import console
from phi4mm_cli.errors import UsageError

TRIES, PAUSE_SECONDS = 10, 0.05  # others hold a lock for a moment, to see whose it is


@contextmanager
def held(path: Path, what: str, parts: int | None = None) -> Iterator[None]:
    """The lock on `path`, which is made, for a run that does `what`.

    One that does one of so many `parts` shares it with those that do the others. Raises UsageError where another run
    holds it, and says which.
    """
    with path.open("a+b", buffering=0) as file:
        signature = {"pid": os.getpid(), "host": socket.gethostname(), "since": round(time.time()), "what": what}
        if not _taken(file, signature | {"parts": parts}):
            raise UsageError(f"another run is at work on this folder: {_told(_read(file))}", "Wait for it, or end it")
        yield


def owner(path: Path) -> Mapping[str, Any] | None:
    """Who holds the lock on `path` alone: pid, host, since, what; None where nobody does."""
    try:
        with path.open("rb", buffering=0) as file:
            return None if _try(file, shared=True) else _read(file)
    except OSError:
        return None


def _taken(file: FileIO, signature: Mapping[str, Any]) -> bool:
    """Whoever shares the lock has first seen that its signature names as many parts."""
    parts = signature["parts"]
    for _ in range(TRIES):
        if _try(file, shared=False):
            _sign(file, signature)
            return parts is None or _try(file, shared=True)
        if parts is not None and _try(file, shared=True):
            if _read(file).get("parts") == parts:
                return True
            _let_go(file)
        time.sleep(PAUSE_SECONDS)
    return False


def _try(file: FileIO, shared: bool) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: nothing keeps two runs apart
        return True
    try:
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        console.say(f"this file system has no locks ({error.strerror}): let one run at a time write here", "warning")
    return True


def _let_go(file: FileIO) -> None:
    import fcntl

    fcntl.lockf(file, fcntl.LOCK_UN)


def _sign(file: FileIO, signature: Mapping[str, Any]) -> None:
    with suppress(OSError):  # on a full disk: the lock holds all the same
        file.truncate(0)
        file.write(json.dumps(signature).encode())


def _read(file: FileIO) -> Mapping[str, Any]:
    try:
        file.seek(0)
        signature = json.loads(file.read())
    except ValueError:
        return {}
    return signature if isinstance(signature, dict) else {}


def _told(signature: Mapping[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(signature.get("since", 0)))
    if not signature:
        return "it does not say which"
    return f"{signature.get('what')}, process {signature.get('pid')} on {signature.get('host')}, since {since}"
