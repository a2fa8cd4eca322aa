"""Who is let in by `phi4mm serve`, how much and how many at once, and what is left when somebody goes."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
import soundfile
from at_work import PATIENCE, wait_for
from conftest import Phi4mm
from serving import Server, call, client, serving

KEY = "s3cret-key"
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}
ENTERED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def long_recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """So long that what is done with it is still being done when the test looks."""
    path = tmp_path_factory.mktemp("long") / "long.flac"
    noise = np.random.default_rng(2).integers(-1, 2, 8000 * 60, dtype=np.int16)
    with soundfile.SoundFile(path, "w", 8000, 1, subtype="PCM_16") as file:
        for _ in range(150):
            file.write(noise)
    return path


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a key and narrow limits, whose temporary folder is its own."""
    folder = tmp_path_factory.mktemp("strict")
    (folder / "key").write_text(KEY + "\n", encoding="utf-8")
    limits = ("--max-queue", 1, "--max-seconds", 4, "--max-body-mb", 25)
    with serving("--engine", "echo", "--api-key-file", folder / "key", *limits, env={"TMPDIR": str(folder)}) as server:
        yield server


def begin(server: Server, recording: Path) -> socket.socket:
    """A connection on which a transcription has been asked for, and no answer been waited for."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    content = head + recording.read_bytes() + b"\r\n--x--\r\n"
    connection = socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port), 60)
    connection.sendall(
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        + content
    )
    return connection


def is_in_hand(server: Server) -> bool:
    """Whether it has what was sent open, in a file that has no name any more."""
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    return any("(deleted)" in str(link.readlink()) for link in links if link.is_symlink())


def free(server: Server) -> bool:
    return call(server, "POST", "/v1/chat/completions", HELLO, ENTERED).status == 200


# ------------------------------------------------------------------------------------------------ who is let in


def test_a_key_is_asked_for(strict: Server) -> None:
    for key in ("none", KEY + "x", ""):
        with pytest.raises((openai.AuthenticationError, openai.OpenAIError)) as caught:
            client(strict, key or " ").models.list()
        assert not isinstance(caught.value, openai.APIStatusError) or caught.value.status_code == 401
    assert call(strict, "GET", "/v1/models").status == 401
    assert call(strict, "GET", "/health").status == 200
    assert client(strict, KEY).models.list().data[0].id == "phi4mm"
    assert call(strict, "GET", "/v1/models", headers={"Authorization": f"bearer {KEY}"}).status == 200
    assert not any(KEY in line for line in strict.said)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Origin": "http://[x"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_web_pages_of_others_are_not_let_in(echo_server: Server, headers: dict[str, str], status: int) -> None:
    assert call(echo_server, "POST", "/v1/chat/completions", HELLO, headers).status == status


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/chat/completions", None, 405),
        ("POST", "/v1/chat/completions", b"{not json", 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
        ("POST", "/v1/chat/completions", b"[" * 100000, 400),
        ("GET", "/v1/models/gpt", None, 404),
    ],
)
def test_errors_are_objects(echo_server: Server, method: str, path: str, body: Any, status: int) -> None:
    reply = call(echo_server, method, path, body)
    assert reply.status == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert status != 405 or reply.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--host", "0.0.0.0"], 2, "there is no key"),
        (["--host", "256.1.1.1"], 2, "cannot listen"),
        (["--api-key-file", "missing"], 2, "cannot read the key"),
        (["--api-key-file", "."], 2, "cannot read the key"),
        (["--max-queue", "0"], 2, "--max-queue"),
        (["--model", "missing/", "--engine", "local"], 5, "model"),
    ],
)
def test_what_it_does_not_start_with(phi4mm: Phi4mm, arguments: list[str], code: int, message: str) -> None:
    run = phi4mm("serve", "--port", "0", "--engine", "echo", *arguments)
    assert (run.returncode, run.stdout) == (code, "")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_port_that_is_taken(phi4mm: Phi4mm, echo_server: Server) -> None:
    run = phi4mm("serve", "--engine", "echo", "--port", urlsplit(echo_server.url).port)
    assert run.returncode == 2
    assert "cannot listen" in run.stderr


# -------------------------------------------------------------------------------------------------- how much


def test_requests_that_are_too_large(strict: Server) -> None:
    reply = call(strict, "POST", "/v1/chat/completions", bytes(26_000_000), ENTERED)
    assert (reply.status, reply.json()["error"]["code"]) == (413, "body_too_large")
    assert free(strict)


def test_too_many_too_long_and_gone(strict: Server, long_recording: Path) -> None:
    before = len(strict.said)
    with begin(strict, long_recording) as slow:
        wait_for(lambda: not free(strict))
        full = call(strict, "POST", "/v1/chat/completions", HELLO, ENTERED)
        assert (full.status, full.headers["Retry-After"], full.json()["error"]["code"]) == (429, "5", "queue_full")
        assert call(strict, "GET", "/health").status == 200
        assert b" 504 " in slow.recv(100)
    wait_for(lambda: free(strict))

    with begin(strict, long_recording):
        wait_for(lambda: not free(strict))
    wait_for(lambda: free(strict))
    said = "".join(strict.said[before:])
    assert re.search(r"504 in ([4-9]|\d\d+)\.", said)
    assert "the client has gone" in said
    assert "Hello" not in said


@pytest.mark.parametrize(("lines", "status"), [("X-Key: none", 401), (f"Authorization: Bearer {KEY}", 415)])
def test_who_is_refused_takes_nobodys_place(strict: Server, lines: str, status: int) -> None:
    """While the rest of the body may still come: of one without the key, and of one that is not said to be JSON."""
    address = (urlsplit(strict.url).hostname, urlsplit(strict.url).port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n{lines}\r\nContent-Length: 100"
    with socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert b" 100 " in connection.recv(100)  # what is to come is waited for
        assert free(strict)
        connection.sendall(bytes(100))
        assert f" {status} ".encode() in connection.recv(100)


# ---------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to_and_finishes_what_is_in_hand(number: signal.Signals, long_recording: Path) -> None:
    with serving("--engine", "echo", "--max-queue", 1) as server:
        statuses: list[int] = []
        body = {"messages": [{"role": "user", "content": "word " * 200000}], "max_tokens": 100000}

        def ask() -> None:
            while (status := call(server, "POST", "/v1/chat/completions", body).status) == 429:
                pass
            statuses.append(status)

        asking = Thread(target=ask)
        asking.start()
        wait_for(lambda: statuses or call(server, "POST", "/v1/chat/completions", HELLO).status == 429)
        assert server.stop(number) == 0
        asking.join(PATIENCE)
        assert statuses == [200]
        assert "Traceback" not in "".join(server.said)


def test_the_second_signal_ends_it_at_once(long_recording: Path) -> None:
    with serving("--engine", "echo", env={"PHI4MM_API_KEY": KEY}) as server, begin(server, long_recording):
        wait_for(lambda: is_in_hand(server))
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: any("ending" in line for line in server.said))
        began = time.monotonic()
        assert server.stop(signal.SIGINT) == 130
        assert time.monotonic() - began < 300  # an answer in hand may take 600 s
        assert "Traceback" not in "".join(server.said)


def test_nothing_is_left_of_what_was_sent_even_when_it_is_killed(tmp_path: Path, long_recording: Path) -> None:
    with serving("--engine", "echo", env={"TMPDIR": str(tmp_path), "PHI4MM_API_KEY": KEY}) as server:
        with begin(server, long_recording):
            wait_for(lambda: is_in_hand(server))
            wait_for(lambda: any(path.is_symlink() for path in tmp_path.rglob("*")))
            server.process.kill()
            server.process.wait(60)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
