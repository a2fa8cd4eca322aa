"""`phi4mm serve` as a process of its own, for tests that talk to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPMessage
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import openai
from at_work import PATIENCE


@dataclass
class Server:
    """A server that listens, and what it has said so far."""

    process: subprocess.Popen[str]
    url: str = ""
    said: list[str] = field(default_factory=list)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def client(server: Server, key: str = "none") -> openai.OpenAI:
    """The official client, which asks once."""
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@contextmanager
def serving(*arguments: object, env: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`phi4mm serve ARGUMENTS` at a free port, from when it listens until the context ends."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PHI4MM_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", "serve", "--port", "0", *map(str, arguments)],
        env=variables | {"PHI4MM_CONFIG": "", "HF_HUB_OFFLINE": "1"} | dict(env or {}),
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    server, ready = Server(process), Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            server.said.append(line)
            if found := re.search(r" at (http://\S+)/v1 ", line):
                server.url = found[1]
                ready.set()
        ready.set()

    reader = Thread(target=listen, daemon=True)
    reader.start()
    try:
        assert ready.wait(PATIENCE), "it does not listen"
        assert server.url, "".join(server.said)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(PATIENCE)
        reader.join(PATIENCE)


@dataclass
class Reply:
    """What came back over plain HTTP."""

    status: int
    headers: HTTPMessage
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


def call(server: Server, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    """Send `body`, bytes as they are and all else as JSON, as curl would."""
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    try:
        connection.request(method, path, content, {"Content-Type": "application/json"} | dict(headers or {}))
        response = connection.getresponse()
        return Reply(response.status, response.headers, response.read().decode())
    finally:
        connection.close()
