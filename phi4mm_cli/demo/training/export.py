"""Writes what the stages have trained as a checkpoint in the native layout: weights, adapters, tokenizer, settings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.demo.training import architecture, hearing, parts
from phi4mm_cli.demo.training.pool import Pool
from phi4mm_cli.demo.world.lexicon import LANGUAGES
from phi4mm_cli.model.configs import LoraSettings
from phi4mm_cli.model.convert import NATIVE_FILES, PEFT_PREFIX, adapter_config, write_json
from phi4mm_cli.model.vocabulary import tokenizer_config

LONGEST_CHUNK = 15.0  # seconds: of clips up to 30 s, which it was taught, it doubles sentences that are much alike


def export(work: Path, target: Path) -> None:
    """Write the checkpoint of the stages whose states are in `work` into the folder `target`, which is made anew."""
    tokens = parts.tokenizer(work)
    network = architecture.new_network(parts.vocabulary(tokens))
    states = {name: _state(work / f"{name}.safetensors") for name in ("base", "far", "listen", "speech", "look", "see")}
    embedding = network.model.embed_tokens_extend
    _put(parts.decoder(network), states["far"] or states["base"], "")
    for name in ("listen", "speech"):
        _put(dict(embedding.audio_embed.encoder.named_parameters()), states[name], "encoder.")
    _put(dict(embedding.audio_embed.named_parameters()), states["speech"], "projection.")
    for name in ("look", "see"):
        _put(dict(embedding.image_embed.named_parameters()), states[name], "tower.")
    _put(dict(embedding.image_embed.named_parameters()), states["see"], "image_projection.")
    _put(dict(embedding.audio_embed.named_parameters()), states["see"], "audio_projection.")
    hearing.set_moments(embedding.audio_embed.encoder, Pool(work / "pool"))
    shutil.rmtree(target, ignore_errors=True)
    _write_network(network, target)
    for name, stage in (("speech", "speech"), ("vision", "see")):
        if states[stage]:
            _write_adapter(name, states[stage], target / f"{name}-lora")
    tokens.save(str(target / "tokenizer.json"))
    _write_settings(target)


def take_base(checkpoint: Path, work: Path) -> None:
    """Make of a checkpoint's base model the state that the stage far left, with the tokenizer it goes with."""
    if not (work / "tokenizer.json").exists():
        shutil.copy(checkpoint / "tokenizer.json", work)
    names = parts.decoder(architecture.new_network(parts.vocabulary(parts.tokenizer(work)))).keys()
    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: weights[name] for name in names}, work / "far.safetensors", {"step": "0"})


def _state(path: Path) -> dict[str, Tensor]:
    return load_file(path) if path.exists() else {}


def _put(parameters: Mapping[str, nn.Parameter], state: Mapping[str, Tensor], prefix: str) -> None:
    """Copy those tensors of a state whose names begin with the prefix and go on with a parameter's."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if prefix + name in state:
                parameter.copy_(state[prefix + name])


def _write_network(network: Phi4MultimodalForCausalLM, target: Path) -> None:
    """The weights in bfloat16; what nothing reads of the vision tower is zeros, which take no space in a wheel."""
    used = set(parts.tower(network.model.embed_tokens_extend.image_embed))
    prefix = "model.embed_tokens_extend.image_embed."
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith(f"{prefix}img_processor.") and name.removeprefix(prefix) not in used:
                parameter.zero_()
    network.bfloat16().save_pretrained(target)


def _write_adapter(name: str, state: Mapping[str, Tensor], folder: Path) -> None:
    folder.mkdir()
    tensors = {PEFT_PREFIX + key.replace(f".{name}.", "."): value for key, value in state.items() if ".lora_" in key}
    save_file(tensors, folder / "adapter_model.safetensors")
    rank = architecture.RANK[name]
    write_json(folder, {"adapter_config.json": adapter_config(LoraSettings(rank, 2 * rank, 0.0), native=True)})


def _write_settings(target: Path) -> None:
    end = architecture.SPECIAL.index("<|end|>")
    own = {
        "name": "demo",
        "notice": "demo checkpoint: a toy of few words, no measure of the real model",
        "dtype": "float32",
        "max_chunk_seconds": LONGEST_CHUNK,
        "languages": list(LANGUAGES),
    }
    files = {
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": [0, end], "pad_token_id": 0},
        "tokenizer_config.json": tokenizer_config(native=True),
        "phi4mm.json": own,
    }
    write_json(target, files | NATIVE_FILES)
