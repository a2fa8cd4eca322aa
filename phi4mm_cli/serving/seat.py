"""The shared engine as the driver of one client's flow sees it."""

from __future__ import annotations

from collections.abc import Generator
from queue import Empty, SimpleQueue
from threading import Event as ThreadEvent

from phi4mm_cli.closing import Closing
from phi4mm_cli.errors import RequestError
from phi4mm_cli.schema import ModelInfo, Profile, Request, Result
from phi4mm_cli.serving.shared import Event, SharedEngine, Ticket

ROOM = 32  # requests of one client at once: two batches on a CPU, so that others are not kept waiting for long


class Withdrawn(Exception):  # noqa: N818 - not an error: nobody waits for the answers any more
    """The client has gone."""


class Seat(Closing):
    """An `Engine` for one client, used from one thread; `withdraw` may be called from any. A context manager."""

    def __init__(self, shared: SharedEngine) -> None:
        self._shared = shared
        self._tickets: dict[str, tuple[Ticket, ThreadEvent]] = {}
        self._withdrawn = False
        self._heard: SimpleQueue[tuple[str, Event]] = SimpleQueue()

    @property
    def info(self) -> ModelInfo:
        """The shared engine's."""
        return self._shared.engine.info

    @property
    def profile(self) -> Profile:
        """The shared engine's."""
        return self._shared.engine.profile

    def count_tokens(self, text: str) -> int:
        """As the shared engine counts."""
        return self._shared.engine.count_tokens(text)

    def room(self) -> int:
        """What one client may have in hand. Raises Withdrawn."""
        if self._withdrawn:
            raise Withdrawn
        return ROOM - len(self._tickets)

    def submit(self, request: Request) -> None:
        """Hand `request` in."""
        key, done = request.key, ThreadEvent()
        self._tickets[key] = self._shared.ask(request, lambda event: self._heard.put((key, event)), done.set), done

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        """What has been answered. Raises Withdrawn, and what ended the shared engine."""
        outcomes: list[tuple[str, Result | RequestError]] = []
        try:
            event = self._heard.get(timeout=timeout)
            while True:
                outcomes += self._outcome(*event)
                event = self._heard.get_nowait()
        except Empty:
            return outcomes

    def _outcome(self, key: str, event: Event) -> list[tuple[str, Result | RequestError]]:
        if isinstance(event, (Result, RequestError)):
            return [(key, event)] if self._tickets.pop(key, None) else []
        assert isinstance(event, Exception)
        raise event

    def cancel(self, key: str) -> None:
        """Take it back. Returns when the engine needs its media no longer."""
        if (found := self._tickets.pop(key, None)) is not None:
            ticket, done = found
            self._shared.withdraw(ticket)
            done.wait()

    def withdraw(self) -> None:
        """Have `room` and `poll` raise Withdrawn."""
        self._withdrawn = True
        self._heard.put(("", Withdrawn()))

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """As the shared engine does, when it is this answer's turn."""
        events: SimpleQueue[Event] = SimpleQueue()
        done = ThreadEvent()
        ticket = self._shared.ask(request, events.put, done.set, streamed=True)
        try:
            while isinstance(event := events.get(), str):
                yield event
        finally:
            self._shared.withdraw(ticket)
            done.wait()
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        """Take back what has not been answered."""
        for key in [*self._tickets]:
            self.cancel(key)
