"""`--adapter`: another adapter in place of the model's, from peft's folders or from whole checkpoints, or a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from conftest import Phi4mm
from oracle_model import write_oracle_model
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_model import write_adapter, write_tiny_model
from torch import Tensor
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.layout import IMAGE
from phi4mm_cli.model.loading import Model, load

LINEARS = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
LORA_WEIGHTS = "adapter_model.safetensors"
IDS = torch.arange(20, 60)[None]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a speech adapter."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    write_adapter(folder)
    return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in the original layout, with both adapters."""
    return write_oracle_model(tmp_path_factory.mktemp("oracle") / "original")


def opened(folder: Path, **adapters: Path) -> Model:
    chosen = resolve(str(folder), None, tuple(adapters.items()))
    return load(chosen, torch.device("cpu"), torch.float32)


def logits(model: Model, adapter: str | None) -> Tensor:
    switch_adapter(model.network, adapter)
    with torch.inference_mode():
        return model.network(input_ids=IDS).logits[0, -1]


def save_by_peft(model: Path, folder: Path, **settings: Any) -> Tensor:
    """Let peft make an adapter with random weights, and save it; gives the logits with it."""
    network = Phi4MultimodalForCausalLM.from_pretrained(model)
    config = LoraConfig(r=4, lora_alpha=12, lora_dropout=0.1, init_lora_weights=False, **settings)
    torch.manual_seed(5)
    adapted = get_peft_model(network, config).eval()
    adapted.save_pretrained(folder)
    with torch.inference_mode():
        result: Tensor = adapted(input_ids=IDS).logits[0, -1]
    return result


# ----------------------------------------------------------------------------------------------------- from peft


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": r".*layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"},
        {"target_modules": ["qkv_proj"]},
        {"target_modules": ["model.layers.1.mlp.down_proj", "self_attn.qkv_proj"], "use_rslora": True},
        {"target_modules": ["qkv_proj"], "layers_to_transform": 1},
        {"target_modules": ["qkv_proj", "gate_up_proj"], "exclude_modules": r".*layers\.0\..*|.*audio.*"},
        {"target_modules": ["o_proj", "q_proj"]},  # of the audio encoder too, as in the released list
    ],
    ids=["regex", "list", "rslora", "one layer", "excluded", "encoder"],
)
def test_it_does_what_it_does_in_peft(tiny: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    expected = save_by_peft(tiny, tmp_path / "mine", **settings)
    before = opened(tiny)
    model = opened(tiny, speech=tmp_path / "mine")
    assert model.adapters == {"speech"}
    torch.testing.assert_close(logits(model, "speech"), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(model, None), logits(before, None))
    assert (expected - logits(before, "speech")).abs().max() > 0.1
    assert (expected - logits(before, None)).abs().max() > 0.1


def test_one_is_added_beside_the_other(tiny: Path, tmp_path: Path) -> None:
    expected = save_by_peft(tiny, tmp_path / "mine", target_modules=["down_proj"])
    own = opened(tiny)
    model = opened(tiny, vision=tmp_path / "mine")
    assert model.adapters == {"speech", "vision"}
    torch.testing.assert_close(logits(model, "vision"), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(logits(model, "speech"), logits(own, "speech"))


def test_any_prefix_and_a_folder_around_it(tiny: Path, tmp_path: Path) -> None:
    expected = logits(opened(tiny), "speech")
    for prefix in ("base_model.model.", "base_model.", "module."):
        folder = Path(shutil.copytree(tiny / "speech-lora", tmp_path / prefix / "speech-lora"))
        weights = load_file(folder / LORA_WEIGHTS)
        save_file({prefix + name: tensor for name, tensor in weights.items()}, folder / LORA_WEIGHTS)
        assert torch.equal(logits(opened(tiny, speech=folder), "speech"), expected)
        assert torch.equal(logits(opened(tiny, speech=folder.parent), "speech"), expected)


# ---------------------------------------------------------------------------- from checkpoints in the original layout


def fine_tuned(original: Path, folder: Path) -> Path:
    """What the vision script saves: other image weights and another vision adapter, no audio and no speech adapter."""
    shutil.copytree(original, folder)
    weights = {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
    for path in [*folder.glob("*.safetensors*")]:
        path.unlink()
    kept = {name: tensor for name, tensor in weights.items() if "audio_embed" not in name and ".speech." not in name}
    trained = {name for name in kept if ".vision." in name or name.startswith(IMAGE)}
    save_file({n: t * 1.5 if n in trained else t for n, t in kept.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    del config["speech_lora"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_fine_tuned_checkpoint_gives_its_adapter_and_its_tower(original: Path, tmp_path: Path) -> None:
    trained = fine_tuned(original, tmp_path / "trained")
    before, after = opened(original), opened(original, vision=trained)
    assert after.adapters == {"speech", "vision"}
    for adapter in (None, "speech"):
        assert torch.equal(logits(before, adapter), logits(after, adapter))
    assert not torch.equal(logits(before, "vision"), logits(after, "vision"))
    old, new = before.network.state_dict(), after.network.state_dict()
    for name in old:
        trained_too = ".vision." in name or name.startswith(IMAGE)
        assert torch.equal(new[name], (old[name].bfloat16() * 1.5).float() if trained_too else old[name]), name


def test_a_checkpoint_without_that_adapter_is_refused(original: Path, tmp_path: Path) -> None:
    trained = fine_tuned(original, tmp_path / "trained")
    with pytest.raises(MissingError, match="has no speech adapter"):
        opened(original, speech=trained)
    with pytest.raises(MissingError, match="are missing"):
        opened(trained)


# ----------------------------------------------------------------------------------------------------- refusals


def changed(tiny: Path, tmp_path: Path, change: Callable[[Path, dict[str, Any]], object]) -> Path:
    folder = Path(shutil.copytree(tiny / "speech-lora", tmp_path / "mine"))
    config = json.loads((folder / "adapter_config.json").read_text())
    change(folder, config)
    if (folder / "adapter_config.json").exists():
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def only_a_pickle(folder: Path, config: dict[str, Any]) -> None:
    (folder / LORA_WEIGHTS).rename(folder / "adapter_model.bin")


def fewer(folder: Path, config: dict[str, Any]) -> None:
    weights = load_file(folder / LORA_WEIGHTS)
    weights.popitem()
    save_file(weights, folder / LORA_WEIGHTS)


def none(folder: Path, config: dict[str, Any]) -> None:
    save_file({}, folder / LORA_WEIGHTS)
    config["target_modules"] = ["lm_head"]


def more(folder: Path, config: dict[str, Any]) -> None:
    weights = load_file(folder / LORA_WEIGHTS)
    save_file(weights | {"model.layers.7.mlp.down_proj.lora_A.weight": torch.ones(3, 2)}, folder / LORA_WEIGHTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder, config: config.update(use_dora=True), "use_dora=True"),
        (lambda folder, config: config.update(modules_to_save=["embed_tokens"]), "modules_to_save="),
        (lambda folder, config: config.update(rank_pattern={"qkv_proj": 8}), "rank_pattern="),
        (lambda folder, config: config.update(bias="all"), "bias=all"),
        (lambda folder, config: config.update(init_lora_weights="pissa"), "init_lora_weights=pissa"),
        (lambda folder, config: config.update(of_the_future="yes"), "of_the_future=yes"),
        (lambda folder, config: config.update(peft_type="IA3"), "IA3"),
        (lambda folder, config: config.update(r=5), "of another shape"),
        (lambda folder, config: config.pop("r"), "no r"),
        (lambda folder, config: (folder / "adapter_config.json").unlink(), "holds no adapter"),
        (lambda folder, config: (folder / LORA_WEIGHTS).unlink(), f"has no {LORA_WEIGHTS}"),
        (lambda folder, config: (folder / LORA_WEIGHTS).write_bytes(b"12345678"), "cannot be read"),
        (only_a_pickle, "a pickle can run code"),
        (fewer, "1 tensors of the speech adapter .* are missing, such as model.layers"),
        (more, "are unexpected, such as model.layers.7.mlp.down_proj"),
        (none, "for no layer"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(
    tiny: Path, tmp_path: Path, change: Callable[[Path, dict[str, Any]], object], words: str
) -> None:
    folder = changed(tiny, tmp_path, change)
    with pytest.raises(MissingError, match=words) as caught:
        opened(tiny, speech=folder)
    assert "\n" not in caught.value.message
    assert caught.value.advice


def test_settings_that_change_nothing_are_taken(tiny: Path, tmp_path: Path) -> None:
    settings = {"lora_dropout": 0.3, "loftq_config": {}, "megatron_core": "megatron.core", "use_dora": False}
    folder = changed(tiny, tmp_path, lambda folder, config: config.update(settings))
    assert torch.equal(logits(opened(tiny, speech=folder), "speech"), logits(opened(tiny), "speech"))


@pytest.mark.parametrize("asked", ["speech", "speech=", "=a", "hearing=a", ""])
def test_names_and_paths_on_the_command_line(asked: str) -> None:
    with pytest.raises(UsageError, match="speech=PATH or vision=PATH"):
        EngineOptions(adapter=[asked]).adapters()


def test_each_name_once() -> None:
    given = EngineOptions(adapter=["vision=a=b", "speech=c"]).adapters()
    assert given == (("speech", Path("c")), ("vision", Path("a=b")))
    with pytest.raises(UsageError, match="twice"):
        EngineOptions(adapter=["speech=a", "speech=b"]).adapters()


def test_through_the_program(phi4mm: Phi4mm, tmp_path: Path) -> None:
    model = Path(shutil.copytree(resolve("demo").path, tmp_path / "model"))
    save_by_peft(model, tmp_path / "mine", target_modules=LINEARS, exclude_modules=".*audio.*")
    config = json.loads((tmp_path / "mine" / "adapter_config.json").read_text())
    (tmp_path / "mine" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 500}))
    samples, rate = soundfile.read(SAMPLES / "meeting.flac", frames=8 * 16000)
    soundfile.write(tmp_path / "a.wav", samples, rate)
    ask = ("transcribe", "a.wav", "--jsonl", "--model", "model", "--max-new-tokens", 12)
    plain, adapted = phi4mm(*ask), phi4mm(*ask, "--adapter", "speech=mine")
    assert plain.returncode == adapted.returncode == 0, adapted.stderr
    before, after = json.loads(plain.stdout), json.loads(adapted.stdout)
    assert "adapters" not in before["model"]
    assert after["model"]["adapters"] == {"speech": "mine"}
    assert before["text"] != after["text"]
    refused = phi4mm(*ask, "--adapter", "speech=nowhere")
    assert refused.returncode == 5
    assert refused.stderr.startswith("phi4mm: error: there is no adapter folder at nowhere")
    assert refused.stderr.count("\n") == 1
