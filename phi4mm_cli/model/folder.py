"""What stands in a model's folder: its small files, its layout, the names of its shards. No weights are read here."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

from phi4mm_cli.errors import MissingError

Layout = Literal["native", "original"]  # transformers' own, and the one in which the model was released

MODEL_TYPES: dict[str, Layout] = {"phi4_multimodal": "native", "phi4mm": "original"}
PICKLES = (".bin", ".pt", ".pth")

AGAIN = "Copy, download or convert the checkpoint again"


def read_text(path: Path) -> str:
    """The text of a file. Raises MissingError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingError(f"{path.parent} has no {path.name}", AGAIN) from error
    except (OSError, UnicodeDecodeError) as error:
        raise MissingError(f"{path} cannot be read: {in_a_line(error)}", AGAIN) from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises MissingError."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise MissingError(f"{path} cannot be read as JSON: {in_a_line(error)}", AGAIN) from error
    if not isinstance(content, dict):
        raise MissingError(f"{path} holds no JSON object", AGAIN)
    return content


def layout_of(config: dict[str, Any], name: str) -> Layout:
    """The layout that the config.json of the model `name` speaks of. Raises MissingError for other models."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        known = " or ".join(MODEL_TYPES)
        raise MissingError(f"the model {name} is of type {kind}, not {known}", "Give a Phi-4-multimodal model")
    return MODEL_TYPES[kind]


def shards_of(folder: Path) -> list[str]:
    """The weight files that should be there; [] where no safetensors are. Raises MissingError for a broken index."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"] if (folder / "model.safetensors").exists() else []
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise MissingError(f"{index} names no files", AGAIN)
    return sorted(set(places.values()))


def require_shards(folder: Path, name: str) -> list[str]:
    """The weight files of the model `name`, all of which are there. Raises MissingError, also for pickles."""
    shards = shards_of(folder)
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        message = f"the model {name} is incomplete: {missing[0]} is missing ({len(missing)} of {len(shards)} files)"
        raise MissingError(message, "Copy or download it again")
    if not shards:
        raise MissingError(f"the model {name} has {no_safetensors(folder)}", "Use a checkpoint of .safetensors files")
    return shards


def numbers_in(path: Path) -> int:
    """How many numbers a safetensors file holds, as its header has it. Raises MissingError."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise MissingError(f"{path} cannot be read: {in_a_line(error)}", AGAIN) from error


def no_safetensors(folder: Path) -> str:
    """What there is in place of safetensors."""
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    return f"only {pickles[0]}, and a pickle can run code when it is loaded" if pickles else "no weights"


def in_a_line(error: Exception) -> str:
    """The text of an error in one line of bounded length."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def in_gb(size: float) -> str:
    """A number of bytes as people say it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
