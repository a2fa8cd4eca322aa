"""Runs many flows against one engine: their requests share its queue, and no flow waits for another's round."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from phi4mm_cli.cancel import Cancelled, cancelled_when
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.flow import Flow, Gather, close
from phi4mm_cli.outputs import Usage
from phi4mm_cli.schema import Remark, Request, Result

T = TypeVar("T")

WORKERS = 4  # flows that make requests at once; others are only opened while the engine has room
LOOK_SECONDS = 1.0  # after which an engine that has nothing to do is asked for its room: it may be needed no longer
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
    usage: Usage
    remarks: tuple[Remark, ...] = ()  # of the engine, each once
    value: T | None = None
    error: Exception | None = None


OnResult = Callable[[Job[T], Request, Result], None]
OnPart = Callable[[Job[T], Any], None]


@dataclass(eq=False, slots=True)
class _OpenFlow(Generic[T]):
    """A flow in hand. Its generator is only ever touched by one step at a time, on a worker thread."""

    job: Job[T]
    started: float
    flow: Flow[T] | None = None  # None until its first step
    round: Iterator[Request] = field(default_factory=lambda: iter(()))
    asked: list[str] = field(default_factory=list)  # keys of the round's requests, in order
    pending: dict[str, Request] = field(default_factory=dict)  # those that are not answered yet, by key
    answers: dict[str, Result] = field(default_factory=dict)
    errors: dict[str, RequestError] = field(default_factory=dict)  # of requests of flows in a Gather
    usage: Usage = field(default_factory=lambda: Usage(0, 0, 0))  # so far, in all rounds
    remarks: dict[Remark, None] = field(default_factory=dict)  # so far, in order
    inbox: deque[str] = field(default_factory=deque)  # keys of what a Gather has not been given yet
    told: int = 0  # how many of the Gather's values `on_part` has or will have
    exhausted: bool = True  # the round has no more requests
    busy: bool = False  # a step is running
    stop: bool = False  # asks the running step to end early
    dropped: bool = False  # nobody waits for it any more
    error: RequestError | None = None

    @property
    def round_over(self) -> bool:
        over = self.exhausted and not self.pending and not self.inbox
        return not self.busy and (self.error is not None or over)


def run(
    jobs: Iterable[Job[T]],
    engine: Engine,
    *,
    workers: int = WORKERS,
    on_result: OnResult[T] | None = None,
    on_part: OnPart[T] | None = None,
) -> Iterator[Outcome[T]]:
    """Run every job's flow and yield their outcomes as they end.

    At most `workers` flows are at work at a time. Those that only wait for the engine are not counted, so that many
    short files fill a batch; each of them has a request in hand, so that the engine's room bounds their number.
    Requests of all open flows share the engine's queue. Jobs are taken as there is room for them, on a thread of their
    own: they may be long in coming. Code between the yields, and the making of requests, runs on worker threads, also
    while the engine works; the engine, `on_result` and `on_part` are called from the caller's thread. `on_part` is
    given what the flows in a Gather return, in their order, as soon as all before have ended. An error of the engine
    itself (not of one request) ends the run, and so does one of `jobs`.
    """
    with Driver(iter(jobs), engine, workers, on_result, on_part) as driver:
        yield from driver.run()


class Driver(Generic[T]):
    """A run that can be asked to finish early; it has to be closed.

    All of its state is guarded by one lock, which is not held while the engine or a flow is at work.
    """

    def __init__(
        self,
        jobs: Iterator[Job[T]],
        engine: Engine,
        workers: int = WORKERS,
        on_result: OnResult[T] | None = None,
        on_part: OnPart[T] | None = None,
    ) -> None:
        self._jobs = jobs
        self._engine = engine
        self._workers = workers
        self._on_result = on_result
        self._on_part = on_part
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="flow")
        self._changed = Condition()
        self._open: list[_OpenFlow[T]] = []
        self._ready: deque[tuple[_OpenFlow[T], Request]] = deque()  # to be submitted
        self._ended: deque[tuple[_OpenFlow[T], Outcome[T]]] = deque()  # to be yielded
        self._parts: deque[tuple[Job[T], Any]] = deque()  # to be told
        self._owners: dict[str, list[_OpenFlow[T]]] = {}  # by key of the requests that are with the engine
        self._room = engine.room()  # as it was when the engine was last called
        self._fed = False  # there are no more jobs
        self._broken: Exception | None = None  # what went wrong with the jobs themselves
        self._answered = False  # something has been
        self._finishing = False  # what is in hand, and nothing else
        self._closing = False

    @property
    def has_answers(self) -> bool:
        """Whether anything has been answered; as long as nothing has, the model may still be loading."""
        return self._answered

    def finish(self) -> list[Job[T]]:
        """Take no more jobs, and drop those that nothing is asked of yet; the others, in hand, are still worked on.

        May be called in a handler of signals, and so changes nothing that the caller's thread may be in the middle of.
        """
        with self._changed:
            self._finishing = True
            asked = {id(opened) for owners in self._owners.values() for opened in owners}
            for opened in self._open:
                opened.dropped = not opened.usage.calls and id(opened) not in asked
                opened.stop = opened.stop or opened.dropped
            self._changed.notify_all()
            return [opened.job for opened in self._open if not opened.dropped]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -------------------------------------------------------------------- on the caller's thread

    def run(self) -> Iterator[Outcome[T]]:
        """The outcomes of the jobs, as they end."""
        Thread(target=self._feed, name="jobs", daemon=True).start()  # not waited for: jobs may never come
        while True:
            with self._changed:
                self._changed.wait_for(self._has_news, LOOK_SECONDS)
                self._drop()
                if self._over:
                    break
                ended, parts = [*self._ended], [*self._parts]
                self._ended.clear()
                self._parts.clear()
                for opened, _ in ended:
                    self._forget(opened)
                self._cancel_unowned()
                self._submit_ready()
                self._schedule_all()
                working = not self._fed or any(opened.busy for opened in self._open)
            if self._on_part is not None:
                for job, part in parts:
                    self._on_part(job, part)
            yield from (outcome for _, outcome in ended)
            if self._owners:
                results = self._engine.poll(POLL_SECONDS if working and self._room > 0 else None)
                with self._changed:
                    self._take(results)
        if self._broken is not None:
            raise self._broken

    def _has_news(self) -> bool:
        dropped = any(opened.dropped and not opened.busy for opened in self._open)
        return bool(self._ended or self._parts or self._ready or self._owners or dropped or self._over)

    @property
    def _over(self) -> bool:
        return (self._fed or self._finishing) and not (self._open or self._ended or self._parts)

    def _drop(self) -> None:
        for opened in [opened for opened in self._open if opened.dropped and not opened.busy]:
            self._open.remove(opened)
            self._forget(opened)
            _end(opened)

    def close(self) -> None:
        """End the open flows: their `finally` blocks run, their requests are dropped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            for opened in self._open:
                opened.stop = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        for key in self._owners:
            self._engine.cancel(key)
        for opened in self._open:
            _end(opened)

    def _submit_ready(self) -> None:
        self._room = self._engine.room()
        while self._ready and self._room > 0:
            opened, request = self._ready.popleft()
            if request.key not in opened.pending:
                continue  # its flow has failed or ended meanwhile
            owners = self._owners.setdefault(request.key, [])
            if not owners:
                self._engine.submit(request)
                self._room -= 1
            owners.append(opened)

    def _take(self, results: Iterable[tuple[str, Result | RequestError]]) -> None:
        for key, result in results:
            for opened in self._owners.pop(key, ()):
                if not isinstance(result, RequestError):
                    self._answer(opened, key, result)
                elif isinstance(opened.round, Gather):
                    del opened.pending[key]
                    opened.errors[key] = result
                    opened.inbox.append(key)
                else:
                    opened.error, opened.stop = result, True
                    self._forget(opened)
                    self._cancel_unowned()
        self._room = self._engine.room()
        self._schedule_all()

    def _answer(self, opened: _OpenFlow[T], key: str, result: Result) -> None:
        self._answered = True
        opened.answers[key] = result
        request = opened.pending.pop(key)
        opened.usage += Usage(1, result.prompt_tokens, len(result.tokens))
        opened.remarks |= dict.fromkeys(result.remarks)
        if isinstance(opened.round, Gather):
            opened.inbox.append(key)
        if self._on_result is not None:
            self._on_result(opened.job, request, result)

    def _cancel_unowned(self) -> None:
        """Take from the engine what nobody waits for any more."""
        for key in [key for key, owners in self._owners.items() if not owners]:
            self._engine.cancel(key)
            del self._owners[key]

    # -------------------------------------------------------------------- on any thread, with the lock held

    def _forget(self, opened: _OpenFlow[T]) -> None:
        """The flow waits no more for what it has with the engine."""
        opened.pending.clear()
        for owners in self._owners.values():
            if opened in owners:
                owners.remove(opened)

    def _wants_more(self) -> bool:
        if not self._open:
            return True
        at_work = sum(opened.busy or not opened.exhausted for opened in self._open)
        return at_work < self._workers and self._room > len(self._ready)

    def _schedule_all(self) -> None:
        for opened in self._open:
            self._schedule(opened)
        self._changed.notify_all()  # there may be room for more

    def _schedule(self, opened: _OpenFlow[T]) -> None:
        if opened.busy or opened.dropped or self._closing:
            return
        if opened.round_over:
            resume = _resume(opened)
            opened.asked, opened.answers, opened.errors, opened.error = [], {}, {}, None
            opened.inbox.clear()
            self._start_step(opened, resume)
        elif opened.inbox or (not opened.exhausted and self._room > len(self._ready)):
            self._start_step(opened, None)

    def _start_step(self, opened: _OpenFlow[T], resume: Callable[[], Iterable[Request]] | None) -> None:
        opened.busy, opened.stop = True, False
        self._pool.submit(self._step, opened, resume, max(1, self._room - len(self._ready)))

    # -------------------------------------------------------------------- on the thread of the jobs

    def _feed(self) -> None:
        """Open a flow for each job, when there is room for it."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closing or self._finishing or self._wants_more())
                job = None if self._closing or self._finishing else next(self._jobs, None)
                if job is None:
                    break
                with self._changed:
                    if self._closing or self._finishing:
                        break
                    opened = _OpenFlow(job, time.monotonic())
                    self._open.append(opened)
                    self._start_step(opened, _begin(opened))
        except Exception as error:  # noqa: BLE001 - told by `run`, on the caller's thread
            self._broken = error
        with self._changed:
            self._fed = True
            self._changed.notify_all()

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
            seconds, remarks = time.monotonic() - opened.started, tuple(opened.remarks)
            outcome = Outcome(opened.job, seconds, opened.usage, remarks, value=end.value)
        except Exception as error:  # noqa: BLE001 - a bug met in one flow is that flow's failure, not the run's
            outcome = Outcome(opened.job, time.monotonic() - opened.started, opened.usage, error=error)
            if opened.flow is not None:
                opened.flow.close()
        with self._changed:
            opened.busy = False
            if isinstance(opened.round, Gather):
                self._parts += ((opened.job, part) for part in opened.round.values[opened.told :])
                opened.told = len(opened.round.values)
            if outcome is not None:
                self._ended.append((opened, outcome))  # first, so that run() never sees neither
                self._open.remove(opened)
            else:
                self._schedule(opened)
            self._changed.notify_all()

    def _advance(self, opened: _OpenFlow[T], resume: Callable[[], Iterable[Request]] | None, wanted: int) -> None:
        if resume is not None:
            close(opened.round)
            opened.round, opened.exhausted, opened.told = iter(resume()), False, 0
        if isinstance(opened.round, Gather):
            while opened.inbox:
                key = opened.inbox.popleft()
                try:
                    opened.round.take(key, opened.errors[key] if key in opened.errors else opened.answers[key])
                except RequestError as error:
                    self._give_up(opened, error)
                    return
            opened.exhausted = False
        while wanted > 0 and not opened.stop:
            request = next(opened.round, None)
            if request is None:
                opened.exhausted = True
                break
            wanted -= 1
            key = request.key
            with self._changed:
                if opened.error is not None:
                    break
                opened.asked.append(key)
                answered = key in opened.answers or key in opened.errors
                if key not in opened.pending and not answered:
                    opened.pending[key] = request
                    self._ready.append((opened, request))
                    self._changed.notify_all()
                elif answered and isinstance(opened.round, Gather):
                    opened.inbox.append(key)

    def _give_up(self, opened: _OpenFlow[T], error: RequestError) -> None:
        """A flow in its Gather has not caught the error: now it is for the flow that gathers."""
        with self._changed:
            opened.error = error
            self._forget(opened)
        opened.exhausted = True
        opened.inbox.clear()


def _end(opened: _OpenFlow[T]) -> None:
    """Run the `finally` blocks of a flow that is not run to its end."""
    close(opened.round)
    if opened.flow is not None:
        opened.flow.close()


def _begin(opened: _OpenFlow[T]) -> Callable[[], Iterable[Request]]:
    """What starts the flow, on the worker's thread: a flow may open files before its first yield."""

    def begin() -> Iterable[Request]:
        opened.flow = opened.job.start()
        return next(opened.flow)

    return begin


def _resume(opened: _OpenFlow[T]) -> Callable[[], Iterable[Request]]:
    """What ends the flow's round: its results are sent in the order of its requests, or its error is raised."""
    assert opened.flow is not None
    flow, error = opened.flow, opened.error
    if error is not None:
        return lambda: flow.throw(error)
    results = [opened.answers[key] for key in opened.asked if key in opened.answers]
    return lambda: flow.send(results)
