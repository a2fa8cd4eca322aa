"""An engine that answers as a test says, a few at a time and out of order, and one that hears words at known times."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Generator
from typing import TypeVar

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.driver import run
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.flow import Flow
from phi4mm_cli.jobs import Job
from phi4mm_cli.schema import Clip, Request, Result

T = TypeVar("T")
MEETING = SAMPLES / "meeting.flac"
WORDS = [
    word
    for sentence in json.loads((SAMPLES / "meeting.reference.json").read_text(encoding="utf-8"))["sentences"]
    for word in sentence["words"]
]


class ScriptedEngine(EchoEngine):
    """Answers each request with what `script` says to it; `asked` remembers the requests."""

    def __init__(self, script: Callable[[Request], Result | RequestError], seed: int = 0) -> None:
        super().__init__()
        self.asked: list[Request] = []
        self._script, self._random = script, random.Random(seed)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        chosen = self._random.sample(list(self._queue), min(2, len(self._queue)))
        requests = [self._queue.pop(key) for key in chosen]
        self.asked += requests
        return [(request.key, self._script(request)) for request in requests]

    def stream(self, request: Request) -> Generator[str, None, Result]:
        self.asked.append(request)
        outcome = self._script(request)
        if isinstance(outcome, RequestError):
            raise outcome
        yield from re.findall(r"\s*\S+", outcome.text)
        return outcome


def clip_of(request: Request) -> Clip:
    return request.clips[0]


def seconds_of(request: Request) -> float:
    return clip_of(request).end - clip_of(request).start


def said(text: str) -> Result:
    return Result(text, tuple(range(len(text.split()))), "stop", 1)


def words_in(start: float, end: float) -> str:
    """What is said in the sample meeting between two times; a word belongs to where its middle is."""
    return " ".join(word["word"] for word in WORDS if start <= (word["start"] + word["end"]) / 2 < end)


def hears(request: Request) -> Result:
    """A perfect ear for the sample meeting."""
    return said(words_in(clip_of(request).start, clip_of(request).end))


def run_alone(flow: Callable[[], Flow[T]], engine: EchoEngine) -> T:
    """What the flow returns; raises what it raises."""
    [outcome] = run([Job("it", flow)], engine)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.value is not None
    return outcome.value
