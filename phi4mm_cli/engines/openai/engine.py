"""The engine that asks servers: an Engine to its caller, and an event loop on a thread of its own within."""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections.abc import Coroutine, Generator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

from phi4mm_cli.closing import Closing
from phi4mm_cli.engines import Listener, Silence
from phi4mm_cli.engines.openai.exchange import Exchanges
from phi4mm_cli.engines.openai.servers import PATIENCE, Server, Servers
from phi4mm_cli.engines.openai.sockets import most_connections
from phi4mm_cli.engines.openai.transport import Transport, is_url, place
from phi4mm_cli.errors import RequestError, UsageError
from phi4mm_cli.schema import ModelInfo, Profile, Remark, Request, Result

T = TypeVar("T")

CONCURRENCY = 16
TIMEOUT = 600.0  # seconds
WAITING = 2  # requests in hand for each that is in flight, so that the next is there when one ends
FAREWELL = 5.0  # seconds that the thread is given to close its connections
COUNTED = 4096  # texts whose numbers of tokens are kept


class OpenAIEngine(Closing):
    """Asks the servers at `urls`. Entering is free; the first question to them is what they have.

    `names` are those of the adapters, where the servers' own lists do not tell. `timeout` is for one exchange, in
    seconds, and `patience` for finding a server again when all are gone. Raises UsageError for what is no URL.
    """

    def __init__(
        self,
        urls: Sequence[str],
        key: str | None = None,
        model: str = "",
        names: Mapping[str, str] | None = None,
        concurrency: int = CONCURRENCY,
        timeout: float = TIMEOUT,
        listener: Listener | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._urls = [_checked_url(url) for url in dict.fromkeys(urls)]
        self._key, self._model, self._names = _checked_key(key), model, names or {}
        self._concurrency, self._timeout, self._patience = concurrency, timeout, patience
        self._listener = listener or Silence()
        self._events: queue.SimpleQueue[tuple[str, str | Future[Result]]] = queue.SimpleQueue()
        self._in_hand: dict[str, Future[Result]] = {}
        self._told: set[Remark] = set()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._found: list[Server] | None = None
        self.count_tokens = lru_cache(COUNTED)(self._count)

    # ------------------------------------------------------------------------------------------- what is there

    @property
    def info(self) -> ModelInfo:
        """The model, by the name that it is served under, and where."""
        names = dict.fromkeys(server.served.base for server in self._found or () if server.served)
        return ModelInfo(", ".join(names) or self._model, None, "openai", server=", ".join(map(place, self._urls)))

    @property
    def profile(self) -> Profile:
        """What all servers can do. Asks them; raises MissingError where none can be had."""
        profiles = [server.served.profile for server in self._servers() if server.served]
        least = min(profiles, key=lambda profile: (profile.context, profile.max_chunk_seconds))
        return replace(least, longest_clip=min(profile.longest_clip for profile in profiles))

    def _count(self, text: str) -> int:
        """How many tokens `text` is, by the first server that tells; else more than it will be."""
        self._servers()
        return self._wait(self._exchanges.count(text))

    # ------------------------------------------------------------------------------------------- asking

    def room(self) -> int:
        """How many more requests are wanted in hand."""
        return max(0, WAITING * self._concurrency - len(self._in_hand))

    def submit(self, request: Request) -> None:
        """Take `request` in hand. Raises MissingError where no server can be had."""
        self._servers()
        key = request.key
        work = self._exchanges.answer(request, lambda message: self._events.put(("note", message)))
        future = self._in_hand[key] = self._start(work)
        future.add_done_callback(lambda done: self._events.put((key, done)))

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        """The requests that have been answered. Raises Phi4Error for what ends them all."""
        until = math.inf if timeout is None else time.monotonic() + timeout
        outcomes: list[tuple[str, Result | RequestError]] = []
        while self._in_hand:
            left = 0.0 if outcomes else max(0.0, until - time.monotonic())
            try:
                key, event = self._events.get(timeout=None if left == math.inf else left)
            except queue.Empty:
                break
            if isinstance(event, str):
                self._listener.note(event)
            elif self._in_hand.get(key) is event:
                if outcomes and _ends_all(event):
                    self._events.put((key, event))  # for the next call
                    break
                del self._in_hand[key]
                outcomes.append((key, self._outcome(event)))
        return outcomes

    def cancel(self, key: str) -> None:
        """Drop the request; where it is with a server, the connection is closed."""
        if (future := self._in_hand.pop(key, None)) is not None:
            future.cancel()

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Answer one request now, yielding its text piece by piece. Raises RequestError."""
        self._servers()
        pieces: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        work = self._exchanges.stream(
            request, lambda message: pieces.put(("note", message)), lambda piece: pieces.put(("piece", piece))
        )
        future = self._start(work)
        future.add_done_callback(lambda _: pieces.put(("end", "")))
        try:
            while (event := pieces.get())[0] != "end":
                if event[0] == "piece":
                    yield event[1]
                else:
                    self._listener.note(event[1])
            outcome = self._outcome(future)
        finally:
            future.cancel()
        if isinstance(outcome, RequestError):
            raise outcome
        return outcome

    def _outcome(self, future: Future[Result]) -> Result | RequestError:
        try:
            result = future.result()
        except RequestError as error:
            return error
        for remark in result.remarks:
            if remark not in self._told:
                self._told.add(remark)
                self._listener.note(f"{remark.message}; {remark.advice}")
        return result

    # ------------------------------------------------------------------------------------------- the thread

    def _servers(self) -> list[Server]:
        """The servers that are there, asked once. Raises MissingError where there is none."""
        with self._starting:
            if self._loop is None:
                self._begin()
            if self._found is None:
                self._found = self._wait(self._all.find())
                for server in self._all.all:
                    if server.served is None:
                        self._listener.note(f"{server.speaker.name} does not answer; the others take its part")
            return self._found

    def _begin(self) -> None:
        ready: Future[None] = Future()
        connections = self._fitted()

        async def live() -> None:
            self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
            async with Transport(self._urls, self._key, connections, self._timeout) as transport:
                arguments = (self._key, self._model, self._names, transport, place, self._patience)
                self._all = Servers(self._urls, *arguments)
                self._exchanges = Exchanges(self._all, transport, self._concurrency)
                ready.set_result(None)
                await self._end.wait()
                await self._exchanges.close()

        def work() -> None:
            try:
                asyncio.run(live())
            except Exception as error:  # noqa: BLE001 - it is raised where the thread was begun
                if not ready.done():
                    ready.set_exception(error)

        self._thread = threading.Thread(target=work, name="openai", daemon=True)
        self._thread.start()
        ready.result()

    def _fitted(self) -> int:
        """How many connections there may be; fewer requests are in flight where that is too few for them."""
        besides = len(self._urls)  # for what is asked about a server
        most = most_connections(2 * self._concurrency + besides)
        fitting = max(1, most - besides)
        if fitting < self._concurrency:
            self._concurrency = fitting
            self._listener.note(f"{fitting} requests are in flight: the system allows few open files (ulimit -n)")
        return max(most, besides + 1)

    def _start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        future = self._start(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """End the work in hand, and its thread."""
        self._in_hand.clear()
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(FAREWELL)
        self._loop = self._found = None


def _ends_all(future: Future[Result]) -> bool:
    error = None if future.cancelled() else future.exception()
    return error is not None and not isinstance(error, RequestError)


def _checked_url(asked: str) -> str:
    """A server's URL without a slash at its end; `/v1` where it has no path. Raises UsageError."""
    if not is_url(asked.strip()):
        raise UsageError("--url takes the URL of a server", "As in http://localhost:8000/v1")
    parts = urlsplit(asked.strip())
    if parts.username is not None or parts.query or parts.fragment:
        raise UsageError("--url takes a URL without a name, a password or a query", "The key goes in PHI4MM_API_KEY")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/') or '/v1'}"


def _checked_key(key: str | None) -> str | None:
    """The key as it may stand in a header; None for none. Raises UsageError, which does not tell it."""
    key = (key or "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise UsageError("PHI4MM_API_KEY has characters in it that no key has", "Copy it again")
    return key or None
