"""A checkpoint that is not whole, or not of this model, is refused by name, and nothing is left behind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle_model import config, write_oracle_model
from safetensors.torch import load_file, save_file
from tiny_model import write_tiny_model
from torch import Tensor

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.configs import original_config
from phi4mm_cli.model.convert import write_native, write_original
from phi4mm_cli.model.original import SIZES, read_native, read_original

EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the original layout."""
    return write_oracle_model(tmp_path_factory.mktemp("oracle") / "original")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the native layout."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "native")


@pytest.fixture
def damaged(oracle: Path, tmp_path: Path) -> Path:
    """A copy of the oracle model, to be damaged."""
    return Path(shutil.copytree(oracle, tmp_path / "damaged"))


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    shard = folder / "model-00003-of-00003.safetensors"
    weights = load_file(shard)
    edit(weights)
    save_file(weights, shard, metadata={"format": "pt"})


NORM = "model.norm.weight"
LORA = "model.layers.1.mlp.down_proj.lora_B.vision.weight"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda weights: weights.update({"model.extra.weight": torch.ones(2)}), "1 weights .* model.extra.weight"),
        (lambda weights: weights.update({"model.layers.0.self_attn.o_proj.weight": torch.ones(2)}), "0.self_attn.o_pr"),
        (lambda weights: weights.pop(NORM), f"1 weights .* are missing, such as {NORM}"),
        (lambda weights: (weights.pop(NORM), weights.pop(LORA)), "2 weights .* are missing, such as model.layers.1"),
        (lambda weights: weights.update({NORM: torch.ones(7)}), f"1 weights .* of another shape, such as {NORM}"),
        (lambda weights: weights.update({LORA: torch.ones(48, 5)}), f"of another shape, such as {LORA}"),
        (lambda weights: weights.update({NORM: torch.ones(48, dtype=torch.int8)}), "is stored as I8"),
        (lambda weights: weights.update({EMBEDDINGS: torch.ones(2)}), f"{EMBEDDINGS} .* is there twice"),
    ],
    ids=["unknown", "native name", "missing", "adapter", "shape", "adapter's shape", "dtype", "twice"],
)
def test_weights_that_do_not_fit_are_refused(
    damaged: Path, edit: Callable[[dict[str, Tensor]], object], words: str, tmp_path: Path
) -> None:
    change(damaged, edit)
    with pytest.raises(MissingError, match=words) as caught:
        write_native(damaged, tmp_path / "native")
    assert "\n" not in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_pickles_and_damaged_files_are_refused(damaged: Path) -> None:
    shard = damaged / "model-00003-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(MissingError, match="model-00003-of-00003"):
        read_original(damaged)
    for path in [*damaged.glob("*.safetensors"), damaged / "model.safetensors.index.json"]:
        path.unlink()
    with pytest.raises(MissingError, match="no weights"):
        read_original(damaged)
    torch.save({NORM: torch.ones(48)}, damaged / "pytorch_model.bin")
    with pytest.raises(MissingError, match=r"only pytorch_model.bin, and a pickle can run code"):
        read_original(damaged)


def set_audio(key: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda settings: settings["audio_processor"]["config"].update({key: value})


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (set_audio("causal", False), "sets causal to False"),
        (set_audio("attention_heads", "many"), "num_attention_heads"),
        (set_audio("activation", "none"), "describes no model"),
        (set_audio("attention_dim", 44), "of another shape"),
        (lambda settings: settings.pop("audio_processor"), "has no audio_processor"),
        (lambda settings: settings.pop("hidden_size"), "has no hidden_size"),
        (lambda settings: settings.pop("num_hidden_layers"), "has no num_hidden_layers"),
        (lambda settings: settings["vision_lora"].pop("r"), "no r"),
        (lambda settings: settings.pop("vision_lora"), "16 weights .* are unexpected"),
        (lambda settings: settings["rope_scaling"]["long_factor"].pop(), "long_factor"),
        (lambda settings: settings.update(model_type="phi3"), "phi4mm"),
        (lambda settings: settings.update(tie_word_embeddings=False), "tie_word_embeddings"),
    ],
)
def test_configs_that_do_not_fit_are_refused(
    damaged: Path, edit: Callable[[dict[str, Any]], object], words: str
) -> None:
    settings = config()
    edit(settings)
    (damaged / "config.json").write_text(json.dumps(settings))
    with pytest.raises(MissingError, match=words) as caught:
        read_original(damaged)
    assert "\n" not in caught.value.message


def test_no_size_is_a_default_of_transformers(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "tiny"))
    settings = json.loads((folder / "config.json").read_text())
    for name in SIZES:
        (folder / "config.json").write_text(json.dumps({key: settings[key] for key in settings if key != name}))
        with pytest.raises(MissingError, match=rf"config.json has no {name}\."):
            read_native(folder)


def test_nothing_is_overwritten(oracle: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="there exists"):
        write_native(oracle, tmp_path / "there")
    with pytest.raises(UsageError, match="there exists"):
        write_original(tiny, tmp_path / "there")
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]


def test_models_that_the_original_layout_cannot_hold(tiny: Path, tmp_path: Path) -> None:
    source = read_native(tiny)
    with pytest.raises(MissingError, match="tie_word_embeddings"):
        original_config(source.config | {"tie_word_embeddings": False}, source.adapters)
    folder = Path(shutil.copytree(tiny, tmp_path / "full"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    vocabulary["model"]["vocab"]["too many"] = 200021
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    with pytest.raises(MissingError, match="no room"):
        write_original(folder, tmp_path / "original")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
