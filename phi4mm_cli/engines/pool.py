"""Several local engines behind one, fed from one queue, wherever they run: `several.py` and `cluster.py` place them.

A worker is started when there is work for it, and gets one batch at a time. What a worker had in hand that was lost is
given to the others, each request alone: one that is lost with several workers is not tried again.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

from phi4mm_cli import cancel
from phi4mm_cli.closing import Closing
from phi4mm_cli.engines import Listener, Silence
from phi4mm_cli.engines.local import BATCHES_IN_HAND, LocalEngine, Outcome
from phi4mm_cli.engines.place import Worker
from phi4mm_cli.engines.queue import Waiting
from phi4mm_cli.errors import Phi4Error, RequestError
from phi4mm_cli.model.checkpoint import Checkpoint
from phi4mm_cli.schema import ModelInfo, Profile, Request, Result

W = TypeVar("W", bound=Worker)


class PoolEngine(Closing, Generic[W]):
    """Runs a checkpoint in several workers; otherwise like LocalEngine, whose settings it takes for each of them.

    `poll` only waits: the work is done in the workers. Leaving ends them.
    """

    most_losses: ClassVar[int] = 2  # of one request, with the workers that had it in hand

    def __init__(
        self,
        checkpoint: Checkpoint,
        workers: Sequence[W],
        listener: Listener | None,
        **settings: Any,
    ) -> None:
        self._checkpoint, self._listener, self._settings = checkpoint, listener or Silence(), settings
        self._unloaded = LocalEngine(checkpoint, **settings)  # what can be said without the weights
        self._info: ModelInfo | None = None
        self._workers = list(workers)
        self._waiting = Waiting()
        self._finished: list[tuple[str, Outcome]] = []
        self._losses: Counter[str] = Counter()  # by key of the requests that lost workers had in hand
        self._notes: set[str] = set()
        self._last_loss: RequestError | None = None
        self._shown: W | None = None  # whose loading the user sees

    # ------------------------------------------------------------------------------------- what places workers

    @abstractmethod
    def _start(self, worker: W) -> None:
        """Give the worker a connection. It is ready then, or says so by a message of that kind."""

    @abstractmethod
    def _wait(self, workers: Sequence[W], timeout: float | None) -> Sequence[W]:
        """Those that have said something, once one has, within `timeout` seconds."""

    @abstractmethod
    def _lose(self, worker: W) -> RequestError:
        """Note that the worker is no more, and that it is `lost` or unstarted again; how it ended."""

    @abstractmethod
    def _end(self) -> None:
        """End all workers, so that they are unstarted again."""

    def _at_once(self, batch: Sequence[Request]) -> Sequence[Request]:
        """The first of them, one at least, that a worker can be given at once."""
        return batch

    # ------------------------------------------------------------------------------------------------ an engine

    @property
    def info(self) -> ModelInfo:
        """The model; how it runs once it is loaded in one of the workers."""
        device = ",".join(worker.device for worker in self._workers)
        return replace(self._info or self._unloaded.info, device=device)

    @property
    def profile(self) -> Profile:
        """What the checkpoint says of itself."""
        return self._unloaded.profile

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` is, by the checkpoint's tokenizer. Raises MissingError where that cannot be read."""
        return self._unloaded.count_tokens(text)

    def room(self) -> int:
        """How many more requests fill the queue to a few batches for each worker."""
        wanted = sum(self._rows(worker) for worker in self._workers if not worker.lost) * BATCHES_IN_HAND
        return max(0, wanted - len(self._waiting) - sum(len(worker.in_hand) for worker in self._workers))

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.add(request)

    def cancel(self, key: str) -> None:
        """Take a request out of the queue."""
        self._waiting.drop(key)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Outcome]]:
        """Give work to the idle workers, and wait for the first batch that ends.

        Raises Phi4Error where the model cannot be loaded, or no worker is left.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self._finished and (len(self._waiting) or any(worker.in_hand for worker in self._workers)):
            self._hand_out()
            if not self._hear(until):
                break
        finished, self._finished = self._finished, []
        return finished

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Answer one request in one worker, yielding its text piece by piece. Raises RequestError."""
        worker = self._one()
        self._send(worker, "stream", request)
        worker.streams = True
        try:
            while worker.streams:
                with nullcontext() if worker.loaded else cancel.in_one_piece():
                    kind, content = self._receive(worker)
                cancel.check()
                if kind == "piece":
                    yield content
                elif kind == "answer":
                    worker.streams = False
                elif kind in ("failed", "lost"):
                    worker.streams = False
                    raise content
        except (Exception, GeneratorExit):  # not what ends the program, and the worker with it
            if worker.streams:
                self._break_off(worker)
            raise
        result: Result = content
        return result

    def close(self) -> None:
        """End the workers."""
        self._end()
        self._waiting.clear()

    # ---------------------------------------------------------------------------------------------- giving work

    def _rows(self, worker: W) -> int:
        return worker.rows or self._unloaded.rows

    def _require_any(self) -> None:
        """Raise Phi4Error where no worker is left."""
        if all(worker.lost for worker in self._workers):
            assert self._last_loss is not None
            raise Phi4Error(f"no process is left: {self._last_loss.message}", self._last_loss.advice)

    def _free(self) -> list[W]:
        """Those that can be given a batch; as many are started as there is work for."""
        loading = {worker.memory for worker in self._workers if worker.loads}
        starting = sum(worker.starting for worker in self._workers)
        free: list[W] = []
        for worker in self._workers:
            if worker.memory in loading and not worker.loaded:
                continue
            if worker.unstarted and len(free) + starting < len(self._waiting):
                self._start(worker)
                starting += not worker.ready
            if worker.idle:
                free.append(worker)
                loading |= set() if worker.loaded else {worker.memory}
        return free

    def _hand_out(self) -> None:
        """A batch for every free worker, as even as the queue allows."""
        self._require_any()
        free = self._free()
        takers = len(free) + sum(worker.starting for worker in self._workers)
        for place, worker in enumerate(free):
            if not len(self._waiting):
                break
            share = math.ceil(len(self._waiting) / (takers - place))
            leave = self._losses if not worker.rows and self._has_proven else ()
            batch = self._waiting.take(min(self._rows(worker), share), leave)
            suspects = [request for request in batch if request.key in self._losses]
            worker.in_hand = suspects[:1] or [*self._at_once(batch)]
            given = {request.key for request in worker.in_hand}
            self._waiting.put_back(request for request in batch if request.key not in given)
            if worker.in_hand:
                self._send(worker, "batch", worker.in_hand)

    @property
    def _has_proven(self) -> bool:
        """Whether a worker is known to answer: then others are not given what lost ones had in hand."""
        return any(worker.rows and not worker.streams for worker in self._workers)

    def _one(self) -> W:
        """A worker that can be given work now: rather one that has the model than one that has not."""
        while not (idle := [worker for worker in self._workers if worker.idle]):
            self._require_any()
            unstarted = [worker for worker in self._workers if worker.unstarted]
            if unstarted and not any(worker.starting for worker in self._workers):
                self._start(unstarted[0])
            else:
                self._hear(math.inf)
        return max(idle, key=lambda worker: worker.rows)

    def _send(self, worker: W, kind: str, content: object = None) -> None:
        if worker.connection is not None:
            with suppress(OSError):  # a worker that is lost is noticed when it is listened to
                worker.connection.send((kind, content))

    # ------------------------------------------------------------------------------------------------ listening

    def _hear(self, until: float) -> bool:
        """Take what the workers say, once one of them says something; False where none does until then."""
        talking = [worker for worker in self._workers if worker.connection and (worker.in_hand or worker.starting)]
        if not talking and until < math.inf:
            return False
        if not talking:
            raise Phi4Error("every device is at an answer that is being streamed", "Close one of them first")
        ready = self._wait(talking, None if until == math.inf else max(0.0, until - time.monotonic()))
        for worker in ready:
            kind, content = self._receive(worker)
            if kind == "failed":
                self._give_up(worker, content)
            if kind == "lost":
                self._give_back(worker, content)
        return bool(ready)

    def _receive(self, worker: W) -> tuple[str, Any]:
        """The next thing that the worker says; "lost" where it says nothing any more."""
        assert worker.connection is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            self._last_loss = self._lose(worker)
            return "lost", self._last_loss
        if kind == "ready":
            worker.ready, (worker.device, worker.memory) = True, content
        elif kind == "loaded":
            worker.read = content
            self._shown = self._shown or worker
            if worker is self._shown and self._info is None:  # the others load while it works
                self._listener.loaded(*worker.read)
        elif kind in ("note", "detail") and content not in self._notes:
            self._notes.add(content)
            (self._listener.note if kind == "note" else self._listener.detail)(content)
        elif kind == "outcomes":
            outcomes, self._info, worker.rows = content
            self._finished += outcomes
            worker.in_hand = []
        return kind, content

    def _give_back(self, worker: W, error: RequestError) -> None:
        """Let others have what the lost worker had in hand, unless it is what broke it."""
        batch, worker.in_hand = worker.in_hand, []
        self._losses.update(request.key for request in batch)
        again = [request for request in batch if self._losses[request.key] < self.most_losses]
        self._finished += [(request.key, error) for request in batch if request not in again]
        self._waiting.put_back(again)
        self._listener.note(f"{error.message}; others take what it had in hand")

    def _give_up(self, worker: W, error: Phi4Error) -> None:
        """The worker cannot work. That ends the run, unless others show that it can be done."""
        batch, worker.in_hand = worker.in_hand, []
        if not any(other.rows for other in self._workers if other is not worker):
            raise error
        self._waiting.put_back(batch)
        self._lose(worker)
        worker.lost, self._last_loss = True, RequestError(error.message, error.advice)
        self._listener.note(f"{error.message}; others take what it had in hand")

    def _break_off(self, worker: W) -> None:
        """End an answer that nobody waits for any more."""
        self._send(worker, "enough")
        with cancel.in_one_piece():  # it may be at loading the model
            while self._receive(worker)[0] not in ("answer", "failed", "lost"):
                pass
        worker.streams = False
