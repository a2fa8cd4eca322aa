"""One request, from its files to its answer: sent to one server after another until an answer comes or none will."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace

from phi4mm_cli.engines.openai import differences, probes, wire
from phi4mm_cli.engines.openai.answers import Answer, MalformedError, Shown, parsed
from phi4mm_cli.engines.openai.failures import SetbackError, is_error
from phi4mm_cli.engines.openai.servers import Server, Servers
from phi4mm_cli.engines.openai.transport import FaultError, Reply, Transport
from phi4mm_cli.engines.openai.wire import Family, Medium, Served, Skill
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError
from phi4mm_cli.schema import Request, Result

ACCIDENTS = 2  # that a request survives: errors 500, lost connections, answers that are none or do not come in time
BUSY_SECONDS = 300.0  # that a request keeps asking servers which have no time
LONGEST_PAUSE = 30.0  # seconds between two tries
READERS = 4  # threads that read media
SLOT_SECONDS = 60.0  # of sound; a request with more takes several slots, so that memory is bounded
COUNT_SECONDS = 10.0  # that a server has to count the tokens of a text
BYTES_PER_TOKEN = 3  # at the least, nearly: English has 4.5, and Chinese 3 and more

Told = Callable[[str], None]
_MEDIA = {"speech": "sound", "vision": "pictures"}


@dataclass(slots=True)
class _Trials:
    """What a request has been through."""

    note: Told
    accidents: int = 0
    busy: int = 0
    busy_since: float | None = None


class Exchanges:
    """Answers requests, so many at a time. Lives in one event loop."""

    def __init__(self, servers: Servers, transport: Transport, concurrency: int) -> None:
        self._servers, self._transport = servers, transport
        self._concurrency, self._slots, self._turn = concurrency, asyncio.Semaphore(concurrency), asyncio.Lock()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="media")
        self._counts_tokens = True

    async def answer(self, request: Request, note: Told) -> Result:
        """The answer, when one of the slots is free; `note` hears of servers that come and go.

        Raises RequestError, or another Phi4Error where no other request would fare better.
        """
        heavy = len(request.pictures) + sum(clip.end - clip.start for clip in request.clips) / SLOT_SECONDS
        taken, wanted = 0, max(1, min(self._concurrency, math.ceil(heavy)))
        try:
            async with self._turn:  # nobody else takes one of the slots that a large request waits for
                while taken < wanted:
                    await self._slots.acquire()
                    taken += 1
            return await self.stream(request, note, None)
        finally:
            for _ in range(taken):
                self._slots.release()

    async def stream(self, request: Request, note: Told, on_piece: Told | None) -> Result:
        """The answer, its text handed over piece by piece where that is wanted. Raises like `answer`."""
        media = await self._read(request)
        trials, budget, shown = _Trials(note), True, False

        def show(piece: str) -> None:
            nonlocal shown
            shown = True
            assert on_piece is not None
            on_piece(piece)

        while True:
            server = await self._servers.next()
            server.in_hand += 1
            try:
                result = await self._ask(server, request, media, budget, show if on_piece else None)
            except SetbackError as setback:
                if shown:
                    raise setback.error from None
                failure = setback
            else:
                return result
            finally:
                server.in_hand -= 1
            if failure.too_long and budget:
                budget = False  # the prompt may fit, without the room that was asked for its answer
            else:
                await self._bear(server, failure, trials)

    async def count(self, text: str) -> int:
        """How many tokens `text` is, where a server of a known family tells; else more than it will be."""
        for server in self._servers.all:
            if self._counts_tokens and server.served and server.served.family is not Family.OTHER:
                count = await self._told_count(server, server.served, text)
                if count is not None:
                    return count
        return math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN)

    async def _told_count(self, server: Server, served: Served, text: str) -> int | None:
        """What the server says; None where it says nothing of use."""
        prompt = text if served.family is Family.PHI4MM else wire.neutral(text)
        asked = _dumped({"model": served.base, "prompt": prompt, "add_special_tokens": False})
        for _ in range(1 + ACCIDENTS):
            try:
                reply = await self._transport.post(f"{server.url.removesuffix('/v1')}/tokenize", asked, COUNT_SECONDS)
                count = parsed(reply.body).get("count") if reply.ok else None
            except FaultError as fault:
                if fault.kind == "cut":  # as a connection does that was kept and is closed just then
                    continue
                return None
            except MalformedError:
                count = None
            self._counts_tokens = isinstance(count, int)
            return count if isinstance(count, int) else None
        return None

    async def close(self) -> None:
        """End what is still being tried."""
        self._readers.shutdown(wait=False, cancel_futures=True)
        await self._servers.close()

    async def _read(self, request: Request) -> list[Medium]:
        if not request.clips and not request.pictures:
            return []
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._readers, wire.media_of, request)
        except Phi4Error as error:
            raise RequestError(error.message, error.advice) from error

    async def _ask(
        self, server: Server, request: Request, media: Sequence[Medium], budget: bool, show: Told | None
    ) -> Result:
        """One try. Raises SetbackError."""
        served = await self._servers.describe(server)
        skill = wire.skill_of(request)
        if served.name_for(skill) is None:
            raise _not_served(server, served, skill)
        await self._prove(server, served, skill)
        body = wire.body(request, media, served, stream=show is not None, budget=budget)
        result = await self._send(server, body, Answer(request.sampling.max_new_tokens, served.family), show)
        return replace(result, remarks=differences.remarks(request, media, served, result))

    async def _send(self, server: Server, body: wire.Json, answer: Answer, show: Told | None) -> Result:
        """The answer to a body. Raises SetbackError."""
        url, sent = f"{server.url}/chat/completions", await asyncio.to_thread(_dumped, body)
        try:
            if show is None:
                self._take(server, answer, await self._transport.post(url, sent))
            else:
                await self._listen(server, answer, url, sent, show)
            return answer.result()
        except FaultError as fault:
            raise server.speaker.fault(fault) from None
        except MalformedError as error:
            raise server.speaker.malformed(str(error)) from None

    def _take(self, server: Server, answer: Answer, reply: Reply) -> str:
        self._servers.regain(server)
        if not reply.ok:
            raise server.speaker.refused(reply)
        told = parsed(reply.body)
        if is_error(told):
            raise server.speaker.failed(told)
        return answer.take(told)

    async def _listen(self, server: Server, answer: Answer, url: str, sent: bytes, show: Told) -> None:
        shown, ended = Shown(show), False
        async with aclosing(self._transport.events(url, sent)) as events:
            async for event in events:
                self._servers.regain(server)
                if isinstance(event, Reply):
                    shown.add(self._take(server, answer, event))
                    ended = True
                elif event == "[DONE]":
                    ended = True
                    break
                elif event:
                    told = parsed(event)
                    if is_error(told):
                        raise server.speaker.failed(told)
                    shown.add(answer.take(told, is_event=True))
        if answer.finish is None and not ended:  # not every server says how it ended
            raise FaultError("cut", "the stream ended before the answer")
        shown.end(answer.result().text)

    async def _prove(self, server: Server, served: Served, skill: Skill) -> None:
        """Make sure, once, that the server takes such media. Raises SetbackError, MissingError."""
        if skill == "text" or served.family is Family.PHI4MM:  # the last says clearly what it cannot take
            return
        if (task := server.proven.get(skill)) is None:
            task = server.proven[skill] = asyncio.ensure_future(self._probe(server, served, skill))
        try:
            await asyncio.shield(task)
        except SetbackError as setback:
            if server.proven.get(skill) is task:
                del server.proven[skill]
            if setback.patience == "none" and isinstance(setback.error, RequestError):
                raise server.speaker.no_media(_MEDIA[skill], setback.words) from None
            raise

    async def _probe(self, server: Server, served: Served, skill: Skill) -> None:
        request, medium = await asyncio.to_thread(probes.probe, skill == "vision")
        await self._send(server, wire.body(request, [medium], served, stream=False), Answer(1, served.family), None)

    async def _bear(self, server: Server, setback: SetbackError, trials: _Trials) -> None:
        """Wait for the next try. Raises the error where there is to be none."""
        now = time.monotonic()
        if setback.patience == "none":
            raise setback.error from None
        if setback.patience == "down":
            if self._servers.lose(server):
                trials.note(f"{setback.error.message}; it is tried again now and then")
            return
        if setback.patience == "bounded":
            trials.accidents += 1
            if trials.accidents > ACCIDENTS:
                raise setback.error from None
            await asyncio.sleep(_pause(trials.accidents))
            return
        trials.busy += 1
        trials.busy_since = trials.busy_since or now
        pause = (setback.to_wait or 0.0) + _pause(trials.busy)
        if now + pause - trials.busy_since > BUSY_SECONDS:
            raise setback.error from None
        await asyncio.sleep(pause)


def _pause(tries: int) -> float:
    """Seconds, at random up to twice as many after each try, so that those who were refused do not come together."""
    return random.uniform(0.0, min(LONGEST_PAUSE, 0.5 * math.pow(2.0, min(tries, 10))))


def _dumped(body: wire.Json) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _not_served(server: Server, served: Served, skill: Skill) -> MissingError:
    message = f"{server.speaker.name} cannot take {_MEDIA[skill]}: it serves {served.base} without its {skill} adapter"
    advice = (
        f"Start it with --enable-lora --lora-modules {skill}=FOLDER/{skill}-lora, or name it: --served {skill}=NAME"
    )
    return MissingError(message, advice)
