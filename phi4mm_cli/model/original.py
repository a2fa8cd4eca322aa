"""Reads checkpoint folders of either layout into native terms, and holds them against the architecture.

Tensors stay in their files until they are asked for, so that a folder of any size takes little memory.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.adapters import PEFT_PREFIX
from phi4mm_cli.model.configs import LoraSettings, lora_block_settings, lora_settings, native_config
from phi4mm_cli.model.layout import ADAPTERS, lora_shapes, native_name, original_name

AGAIN = "Copy, download or convert the checkpoint again"

Place = tuple[str | None, str]  # the adapter that a tensor belongs to, None for the model itself; its native name


@dataclass(frozen=True, slots=True, eq=False)
class Lazy:
    """A tensor that is read when it is asked for."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """In bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """What a checkpoint folder of either layout holds, in native terms."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[Place, Lazy]
    adapters: dict[str, LoraSettings]

    def weights(self, adapter: str | None = None) -> dict[str, Lazy]:
        """The tensors of one adapter, or of the model itself, by their native names."""
        return {name: tensor for (owner, name), tensor in self.tensors.items() if owner == adapter}


# -------------------------------------------------------------------------------------------------------- reading


def read_original(folder: Path) -> Contents:
    """What a folder in the original layout holds, its config and names translated; adapters come from its shards.

    Raises MissingError where a tensor is unknown, missing, unexpected or of another shape, or only pickles are there.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "phi4mm":
        raise MissingError(f"{folder} is no model in the original layout (model_type phi4mm)", "Give another folder")
    tensors = {native_name(name): tensor for name, tensor in _stored(folder, _shards(folder)).items()}
    shapes = {name: tensor.shape for (owner, name), tensor in tensors.items() if owner is None}
    contents = Contents(folder, native_config(config, shapes), tensors, lora_settings(config))
    _check(contents, lambda place: original_name(place[1], place[0]))
    return contents


def read_native(folder: Path) -> Contents:
    """What a folder in transformers' layout holds, with all fields of its config. Raises MissingError as above."""
    config = read_json(folder / "config.json")
    if config.get("model_type") != "phi4_multimodal":
        raise MissingError(f"{folder} is no model in transformers' layout (model_type phi4_multimodal)", AGAIN)
    tensors: dict[Place, Lazy] = {(None, name): tensor for name, tensor in _stored(folder, _shards(folder)).items()}
    adapters = {}
    for name in ADAPTERS:
        if (beside := folder / f"{name}-lora").is_dir():
            lora = read_json(beside / "adapter_config.json")
            adapters[name] = lora_block_settings(lora, "lora_dropout")
            stored = _stored(beside, ["adapter_model.safetensors"])
            tensors |= {(name, key.removeprefix(PEFT_PREFIX)): tensor for key, tensor in stored.items()}
    contents = Contents(folder, _full(config).to_diff_dict(), tensors, adapters)
    _check(contents, lambda place: place[1] if place[0] is None else f"{place[0]}-lora's {place[1]}")
    return contents


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises MissingError."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise MissingError(f"{path} cannot be read as JSON: {_line(error)}", AGAIN) from error
    if not isinstance(content, dict):
        raise MissingError(f"{path} holds no JSON object", AGAIN)
    return content


def read_text(path: Path) -> str:
    """The text of a file. Raises MissingError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingError(f"{path} cannot be read: {_line(error)}", AGAIN) from error


def _shards(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.exists():
        return sorted(set(read_json(index).get("weight_map", {}).values()))
    if not (folder / "model.safetensors").exists():
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth"))
        why = f"only {pickles[0]}, and a pickle can run code when it is loaded" if pickles else "no weights"
        raise MissingError(f"{folder} has {why}", "Use a checkpoint of .safetensors files")
    return ["model.safetensors"]


def _stored(folder: Path, files: list[str]) -> dict[str, Lazy]:
    """The tensors of some safetensors files, by the names they have there."""
    found: dict[str, Lazy] = {}
    for name in files:
        with _opened(folder / name) as file:
            for key in file.keys():  # noqa: SIM118 - it is no dict
                part = file.get_slice(key)
                dtype = _DTYPES.get(part.get_dtype())
                if dtype is None or key in found:
                    fault = "is there twice" if key in found else f"is stored as {part.get_dtype()}"
                    raise MissingError(f"{key} in {folder / name} {fault}, which cannot be used", AGAIN)
                found[key] = Lazy(tuple(part.get_shape()), dtype, partial(_read, folder / name, key))
    return found


_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def _read(path: Path, key: str) -> Tensor:
    with _opened(path) as file:
        tensor: Tensor = file.get_tensor(key)
    return tensor


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise MissingError(f"{path} cannot be read: {_line(error)}", AGAIN) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _full(config: Mapping[str, Any]) -> Phi4MultimodalConfig:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        return Phi4MultimodalConfig.from_dict(copy.deepcopy(dict(config)))  # which it changes
    except (StrictDataclassError, KeyError, TypeError, ValueError) as error:
        raise MissingError(f"the model's config.json cannot be used: {_line(error)}", AGAIN) from error


def _check(contents: Contents, show: Callable[[Place], str]) -> None:
    """Raise MissingError unless the tensors are those of the architecture that the config describes."""
    try:
        with torch.device("meta"):
            network = Phi4MultimodalForCausalLM(_full(contents.config))
    except (AssertionError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MissingError(f"the model's config.json describes no model: {_line(error)}", AGAIN) from error
    wanted: dict[Place, tuple[int, ...]] = {
        (None, name): tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    bare = {name: shape for (_, name), shape in wanted.items()}
    for adapter, settings in contents.adapters.items():
        wanted |= {(adapter, name): shape for name, shape in lora_shapes(bare, settings.rank).items()}
    found = {place: tensor.shape for place, tensor in contents.tensors.items()}
    faults = {
        "missing": wanted.keys() - found.keys(),
        "unexpected": found.keys() - wanted.keys(),
        "of another shape": {place for place in wanted.keys() & found.keys() if wanted[place] != found[place]},
    }
    for fault, places in faults.items():
        if places:
            first = min(show(place) for place in places)
            raise MissingError(f"{len(places)} weights of {contents.folder} are {fault}, such as {first}", AGAIN)
