"""Reads checkpoint folders of either layout into native terms, and holds them against the architecture.

Tensors stay in their files until they are asked for, so that a folder of any size takes little memory.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM
from transformers.initialization import no_init_weights

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.configs import LoraSettings, lora_settings, native_config
from phi4mm_cli.model.folder import AGAIN, Layout, in_a_line, read_json, require_shards
from phi4mm_cli.model.layout import ADAPTERS, lora_shapes, native_name, original_name
from phi4mm_cli.model.lora import Adapter, read_adapter
from phi4mm_cli.model.tensors import Stored, stored_in

Place = tuple[str | None, str]  # the adapter that a tensor belongs to, None for the model itself; its native name
OUTPUT = "lm_head.weight"  # tied to the embeddings

# The classes of transformers have a default for each, which need not be this model's.
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "vocab_size",
)


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a checkpoint folder of either layout holds, in native terms."""

    folder: Path
    layout: Layout
    config: dict[str, Any]
    tensors: dict[Place, Stored]
    adapters: dict[str, LoraSettings]

    def weights(self, adapter: str | None = None) -> dict[str, Stored]:
        """The tensors of one adapter, or of the model itself, by their native names."""
        return {name: tensor for (owner, name), tensor in self.tensors.items() if owner == adapter}


def read_original(folder: Path, others: Mapping[str, Path] | None = None) -> Contents:
    """What a folder in the original layout holds, its config and names translated; adapters come from its shards.

    `others` are folders of adapters, by name, that replace its own or are added to them. Raises MissingError where a
    tensor is unknown, missing, unexpected or of another shape, or only pickles are there.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "phi4mm":
        raise MissingError(f"{folder} is no model in the original layout (model_type phi4mm)", "Give another folder")
    stored = stored_in(folder, require_shards(folder, str(folder)))
    tensors = {native_name(name): tensor for name, tensor in stored.items()}
    shapes = {name: tensor.shape for (owner, name), tensor in tensors.items() if owner is None}
    contents = Contents(folder, "original", native_config(config, shapes), tensors, lora_settings(config))
    return _checked(contents, {name: read_adapter(path, name) for name, path in (others or {}).items()})


def read_native(folder: Path, others: Mapping[str, Path] | None = None) -> Contents:
    """What a folder in transformers' layout holds, with all fields of its config. Raises MissingError as above."""
    config = read_json(folder / "config.json")
    if config.get("model_type") != "phi4_multimodal":
        raise MissingError(f"{folder} is no model in transformers' layout (model_type phi4_multimodal)", AGAIN)
    stored = stored_in(folder, require_shards(folder, str(folder)))
    full = full_config(config)
    if full.tie_word_embeddings:
        stored.pop(OUTPUT, None)  # some programs save it all the same
    beside = {name: folder / f"{name}-lora" for name in ADAPTERS if (folder / f"{name}-lora").is_dir()}
    tensors: dict[Place, Stored] = {(None, name): tensor for name, tensor in stored.items()}
    contents = Contents(folder, "native", full.to_diff_dict(), tensors, {})
    found = {name: read_adapter(path, name) for name, path in (beside | dict(others or {})).items()}
    return _checked(contents, found)


def read(folder: Path, layout: Layout, others: Mapping[str, Path] | None = None) -> Contents:
    """What a folder of that layout holds. Raises MissingError as above."""
    return (read_original if layout == "original" else read_native)(folder, others)


def full_config(config: Mapping[str, Any]) -> Phi4MultimodalConfig:
    """The config object for a native config.json. Raises MissingError where it is none, or has no sizes."""
    missing = [name for name in SIZES if config.get(name) is None]
    if missing:
        raise MissingError(f"the model's config.json has no {missing[0]}", AGAIN)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        return Phi4MultimodalConfig.from_dict(copy.deepcopy(dict(config)))  # which it changes
    except (StrictDataclassError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise MissingError(f"the model's config.json cannot be used: {in_a_line(error)}", AGAIN) from error


# ------------------------------------------------------------------------------------------------------- checking


def _checked(contents: Contents, adapters: Mapping[str, Adapter]) -> Contents:
    """The contents with `adapters` in them, after all tensors were held against the architecture."""
    shapes = _architecture(contents.config)
    wanted: dict[Place, tuple[int, ...]] = {(None, name): shape for name, shape in shapes.items()}
    for name, settings in contents.adapters.items():
        if name not in adapters:
            wanted |= {(name, key): shape for key, shape in lora_shapes(shapes, settings.rank).items()}
    tensors = {place: tensor for place, tensor in contents.tensors.items() if place[0] not in adapters}
    _require_all(contents, wanted, tensors)
    known = dict(contents.adapters)
    for name, adapter in adapters.items():
        _require_fit(adapter, name, shapes)
        tensors |= {(name, key): tensor for key, tensor in adapter.tensors.items()}
        tensors |= {(None, key): tensor for key, tensor in adapter.tower.items()}
        known[name] = adapter.settings
    return replace(contents, tensors=tensors, adapters=known)


def _architecture(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the model's own tensors."""
    full = full_config(config)
    try:
        with torch.device("meta"), no_init_weights():
            network = Phi4MultimodalForCausalLM(full)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise MissingError(f"the model's config.json describes no model: {in_a_line(error)}", AGAIN) from error
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if full.tie_word_embeddings:
        shapes.pop(OUTPUT, None)
    return shapes


def _require_all(contents: Contents, wanted: Mapping[Place, tuple[int, ...]], tensors: Mapping[Place, Stored]) -> None:
    def show(place: Place) -> str:
        return original_name(place[1], place[0]) if contents.layout == "original" else place[1]

    faults = _faults(wanted, {place: tensor.shape for place, tensor in tensors.items()})
    for fault, places in faults.items():
        if places:
            first = min(show(place) for place in places)
            raise MissingError(f"{len(places)} weights of {contents.folder} are {fault}, such as {first}", AGAIN)


def _require_fit(adapter: Adapter, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise MissingError unless an adapter has what it says it has, and all of it has a place in the model."""
    linear = {
        key.removesuffix(".weight") for key, shape in shapes.items() if key.endswith(".weight") and len(shape) == 2
    }
    decoder = {key.rsplit(".lora_", 1)[0] for key in lora_shapes(shapes, 1)}
    modules = {key.rsplit(".lora_", 1)[0] for key in adapter.tensors} & linear
    modules |= {module for module in decoder if adapter.targets(module)}
    wanted: dict[str, tuple[int, ...]] = {key: shapes[key] for key in adapter.tower if key in shapes}
    for module in modules:
        rows, columns = shapes[f"{module}.weight"]
        rank = adapter.settings.rank
        wanted |= {f"{module}.lora_A.weight": (rank, columns), f"{module}.lora_B.weight": (rows, rank)}
    if not modules:
        raise MissingError(f"the {name} adapter in {adapter.folder} is for no layer of the model", "Check its files")
    found = {key: tensor.shape for key, tensor in (*adapter.tensors.items(), *adapter.tower.items())}
    for fault, keys in _faults(wanted, found).items():
        if keys:
            message = f"{len(keys)} tensors of the {name} adapter in {adapter.folder} are {fault}, such as {min(keys)}"
            raise MissingError(message, "It must have been trained on this model; copy or train it again")


def _faults(wanted: Mapping[Any, tuple[int, ...]], found: Mapping[Any, tuple[int, ...]]) -> dict[str, set[Any]]:
    both = wanted.keys() & found.keys()
    return {
        "missing": wanted.keys() - found.keys(),
        "unexpected": found.keys() - wanted.keys(),
        "of another shape": {key for key in both if wanted[key] != found[key]},
    }
