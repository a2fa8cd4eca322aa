"""Several devices of this machine behind one engine: a process with a local engine for each.

A process that is lost is replaced when there is work for it, unless none on its device answers any more.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from phi4mm_cli.engines import Listener
from phi4mm_cli.engines.place import Worker
from phi4mm_cli.engines.pool import PoolEngine
from phi4mm_cli.engines.worker import serve
from phi4mm_cli.errors import RequestError
from phi4mm_cli.model.checkpoint import Checkpoint

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

PATIENCE = 5.0  # seconds that a process is given to end
LOST_IN_A_ROW = 3  # processes of one device, without an answer in between: then it is given up


@dataclass(eq=False, slots=True)
class _ProcessWorker(Worker):
    process: SpawnProcess | None = None
    losses: int = 0  # since its last answer


class SeveralEngine(PoolEngine[_ProcessWorker]):
    """Runs a checkpoint on several devices, each of which takes the settings of LocalEngine."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        devices: Sequence[str],
        listener: Listener | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(checkpoint, [_worker(device) for device in devices], listener, **settings)

    def _start(self, worker: _ProcessWorker) -> None:
        context = get_context("spawn")  # a process that was forked could not use CUDA
        worker.connection, theirs = context.Pipe()
        beside = sum(other.memory == worker.memory for other in self._workers)
        settings = self._settings | {"device": worker.device}
        arguments = (theirs, self._checkpoint, settings, beside)
        worker.process = context.Process(target=serve, args=arguments, name=f"phi4mm {worker.device}", daemon=True)
        with _interrupts_held():
            worker.process.start()
        theirs.close()
        worker.ready = True

    def _wait(self, workers: Sequence[_ProcessWorker], timeout: float | None) -> Sequence[_ProcessWorker]:
        talking = {worker.connection: worker for worker in workers if isinstance(worker.connection, Connection)}
        return [talking[connection] for connection in wait([*talking], timeout)]  # type: ignore[index]

    def _lose(self, worker: _ProcessWorker) -> RequestError:
        assert worker.connection is not None and worker.process is not None
        worker.connection.close()
        worker.process.join(PATIENCE)
        worker.losses += 1
        worker.connection, worker.ready, worker.lost = None, False, worker.losses >= LOST_IN_A_ROW
        worker.rows, worker.read = 0, (0, 0)
        message = f"the process on {worker.device} ended with exit code {worker.process.exitcode}"
        worker.process.kill()  # one that does not end by itself
        return RequestError(message, "The system may have ended it for want of memory; its log would say so")

    def _receive(self, worker: _ProcessWorker) -> tuple[str, Any]:
        kind, content = super()._receive(worker)
        if kind == "outcomes" or (kind == "answer" and content is not None):
            worker.losses = 0
        return kind, content

    def _end(self) -> None:
        processes = [worker.process for worker in self._workers if worker.process is not None and worker.process.pid]
        for process in processes:
            process.kill()  # it hears no other signal, and has nothing to put in order
        for process in processes:
            process.join()
        for worker in self._workers:
            if worker.connection is not None:
                worker.connection.close()
        self._workers = [_worker(worker.device) for worker in self._workers]


def _worker(device: str) -> _ProcessWorker:
    return _ProcessWorker(device, device if device.startswith("cuda") else "host")


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """So that a process started meanwhile never hears Ctrl-C, or SIGTERM, which schedulers send to every process.

    This one, which will end it, hears them afterwards.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # a process of multiprocessing's, which lets interrupts through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
