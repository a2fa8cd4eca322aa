"""The servers that share the work: which of them is asked next, which are left out for a while, and what each has."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from phi4mm_cli.engines.openai import catalogue
from phi4mm_cli.engines.openai.answers import MalformedError, parsed
from phi4mm_cli.engines.openai.failures import SetbackError, Speaker
from phi4mm_cli.engines.openai.transport import FaultError, Transport
from phi4mm_cli.engines.openai.wire import Served, Skill
from phi4mm_cli.errors import MissingError

PATIENCE = 60.0  # seconds that a run goes on looking for a server, when all are gone
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between two looks at a server that is gone
LISTING_SECONDS = 30.0  # for a list of models


@dataclass(eq=False, slots=True)
class Server:
    """One URL. What it has is asked for when it is first needed."""

    url: str  # without a slash at the end
    speaker: Speaker
    served: Served | None = None
    in_hand: int = 0
    gone_since: float | None = None
    next_look: float = 0.0
    wait: float = FIRST_WAIT
    proven: dict[Skill, asyncio.Task[None]] = field(default_factory=dict)  # whether it takes media of that kind
    finding: asyncio.Lock = field(default_factory=asyncio.Lock)


class Servers:
    """Chooses a server for each exchange. Lives in one event loop."""

    def __init__(
        self,
        urls: Sequence[str],
        key: str | None,
        model: str,
        names: Mapping[str, str],
        transport: Transport,
        place_of: Callable[[str], str],
        patience: float = PATIENCE,
    ) -> None:
        self.all = [Server(url, Speaker(place_of(url), key)) for url in urls]
        self._model, self._names, self._transport, self._patience = model, names, transport, patience

    async def find(self) -> list[Server]:
        """Ask every server what it has, and return those that say. Raises MissingError where none does, or one errs."""
        outcomes = await asyncio.gather(*(self.describe(server) for server in self.all), return_exceptions=True)
        last: MissingError | None = None
        for server, outcome in zip(self.all, outcomes, strict=True):
            if isinstance(outcome, SetbackError):
                last = MissingError(outcome.error.message, outcome.error.advice)  # whatever it is: no input's fault
                if outcome.patience == "none":
                    raise last
                self.lose(server)
            elif isinstance(outcome, BaseException):
                raise outcome
        found = [server for server in self.all if server.served is not None]
        if not found:
            assert last is not None
            raise last
        return found

    async def describe(self, server: Server) -> Served:
        """What the server has. Raises SetbackError, MissingError."""
        async with server.finding:
            if server.served is None:
                try:
                    reply = await self._transport.get(f"{server.url}/models", LISTING_SECONDS)
                    if not reply.ok:
                        raise server.speaker.refused(reply)
                    listing = parsed(reply.body)
                except FaultError as fault:
                    raise server.speaker.fault(fault) from None
                except MalformedError as error:
                    raise server.speaker.malformed(str(error)) from None
                server.served = catalogue.served(listing, self._model, self._names, server.speaker.name)
            return server.served

    async def next(self) -> Server:
        """The server with the least in hand; waits while all are gone. Raises MissingError where that takes too long.

        One that is gone is looked at now and then, by one request at a time.
        """
        while True:
            now = time.monotonic()
            there = [server for server in self.all if server.gone_since is None or server.next_look <= now]
            if there:
                server = min(there, key=lambda server: (server.gone_since is None, server.in_hand))
                if server.gone_since is not None:
                    server.next_look = now + self._longer(server)
                return server
            since = max(server.gone_since or now for server in self.all)
            if now - since > self._patience:
                names = ", ".join(server.speaker.place for server in self.all)
                raise MissingError(f"no server answers any more: {names}", "Start it again and repeat the command")
            await asyncio.sleep(max(0.01, min(server.next_look for server in self.all) - now))

    def lose(self, server: Server) -> bool:
        """The server cannot be reached; whether that is news."""
        now = time.monotonic()
        news = server.gone_since is None
        server.gone_since = server.gone_since or now
        server.next_look = now + self._longer(server)
        return news

    def regain(self, server: Server) -> None:
        """The server has answered."""
        server.gone_since, server.wait = None, FIRST_WAIT

    def _longer(self, server: Server) -> float:
        """Seconds to the next look: at random, up to twice as many as the last time."""
        server.wait = min(LONGEST_WAIT, self._patience / 4, 2 * server.wait)
        return random.uniform(server.wait / 2, server.wait)

    async def close(self) -> None:
        """End what is still being tried."""
        tasks = [task for server in self.all for task in server.proven.values()]
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
