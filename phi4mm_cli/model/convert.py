"""Writes checkpoint folders of one layout from those of the other, shard by shard, whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from phi4mm_cli.errors import Phi4Error, UsageError
from phi4mm_cli.model import vocabulary
from phi4mm_cli.model.adapters import PEFT_PREFIX, TARGETS
from phi4mm_cli.model.configs import LoraSettings, original_config
from phi4mm_cli.model.layout import original_name
from phi4mm_cli.model.original import Contents, Lazy, read_json, read_native, read_original, read_text

SHARD_BYTES = 2 << 30  # what a conversion holds in memory at a time
EMBEDDINGS = "model.embed_tokens.weight"

# As released, byte for byte but for the order.
GENERATION = {
    "_from_model_config": True,
    "bos_token_id": vocabulary.END_OF_TEXT,
    "eos_token_id": [vocabulary.END_OF_TURN, vocabulary.END_OF_TEXT],
    "pad_token_id": vocabulary.END_OF_TEXT,
    "transformers_version": "4.46.1",
    "use_cache": True,
}
_AUDIO_RATES = {"audio_compression_rate": 8, "audio_downsample_rate": 1, "audio_feat_stride": 1}
_CODE = {
    "AutoProcessor": "processing_phi4mm.Phi4MMProcessor",
    "AutoImageProcessor": "processing_phi4mm.Phi4MMImageProcessor",
    "AutoFeatureExtractor": "processing_phi4mm.Phi4MMAudioFeatureExtractor",
}
ORIGINAL_FILES: dict[str, Any] = {
    "processor_config.json": {
        "auto_map": {"AutoProcessor": _CODE["AutoProcessor"]},
        "processor_class": "Phi4MMProcessor",
    },
    "preprocessor_config.json": {
        "auto_map": _CODE,
        "image_processor_type": "Phi4MMImageProcessor",
        "processor_class": "Phi4MMProcessor",
        "feature_extractor_type": "Phi4MMAudioFeatureExtractor",
        "dynamic_hd": 36,
        **_AUDIO_RATES,
    },
    "special_tokens_map.json": vocabulary.special_tokens_map(),
    "added_tokens.json": vocabulary.added_tokens(),
}
NATIVE_FILES: dict[str, Any] = {
    "processor_config.json": {"processor_class": "Phi4MultimodalProcessor"},
    "preprocessor_config.json": {
        "image_processor_type": "Phi4MultimodalImageProcessor",
        "processor_class": "Phi4MultimodalProcessor",
        "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
        "dynamic_hd": 36,
        **_AUDIO_RATES,
    },
}


def write_native(source: Path, target: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Convert the folder `source` of the original layout into a new folder `target` of the native one.

    Raises MissingError where `source` cannot be used, UsageError where `target` exists.
    """
    with _new_folder(target) as folder:
        contents = read_original(source)
        _save(contents.weights(), folder, shard_bytes)
        for name, settings in contents.adapters.items():
            _save_adapter(contents.weights(name), folder / f"{name}-lora", settings, native=True)
        tokenizer = read_text(source / "tokenizer.json")
        (folder / "tokenizer.json").write_text(vocabulary.native_tokenizer(tokenizer), encoding="utf-8")
        files = {"config.json": contents.config, "tokenizer_config.json": vocabulary.tokenizer_config(native=True)}
        files["generation_config.json"] = _generation(source, {})
        _write_json(folder, files | NATIVE_FILES)
        _copy_own(source, folder)


def write_original(source: Path, target: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Convert the folder `source` of the native layout into a new folder `target` of the original one.

    Special tokens get the released model's ids, and the vocabulary its 200064 rows; answers stay the same, up to the
    new numbers. Not written: the original's Python files, and the vocab.json and merges.txt of slow tokenizers. Raises
    MissingError where `source` cannot be used, UsageError where `target` exists.
    """
    with _new_folder(target) as folder:
        contents = read_native(source)
        tokenizer, moved = vocabulary.original_tokenizer(read_text(source / "tokenizer.json"))
        tensors = {original_name(name, adapter): lazy for (adapter, name), lazy in contents.tensors.items()}
        tensors[EMBEDDINGS] = _released_rows(contents, moved)
        _save(tensors, folder, shard_bytes)
        for name, settings in contents.adapters.items():
            weights = {PEFT_PREFIX + key: tensor for key, tensor in contents.weights(name).items()}
            _save_adapter(weights, folder / f"{name}-lora", settings, native=False)
        (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        config = original_config(contents.config, contents.adapters)
        files = {"config.json": config | {"vocab_size": vocabulary.SIZE}}
        files["tokenizer_config.json"] = vocabulary.tokenizer_config(native=False)
        files["generation_config.json"] = _generation(source, moved)
        _write_json(folder, files | ORIGINAL_FILES)
        _copy_own(source, folder)


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target` that becomes it if all goes well."""
    if os.path.lexists(target):
        raise UsageError(f"{target} exists", "Remove it, or give another folder")
    folder = target.absolute().with_name(f".phi4mm-{os.getpid()}-{target.name}.part")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(target)
    except (OSError, SafetensorError) as error:
        raise Phi4Error(f"cannot write {target}: {error}", "Give another folder, or make room there") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _released_rows(contents: Contents, moved: Mapping[int, int]) -> Lazy:
    """The embeddings with each token's at its released id; the file's own where they are so already."""
    own = contents.tensors[None, EMBEDDINGS]
    if not moved and own.shape[0] == vocabulary.SIZE:
        return own
    media = (contents.config["audio_config"]["audio_token_id"], contents.config["vision_config"]["image_token_id"])
    shape = (vocabulary.SIZE, own.shape[1])
    return Lazy(shape, own.dtype, lambda: vocabulary.moved_rows(own.read(), moved, media))


def _save(tensors: Mapping[str, Lazy], folder: Path, shard_bytes: int) -> None:
    """Write tensors as safetensors files of at most `shard_bytes` each, or of one tensor; an index where several."""
    shards: list[dict[str, Lazy]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and tensor.size + sum(other.size for other in shards[-1].values()) > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({name: tensor.read() for name, tensor in shard.items()}, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = sum(tensor.size for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        _write_json(folder, {"model.safetensors.index.json": index})


def _save_adapter(weights: Mapping[str, Lazy], folder: Path, settings: LoraSettings, native: bool) -> None:
    folder.mkdir()
    tensors = {name: tensor.read() for name, tensor in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "base_model_name_or_path": "TBA",
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "modules_to_save": [],
        "peft_type": "LORA",
        "r": settings.rank,
        "target_modules": TARGETS if native else ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
        "task_type": "CAUSAL_LM",
    }
    _write_json(folder, {"adapter_config.json": config})


def _generation(source: Path, moved: Mapping[int, int]) -> dict[str, Any]:
    """generation_config.json as released, with the end tokens of the `source`."""
    config = dict(GENERATION)
    if (source / "generation_config.json").exists():
        ends = read_json(source / "generation_config.json").get("eos_token_id", config["eos_token_id"])
        config["eos_token_id"] = [moved.get(end, end) for end in (ends if isinstance(ends, list) else [ends])]
    return config


def _write_json(folder: Path, files: Mapping[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_own(source: Path, folder: Path) -> None:
    """Files that are the same in both layouts."""
    for name in ("phi4mm.json", "LICENSE"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
