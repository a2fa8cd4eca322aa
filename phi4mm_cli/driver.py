"""Runs many flows against one engine: their requests share its queue, and no flow waits for another's round."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Condition, Thread
from typing import Any, Generic, TypeVar

from phi4mm_cli.cancel import Cancelled, cancelled_when
from phi4mm_cli.closing import Closing
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.jobs import Job, OpenFlow, Outcome, Resume
from phi4mm_cli.schema import Request, Result

T = TypeVar("T")

WORKERS = 4  # flows that make requests at once; others are only opened while the engine has room
LOOK_SECONDS = 1.0  # after which an engine that has nothing to do is asked for its room: it may be needed no longer
POLL_SECONDS = 0.05  # how long an engine may be waited for while worker threads are making more requests

OnResult = Callable[[Job[T], Request, Result], None]
OnPart = Callable[[Job[T], Any], None]


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


class Driver(Closing, Generic[T]):
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
        self._open: list[OpenFlow[T]] = []
        self._ready: deque[tuple[OpenFlow[T], Request]] = deque()  # to be submitted
        self._ended: deque[tuple[OpenFlow[T], Outcome[T]]] = deque()  # to be yielded
        self._parts: deque[tuple[Job[T], Any]] = deque()  # to be told
        self._owners: dict[str, list[OpenFlow[T]]] = {}  # by key of the requests that are with the engine
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
            opened.end()

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
            opened.end()

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
                if isinstance(result, RequestError):
                    opened.refuse(key, result)
                    if opened.error is not None:
                        self._forget(opened)
                        self._cancel_unowned()
                    continue
                self._answered = True
                request = opened.answer(key, result)
                if self._on_result is not None:
                    self._on_result(opened.job, request, result)
        self._room = self._engine.room()
        self._schedule_all()

    def _cancel_unowned(self) -> None:
        """Take from the engine what nobody waits for any more."""
        for key in [key for key, owners in self._owners.items() if not owners]:
            self._engine.cancel(key)
            del self._owners[key]

    # -------------------------------------------------------------------- on any thread, with the lock held

    def _forget(self, opened: OpenFlow[T]) -> None:
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

    def _schedule(self, opened: OpenFlow[T]) -> None:
        if opened.busy or opened.dropped or self._closing:
            return
        if opened.round_over:
            self._start_step(opened, opened.resume())
        elif opened.inbox or (not opened.exhausted and self._room > len(self._ready)):
            self._start_step(opened, None)

    def _start_step(self, opened: OpenFlow[T], resume: Resume | None) -> None:
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
                    opened = OpenFlow(job)
                    self._open.append(opened)
                    self._start_step(opened, opened.begin)
        except Exception as error:  # noqa: BLE001 - told by `run`, on the caller's thread
            self._broken = error
        with self._changed:
            self._fed = True
            self._changed.notify_all()

    # -------------------------------------------------------------------- on a worker thread

    def _step(self, opened: OpenFlow[T], resume: Resume | None, wanted: int) -> None:
        """Resume the flow (where a round is over), then make up to `wanted` requests of its round."""
        outcome: Outcome[T] | None = None
        try:
            with cancelled_when(lambda: opened.stop):
                self._advance(opened, resume, wanted)
        except Cancelled:
            opened.exhausted = True
        except StopIteration as end:
            outcome = opened.returned(end.value)
        except Exception as error:  # noqa: BLE001 - a bug met in one flow is that flow's failure, not the run's
            outcome = opened.failed(error)
            if opened.flow is not None:
                opened.flow.close()
        with self._changed:
            opened.busy = False
            self._parts += ((opened.job, part) for part in opened.parts())
            if outcome is not None:
                self._ended.append((opened, outcome))  # first, so that run() never sees neither
                self._open.remove(opened)
            else:
                self._schedule(opened)
            self._changed.notify_all()

    def _advance(self, opened: OpenFlow[T], resume: Resume | None, wanted: int) -> None:
        if resume is not None:
            opened.enter(resume)
        try:
            opened.hand_over()
        except RequestError as error:
            self._give_up(opened, error)
            return
        while wanted > 0 and not opened.stop:
            request = next(opened.round, None)
            if request is None:
                opened.exhausted = True
                break
            wanted -= 1
            with self._changed:
                if opened.error is not None:
                    break
                if opened.ask(request):
                    self._ready.append((opened, request))
                    self._changed.notify_all()

    def _give_up(self, opened: OpenFlow[T], error: RequestError) -> None:
        """A flow in its Gather has not caught the error: now it is for the flow that gathers."""
        with self._changed:
            opened.error = error
            self._forget(opened)
        opened.exhausted = True
        opened.inbox.clear()
