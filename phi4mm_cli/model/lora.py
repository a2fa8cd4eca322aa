"""Reads one low-rank adapter: from a folder that peft wrote, or out of a whole checkpoint.

The fine-tuning scripts published with the model save a checkpoint in the original layout, with the adapter that they
trained among its weights. Of such a folder the adapter is taken, and with it the tower whose embeddings it was trained
on: one script trains the image tower along, and pictures are seen with the vision adapter alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.configs import LoraSettings, lora_block_settings, lora_settings
from phi4mm_cli.model.folder import PICKLES, read_json, require_shards
from phi4mm_cli.model.layout import AUDIO, IMAGE, native_name
from phi4mm_cli.model.tensors import Stored, stored_in

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOWERS = {"speech": AUDIO, "vision": IMAGE}

# Settings of peft's LoraConfig that say nothing about what the adapter computes, or that are followed here.
_HARMLESS = frozenset((
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "lora_dropout", "use_rslora", "bias", "init_lora_weights", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "loftq_config", "eva_config", "megatron_config", "megatron_core",
    "runtime_config", "qalora_group_size",
))  # fmt: skip
# Ways of making the first weights that leave the model's own as they are; others change those too.
_INITIAL = (True, False, "gaussian", "orthogonal", "eva")

# Where the model's own names begin, after whatever wrapped it when it was saved.
_OWN_NAME = re.compile(r"(?:^|\.)(layers\.\d+\.|embed_tokens_extend\.).*")


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """One adapter and where it comes from, its tensors by their native names."""

    folder: Path
    settings: LoraSettings
    tensors: Mapping[str, Stored]
    targets: Callable[[str], bool]  # whether the adapter is for the layer of that name
    tower: Mapping[str, Stored]  # weights of the model itself that were trained with it; usually none


def read_adapter(folder: Path, name: str) -> Adapter:
    """The adapter `name` in `folder`. Raises MissingError where there is none, or one that cannot be followed."""
    if (folder / CONFIG).is_file():
        return _read_peft(folder)
    if (folder / "config.json").is_file() and read_json(folder / "config.json").get("model_type") == "phi4mm":
        return _read_checkpoint(folder, name)
    if (folder / f"{name}-lora" / CONFIG).is_file():
        return _read_peft(folder / f"{name}-lora")
    message = f"{folder} holds no adapter: neither {CONFIG}, nor a model in the original layout, nor {name}-lora"
    raise MissingError(message, f"Give --adapter {name}= a folder that was saved by peft or by a fine-tuning script")


def _read_checkpoint(folder: Path, name: str) -> Adapter:
    settings = lora_settings(read_json(folder / "config.json")).get(name)
    if settings is None:
        raise MissingError(f"the model in {folder} has no {name} adapter", "Give another folder, or another name")
    stored = stored_in(folder, require_shards(folder, str(folder)))
    tensors = {native_name(key): tensor for key, tensor in stored.items()}
    own = {key: tensor for (owner, key), tensor in tensors.items() if owner == name}
    tower = {key: tensor for (owner, key), tensor in tensors.items() if owner is None and key.startswith(TOWERS[name])}
    return Adapter(folder, settings, own, lambda module: module.startswith("model.layers."), tower)


def _read_peft(folder: Path) -> Adapter:
    config = read_json(folder / CONFIG)
    _require_followed(config, folder)
    if not (folder / WEIGHTS).is_file():
        pickles = [path.name for path in folder.iterdir() if path.suffix in PICKLES]
        has = f"has only {pickles[0]}, and a pickle can run code when it is loaded" if pickles else f"has no {WEIGHTS}"
        raise MissingError(f"the adapter in {folder} {has}", "Save it as safetensors, or copy it again")
    settings = lora_block_settings(config, "lora_dropout")
    if config.get("use_rslora"):  # which divides by the root of the rank
        settings = LoraSettings(settings.rank, settings.alpha * math.sqrt(settings.rank), settings.dropout)
    tensors = {_own_name(key): tensor for key, tensor in stored_in(folder, [WEIGHTS]).items()}
    return Adapter(folder, settings, tensors, _targets(config), {})


def _require_followed(config: Mapping[str, Any], folder: Path) -> None:
    """Raise MissingError for a setting of peft's that would make another function of the weights."""
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise MissingError(f"the adapter in {folder} is of peft's type {kind}, not LORA", "Only LoRA can be loaded")
    faults = [key for key, value in config.items() if key not in _HARMLESS and value not in (None, False, [], {}, "")]
    faults += [key for key, known in (("bias", ("none",)), ("init_lora_weights", _INITIAL))
               if config.get(key, known[0]) not in known]  # fmt: skip
    if faults:
        setting = f"{faults[0]}={config[faults[0]]}"
        advice = "Merge it into the model and give that with --model, or train without it"
        raise MissingError(f"the adapter in {folder} was made with {setting}, which is not supported", advice)


def _own_name(key: str) -> str:
    found = _OWN_NAME.search(key)
    return f"model.{found[0].removeprefix('.')}" if found else key


def _targets(config: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether a layer of the decoder is among the `target_modules`, as peft understands them."""
    layers = config.get("layers_to_transform")
    wanted = {layers} if isinstance(layers, int) else set(layers) if layers else None

    def is_target(module: str) -> bool:
        number = re.search(r"layers\.(\d+)\.", module)
        if wanted is not None and (number is None or int(number[1]) not in wanted):
            return False
        return _matches(config.get("target_modules"), module) and not _matches(config.get("exclude_modules"), module)

    return is_target


def _matches(names: str | list[str] | None, module: str) -> bool:
    if isinstance(names, str):
        return names == "all-linear" or re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names or ())
