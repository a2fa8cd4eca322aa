"""`phi4mm models`: what is here, where it is, and from one layout to the other; and models that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Phi4mm
from hub import NATIVE, apart, serving
from safetensors.torch import load_file
from tiny_model import write_tiny_model

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.errors import MissingError, Phi4Error
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL, DEMO_FOLDER, resolve
from phi4mm_cli.model.convert import write_original
from phi4mm_cli.model.loading import open_contents


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


def models(*arguments: str) -> list[str]:
    return ["-m", "phi4mm_cli", "models", *arguments]


def test_from_the_hub_to_the_list(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    empty = apart(models("list"), cache)
    assert empty.stdout.startswith("demo  native") and len(empty.stdout.splitlines()) == 1
    with serving() as hub:
        fetched = apart(models("download", "org/demo"), cache, hub.endpoint)
        hub.cut_off["model.safetensors"] = 10
        assert apart(models("download"), cache, hub.endpoint).returncode == 5
    assert (fetched.returncode, fetched.stderr) == (0, "")
    folder = Path(fetched.stdout.rstrip("\n"))
    assert (folder / "model.safetensors").read_bytes() == (DEMO_FOLDER / "model.safetensors").read_bytes()
    for command in ("path", "download"):
        assert apart(models(command, "org/demo"), cache).stdout == fetched.stdout
    found = json.loads(apart(models("list", "--json"), cache).stdout)
    assert [(model["model"], model["layout"], model["complete"]) for model in found] == [
        ("demo", "native", True),
        (DEFAULT_MODEL, "original", False),
        ("org/demo", "native", True),
    ]
    assert (found[2]["path"], found[2]["revision"], found[2]["branches"]) == (str(folder), NATIVE, ["main"])
    assert found[2]["size"] == sum(path.stat().st_size for path in DEMO_FOLDER.iterdir() if path.is_file())
    listed = apart(models("list"), cache).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["demo", DEFAULT_MODEL, "org/demo"]
    assert "incomplete" in listed[1] and "incomplete" not in listed[2]


def test_paths_of_what_is_here_and_what_is_not(phi4mm: Phi4mm, tmp_path: Path) -> None:
    nowhere = {"HF_HOME": str(tmp_path)}
    assert phi4mm("models", "path", "demo", env=nowhere).stdout == f"{DEMO_FOLDER}\n"
    absent = phi4mm("models", "path", env=nowhere)
    assert (absent.returncode, absent.stdout) == (5, "")
    assert "phi4mm models download" in absent.stderr
    refused = phi4mm("models", "download", "demo", env=nowhere)
    assert (refused.returncode, refused.stdout) == (2, "")


def test_there_and_back(phi4mm: Phi4mm, tmp_path: Path, tiny: Path) -> None:
    there = phi4mm("models", "convert", tiny, "original", "--to", "original")
    assert (there.returncode, there.stdout, there.stderr) == (0, "original\n", "")
    assert phi4mm("models", "convert", "original", "native", "--to", "native").returncode == 0
    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "native" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if "embed_tokens.weight" not in name)
    for target, to, words in (("native", "original", "native exists"), ("new", "native", "native layout already")):
        refused = phi4mm("models", "convert", tiny, target, "--to", to)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert words in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["native", "original"]


def test_a_disk_without_room_keeps_no_half_of_a_model(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = models("convert", str(tiny), str(tmp_path / "new"), "--to", "original")
    full = apart(command, tmp_path, largest_file=1_000_000)
    assert (full.returncode, full.stdout) == (1, "")
    assert full.stderr.startswith(f"phi4mm: error: cannot write {tmp_path / 'new'}: ")
    assert full.stderr.count("\n") == 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))  # type: ignore[attr-defined]
    with pytest.raises(Phi4Error, match=r"its disk has 0\.0 MB free"):
        write_original(tiny, tmp_path / "new")
    assert [*tmp_path.iterdir()] == []


# ------------------------------------------------------------------------- models that cannot be used, in one line


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def sizes(folder: Path, **changed: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))


def sharded(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (sharded, "incomplete: model-2.safetensors is missing (1 of 2 files)"),
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read as JSON"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: sizes(folder, model_type="whisper"), "is of type whisper"),
        (lambda folder: sizes(folder, intermediate_size=96), "of another shape, such as"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text('{"added_tokens": []}'), "is no tokenizer"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "model.bin"), "a pickle can run code"),
    ],
)
def test_a_model_that_is_not_whole(
    phi4mm: Phi4mm, tmp_path: Path, tiny: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "mine"))
    damage(folder)
    run = phi4mm("transcribe", SAMPLES / "meeting.flac", "--txt", "--no-vad", "--model", "./mine")
    assert (run.returncode, run.stdout) == (5, "")
    assert words in run.stderr
    assert run.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_hidden_layers": 3}, "6 weights .* are missing, such as model.layers.2."),
        ({"num_hidden_layers": 1}, "are unexpected, such as model.layers.1."),
        ({"num_attention_heads": 0}, "config.json"),
        ({"num_attention_heads": "many"}, "config.json"),
        ({"hidden_size": 96}, "config.json"),
        ({"audio_config": 3}, "config.json"),
        ({"rope_parameters": {"rope_type": "unheard of"}}, "config.json"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, tiny: Path, changed: dict[str, object], words: str) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "mine"))
    sizes(folder, **changed)
    with pytest.raises(MissingError, match=words) as caught:
        open_contents(resolve(str(folder)))
    assert "\n" not in caught.value.message
