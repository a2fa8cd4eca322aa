"""Where a model comes from: the demo, folders that are one and folders that are not, and the Hub, up and down."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.checkpoint import DEMO_FOLDER, resolve
from phi4mm_cli.schema import Profile

COMMIT = "5a" * 20
PROBE = """
import json, sys
from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.model.checkpoint import resolve
try:
    found = resolve(*sys.argv[1:])
    answer = {"path": str(found.path), "name": found.name, "revision": found.revision}
except Phi4Error as error:
    answer = {"error": type(error).__name__, "message": error.message, "advice": error.advice}
print(json.dumps(answer))
"""


def copy_of_demo(folder: Path) -> Path:
    return Path(shutil.copytree(DEMO_FOLDER, folder))


def write_config(folder: Path, **fields: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))


def refusal(folder: object) -> MissingError:
    with pytest.raises(MissingError) as caught:
        resolve(str(folder))
    assert "\n" not in caught.value.message
    assert caught.value.advice
    return caught.value


# ------------------------------------------------------------------------------------------------------- folders


def test_demo_is_in_the_package() -> None:
    demo = resolve("demo")
    assert (demo.name, demo.revision, demo.dtype) == ("demo", None, "float32")
    assert demo.profile.max_chunk_seconds > 0
    assert demo.profile.languages == ("en",)
    assert "demo" in str(demo.profile.notice)


def test_folder_without_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of_demo(tmp_path / "mine")
    (folder / "phi4mm.json").unlink()
    found = resolve(str(folder))
    assert (found.path, found.name, found.dtype, found.profile) == (folder, "mine", None, Profile())
    monkeypatch.chdir(tmp_path)
    assert resolve("mine").name == resolve("./mine").name == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/mine").path == folder


@pytest.mark.parametrize("model", ["demo", "."])
def test_revision_of_a_folder_is_a_usage_error(model: str) -> None:
    with pytest.raises(UsageError, match="--revision main"):
        resolve(model, "main")


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    write_config(tmp_path / "original", model_type="phi4mm")
    write_config(tmp_path / "other", model_type="llama")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text('{"model_type": ')
    (tmp_path / "file").write_text("")
    expected = {
        "nowhere": "no model folder at",
        "file": "no model folder at",
        "": "no config.json",
        "original": "original layout",
        "other": "of type llama",
        "damaged": "cannot be read as JSON",
    }
    for name, words in expected.items():
        assert words in refusal(tmp_path / name).message
    advice = refusal(tmp_path / "nowhere").advice
    command = "hf download microsoft/Phi-4-multimodal-instruct --revision refs/pr/70"
    assert all(way in advice for way in (command, "--model PATH", "--model demo"))
    assert "refs/pr/70" in refusal(tmp_path / "original").advice


def test_weights_must_be_complete_safetensors(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "mine")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    assert "no model.safetensors" in refusal(folder).message
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "a pickle can run code" in refusal(folder).message
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "two.safetensors is missing (1 of 2 files)" in refusal(folder).message
    (folder / "two.safetensors").write_bytes(b"")
    assert resolve(str(folder)).path == folder
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(folder).message


# ------------------------------------------------------------------------------------------------------- the Hub


class Hub(ThreadingHTTPServer):
    """Answers as the Hub does for model `org/demo` (the demo's files, a pickle and a script), and with its errors."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.fetched: list[str] = []
        self.files = {path.name: path.read_bytes() for path in DEMO_FOLDER.iterdir()}
        self.files |= {"modeling.py": b"raise SystemExit", "pytorch_model.bin": b"\x80"}


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: object) -> None: ...

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/").removeprefix("api/models/")
        model, rest = "/".join(path.split("/")[:2]), path.split("/")[2:]
        if model == "org/gated":
            return self.reply(403, X_Error_Code="GatedRepo")
        if model not in ("org/demo", "org/legacy"):
            return self.reply(401, X_Error_Code="RepoNotFound")
        if rest[:1] == ["tree"]:
            return self.reply_json([self.entry(name) for name in self.server.files])
        if rest[:1] == ["resolve"]:
            return self.send_file(model, rest[-1])
        if rest[1:] not in ([], ["main"]):
            return self.reply(404, X_Error_Code="RevisionNotFound")
        return self.reply_json({"id": model, "sha": COMMIT, "siblings": []})

    def entry(self, name: str) -> dict[str, Any]:
        return {"type": "file", "path": name, "size": len(self.server.files[name]), "oid": f"{hash(name):x}"}

    def reply_json(self, value: object) -> None:
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def send_file(self, model: str, name: str) -> None:
        body = b'{"model_type": "phi4mm"}' if model == "org/legacy" else self.server.files[name]
        if self.command == "GET":
            self.server.fetched.append(name)
        self.reply(200, body, ETag=f'"{name}-{model[4:]}"', X_Repo_Commit=COMMIT)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def resolve_apart(cache: Path, *arguments: str, endpoint: str = "http://127.0.0.1:9", **more: str) -> dict[str, str]:
    """`resolve` in a process of its own, for huggingface_hub reads its settings when it is imported."""
    variables = os.environ | {"HF_HOME": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": "0"} | more
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], env=variables, capture_output=True, encoding="utf-8", check=True
    )
    assert run.stderr == ""
    answer: dict[str, str] = json.loads(run.stdout)  # and nothing else on stdout
    return answer


def test_download_takes_only_data_and_later_runs_need_no_network(hub: Hub, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    found = resolve_apart(tmp_path, "org/demo", endpoint=endpoint)
    assert found["revision"] == COMMIT
    assert sorted(hub.fetched) == sorted(path.name for path in DEMO_FOLDER.iterdir())
    hub.fetched.clear()
    assert resolve_apart(tmp_path, "org/demo") == found
    assert resolve_apart(tmp_path, "org/demo", HF_HUB_OFFLINE="1") == found

    (Path(found["path"]) / "model.safetensors").unlink()  # an interrupted download is taken up again
    assert "cannot be downloaded" in resolve_apart(tmp_path, "org/demo")["message"]
    assert resolve_apart(tmp_path, "org/demo", endpoint=endpoint) == found


def test_what_the_hub_says_becomes_one_line(hub: Hub, tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    expected = {
        ("org/none",): "the Hub has no public model org/none",
        ("org/gated",): "only approved users download org/gated",
        ("org/demo", "v9"): "has no revision v9",
        ("org/legacy",): "original layout",
    }
    for arguments, words in expected.items():
        answer = resolve_apart(tmp_path, *arguments, endpoint=endpoint)
        assert answer["error"] == "MissingError"
        assert words in answer["message"]
        assert "\n" not in answer["message"]
    assert hub.fetched == ["config.json"]  # the original layout is refused before its weights are fetched


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_the_ways_on_are_named_at_once(offline: str, tmp_path: Path) -> None:
    start = time.monotonic()
    answer = resolve_apart(tmp_path, "microsoft/Phi-4-multimodal-instruct", HF_HUB_OFFLINE=offline)
    assert time.monotonic() - start < 5  # with the start of Python
    assert "not in the cache and cannot be downloaded" in answer["message"]
    assert ("HF_HUB_OFFLINE" in answer["message"]) == (offline == "1")
    command = "hf download microsoft/Phi-4-multimodal-instruct --revision refs/pr/70"
    assert all(way in answer["advice"] for way in (command, "--model PATH", "--model demo"))


def test_silent_network_is_given_up_after_seconds(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:  # takes the connection and never answers
        start = time.monotonic()
        answer = resolve_apart(tmp_path, "org/demo", endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert time.monotonic() - start < 12
    assert "cannot be downloaded" in answer["message"]


def test_names_that_are_neither_folder_nor_id(tmp_path: Path) -> None:
    assert "neither a folder nor the id" in resolve_apart(tmp_path, "models/phi4/native")["message"]
