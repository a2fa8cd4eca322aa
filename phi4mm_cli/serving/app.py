"""The endpoints, and the server that runs them beside the engine's thread."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.serving.chat import Chats, count_tokens
from phi4mm_cli.serving.gate import Gate, Limits
from phi4mm_cli.serving.names import Names
from phi4mm_cli.serving.refusal import Refusal, of
from phi4mm_cli.serving.shared import SharedEngine
from phi4mm_cli.serving.speech import Recordings
from phi4mm_cli.serving.uploads import Uploads

STARTING_SECONDS = 0.01  # between two looks at whether it listens
PATIENCE = 5  # seconds that the thread is given where the program is to end at once


def application(
    shared: SharedEngine, uploads: Uploads, names: Names, limits: Limits, key: str | None, is_local: bool, log: bool
) -> Gate:
    """Everything that clients reach."""

    recordings = Recordings(shared, uploads, names)

    async def models(http: HttpRequest) -> Response:
        return JSONResponse({"object": "list", "data": names.listed()})

    async def model(http: HttpRequest) -> Response:
        name = names.require(http.path_params["name"])
        return JSONResponse(next((one for one in names.listed() if one["id"] == name), names.listed()[0]))

    async def health(http: HttpRequest) -> Response:
        return JSONResponse({"status": "ok"})

    async def refused(http: HttpRequest, error: Exception) -> Response:
        return of(error).response()

    inner = Starlette(
        routes=[
            Route("/health", health),
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/tokenize", count_tokens(shared.engine.count_tokens), methods=["POST"]),
            Route("/v1/audio/transcriptions", recordings.transcribe, methods=["POST"]),
            Route("/v1/audio/translations", recordings.translate, methods=["POST"]),
            Route("/v1/chat/completions", Chats(shared, uploads, names).complete, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((Refusal, Phi4Error, HTTPException, Exception), refused),
    )
    return Gate(inner, limits, key, is_local, log)


@contextmanager
def served(gate: Gate, listener: socket.socket, shared: SharedEngine) -> Iterator[uvicorn.Server]:
    """The server, at work in a thread of its own until its `should_exit` is set; then the engine is let go.

    It listens when the context is entered."""
    config = uvicorn.Config(
        gate,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=math.ceil(gate.limits.seconds),  # that an answer may take
    )
    server = uvicorn.Server(config)

    def work() -> None:
        try:
            server.run([listener])
        finally:
            shared.close()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(STARTING_SECONDS)
    try:
        yield server
    except SystemExit:
        server.force_exit = True
        raise
    finally:
        server.should_exit = True
        thread.join(PATIENCE if server.force_exit else None)
