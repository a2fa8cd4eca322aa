"""Models from the Hub: what is fetched, what is used of the cache, and what is said where neither works."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub import NATIVE, ORIGINAL, Hub, apart, resolve_apart, serving

from phi4mm_cli.model.checkpoint import DEFAULT_MODEL, DEMO_FOLDER


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


DATA = sorted(path.name for path in DEMO_FOLDER.iterdir() if path.is_file())


def test_download_takes_only_data_and_later_runs_need_no_network(hub: Hub, tmp_path: Path) -> None:
    found = resolve_apart(tmp_path, "org/demo", endpoint=hub.endpoint)
    assert (found["revision"], found["layout"]) == (NATIVE, "native")
    assert sorted(hub.fetched) == DATA
    hub.fetched.clear()
    assert resolve_apart(tmp_path, "org/demo") == found
    assert resolve_apart(tmp_path, "org/demo", HF_HUB_OFFLINE="1") == found

    (Path(found["path"]) / "model.safetensors").unlink()  # an interrupted download is taken up again
    assert "cannot be downloaded" in resolve_apart(tmp_path, "org/demo")["message"]
    assert resolve_apart(tmp_path, "org/demo", endpoint=hub.endpoint) == found


def test_of_the_original_layout_nothing_is_fetched_twice(hub: Hub, tmp_path: Path) -> None:
    found = resolve_apart(tmp_path, DEFAULT_MODEL, endpoint=hub.endpoint)
    assert (found["revision"], found["layout"]) == (ORIGINAL, "original")
    assert sorted(hub.fetched) == DATA  # without speech-lora and vision-lora, which repeat the shards
    hub.fetched.clear()
    converted = resolve_apart(tmp_path, DEFAULT_MODEL, "refs/pr/70", endpoint=hub.endpoint)
    assert (converted["revision"], converted["layout"]) == (NATIVE, "native")
    assert sum("lora" in name for name in hub.fetched) == 2
    assert resolve_apart(tmp_path, DEFAULT_MODEL) == found  # where both are cached


def test_the_branch_that_is_cached_is_used(hub: Hub, tmp_path: Path) -> None:
    converted = resolve_apart(tmp_path, DEFAULT_MODEL, "refs/pr/70", endpoint=hub.endpoint)
    hub.fetched.clear()
    assert resolve_apart(tmp_path, DEFAULT_MODEL) == converted
    assert resolve_apart(tmp_path, DEFAULT_MODEL, endpoint=hub.endpoint) == converted
    assert hub.fetched == []
    assert "not in the cache" in resolve_apart(tmp_path, DEFAULT_MODEL, "main")["message"]
    (Path(converted["path"]) / "speech-lora" / "adapter_model.safetensors").unlink()
    assert resolve_apart(tmp_path, DEFAULT_MODEL, endpoint=hub.endpoint)["layout"] == "original"


def test_what_the_hub_says_becomes_one_line(hub: Hub, tmp_path: Path) -> None:
    expected = {
        ("org/none",): "the Hub has no public model org/none",
        ("org/gated",): "only approved users download org/gated",
        ("org/demo", "v9"): "has no revision v9",
        ("org/other",): "of type llama",
    }
    for arguments, words in expected.items():
        answer = resolve_apart(tmp_path, *arguments, endpoint=hub.endpoint)
        assert answer["error"] == "MissingError"
        assert words in answer["message"]
        assert "\n" not in answer["message"]
    assert hub.fetched == ["config.json"]  # another kind of model is refused before its weights are fetched


# --------------------------------------------------------------------------------------- when it cannot be had


@pytest.mark.parametrize("offline", ["0", "1"])
def test_without_a_network_the_ways_on_are_named_at_once(offline: str, tmp_path: Path) -> None:
    start = time.monotonic()
    answer = resolve_apart(tmp_path, DEFAULT_MODEL, HF_HUB_OFFLINE=offline)
    assert time.monotonic() - start < 60  # with the start of Python, on a machine at work elsewhere
    assert "not in the cache and cannot be downloaded" in answer["message"]
    assert ("HF_HUB_OFFLINE" in answer["message"]) == (offline == "1")
    command = f"phi4mm models download {DEFAULT_MODEL}"
    assert all(way in answer["advice"] for way in (command, "--model PATH", "--model demo"))


def test_silent_network_is_given_up_after_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as deaf:  # takes the connection and never answers
        start = time.monotonic()
        answer = resolve_apart(tmp_path, "org/demo", endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert time.monotonic() - start < 60  # not the minutes that it takes otherwise
    assert "cannot be downloaded" in answer["message"]


def test_names_that_are_neither_folder_nor_id(tmp_path: Path) -> None:
    assert "neither a folder nor the id" in resolve_apart(tmp_path, "models/phi4/native")["message"]


def test_a_download_that_breaks_off_leaves_no_half_model(hub: Hub, tmp_path: Path) -> None:
    hub.cut_off["model.safetensors"] = 100_000
    broken = apart(["-m", "phi4mm_cli", "models", "download", "org/demo"], tmp_path, hub.endpoint)
    assert (broken.returncode, broken.stdout) == (5, "")
    assert broken.stderr.startswith("phi4mm: error: org/demo is not in the cache and cannot be downloaded: ")
    assert broken.stderr.count("\n") == 1
    assert not [*tmp_path.rglob("snapshots/*/model.safetensors")]
    hub.cut_off.clear()
    assert resolve_apart(tmp_path, "org/demo", endpoint=hub.endpoint)["revision"] == NATIVE


def test_a_cache_without_room(hub: Hub, tmp_path: Path) -> None:
    command = ["-m", "phi4mm_cli", "models", "download", "org/demo"]
    full = apart(command, tmp_path, hub.endpoint, largest_file=1_000_000)
    assert full.returncode == 5
    assert "there is no room for org/demo in the cache" in full.stderr
    assert "HF_HOME" in full.stderr
    assert full.stderr.count("\n") == 1
    assert not [*tmp_path.rglob("snapshots/*/model.safetensors")]

    hub.claimed["model.safetensors"] = 10**18
    hub.fetched.clear()
    larger = apart(command, tmp_path / "other", hub.endpoint)
    assert larger.returncode == 5
    assert "org/demo needs 1000000000.0 GB in the cache" in larger.stderr
    assert "model.safetensors" not in hub.fetched
