"""Tasks as generators, and the driver that runs many of them against one engine.

A flow yields requests, is sent their results in the same order, and returns its output record. What it yields may be
a generator: then its requests are submitted as they come, and a recording is decoded while its first chunks are
already with the model. A flow does no model I/O and knows no engine; given the same results it makes the same
requests. A request that fails is raised at the flow's `yield` as a RequestError.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from phi4mm_cli.cancel import Cancelled, cancelled_when
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.schema import Request, Result

T = TypeVar("T")
Flow = Generator[Iterable[Request], Sequence[Result], T]

WORKERS = 4  # flows that make requests at once; others are only opened while the engine has room
POLL_SECONDS = 0.05  # how long an engine may be waited for while worker threads are making more requests


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
    value: T | None = None
    error: Exception | None = None


OnResult = Callable[[Job[T], Request, Result], None]


@dataclass(eq=False, slots=True)
class _OpenFlow(Generic[T]):
    """A flow in hand. Its generator is only ever touched by one step at a time, on a worker thread."""

    job: Job[T]
    flow: Flow[T]
    started: float
    round: Iterator[Request] = field(default_factory=lambda: iter(()))
    asked: list[str] = field(default_factory=list)  # keys of the round's requests, in order
    pending: dict[str, Request] = field(default_factory=dict)  # those that are not answered yet, by key
    answers: dict[str, Result] = field(default_factory=dict)
    exhausted: bool = True  # the round has no more requests
    busy: bool = False  # a step is running
    stop: bool = False  # asks the running step to end early
    error: RequestError | None = None

    @property
    def round_over(self) -> bool:
        return not self.busy and (self.error is not None or (self.exhausted and not self.pending))


@dataclass(frozen=True, slots=True)
class _Asked(Generic[T]):
    flow: _OpenFlow[T]
    request: Request


@dataclass(frozen=True, slots=True)
class _StepDone(Generic[T]):
    flow: _OpenFlow[T]
    outcome: Outcome[T] | None  # None: the flow goes on


def run(
    jobs: Iterable[Job[T]],
    engine: Engine,
    *,
    workers: int = WORKERS,
    on_result: OnResult[T] | None = None,
) -> Iterator[Outcome[T]]:
    """Run every job's flow and yield their outcomes as they end.

    At most `workers` flows are at work at a time. Those that only wait for the engine are not counted, so that many
    short files fill a batch; each of them has a request in hand, so that the engine's room bounds their number.
    Requests of all open flows share the engine's queue. Code between the yields, and the making of requests, runs on
    worker threads; the engine and `on_result` are called from the caller's thread. An error of the engine itself (not
    of one request) ends the run.
    """
    driver = _Driver(iter(jobs), engine, workers, on_result)
    try:
        yield from driver.run()
    finally:
        driver.close()


class _Driver(Generic[T]):
    def __init__(self, jobs: Iterator[Job[T]], engine: Engine, workers: int, on_result: OnResult[T] | None) -> None:
        self._jobs = jobs
        self._engine = engine
        self._workers = workers
        self._on_result = on_result
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="flow")
        self._events: SimpleQueue[_Asked[T] | _StepDone[T]] = SimpleQueue()
        self._open: list[_OpenFlow[T]] = []
        self._ready: deque[_Asked[T]] = deque()
        self._owners: dict[str, list[_OpenFlow[T]]] = {}  # by key of the requests that are with the engine

    def run(self) -> Iterator[Outcome[T]]:
        self._open_more()
        while self._open:
            yield from self._take_events(wait=not self._owners and not self._ready)
            self._submit_ready()
            if self._owners:
                self._take_results()
            self._schedule()
            self._open_more()

    def close(self) -> None:
        """End the open flows: their `finally` blocks run, their requests are dropped."""
        for opened in self._open:
            opened.stop = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for key in list(self._owners):
            self._engine.cancel(key)
        for opened in self._open:
            _close(opened.round)
            opened.flow.close()

    # -------------------------------------------------------------------- on the caller's thread

    def _open_more(self) -> None:
        while self._wants_more() and (job := next(self._jobs, None)) is not None:
            opened = _OpenFlow(job, job.start(), time.monotonic())
            self._open.append(opened)
            self._start_step(opened, lambda opened=opened: next(opened.flow))  # type: ignore[misc]

    def _wants_more(self) -> bool:
        if not self._open:
            return True
        at_work = sum(opened.busy or not opened.exhausted for opened in self._open)
        return at_work < self._workers and self._engine.room() > len(self._ready)

    def _take_events(self, wait: bool) -> Iterator[Outcome[T]]:
        while True:
            try:
                event = self._events.get(block=wait)
            except Empty:
                return
            wait = False
            if isinstance(event, _Asked):
                self._take_request(event)
                continue
            event.flow.busy = False
            if event.outcome is not None:
                self._forget(event.flow)
                self._open.remove(event.flow)
                yield event.outcome
            else:
                self._schedule_flow(event.flow)

    def _take_request(self, asked: _Asked[T]) -> None:
        opened, key = asked.flow, asked.request.key
        if opened.error is not None:
            return
        opened.asked.append(key)
        if key not in opened.pending and key not in opened.answers:
            opened.pending[key] = asked.request
            self._ready.append(asked)

    def _submit_ready(self) -> None:
        room = self._engine.room()
        while self._ready and room > 0:
            asked = self._ready.popleft()
            if asked.request.key not in asked.flow.pending:
                continue  # its flow has failed or ended meanwhile
            owners = self._owners.setdefault(asked.request.key, [])
            if not owners:
                self._engine.submit(asked.request)
                room -= 1
            owners.append(asked.flow)

    def _take_results(self) -> None:
        working = any(opened.busy for opened in self._open)
        timeout = POLL_SECONDS if working and self._engine.room() > 0 else None
        for key, result in self._engine.poll(timeout):
            for opened in self._owners.pop(key, ()):
                if isinstance(result, RequestError):
                    self._fail(opened, result)
                else:
                    self._answer(opened, key, result)

    def _answer(self, opened: _OpenFlow[T], key: str, result: Result) -> None:
        opened.answers[key] = result
        request = opened.pending.pop(key)
        if self._on_result is not None:
            self._on_result(opened.job, request, result)

    def _fail(self, opened: _OpenFlow[T], error: RequestError) -> None:
        opened.error = error
        opened.stop = True
        self._forget(opened)

    def _forget(self, opened: _OpenFlow[T]) -> None:
        """Drop what the flow still has with the engine, unless another flow asked for the same."""
        opened.pending.clear()
        for key, owners in list(self._owners.items()):
            if opened in owners:
                owners.remove(opened)
                if not owners:
                    self._engine.cancel(key)
                    del self._owners[key]

    def _schedule(self) -> None:
        for opened in self._open:
            self._schedule_flow(opened)

    def _schedule_flow(self, opened: _OpenFlow[T]) -> None:
        if opened.busy:
            return
        if opened.round_over:
            self._start_step(opened, _resume(opened))
            opened.asked, opened.answers, opened.error = [], {}, None
        elif not opened.exhausted and (wanted := self._engine.room() - len(self._ready)) > 0:
            self._start_step(opened, None, wanted)

    def _start_step(
        self, opened: _OpenFlow[T], resume: Callable[[], Iterable[Request]] | None, wanted: int = 1
    ) -> None:
        opened.busy, opened.stop = True, False
        self._pool.submit(self._step, opened, resume, wanted)

    # -------------------------------------------------------------------- on a worker thread

    def _step(self, opened: _OpenFlow[T], resume: Callable[[], Iterable[Request]] | None, wanted: int) -> None:
        """Resume the flow (where a round is over), then make up to `wanted` requests of its round."""
        outcome: Outcome[T] | None = None
        try:
            with cancelled_when(lambda: opened.stop):
                self._advance(opened, resume, wanted)
        except Cancelled:
            opened.exhausted = True
        except StopIteration as end:
            outcome = Outcome(opened.job, time.monotonic() - opened.started, value=end.value)
        except Exception as error:  # noqa: BLE001 - a bug met in one flow is that flow's failure, not the run's
            outcome = Outcome(opened.job, time.monotonic() - opened.started, error=error)
            opened.flow.close()
        self._events.put(_StepDone(opened, outcome))

    def _advance(self, opened: _OpenFlow[T], resume: Callable[[], Iterable[Request]] | None, wanted: int) -> None:
        if resume is not None:
            _close(opened.round)
            opened.round, opened.exhausted = iter(resume()), False
        while wanted > 0 and not opened.stop:
            request = next(opened.round, None)
            if request is None:
                opened.exhausted = True
                break
            self._events.put(_Asked(opened, request))
            wanted -= 1


def _resume(opened: _OpenFlow[T]) -> Callable[[], Iterable[Request]]:
    """What ends the flow's round: its results are sent in the order of its requests, or its error is raised."""
    if (error := opened.error) is not None:
        return lambda: opened.flow.throw(error)
    results = [opened.answers[key] for key in opened.asked]
    return lambda: opened.flow.send(results)


def _close(requests: Iterator[Request]) -> None:
    if isinstance(requests, Generator):
        requests.close()
