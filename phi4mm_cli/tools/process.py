"""Processes that are read up to a deadline and then really ended, with all that they have started."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from phi4mm_cli.closing import Closing

POLL_SECONDS = 0.05  # how long an ended process whose output somebody still holds open goes unnoticed
BLOCK = 1 << 16  # bytes


class TimeLimitError(TimeoutError):
    """A process has not answered in time."""


@dataclass(frozen=True, slots=True)
class Output:
    """What was read of a process."""

    content: bytes
    size: int  # bytes that it wrote, of which `content` may be the first ones only


class Process(Closing):
    """A program in a session of its own, so that its children end with it and it has no terminal to ask at.

    A context manager: leaving kills whatever is left.
    """

    def __init__(self, argv: Sequence[str], *, merged: bool) -> None:
        """Start `argv`, without a shell; `merged` reads its stderr with its stdout. Raises OSError and ValueError."""
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if merged else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merged else None,
            start_new_session=True,
            bufsize=0,
        )
        assert self._process.stdout is not None
        self._stdout = self._process.stdout

    def send(self, line: bytes) -> None:
        """Write a line to its stdin. Raises OSError where it does not read any more."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)

    def read(self, deadline: float, most: int, *, line: bool = False) -> Output:
        """What it writes until it ends, or until the end of a line; of more than `most` bytes the first ones.

        Raises TimeLimitError where `time.monotonic()` passes `deadline` first.
        """
        content, size = bytearray(), 0
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdout, selectors.EVENT_READ)
            while not (line and content.endswith(b"\n")):
                if time.monotonic() > deadline:
                    raise TimeLimitError
                ended = self._process.poll() is not None
                if not selector.select(0 if ended else POLL_SECONDS):
                    if ended:
                        break  # a child of its own may hold the pipe open for ever
                    continue
                block = os.read(self._stdout.fileno(), BLOCK)
                if not block:
                    break
                size += len(block)
                content += block[: max(0, most - len(content))]
        return Output(bytes(content), size)

    def wait(self, deadline: float) -> int:
        """Its exit code, negative where a signal ended it. Raises TimeLimitError."""
        try:
            return self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeLimitError from None

    def end(self, grace: float = 1.0) -> int:
        """Its exit code, negative where a signal ended it; what is left of it and its children is killed."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        with suppress(ProcessLookupError, PermissionError):  # the latter is what macOS says of a group that has ended
            os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()

    def close(self) -> None:
        """End it now."""
        self.end(grace=0.0)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def how(code: int) -> str:
    """An exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
