"""Writes checkpoint folders of one layout from those of the other, shard by shard, whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

import phi4mm_cli
from phi4mm_cli.errors import Phi4Error, UsageError
from phi4mm_cli.model import vocabulary
from phi4mm_cli.model.adapters import TARGETS
from phi4mm_cli.model.configs import LoraSettings, original_config
from phi4mm_cli.model.folder import Layout, in_gb, read_json, read_text
from phi4mm_cli.model.layout import EMBEDDINGS, original_name
from phi4mm_cli.model.original import Contents, full_config, read, read_native, read_original
from phi4mm_cli.model.tensors import Lazy, Made

SHARD_BYTES = 2 << 30  # what a conversion holds in memory at a time

OnWrite = Callable[[int, int], None]


def _unheard(done: int, total: int) -> None:
    """Nobody listens."""


PEFT_PREFIX = "base_model.model."

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
# What vLLM asks for, with the modules that these stand on.
VLLM_MODULES = (
    "model/vllm/configuration_phi4mm.py",
    "model/vllm/processing_phi4mm.py",
    "model/features.py",
    "model/grid.py",
    "model/pixels.py",
    "errors.py",
)
VLLM_CODE = {"AutoConfig": "configuration_phi4mm.Phi4MMConfig", "AutoProcessor": _CODE["AutoProcessor"]}
VLLM_FILES: dict[str, Any] = {
    "preprocessor_config.json": {
        "auto_map": {"AutoProcessor": _CODE["AutoProcessor"]},
        "processor_class": "Phi4MMProcessor",
        "dynamic_hd": 36,
        **_AUDIO_RATES,
    },
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


def write_native(source: Path, target: Path, shard_bytes: int = SHARD_BYTES, on_bytes: OnWrite = _unheard) -> None:
    """Convert the folder `source` of the original layout into a new folder `target` of the native one.

    `on_bytes` hears how many bytes of how many are done. Raises MissingError where `source` cannot be used, UsageError
    where `target` exists, Phi4Error where it cannot be written.
    """
    with _new_folder(target) as folder:
        contents = read_original(source)
        count = _Count(sum(tensor.size for tensor in contents.tensors.values()), on_bytes)
        count.require_room(folder, target)
        _save(contents.weights(), folder, shard_bytes, count)
        for name, settings in contents.adapters.items():
            _save_adapter(contents.weights(name), folder / f"{name}-lora", settings, True, count)
        tokenizer = read_text(source / "tokenizer.json")
        (folder / "tokenizer.json").write_text(vocabulary.native_tokenizer(tokenizer), encoding="utf-8")
        files = {"config.json": contents.config, "tokenizer_config.json": vocabulary.tokenizer_config(native=True)}
        files["generation_config.json"] = _generation(source, {})
        write_json(folder, files | NATIVE_FILES)
        _copy_own(source, folder)


def write_original(source: Path, target: Path, shard_bytes: int = SHARD_BYTES, on_bytes: OnWrite = _unheard) -> None:
    """Convert the folder `source` of the native layout into a new folder `target` of the original one.

    Special tokens get the released model's ids, and the vocabulary its 200064 rows; answers stay the same, up to the
    new numbers. Not written: the original's Python files, and the vocab.json and merges.txt of slow tokenizers. Raises
    as `write_native` does.
    """
    with _new_folder(target) as folder:
        _write_original(read_native(source), folder, target, shard_bytes, on_bytes)


def write_vllm(
    source: Path, layout: Layout, target: Path, shard_bytes: int = SHARD_BYTES, on_bytes: OnWrite = _unheard
) -> None:
    """Write the folder `source` of either layout into a new folder `target` that vLLM serves.

    It is one of the original layout, with Python modules of phi4mm in place of the original's. Raises as above.
    """
    with _new_folder(target) as folder:
        contents = read(source, layout)
        if layout == "original":
            contents = replace(contents, config=full_config(contents.config).to_diff_dict())
        _write_original(contents, folder, target, shard_bytes, on_bytes)
        package = Path(phi4mm_cli.__file__).parent
        for module in VLLM_MODULES:
            code = (package / module).read_text(encoding="utf-8")
            code = re.sub(r"^from phi4mm_cli(?:\.model)?\.(\w+) import", r"from .\1 import", code, flags=re.MULTILINE)
            (folder / Path(module).name).write_text(code, encoding="utf-8")
        config = read_json(folder / "config.json")
        # vLLM leaves media to a template that knows parts of messages, which it would write into the text, too.
        tokens = vocabulary.tokenizer_config(native=False) | {"chat_template": vocabulary.TEXT_TEMPLATE}
        changed = {"config.json": config | {"auto_map": VLLM_CODE}, "tokenizer_config.json": tokens}
        write_json(folder, changed | VLLM_FILES)


def _write_original(contents: Contents, folder: Path, target: Path, shard_bytes: int, on_bytes: OnWrite) -> None:
    source = contents.folder
    tokenizer, moved = vocabulary.original_tokenizer(read_text(source / "tokenizer.json"))
    tensors: dict[str, Lazy] = {
        original_name(name, adapter): lazy for (adapter, name), lazy in contents.tensors.items()
    }
    tensors[EMBEDDINGS] = _released_rows(contents, moved)
    again = [tensor for name in contents.adapters for tensor in contents.weights(name).values()]
    count = _Count(sum(tensor.size for tensor in (*tensors.values(), *again)), on_bytes)
    count.require_room(folder, target)
    _save(tensors, folder, shard_bytes, count)
    for name, settings in contents.adapters.items():
        weights = {PEFT_PREFIX + key: tensor for key, tensor in contents.weights(name).items()}
        _save_adapter(weights, folder / f"{name}-lora", settings, False, count)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    config = original_config(contents.config, contents.adapters)
    files = {"config.json": config | {"vocab_size": vocabulary.SIZE}}
    files["tokenizer_config.json"] = vocabulary.tokenizer_config(native=False)
    files["generation_config.json"] = _generation(source, moved)
    write_json(folder, files | ORIGINAL_FILES)
    _copy_own(source, folder)


class _Count:
    """Of the bytes that a conversion writes."""

    def __init__(self, total: int, on_bytes: OnWrite) -> None:
        self._done, self._total, self._on_bytes = 0, total, on_bytes

    def require_room(self, folder: Path, target: Path) -> None:
        """Raise Phi4Error unless the disk has room for all of them."""
        free = shutil.disk_usage(folder).free
        if self._total > free:
            message = f"{target} needs {in_gb(self._total)}, and its disk has {in_gb(free)} free"
            raise Phi4Error(message, "Make room there, or give a folder on another disk")

    def read(self, tensors: Mapping[str, Lazy]) -> dict[str, Tensor]:
        """The tensors, which are written next."""
        found = {}
        for name, tensor in tensors.items():
            found[name] = tensor.read()
            self._done += tensor.size
            self._on_bytes(self._done, self._total)
        return found


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
    vocabulary.require_room(range(own.shape[0]))
    media = (contents.config["audio_config"]["audio_token_id"], contents.config["vision_config"]["image_token_id"])
    shape = (vocabulary.SIZE, own.shape[1])
    return Made(shape, own.dtype, lambda: vocabulary.moved_rows(own.read(), moved, media))


def _save(tensors: Mapping[str, Lazy], folder: Path, shard_bytes: int, count: _Count) -> None:
    """Write tensors as safetensors files of at most `shard_bytes` each, or of one tensor; an index where several."""
    shards: list[dict[str, Lazy]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and tensor.size + sum(other.size for other in shards[-1].values()) > shard_bytes:
            shards.append({})
        shards[-1][name] = tensor
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(count.read(shard), folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        total = sum(tensor.size for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        write_json(folder, {"model.safetensors.index.json": index})


def _save_adapter(
    weights: Mapping[str, Lazy], folder: Path, settings: LoraSettings, native: bool, count: _Count
) -> None:
    folder.mkdir()
    save_file(count.read(weights), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    write_json(folder, {"adapter_config.json": adapter_config(settings, native)})


def adapter_config(settings: LoraSettings, native: bool) -> dict[str, Any]:
    """adapter_config.json of peft, with the names of the modules in that layout."""
    return {
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


def _generation(source: Path, moved: Mapping[int, int]) -> dict[str, Any]:
    """generation_config.json as released, with the end tokens of the `source`."""
    config = dict(GENERATION)
    if (source / "generation_config.json").exists():
        ends = read_json(source / "generation_config.json").get("eos_token_id", config["eos_token_id"])
        config["eos_token_id"] = [moved.get(end, end) for end in (ends if isinstance(ends, list) else [ends])]
    return config


def write_json(folder: Path, files: Mapping[str, Any]) -> None:
    """Write files of JSON, by name."""
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _copy_own(source: Path, folder: Path) -> None:
    """Files that are the same in both layouts."""
    for name in ("phi4mm.json", "LICENSE"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
