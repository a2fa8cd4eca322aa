"""The endpoints, and the server that runs them beside the engine's thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.serving.chat import Chats
from phi4mm_cli.serving.desk import Desk
from phi4mm_cli.serving.gate import Gate, Limits
from phi4mm_cli.serving.names import Names
from phi4mm_cli.serving.refusal import Refusal, of
from phi4mm_cli.serving.uploads import Uploads

GRACE_SECONDS = 30  # that answers in hand have when the server is to end


def application(
    desk: Desk, uploads: Uploads, names: Names, limits: Limits, key: str | None, is_local: bool, log: bool
) -> Gate:
    """Everything that clients reach."""

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
            Route("/v1/chat/completions", Chats(desk, uploads, names).complete, methods=["POST"]),
        ],
        exception_handlers=dict.fromkeys((Refusal, Phi4Error, HTTPException, Exception), refused),
    )
    return Gate(inner, limits, key, is_local, log)


@contextmanager
def served(gate: Gate, listener: socket.socket, desk: Desk) -> Iterator[uvicorn.Server]:
    """The server, at work in a thread of its own until its `should_exit` is set; then the desk is closed."""
    config = uvicorn.Config(
        gate,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = uvicorn.Server(config)

    def work() -> None:
        try:
            server.run([listener])
        finally:
            desk.close()

    thread = threading.Thread(target=work, name="server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join()
