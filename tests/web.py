"""A small HTTP server in a thread, for the tests of what phi4mm says to servers and bears from them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Heard:
    """A request as the server got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any  # of JSON; None where there is none
    write: Callable[[bytes], None]  # straight to the connection

    def reply(self, content: Any, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        """Answer with JSON, or with text as it is."""
        told = content if isinstance(content, bytes) else json.dumps(content).encode()
        lines = [f"HTTP/1.1 {status} .", f"Content-Type: {kind}", f"Content-Length: {len(told)}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.write("\r\n".join([*lines, "", ""]).encode() + told)

    def events(self, *events: Any, done: bool = True) -> None:
        """Answer with server-sent events."""
        self.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n")
        for event in events:
            self.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if done:
            self.write(b"data: [DONE]\n\n")


Answer = Callable[[Heard], None]


@dataclass
class Web:
    """A server that is up."""

    port: int
    heard: list[Heard] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def posted(self) -> list[Any]:
        """The bodies of the chat requests, in order."""
        return [heard.body for heard in self.heard if heard.path == "/v1/chat/completions"]


@contextmanager
def serving(answer: Answer, port: int = 0) -> Iterator[Web]:
    """A server on 127.0.0.1 that deals with each request as `answer` does, and then closes the connection."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            content = self.rfile.read(length)
            heard = Heard(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(content) if content else None,
                self.wfile.write,
            )
            web.heard.append(heard)
            self.close_connection = True
            with suppress(BrokenPipeError, ConnectionResetError):
                answer(heard)

        do_GET = do_POST = handle_any  # noqa: N815 - the names of http.server

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    web = Web(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
