"""Where a model comes from: the demo, folders that are one and folders that are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from oracle_model import write_oracle_model

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.checkpoint import DEMO_FOLDER, local_folder, resolve
from phi4mm_cli.schema import Profile


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
    assert demo.profile.languages == ("en", "fr", "es")
    assert "demo" in str(demo.profile.notice)


def test_folder_without_its_own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of_demo(tmp_path / "mine")
    (folder / "phi4mm.json").unlink()
    found = resolve(str(folder))
    adapters = tuple(sorted(path.name.removesuffix("-lora") for path in folder.glob("*-lora")))
    assert (found.path, found.name, found.dtype) == (folder, "mine", None)
    assert found.profile == Profile(adapters=adapters)
    monkeypatch.chdir(tmp_path)
    assert resolve("mine").name == resolve("./mine").name == "mine"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve("~/mine").path == folder


@pytest.mark.parametrize("model", ["demo", "."])
def test_revision_of_a_folder_is_a_usage_error(model: str) -> None:
    with pytest.raises(UsageError, match="--revision main"):
        resolve(model, "main")


def test_both_layouts_are_known(tmp_path: Path) -> None:
    assert resolve("demo").layout == "native"
    assert resolve(str(write_oracle_model(tmp_path / "original"))).layout == "original"


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
        "original": "has no weights",
        "other": "of type llama",
        "damaged": "cannot be read as JSON",
    }
    for name, words in expected.items():
        assert words in refusal(tmp_path / name).message
    advice = refusal(tmp_path / "nowhere").advice
    command = "phi4mm models download microsoft/Phi-4-multimodal-instruct"
    assert all(way in advice for way in (command, "--model PATH", "--model demo"))


def test_weights_must_be_complete_safetensors(tmp_path: Path) -> None:
    folder = copy_of_demo(tmp_path / "mine")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    assert "no weights" in refusal(folder).message
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "a pickle can run code" in refusal(folder).message
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "two.safetensors is missing (1 of 2 files)" in refusal(folder).message
    for broken in ("{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}'):
        (folder / "model.safetensors.index.json").write_text(broken)
        assert "names no files" in refusal(folder).message
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "two.safetensors").write_bytes(b"")
    assert resolve(str(folder)).path == folder
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(folder).message


def test_names_that_no_disk_takes_are_no_folders() -> None:
    with pytest.raises(MissingError, match="no model folder at ~no-such-user/x"):
        local_folder("~no-such-user/x", None)
    assert local_folder("x" * 300, None) is None
