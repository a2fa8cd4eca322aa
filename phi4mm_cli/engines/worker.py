"""What a worker does: it answers with a local engine what it is sent, until it is ended; and a process that does so."""

from __future__ import annotations

import os
import signal
from contextlib import closing, suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, Protocol

from phi4mm_cli.engines import Listener
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import DeviceLostError, Phi4Error
from phi4mm_cli.model.checkpoint import Checkpoint
from phi4mm_cli.schema import Request


class End(Protocol):
    """The worker's end of the line to it."""

    def send(self, message: tuple[str, Any], /) -> None:
        """Raises OSError where nobody is there any more."""

    def recv(self) -> tuple[str, Any]:
        """The next message, once there is one. Raises EOFError where nobody is there any more."""

    def poll(self) -> bool:
        """Whether there is one now."""


class _Told(Listener):
    """Passes on what the engine says."""

    def __init__(self, connection: End) -> None:
        self._connection = connection

    def loaded(self, done: int, total: int) -> None:
        self._connection.send(("loaded", (done, total)))

    def note(self, message: str) -> None:
        self._connection.send(("note", message))

    def detail(self, message: str) -> None:
        self._connection.send(("detail", message))


def serve(connection: Connection, checkpoint: Checkpoint, settings: dict[str, Any], beside: int) -> None:
    """Be a process that answers what comes through `connection`; `beside` engines share the CPU."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the main process, which ends this one
        signal.signal(number, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // beside))
    with suppress(EOFError, OSError):
        try:
            answer(connection, checkpoint, settings)
        except DeviceLostError as error:
            connection.send(("note", error.message))
            raise SystemExit(error.exit_code) from None


def answer(connection: End, checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Answer batches and streams that come through `connection`, until there are no more.

    It is said how the engine runs with the outcomes of each batch. An error that is no request's own is sent too.
    Raises EOFError, OSError, and DeviceLostError: the process is of no use any more.
    """
    with LocalEngine(checkpoint, listener=_Told(connection), **settings) as engine:
        while True:
            kind, content = connection.recv()
            try:
                if kind == "batch":
                    _answer(engine, connection, content)
                elif kind == "stream":
                    _stream(engine, connection, content)
            except DeviceLostError:
                raise
            except Phi4Error as error:
                connection.send(("failed", error))


def _answer(engine: LocalEngine, connection: End, batch: list[Request]) -> None:
    for request in batch:
        engine.submit(request)
    outcomes = []
    while some := engine.poll():
        outcomes += some
    connection.send(("outcomes", (outcomes, engine.info, engine.rows)))


def _stream(engine: LocalEngine, connection: End, request: Request) -> None:
    answer: object = None
    with closing(engine.stream(request)) as pieces:
        try:
            while not connection.poll():  # whatever comes now means that nobody reads on
                connection.send(("piece", next(pieces)))
        except StopIteration as end:
            answer = end.value
    connection.send(("answer", answer))


def _end_with_parent() -> None:
    """However the main process ends, this one does not outlive it."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
