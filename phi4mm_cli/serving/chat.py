"""Answers chat requests, whole or piece by piece, in the form of OpenAI's chat completions."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any
from uuid import uuid4

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.schema import Request, Result, ToolCall
from phi4mm_cli.serving import asked, refusal
from phi4mm_cli.serving.body import read_chat, read_tokenize
from phi4mm_cli.serving.gate import note, require_json
from phi4mm_cli.serving.names import Names
from phi4mm_cli.serving.refusal import Refusal
from phi4mm_cli.serving.shared import Event, SharedEngine
from phi4mm_cli.serving.uploads import Uploads
from phi4mm_cli.tools.calls import CallError, parse

# Where a call may begin in a text that is not complete yet.
_MAY_CALL = re.compile(r"[<\[{]|\bfunctools\b|\bf\w*$")


class Chats:
    """Where chat requests are taken."""

    def __init__(self, shared: SharedEngine, uploads: Uploads, names: Names) -> None:
        self._shared, self._uploads, self._names = shared, uploads, names

    async def complete(self, http: HttpRequest) -> Response:
        """The answer to a chat request. Raises Refusal, Phi4Error."""
        require_json(http)
        chat = await run_in_threadpool(read_chat, await http.body())
        model = self._names.require(chat.model)
        held = ExitStack()
        try:
            found = await run_in_threadpool(asked.read, chat, self._uploads, held)
            events = _Events(self._shared, found.request, held, chat.stream is True)
        except BaseException:
            held.close()
            raise
        reply = _Reply(
            model, found.tools, raw=chat.skip_special_tokens is False, with_ids=chat.return_token_ids is True
        )
        if chat.stream:
            first = await events.next()  # what is refused now still has a status of its own
            usage = chat.stream_options is not None and chat.stream_options.include_usage is True
            lines = _lines(reply, first, events, usage, http)
            return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        result = await events.next()
        assert isinstance(result, Result)
        note(http, _counts(result))
        return JSONResponse(reply.whole(result))


class _Events:
    """What is heard of one request, in the server's thread. Withdraws it where nobody listens on."""

    def __init__(self, shared: SharedEngine, request: Request, held: ExitStack, streamed: bool) -> None:
        """`held` is what the request needs until the engine is done with it."""
        loop, self._shared = asyncio.get_running_loop(), shared
        self._heard: asyncio.Queue[Event] = asyncio.Queue()

        def hear(event: Event) -> None:
            with suppress(RuntimeError):  # the server has ended
                loop.call_soon_threadsafe(self._heard.put_nowait, event)

        self._ticket = shared.ask(request, hear, held.close, streamed)

    async def next(self) -> str | Result:
        """The next piece, or the result that is the end. Raises what there is instead."""
        try:
            event = await self._heard.get()
        except asyncio.CancelledError:
            self.close()
            raise
        if isinstance(event, Exception):
            raise event
        return event

    def close(self) -> None:
        """Nobody listens any more."""
        self._shared.withdraw(self._ticket)


def count_tokens(count: Callable[[str], int]) -> Callable[[HttpRequest], Awaitable[Response]]:
    """An endpoint that tells how many tokens a text is, as vLLM's `/tokenize` does; which they are, it does not."""

    async def endpoint(http: HttpRequest) -> Response:
        require_json(http)
        asked = read_tokenize(await http.body())
        return JSONResponse({"count": await run_in_threadpool(count, asked.prompt)})

    return endpoint


async def _lines(
    reply: _Reply, event: str | Result, events: _Events, usage: bool, http: HttpRequest
) -> AsyncIterator[str]:
    """An answer as server-sent events."""
    try:
        for chunk in reply.begun():
            yield _line(chunk)
        while isinstance(event, str):
            for chunk in reply.piece(event):
                yield _line(chunk)
            event = await events.next()
        note(http, _counts(event))
        for chunk in reply.end(event, usage):
            yield _line(chunk)
    except (Phi4Error, Refusal) as error:  # the status has been sent: what is left is to say it here
        yield _line(refusal.of(error).body)
    else:
        yield "data: [DONE]\n\n"
    finally:
        events.close()


def _line(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


class _Reply:
    """An answer in OpenAI's form."""

    def __init__(self, model: str, tools: Sequence[str], raw: bool, with_ids: bool) -> None:
        """`raw` leaves calls in the text as the model wrote them; `with_ids` tells the tokens too, as vLLM does."""
        self._tools, self._text, self._shown = () if raw else tools, "", 0
        self._with_ids = with_ids
        self._id, self._created, self._model = f"chatcmpl-{uuid4().hex}", int(time.time()), model

    def whole(self, result: Result) -> dict[str, Any]:
        """The answer in one."""
        calls = self._calls(result)
        text = result.text[: self._certain(result.text)].strip() if calls else result.text
        message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls else "")}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(result, calls)}
        choice |= self._ids(result)
        return self._object("chat.completion", [choice]) | {"usage": _usage(result)}

    def begun(self) -> Iterator[dict[str, Any]]:
        """The first chunk."""
        yield self._chunk({"role": "assistant", "content": ""})

    def piece(self, text: str) -> Iterator[dict[str, Any]]:
        """A piece of text, or as much as is certain to be no call."""
        self._text += text
        yield from self._told(self._certain(self._text))

    def end(self, result: Result, usage: bool) -> Iterator[dict[str, Any]]:
        """What is left, calls, and why it ended."""
        calls = self._calls(result)
        if calls:
            places = [{"index": i, **call} for i, call in enumerate(calls)]
            yield self._chunk({"tool_calls": places})
        else:
            yield from self._told(len(self._text))
        yield self._chunk({}, _finish(result, calls), self._ids(result))
        if usage:
            yield self._object("chat.completion.chunk", []) | {"usage": _usage(result)}

    def _told(self, end: int) -> Iterator[dict[str, Any]]:
        if end > self._shown:
            yield self._chunk({"content": self._text[self._shown : end]})
            self._shown = end

    def _certain(self, text: str) -> int:
        """How many characters of `text`, which may go on, are no part of a call."""
        begun = _MAY_CALL.search(text) if self._tools else None
        return begun.start() if begun else len(text)

    def _calls(self, result: Result) -> list[dict[str, Any]]:
        """The calls of the answer; none where it is text, or what was meant to be a call is none."""
        try:
            return [_call(call) for call in parse(result.text, self._tools, result.quoted or ())] if self._tools else []
        except CallError:
            return []

    def _ids(self, result: Result) -> dict[str, Any]:
        told = {"token_ids": list(result.tokens), "quoted": list(result.quoted or ())}
        return told if self._with_ids else {}

    def _chunk(
        self, delta: dict[str, Any], finish: str | None = None, more: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._object("chat.completion.chunk", [choice | dict(more or {})])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model, "choices": choices}


def _call(call: ToolCall) -> dict[str, Any]:
    written = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": f"call_{uuid4().hex}", "type": "function", "function": written}


def _finish(result: Result, calls: Sequence[Any]) -> str:
    return "tool_calls" if calls else "stop" if result.finish == "stop" else "length"


def _usage(result: Result) -> dict[str, int]:
    read, written = result.prompt_tokens, len(result.tokens)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def _counts(result: Result) -> str:
    return f"{result.prompt_tokens} + {len(result.tokens)} tokens"
