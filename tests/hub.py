"""A Hub on this machine: answers as the real one does, with its errors, and can be made to fail halfway."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from at_work import PATIENCE

from phi4mm_cli.model.checkpoint import DEFAULT_MODEL, DEMO_FOLDER

NATIVE, ORIGINAL = "5a" * 20, "0b" * 20  # commits
Files = dict[str, bytes]

PROBE = """
import json, sys
from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.model.checkpoint import resolve
try:
    found = resolve(*sys.argv[1:])
    answer = {"path": str(found.path), "name": found.name, "revision": found.revision, "layout": found.layout}
except Phi4Error as error:
    answer = {"error": type(error).__name__, "message": error.message, "advice": error.advice}
print(json.dumps(answer))
"""


class Hub(ThreadingHTTPServer):
    """Serves repositories of small models.

    `org/demo` has the demo's files, a pickle and a script; the released model's name has the original layout on its
    main branch, with folders of adapters, and the native one in its pull request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fetched: list[str] = []
        self.cut_off: dict[str, int] = {}  # files of which only so many bytes are sent
        self.claimed: dict[str, int] = {}  # files that are said to be so long
        demo = {path.name: path.read_bytes() for path in DEMO_FOLDER.iterdir() if path.is_file()}
        adapters = {f"{name}-lora/adapter_model.safetensors": b"-" for name in ("speech", "vision")}
        original = demo | adapters | {"config.json": b'{"model_type": "phi4mm"}'}
        more = {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80"}
        self.repositories: dict[str, dict[str, tuple[str, Files]]] = {
            "org/demo": {"main": (NATIVE, demo | more)},
            "org/other": {"main": (NATIVE, {"config.json": b'{"model_type": "llama"}', "model.safetensors": b""})},
            DEFAULT_MODEL: {"main": (ORIGINAL, original | more), "refs/pr/70": (NATIVE, demo | adapters | more)},
        }

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None: ...

    def reply(self, status: int, body: bytes = b"", sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:sent])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/").removeprefix("api/models/")
        model, rest = "/".join(path.split("/")[:2]), "/".join(path.split("/")[2:])
        if model == "org/gated":
            return self.reply(403, X_Error_Code="GatedRepo")
        if model not in self.server.repositories:
            return self.reply(401, X_Error_Code="RepoNotFound")
        branches = self.server.repositories[model]
        kind, _, rest = rest.partition("/")
        named = {key: value for name, value in branches.items() for key in (name, value[0])}
        branch = next((name for name in named if rest == name or rest.startswith(f"{name}/")), None)
        if not kind:
            branch = "main"
        if branch is None:
            return self.reply(404, X_Error_Code="RevisionNotFound")
        commit, files = named[branch]
        if kind == "tree":
            return self.reply_json([self.entry(name, content) for name, content in files.items()])
        if kind == "resolve":
            return self.send_file(rest.removeprefix(f"{branch}/"), commit, files)
        return self.reply_json({"id": model, "sha": commit, "siblings": []})

    def entry(self, name: str, content: bytes) -> dict[str, Any]:
        size = self.server.claimed.get(name, len(content))
        return {"type": "file", "path": name, "size": size, "oid": f"{hash(name):x}"}

    def reply_json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def send_file(self, name: str, commit: str, files: Files) -> None:
        if name not in files:
            return self.reply(404, X_Error_Code="EntryNotFound")
        if self.command == "GET":
            self.server.fetched.append(name)
        size = {"X_Linked_Size": str(self.server.claimed[name])} if name in self.server.claimed else {}
        sent = self.server.cut_off.get(name)
        return self.reply(200, files[name], sent, ETag=f'"{name}-{commit}"', X_Repo_Commit=commit, **size)


@contextmanager
def serving() -> Iterator[Hub]:
    """A Hub that answers."""
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def apart(
    command: list[str], cache: Path, endpoint: str = "http://127.0.0.1:9", largest_file: int | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, for huggingface_hub reads its settings when it is imported."""

    def limit() -> None:
        if largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    known = {name: value for name, value in os.environ.items() if not name.startswith("PHI4MM_")}
    settings = {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0", "PHI4MM_CONFIG": ""}
    return subprocess.run(
        [sys.executable, *command],
        env=known | settings | more,
        capture_output=True,
        encoding="utf-8",
        check=False,
        preexec_fn=limit,
        timeout=PATIENCE,
    )


def resolve_apart(cache: Path, *arguments: str, endpoint: str = "http://127.0.0.1:9", **more: str) -> dict[str, str]:
    """What `resolve` gives, or the error that it raises; nothing else is printed."""
    run = apart(["-c", PROBE, *arguments], cache, endpoint, **more)
    assert run.stderr == ""
    answer: dict[str, str] = json.loads(run.stdout)
    return answer
