"""`python faulty_program.py FAULTS.json ARGUMENTS...`: phi4mm with an engine that is slow, and fails as it is told.

The faults, all of them optional: `seconds` that an answer takes; `exhausted`, the share of requests that do not fit
into memory, drawn anew in each run; `lost_after` so many answers the device is gone, and with it the engine; `count`, a
file to which the key of each request is added that is answered; `room` for so many requests, `at_once` so many answers;
`journal`, a file that is told how many seconds of the processor's the journal has taken.
While there is a file `hold` where it is run, no more answers are given than the number in that file.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from inspect import isfunction
from itertools import islice
from pathlib import Path
from typing import Any

from phi4mm_cli import __main__, engine_options
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.engines.failing import foreseen
from phi4mm_cli.errors import MemoryExhaustedError, RequestError
from phi4mm_cli.journal import Journal
from phi4mm_cli.schema import Result


class FaultyEngine(EchoEngine):
    """Answers some requests at a time, as slowly and as badly as it is told."""

    def __init__(
        self,
        seconds: float = 0.0,
        exhausted: float = 0.0,
        lost_after: int | None = None,
        count: str | None = None,
        room: int = 6,
        at_once: int = 2,
    ) -> None:
        super().__init__()
        self._seconds, self._exhausted, self._lost_after = seconds, exhausted, lost_after
        self._count = Path(count).open("a", encoding="utf-8") if count else None  # noqa: SIM115 - as long as the program
        self._room, self._at_once = room, at_once
        self._random = random.Random()
        self._answered = 0

    def room(self) -> int:
        return self._room - len(self._queue)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        hand = dict(islice(self._queue.items(), self._at_once))
        if self._is_held(len(hand)):
            time.sleep(0.01)
            return []
        others = {key: request for key, request in self._queue.items() if key not in hand}
        time.sleep(self._seconds * len(hand))
        self._answered += len(hand)
        if self._lost_after is not None and self._answered > self._lost_after:
            with foreseen("a single request"):
                raise RuntimeError("CUDA error: the device is lost\nand so on")
        self._queue = hand
        answers = super().poll(timeout)
        self._queue = others
        if self._count is not None:
            self._count.writelines(f"{key}\n" for key, _ in answers)
            self._count.flush()
        return [(key, self._broken(answer)) for key, answer in answers]

    def _is_held(self, count: int) -> bool:
        """Whether so many more answers are not to be given yet."""
        with suppress(FileNotFoundError):
            return self._answered + count > int(Path("hold").read_text(encoding="utf-8"))
        return False

    def _broken(self, answer: Result | RequestError) -> Result | RequestError:
        if self._random.random() < self._exhausted:
            return MemoryExhaustedError("a request does not fit into memory", "Make the chunks shorter")
        return answer


@contextmanager
def journal_timed(path: Path) -> Iterator[None]:
    """Within the context all that runs ask of a journal is timed; then the sum is written."""
    spent: list[float] = []
    inside = threading.local()  # an outer call counts for those that it makes

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def measured(*arguments: Any, **named: Any) -> Any:
            if getattr(inside, "depth", 0):
                return method(*arguments, **named)
            inside.depth, began = 1, time.thread_time()
            try:
                return method(*arguments, **named)
            finally:
                inside.depth = 0
                spent.append(time.thread_time() - began)

        return measured

    for name, method in vars(Journal).items():
        if isfunction(method) and name != "__init__":
            setattr(Journal, name, timed(method))
    try:
        yield
    finally:
        path.write_text(str(sum(spent)), encoding="utf-8")


def main() -> None:
    faults = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    journal = faults.pop("journal", None)

    def open_faulty(*_: Any, **__: Any) -> FaultyEngine:
        return FaultyEngine(**faults)

    engine_options.open_engine = open_faulty  # type: ignore[assignment]
    sys.argv = ["phi4mm", *sys.argv[2:]]
    with journal_timed(Path(journal)) if journal else nullcontext():
        __main__.main()


if __name__ == "__main__":
    main()
