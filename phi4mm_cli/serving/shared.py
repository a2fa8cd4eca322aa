"""One engine for many clients: it is used from one thread, and they wait for its answers in others.

Requests that come while the engine works share its next batch. Answers that are streamed and batches take turns.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Condition

from phi4mm_cli import console
from phi4mm_cli.cancel import dropped_when
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import Phi4Error, RequestError
from phi4mm_cli.schema import Request, Result
from phi4mm_cli.serving import refusal
from phi4mm_cli.serving.refusal import Refusal

TURN = 0.2  # seconds that streams have before the next batch, or as long as the last one took
POLL_SECONDS = 0.05  # how long an engine that works elsewhere may be waited for while clients may come

Event = str | Result | Exception  # a piece of an answer, its end, or why there is none
Hear = Callable[[Event], None]  # called on the engine's thread, and not to block it


@dataclass(eq=False, slots=True)
class Ticket:
    """A request of one client."""

    request: Request
    hear: Hear
    done: Callable[[], None]  # called on the engine's thread once the engine is done with it, however that ended
    streamed: bool
    withdrawn: bool = False  # set by the client's thread
    answer: Generator[str, None, Result] | None = None  # of one that is being streamed

    def end(self, event: Event | None = None) -> None:
        """The engine is done with it, and `event` is the last that is heard of it."""
        if self.answer is not None:
            self.answer.close()
        self.done()
        if event is not None:
            self.hear(event)


class SharedEngine:
    """Takes requests from any thread, and answers them in the thread that calls `run`."""

    def __init__(self, engine: Engine, most_streams: int, on_batch: Callable[[int], None]) -> None:
        """`on_batch` is told how many requests have been answered together."""
        self.engine = engine
        self._most_streams, self._on_batch = most_streams, on_batch
        self._changed = Condition()
        self._inbox: deque[Ticket] = deque()
        self._closed = False
        self._queue: deque[Ticket] = deque()  # of those that wait for room in the engine
        self._owners: dict[str, list[Ticket]] = {}  # by key of the requests that are with the engine
        self._next_streams: deque[Ticket] = deque()
        self._streams: list[Ticket] = []
        self._turn_ends = 0.0

    # ---------------------------------------------------------------------------------------- on any thread

    def ask(self, request: Request, hear: Hear, done: Callable[[], None], streamed: bool = False) -> Ticket:
        """Have `request` answered: `hear` is told of each piece where it is `streamed`, then of the result or error.

        Its media are needed until `done` is called, which is also where it is withdrawn. Raises Phi4Error, and calls
        nothing, where it is closed.
        """
        ticket = Ticket(request, hear, done, streamed)
        with self._changed:
            if self._closed:
                raise Phi4Error("the server is ending")
            self._inbox.append(ticket)
            self._changed.notify()
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for it any more. What has not begun is dropped; a streamed answer breaks off."""
        with self._changed:
            ticket.withdrawn = True
            self._changed.notify()

    def close(self) -> None:
        """Have `run` return. Whoever still waits is told that there is no answer."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    # ---------------------------------------------------------------------------------- on the engine's thread

    def run(self) -> None:
        """Answer until `close`. Raises Phi4Error where the engine fails as a whole."""
        error: Exception = Phi4Error("the server is ending")
        try:
            while self._take_in():
                if self._streams and (not self._owners or time.monotonic() < self._turn_ends):
                    for ticket in [*self._streams]:
                        self._advance(ticket)
                elif self._owners or self._queue:
                    self._answer_batch()
        except Phi4Error as failure:
            error = failure
            raise
        finally:
            self.close()
            self._tell_all(error)

    def _take_in(self) -> bool:
        """Let in who has come, and out who has gone; False where it is closed."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._closed:
                return False
            for ticket in self._inbox:
                (self._next_streams if ticket.streamed else self._queue).append(ticket)
            self._inbox.clear()
        self._drop_withdrawn()
        while self._queue and self.engine.room() > 0:
            self._submit(self._queue.popleft())
        while self._next_streams and len(self._streams) < self._most_streams:
            self._streams.append(self._next_streams.popleft())
        return True

    def _submit(self, ticket: Ticket) -> None:
        try:
            key = ticket.request.key
            if key not in self._owners:
                self.engine.submit(ticket.request)
        except Phi4Error:
            raise
        except Exception as error:  # noqa: BLE001 - a bug met in one request must not end the server
            ticket.end(_told(error))
        else:
            self._owners.setdefault(key, []).append(ticket)

    def _has_work(self) -> bool:
        waiting = self._inbox or self._queue or self._next_streams
        return bool(self._closed or waiting or self._owners or self._streams)

    def _drop_withdrawn(self) -> None:
        for waiting in (self._queue, self._next_streams, self._streams):
            for ticket in [ticket for ticket in waiting if ticket.withdrawn]:
                waiting.remove(ticket)
                ticket.end()
        for key, owners in [*self._owners.items()]:
            for ticket in [ticket for ticket in owners if ticket.withdrawn]:
                owners.remove(ticket)
                if not owners:
                    del self._owners[key]
                    self.engine.cancel(key)
                ticket.end()

    def _advance(self, ticket: Ticket) -> None:
        """The next piece of an answer, or its end."""
        if ticket.answer is None:
            ticket.answer = self.engine.stream(ticket.request)
        try:
            ticket.hear(next(ticket.answer))
            return
        except StopIteration as end:
            event: Event = end.value
        except RequestError as error:
            event = error
        except Phi4Error:
            raise
        except Exception as error:  # noqa: BLE001 - a bug met in one answer must not end the server
            event = _told(error)
        self._streams.remove(ticket)
        ticket.end(event)

    def _answer_batch(self) -> None:
        began = time.monotonic()
        try:
            with dropped_when(self._is_unwanted):
                outcomes = self.engine.poll(POLL_SECONDS)
        except Phi4Error:
            raise
        except Exception as error:  # noqa: BLE001 - a bug met in one batch must not end the server
            refused, outcomes = _told(error), []
            failed, self._owners = self._owners, {}
            for key, owners in failed.items():
                self.engine.cancel(key)
                for ticket in owners:
                    ticket.end(refused)
        if self._closed:  # what was at work has been cut off
            return
        if outcomes:
            self._on_batch(len(outcomes))
        for key, outcome in outcomes:
            for ticket in self._owners.pop(key, ()):
                ticket.end(outcome)
        now = time.monotonic()
        self._turn_ends = now + max(TURN, now - began)

    def _is_unwanted(self, key: str) -> bool:
        return self._closed or all(ticket.withdrawn for ticket in self._owners.get(key, ()))

    def _tell_all(self, error: Exception) -> None:
        with_engine = [ticket for owners in self._owners.values() for ticket in owners]
        for ticket in (*self._inbox, *self._queue, *with_engine, *self._next_streams, *self._streams):
            ticket.end(error)


def _told(bug: Exception) -> Refusal:
    """What clients are told of a bug, which is said here in full."""
    console.say_bug(bug)
    return refusal.of(bug)
