"""A flow that `driver.py` runs: what it is called, what it waits for, what it has been answered, and how it ended."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from phi4mm_cli.errors import RequestError
from phi4mm_cli.flow import Flow, Gather, close
from phi4mm_cli.outputs import Usage
from phi4mm_cli.schema import Remark, Request, Result

T = TypeVar("T")
Resume = Callable[[], Iterable[Request]]  # brings a flow to its next round


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A named flow that has not started yet."""

    name: str
    start: Callable[[], Flow[T]]


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a job ended: with a value, or with the error that ended it."""

    job: Job[T]
    seconds: float
    usage: Usage
    remarks: tuple[Remark, ...] = ()  # of the engine, each once
    value: T | None = None
    error: Exception | None = None


@dataclass(eq=False, slots=True)
class OpenFlow(Generic[T]):
    """A flow in hand. Its generator is only ever touched by one step at a time, on a worker thread."""

    job: Job[T]
    started: float = field(default_factory=time.monotonic)
    flow: Flow[T] | None = None  # None until its first step
    round: Iterator[Request] = field(default_factory=lambda: iter(()))
    asked: list[str] = field(default_factory=list)  # keys of the round's requests, in order
    pending: dict[str, Request] = field(default_factory=dict)  # those that are not answered yet, by key
    answers: dict[str, Result] = field(default_factory=dict)
    errors: dict[str, RequestError] = field(default_factory=dict)  # of requests of flows in a Gather
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0))  # so far, in all rounds
    remarks: dict[Remark, None] = field(default_factory=dict)  # so far, in order
    inbox: deque[str] = field(default_factory=deque)  # keys of what a Gather has not been given yet
    told: int = 0  # how many of the Gather's values have been taken by `parts`
    exhausted: bool = True  # the round has no more requests
    busy: bool = False  # a step is running
    stop: bool = False  # asks the running step to end early
    dropped: bool = False  # nobody waits for it any more
    error: RequestError | None = None

    @property
    def round_over(self) -> bool:
        """Whether nothing is left to be made, answered or taken in this round."""
        over = self.exhausted and not self.pending and not self.inbox
        return not self.busy and (self.error is not None or over)

    # -------------------------------------------------------------------- from round to round, on a worker thread

    def begin(self) -> Iterable[Request]:
        """The first round. It is started as late as this because a flow may open files before its first yield."""
        self.flow = self.job.start()
        return next(self.flow)

    def enter(self, resume: Resume) -> None:
        """Leave the round for the next one. Raises what the flow raises: StopIteration with its value at its end."""
        close(self.round)
        self.round, self.exhausted, self.told = iter(resume()), False, 0

    def hand_over(self) -> None:
        """Give a Gather what has come for the flows in it. Raises the RequestError that none of them has caught."""
        if not isinstance(self.round, Gather):
            return
        while self.inbox:
            key = self.inbox.popleft()
            self.round.take(key, self.errors[key] if key in self.errors else self.answers[key])
        self.exhausted = False

    def end(self) -> None:
        """Run the `finally` blocks of a flow that is not run to its end."""
        close(self.round)
        if self.flow is not None:
            self.flow.close()

    # -------------------------------------------------------------------- what is kept of the round, under a lock

    def ask(self, request: Request) -> bool:
        """Note a request of the round; whether it is a new one, to be submitted."""
        key = request.key
        self.asked.append(key)
        answered = key in self.answers or key in self.errors
        if answered and isinstance(self.round, Gather):
            self.inbox.append(key)
        if answered or key in self.pending:
            return False
        self.pending[key] = request
        return True

    def answer(self, key: str, result: Result) -> Request:
        """Note an answer; returns what it answers."""
        self.answers[key] = result
        self.usage += Usage(1, result.prompt_tokens, len(result.tokens))
        self.remarks |= dict.fromkeys(result.remarks)
        if isinstance(self.round, Gather):
            self.inbox.append(key)
        return self.pending.pop(key)

    def refuse(self, key: str, error: RequestError) -> None:
        """Note that a request has failed: for the flow in a Gather that made it, or else for the whole round."""
        if isinstance(self.round, Gather):
            del self.pending[key]
            self.errors[key] = error
            self.inbox.append(key)
        else:
            self.error, self.stop = error, True

    def parts(self) -> list[Any]:
        """What flows in a Gather have returned, in their order, since this was last asked."""
        if not isinstance(self.round, Gather):
            return []
        new = self.round.values[self.told :]
        self.told += len(new)
        return new

    def resume(self) -> Resume:
        """What ends the round: its results are sent in the order of its requests, or its error is raised."""
        assert self.flow is not None
        flow, error = self.flow, self.error
        results = [self.answers[key] for key in self.asked if key in self.answers]
        self.asked, self.answers, self.errors, self.error = [], {}, {}, None
        self.inbox.clear()
        return lambda: flow.send(results) if error is None else flow.throw(error)

    def returned(self, value: T) -> Outcome[T]:
        """How the job ended, with what the flow returned."""
        return Outcome(self.job, self._seconds(), self.usage, tuple(self.remarks), value=value)

    def failed(self, error: Exception) -> Outcome[T]:
        """How the job ended, with what the flow raised."""
        return Outcome(self.job, self._seconds(), self.usage, error=error)

    def _seconds(self) -> float:
        return time.monotonic() - self.started
