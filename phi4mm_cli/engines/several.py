"""Several devices behind one engine: a process with a local engine for each, all fed from one queue.

A process is started when there is work for it, and gets one batch at a time. What a process had in hand that was lost
is given to the others, each request alone: the one that breaks a second process is not tried again.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from phi4mm_cli.engines import Listener, Silence
from phi4mm_cli.engines.local import BATCHES_IN_HAND, LocalEngine, Outcome
from phi4mm_cli.engines.queue import Waiting
from phi4mm_cli.engines.worker import serve
from phi4mm_cli.errors import Phi4Error, RequestError
from phi4mm_cli.model.checkpoint import Checkpoint
from phi4mm_cli.schema import ModelInfo, Profile, Request, Result

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

PATIENCE = 5.0  # seconds that a process is given to end


@dataclass(eq=False, slots=True)
class _Worker:
    """A device and its process."""

    device: str
    process: SpawnProcess | None = None  # None until there is work for it
    connection: Connection | None = None  # None as long as there is no process, and when it is lost
    rows: int = 0  # of its batches; 0 until it has run one
    in_hand: list[Request] = field(default_factory=list)
    streams: bool = False
    read: tuple[int, int] = (0, 0)  # bytes of the model, and of how many

    @property
    def lost(self) -> bool:
        return self.process is not None and self.connection is None

    @property
    def idle(self) -> bool:
        return not (self.lost or self.in_hand or self.streams)

    @property
    def loads(self) -> bool:
        done, total = self.read
        return self.connection is not None and (done < total or not total)

    @property
    def memory(self) -> str:
        """Devices of one memory load the model one after the other, so that each sees what is left."""
        return self.device if self.device.startswith("cuda") else "host"


class SeveralEngine:
    """Runs a checkpoint on several devices; otherwise like LocalEngine, whose settings it takes for each of them.

    `poll` only waits: the work is done in the processes. Leaving ends them.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        devices: Sequence[str],
        listener: Listener | None = None,
        **settings: Any,
    ) -> None:
        self._checkpoint, self._listener, self._settings = checkpoint, listener or Silence(), settings
        self._unloaded = LocalEngine(checkpoint, **settings)  # what can be said without the weights
        self._info: ModelInfo | None = None
        self._workers = [_Worker(device) for device in devices]
        self._waiting = Waiting()
        self._finished: list[tuple[str, Outcome]] = []
        self._survivors: set[str] = set()  # keys of requests that were in hand of a process that was lost
        self._notes: set[str] = set()
        self._last_loss = ""
        self._shown: _Worker | None = None  # whose loading the user sees

    @property
    def info(self) -> ModelInfo:
        """The model; how it runs once it is loaded on one of the devices."""
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
        """How many more requests fill the queue to a few batches for each device."""
        wanted = sum(self._rows(worker) for worker in self._workers if not worker.lost) * BATCHES_IN_HAND
        return max(0, wanted - len(self._waiting) - sum(len(worker.in_hand) for worker in self._workers))

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.add(request)

    def cancel(self, key: str) -> None:
        """Take a request out of the queue."""
        self._waiting.drop(key)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Outcome]]:
        """Give work to the idle devices, and wait for the first batch that ends.

        Raises Phi4Error where the model cannot be loaded, or no process is left.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while not self._finished and (len(self._waiting) or any(worker.in_hand for worker in self._workers)):
            self._hand_out()
            if not self._hear(until):
                break
        finished, self._finished = self._finished, []
        return finished

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Answer one request on one device, yielding its text piece by piece. Raises RequestError."""
        while not (idle := [worker for worker in self._workers if worker.idle]):
            self._require_any()
            self._hear(math.inf)
        worker = max(idle, key=lambda worker: worker.rows)  # one that has the model rather than one that has not
        self._send(worker, "stream", request)
        worker.streams = True
        try:
            while worker.streams:
                kind, content = self._receive(worker)
                if kind == "piece":
                    yield content
                elif kind == "answer":
                    worker.streams = False
                elif kind in ("failed", "lost"):
                    worker.streams = False
                    raise content
        finally:
            if worker.streams:
                self._break_off(worker)
        result: Result = content
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        processes = [worker.process for worker in self._workers if worker.process is not None and worker.process.pid]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE)
            if process.is_alive():
                process.kill()
                process.join()
        for worker in self._workers:
            if worker.connection is not None:
                worker.connection.close()
        self._workers = [_Worker(worker.device) for worker in self._workers]
        self._waiting.clear()

    # ---------------------------------------------------------------------------------------------- giving work

    def _rows(self, worker: _Worker) -> int:
        return worker.rows or self._unloaded.rows

    def _require_any(self) -> None:
        """Raise Phi4Error where no process is left."""
        if all(worker.lost for worker in self._workers):
            advice = "Use fewer devices, where the system ended them for want of memory"
            raise Phi4Error(f"no process is left: {self._last_loss}", advice)

    def _hand_out(self) -> None:
        """A batch for every idle device, as even as the queue allows."""
        self._require_any()
        loading = {worker.memory for worker in self._workers if worker.loads}
        idle = []
        for worker in self._workers:
            if worker.idle and (worker.connection is not None or worker.memory not in loading):
                idle.append(worker)
                loading |= set() if worker.connection is not None else {worker.memory}
        for place, worker in enumerate(idle):
            if not len(self._waiting):
                break
            share = math.ceil(len(self._waiting) / (len(idle) - place))
            batch = self._waiting.take(min(self._rows(worker), share))
            suspects = [request for request in batch if request.key in self._survivors]
            if suspects:
                self._waiting.put_back(request for request in batch if request is not suspects[0])
                batch = suspects[:1]
            worker.in_hand = batch
            self._send(worker, "batch", batch)

    def _send(self, worker: _Worker, kind: str, content: object = None) -> None:
        """Send to the worker's process, which is started where there is none yet."""
        if worker.process is None:
            context = get_context("spawn")  # a process that was forked could not use CUDA
            worker.connection, theirs = context.Pipe()
            beside = sum(other.memory == worker.memory for other in self._workers)
            settings = self._settings | {"device": worker.device}
            arguments = (theirs, self._checkpoint, settings, beside)
            worker.process = context.Process(target=serve, args=arguments, name=f"phi4mm {worker.device}", daemon=True)
            with _interrupts_held():
                worker.process.start()
            theirs.close()
        if worker.connection is not None:
            with suppress(OSError):  # a process that is lost is noticed when it is listened to
                worker.connection.send((kind, content))

    # ------------------------------------------------------------------------------------------------ listening

    def _hear(self, until: float) -> bool:
        """Take what the processes say, once one of them says something; False where none does until then."""
        talking = {worker.connection: worker for worker in self._workers if worker.in_hand and worker.connection}
        if not talking:
            raise Phi4Error("every device is at an answer that is being streamed", "Close one of them first")
        ready = wait([*talking], None if until == math.inf else max(0.0, until - time.monotonic()))
        for connection in ready:
            worker = talking[connection]  # type: ignore[index]
            kind, content = self._receive(worker)
            if kind == "failed":
                worker.in_hand = []
                raise content
            if kind == "lost":
                self._give_back(worker, content)
        return bool(ready)

    def _receive(self, worker: _Worker) -> tuple[str, Any]:
        """The next thing that the worker's process says; "lost" where it says nothing any more."""
        assert worker.connection is not None
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            return "lost", self._lose(worker)
        if kind == "loaded":
            worker.read = content
            self._shown = self._shown or worker
            if worker is self._shown:  # the others load while it works
                self._listener.loaded(*worker.read)
        elif kind in ("note", "detail") and content not in self._notes:
            self._notes.add(content)
            (self._listener.note if kind == "note" else self._listener.detail)(content)
        elif kind == "outcomes":
            outcomes, self._info, worker.rows = content
            self._finished += outcomes
            worker.in_hand = []
        return kind, content

    def _lose(self, worker: _Worker) -> RequestError:
        """Note that the worker's process has ended, and how."""
        assert worker.connection is not None and worker.process is not None
        worker.connection.close()
        worker.connection = None
        worker.process.join(PATIENCE)
        self._last_loss = f"the process on {worker.device} ended with exit code {worker.process.exitcode}"
        return RequestError(self._last_loss, "The system may have ended it for want of memory; its log would say so")

    def _give_back(self, worker: _Worker, error: RequestError) -> None:
        """Let others have what the lost process had in hand, unless it is what broke it."""
        batch, worker.in_hand = worker.in_hand, []
        again = [request for request in batch if request.key not in self._survivors]
        self._finished += [(request.key, error) for request in batch if request.key in self._survivors]
        self._survivors |= {request.key for request in again}
        self._waiting.put_back(again)
        self._listener.note(f"{error.message}; others take what it had in hand")

    def _break_off(self, worker: _Worker) -> None:
        """End an answer that nobody waits for any more."""
        self._send(worker, "enough")
        while self._receive(worker)[0] not in ("answer", "failed", "lost"):
            pass
        worker.streams = False


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """So that a process started meanwhile never hears Ctrl-C, and this one, which will end it, hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # a process of multiprocessing's, which lets interrupts through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
