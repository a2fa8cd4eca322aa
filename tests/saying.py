"""An engine that answers what a test tells it to, in any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from phi4mm_cli.driver import run
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.flow import Flow
from phi4mm_cli.jobs import Job
from phi4mm_cli.schema import Clip, Request, Result

T = TypeVar("T")
Say = Callable[[Request], str | Result]


def asked(request: Request) -> str:
    """The words of a request, without its media."""
    return " ".join(part for message in request.messages for part in message.parts if isinstance(part, str))


def clip(request: Request) -> Clip | None:
    return request.clips[0] if request.clips else None


class Scripted(EchoEngine):
    """Answers each request as `say` does, the last that was submitted first, and remembers what it was asked."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self.say = say
        self.requests: list[Request] = []

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        answers: list[tuple[str, Result | RequestError]] = []
        for key, request in reversed(self._queue.items()):
            self.requests.append(request)
            answer = self.say(request)
            result = answer if isinstance(answer, Result) else Result(answer, (1,), "stop", 1)
            answers.append((key, result))
        self._queue.clear()
        return answers


def done(flow: Flow[T], say: Say) -> tuple[T, list[Request]]:
    """What a flow returns where the model says `say`, and what it asked."""
    engine = Scripted(say)
    [outcome] = run([Job("it", lambda: flow)], engine)
    if outcome.error is not None:
        raise outcome.error
    assert outcome.value is not None
    return outcome.value, engine.requests
