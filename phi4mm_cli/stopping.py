"""What a signal does: the first one lets a run finish what it has in hand, the next one ends it where it is."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from phi4mm_cli import console
from phi4mm_cli.errors import ExitCode
from phi4mm_cli.timing import clock

Finish = Callable[[ExitCode], bool]  # has the run take up nothing new; False where it has nothing in hand

_CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}
_finish: Finish | None = None  # of the run that would have something to finish


def watch() -> None:
    """End the program at a signal, with the exit code that tells of it: `finally` blocks run, finished outputs stay."""
    for number in _CODES:
        signal.signal(number, _stop)


@contextmanager
def finishing(finish: Finish) -> Iterator[None]:
    """Within the context, the first signal is handed to `finish` instead, wherever the main thread is at the time."""
    global _finish
    _finish = finish
    try:
        yield
    finally:
        _finish = None


def _stop(number: int, frame: FrameType | None) -> None:
    global _finish
    code, finish = _CODES[signal.Signals(number)], _finish
    _finish = None
    if finish is not None and finish(code):
        return
    console.say(f"{code.name.lower()}; finished outputs are kept")
    sys.exit(code)


def tell(code: ExitCode, labels: Sequence[str], seconds: float | None) -> None:
    """What happens now: these inputs are finished, which takes so long as far as is known."""
    what = labels[0] if len(labels) == 1 else f"the {len(labels)} files in hand" if labels else "what is written"
    time = f" (about {clock(seconds)})" if labels and seconds is not None else ""
    how = "Ctrl-C again" if code is ExitCode.INTERRUPTED else "another signal"
    with suppress(RuntimeError):  # the main thread was in the middle of saying something
        console.say(f"{code.name.lower()}; finishing {what}{time}, then it ends; {how} ends it at once")
