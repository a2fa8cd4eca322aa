"""What the keyboard does while an answer is written: Ctrl-C stops it, and what is typed ahead waits."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from phi4mm_cli import cancel, console
from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.errors import ExitCode


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the context Ctrl-C raises Cancelled, once.

    Where work must stay in one piece, as while the model is loaded, that has to wait for its next `check`; a second
    Ctrl-C there ends the program.
    """
    pressed = False

    def stop(_: int, frame: FrameType | None) -> None:
        nonlocal pressed
        again, pressed = pressed, True
        if not cancel.is_in_one_piece():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would meet what cleans up after the first
            raise Cancelled
        if again:
            sys.exit(ExitCode.INTERRUPTED)
        with suppress(RuntimeError):  # the main thread was in the middle of saying something
            console.tell("the model is being loaded, which stops soon; Ctrl-C again leaves")

    before = signal.signal(signal.SIGINT, stop)
    try:
        with cancel.cancelled_when(lambda: pressed):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def unechoed() -> Iterator[None]:
    """Within the context what is typed ahead is not drawn into the answer; it waits for the next prompt."""
    try:
        import termios
    except ImportError:  # Windows
        yield
        return
    try:
        settings = termios.tcgetattr(sys.stdin)
    except termios.error:  # no terminal
        yield
        return
    quiet = [*settings]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
