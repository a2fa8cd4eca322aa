"""What stands before every endpoint: who may enter, how much and how many at once, and a line in the log for each."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import cast
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi4mm_cli import console
from phi4mm_cli.serving.refusal import Refusal

RETRY_SECONDS = 5  # what a client is told to wait where the queue is full
DRAIN_SECONDS = 10.0  # how long the rest of a refused request is read, so that the client can read why
WAITING_MESSAGES = 4  # of a body that comes faster than it is taken
LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
NOTE = "phi4mm.note"  # in the scope: what the endpoint has to say in the log


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask for."""

    body: int  # bytes
    seconds: float  # from the first line of the request to the end of the answer
    queue: int  # requests at once


def note(http: HttpRequest, what: str) -> None:
    """Have `what` in the log's line. Nothing of what a client sent."""
    http.scope[NOTE] = what


def require_json(http: HttpRequest) -> None:
    """Raise Refusal where the body is not said to be JSON: what a web page may send without asking is not."""
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "the body is JSON, and Content-Type says so: application/json")


@dataclass(frozen=True, slots=True)
class Gate:
    """An ASGI application around another."""

    inner: ASGIApp
    limits: Limits
    key: str | None
    is_local: bool  # bound to an address that only this machine reaches
    log: bool
    inside: set[asyncio.Task[None]] = field(default_factory=set)  # those at work that count for the queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            return
        visit = _Visit(self, scope, receive, send)
        await visit.answer()


class _Visit:
    """One request and its answer."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._gate, self._scope = gate, scope
        self._receive_raw, self._send_raw = receive, send
        self._body: asyncio.Queue[Message | Refusal] = asyncio.Queue(WAITING_MESSAGES)
        self._read = 0  # bytes of the body
        self._whole = asyncio.Event()  # the body has been read, or will not come
        self._unwanted = False  # what is still to come of the body
        self._status: int | None = None  # None until the answer has begun
        self._over = False  # what the endpoint still sends is for nobody
        self._began = time.monotonic()

    async def answer(self) -> None:
        work = asyncio.create_task(self._work())
        watch = asyncio.create_task(self._watch(work))
        if self._scope["method"] == "POST":
            self._gate.inside.add(work)
            work.add_done_callback(self._gate.inside.discard)
        try:
            done, _ = await asyncio.wait([work], timeout=self._gate.limits.seconds)
            if not done and self._status is None:
                message = f"no answer within {self._gate.limits.seconds:g} s (--max-seconds)"
                refusal = Refusal(504, message, None, "timeout")
                await refusal.response()(self._scope, self._receive, self._send)
        finally:
            self._over = True
            work.cancel()
            watch.cancel()
        self._log()

    async def _work(self) -> None:
        try:
            self._admit()
            await self._gate.inner(self._scope, self._receive, self._send)
        except Refusal as refusal:
            await refusal.response()(self._scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001 - the client has been told; here it is told to whoever can mend it
            console.say_bug(error)

    def _admit(self) -> None:
        """Raise Refusal where the request is not let in."""
        gate, sent = self._gate, Headers(scope=self._scope)
        if self._scope["path"] == "/health":
            return
        if gate.key is not None:
            scheme, _, given = sent.get("authorization", "").partition(" ")
            if not compare_digest(given.strip().encode(), gate.key.encode()) or scheme.lower() != "bearer":
                message = "the key is missing or wrong: Authorization: Bearer KEY"
                raise Refusal(401, message, None, "invalid_api_key", {"WWW-Authenticate": "Bearer"})
        elif gate.is_local:
            _require_local(sent)
        size = sent.get("content-length", "")
        if size.isdecimal() and int(size) > gate.limits.body:
            raise self._too_large()
        if len(gate.inside) > gate.limits.queue:  # with this one
            wait = {"Retry-After": str(RETRY_SECONDS)}
            raise Refusal(429, "too many requests are at work", None, "queue_full", wait)

    def _too_large(self) -> Refusal:
        most = f"{self._gate.limits.body / 1e6:g} MB"
        return Refusal(413, f"the request is larger than {most}, the limit (--max-body-mb)", None, "body_too_large")

    async def _watch(self, work: asyncio.Task[None]) -> None:
        """Read the body as fast as it is taken; where the client hangs up, end the work."""
        while (message := await self._receive_raw())["type"] != "http.disconnect":
            self._read += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._whole.set()
            if not self._unwanted:
                await self._body.put(message if self._read <= self._gate.limits.body else self._too_large())
        self._over = True
        self._whole.set()
        work.cancel()

    async def _receive(self) -> Message:
        message = await self._body.get()
        if isinstance(message, Refusal):
            raise message
        return message

    async def _send(self, message: Message) -> None:
        if self._over:
            return
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._status >= 400:
                await self._drain()
        await self._send_raw(message)

    async def _drain(self) -> None:
        """Read what is still to come of the body: a client that is cut off while it sends never learns why."""
        self._unwanted = True
        self._gate.inside.discard(cast("asyncio.Task[None]", asyncio.current_task()))  # nothing is worked on any more
        while not self._body.empty():
            self._body.get_nowait()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._whole.wait()

    def _log(self) -> None:
        if not self._gate.log or self._scope["path"] == "/health":
            return
        client = (self._scope.get("client") or ("?",))[0]
        path = console.visible(self._scope["path"])[:80]
        seconds = time.monotonic() - self._began
        status = self._status if self._status is not None else "the client has gone"
        said = f", {self._scope[NOTE]}" if NOTE in self._scope else ""
        console.say(f"{client} {self._scope['method']} {path}: {status} in {seconds:.2f} s{said}")


def _require_local(headers: Headers) -> None:
    """Raise Refusal where a web page of another host makes the browser send this, by its own name or by ours."""
    named = [f"//{headers.get('host', '')}", *headers.getlist("origin")]
    try:
        are_local = all(urlsplit(name).hostname in LOCAL_NAMES for name in named)
    except ValueError:  # of brackets that do not close
        are_local = False
    if not are_local:
        message = "without a key, only programs on this machine are answered; set PHI4MM_API_KEY for others"
        raise Refusal(403, message, None, "foreign_origin")
