"""A Ray cluster behind one engine: an actor with a local engine for each GPU, or each node where there are none.

What is sent is small: requests, whose media the actors read from a disk that they share with this machine, or fetch
from Ray's object store. An actor that is lost, with its node or alone, is replaced as soon as there is a place for it.
"""

from __future__ import annotations

import math
import os
import time
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import phi4mm_cli
from phi4mm_cli.engines import Listener
from phi4mm_cli.engines.place import Worker
from phi4mm_cli.engines.pool import PoolEngine
from phi4mm_cli.errors import MissingError, RequestError, UsageError
from phi4mm_cli.model.checkpoint import DEMO, Adapters, resolve
from phi4mm_cli.paths import from_home
from phi4mm_cli.schema import ModelInfo, Request, Source

try:
    import ray

    from phi4mm_cli.engines.actor import Actor, Parcels
    from phi4mm_cli.engines.connection import connect, connected, leave
except ImportError as error:
    raise MissingError("--engine ray needs Ray", "Install it: pip install 'phi4mm[ray]'") from error


PATIENCE = 5.0  # seconds that actors are given to clear up
SILENT_SECONDS = 30.0  # of waiting for a place on the cluster, before it is said
PIECE_BYTES = 8 << 20  # of a file that is sent
SENT_FILES, SENT_BYTES = 64, 1 << 30  # that are kept in the object store; one request may be about more
LOST_IN_A_ROW = 3  # times all workers, without an answer in between


class _Line:
    """To an actor and back. There is always a call that waits for its next words."""

    @connected()
    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.heard: deque[tuple[str, Any]] = deque()
        self.spoke = False
        self.coming = actor.hear.remote()
        self.why = ""  # it is lost

    @connected()
    def send(self, message: tuple[str, Any]) -> None:
        """Give the actor a message, which it may never get."""
        self.actor.tell.remote(message)

    @connected()
    def recv(self) -> tuple[str, Any]:
        """Its next message, once there is one. Raises EOFError."""
        if not self.heard:
            try:
                self.heard += ray.get(self.coming)
            except ray.exceptions.RayError as error:
                self.why = _why(error)
                raise EOFError from error
            self.spoke = True
            self.coming = self.actor.hear.remote()
        return self.heard.popleft()

    @connected()
    def close(self) -> None:
        """End the actor, if it lives."""
        ray.kill(self.actor)


@dataclass(eq=False, slots=True)
class _ActorWorker(Worker):
    device: str = ""  # the name of its node
    memory: str = field(default_factory=lambda: os.urandom(8).hex())  # one of its own until its node is known


class ClusterEngine(PoolEngine[_ActorWorker]):
    """Runs a checkpoint on the nodes of a Ray cluster. It is connected to on entering, unless the process already is.

    Raises MissingError then.

    `workers` None is one for each GPU of the cluster, or for each node where it has none; more share the nodes' CPUs.
    A model's folder and adapters must be at the same place on every node; a model of the Hub is in each node's cache,
    or downloaded to it. With `ship_media` the nodes need not share this machine's disk.
    """

    most_losses: ClassVar[int] = 3  # a request may be on two nodes that go down

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        adapters: Adapters = (),
        listener: Listener | None = None,
        *,
        address: str = "auto",
        workers: int | None = None,
        ship_media: bool = False,
        device: str = "auto",
        **settings: Any,
    ) -> None:
        if device not in ("auto", "cpu"):
            raise UsageError(f"--device {device} does not go with --engine ray", "Ray chooses the GPUs; or use cpu")
        checkpoint = resolve(model, revision, adapters)
        super().__init__(checkpoint, (), listener, **settings)
        named = model if model == DEMO or checkpoint.revision else str(from_home(model).resolve())
        placed = tuple((name, path.resolve()) for name, path in adapters)
        self._asked = (phi4mm_cli.__version__, named, checkpoint.revision, placed, settings | {"device": device})
        self._address, self._count, self._device = address, workers, device
        self._ship, self._sent = ship_media, OrderedDict[Source, list[Any]]()
        self._lost_in_a_row = 0
        self._told = False  # that workers wait for a place
        self._resources: dict[str, int] = {}  # that each worker takes
        self._ours = False  # the connection

    @property
    def info(self) -> ModelInfo:
        """The model; how it runs once it is loaded in one of the workers."""
        return replace(self._info or self._unloaded.info, engine="ray")

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if not ray.is_initialized():
                connect(self._address)
                self._ours = True
                stack.callback(self._end)
            count, self._resources = _places(self._count, self._device)
            stack.pop_all()
        self._workers = [_ActorWorker() for _ in range(count)]
        return self

    # -------------------------------------------------------------------------------------------------- workers

    def _start(self, worker: _ActorWorker) -> None:
        options = {"max_concurrency": 2, "max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        with connected():
            actor = ray.remote(Actor).options(**options, **self._resources).remote(*self._asked)
        worker.connection = _Line(actor)

    def _lose(self, worker: _ActorWorker) -> RequestError:
        assert isinstance(worker.connection, _Line)
        why, place = worker.connection.why, worker.device or "a node"
        worker.connection.close()
        fresh = _ActorWorker()
        worker.connection, worker.ready, worker.rows, worker.read = None, False, 0, fresh.read
        worker.memory, worker.device = fresh.memory, fresh.device
        self._lost_in_a_row += 1
        for other in self._workers:
            other.lost = other.lost or self._lost_in_a_row >= LOST_IN_A_ROW * len(self._workers)
        return RequestError(f"the worker on {place} is lost: {why}", "The logs of Ray on that node would say more")

    def _end(self) -> None:
        lines = [worker.connection for worker in self._workers if isinstance(worker.connection, _Line)]
        leave(partial(_part, lines, self._ours))
        self._workers = [_ActorWorker() for _ in self._workers]
        self._sent.clear()
        self._ours = False

    # ------------------------------------------------------------------------------------------------- messages

    def _send(self, worker: _ActorWorker, kind: str, content: Any = None) -> None:
        if kind in ("batch", "stream"):
            requests = content if kind == "batch" else [content]
            content = (requests, self._parcels(requests))
        super()._send(worker, kind, content)

    def _receive(self, worker: _ActorWorker) -> tuple[str, Any]:
        kind, content = super()._receive(worker)
        if kind in ("outcomes", "answer"):
            self._lost_in_a_row = 0
        return kind, content

    def _wait(self, workers: Sequence[_ActorWorker], timeout: float | None) -> Sequence[_ActorWorker]:
        lines = {worker: worker.connection for worker in workers if isinstance(worker.connection, _Line)}
        if heard := [worker for worker, line in lines.items() if line.heard]:
            return heard
        coming = {line.coming: worker for worker, line in lines.items()}
        until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            with connected():
                ready, _ = ray.wait([*coming], timeout=min(left, SILENT_SECONDS))
            if ready or left <= SILENT_SECONDS:
                return [coming[reference] for reference in ready]
            if not any(worker.ready for worker in workers) and not self._told:
                self._told = True
                wanted = " and ".join(
                    f"{number:g} {name.removeprefix('num_')}" for name, number in self._resources.items()
                )
                self._listener.note(f"no worker has started yet; each waits for {wanted} that the cluster has free")

    def _parcels(self, requests: Sequence[Request]) -> Parcels:
        """References to the files that the requests are about, by what they are; none where they are not sent."""
        if not self._ship:
            return {}
        wanted = dict.fromkeys(source for request in requests for source in request.sources)
        self._make_room(wanted)
        return {source: self._pieces(source) for source in wanted}

    def _make_room(self, wanted: Collection[Source]) -> None:
        """Let go of what was sent and is not wanted now, the last used longest, before more is sent."""
        others = [source for source in self._sent if source not in wanted]
        files, size = len(wanted) + len(others), sum(source.size for source in (*wanted, *others))
        for source in others:
            if files > SENT_FILES or size > SENT_BYTES:
                del self._sent[source]
                files, size = files - 1, size - source.size

    def _at_once(self, batch: Sequence[Request]) -> Sequence[Request]:
        if not self._ship:
            return batch
        sources: set[Source] = set()
        for count, request in enumerate(batch):
            sources.update(request.sources)
            if count and sum(source.size for source in sources) > SENT_BYTES:
                return batch[:count]
        return batch

    def _pieces(self, source: Source) -> Sequence[Any]:
        if source not in self._sent:
            self._sent[source] = []  # of a file that is gone meanwhile: whoever opens what is sent tells of it
            with suppress(OSError), Path(source.path).open("rb") as file, connected():
                self._sent[source] = [ray.put(piece) for piece in iter(partial(file.read, PIECE_BYTES), b"")]
        self._sent.move_to_end(source)
        return self._sent[source]


def _part(lines: Sequence[_Line], ours: bool) -> None:
    """End the actors, and the connection if it is `ours`, where there is one."""
    with suppress(MissingError), connected():
        ends = [line.actor.end.remote() for line in lines if line.spoke]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=PATIENCE)
        for line in lines:
            line.close()
        if ours:
            ray.shutdown()


def _places(asked: int | None, device: str) -> tuple[int, dict[str, int]]:
    """How many workers, and what each takes of a node. Raises MissingError."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    if gpus and device == "auto":
        return asked or gpus, {"num_gpus": 1, "num_cpus": 1}
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        raise MissingError("no node of the cluster has a CPU to give", "Start its nodes with --num-cpus or --num-gpus")
    count = asked or len(cpus)
    on_each = math.ceil(count / len(cpus))
    return count, {"num_cpus": max(1, min(cpus) // on_each)}


def _why(error: ray.exceptions.RayError) -> str:
    """What has become of an actor. Raises MissingError where it could not begin."""
    text = str(error)
    if f"No module named '{phi4mm_cli.__name__}'" in text:
        raise MissingError("a node of the cluster has no phi4mm", "Install the same version on every node") from error
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "its node ran low on memory"
    return "its node is gone" if "node has died" in text else "its process ended"
