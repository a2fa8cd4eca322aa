"""Time and memory of loading random weights of the released model's shapes, and one request of each kind.

    python benchmarks/loading.py [--divide 8] [--layouts native,original] [--dtypes bfloat16]
        [--quantize none,int8,int4] [--no-requests] [--folder DIR] [--keep]
    python benchmarks/loading.py --divide 1 --dtypes auto --folder /big/disk --keep  # all 5.6 B: 24 GB of disk

`--divide N` leaves out all but every Nth layer of the decoder and of both towers; widths, vocabulary and the adapters'
ranks are the released ones. Each load is a process of its own. Peak memory is the process's resident set, pages of
mapped files included, less what it was before loading.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import wave
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.media import audio
from phi4mm_cli.model import memory
from phi4mm_cli.model.adapters import TARGETS
from phi4mm_cli.model.checkpoint import Checkpoint, resolve
from phi4mm_cli.model.convert import write_original
from phi4mm_cli.model.folder import in_gb
from phi4mm_cli.model.layout import EMBEDDINGS, lora_shapes
from phi4mm_cli.model.loading import assemble, open_contents
from phi4mm_cli.model.precision import choose_dtype
from phi4mm_cli.model.vocabulary import (
    AUDIO_TOKEN,
    END_OF_TEXT,
    END_OF_TURN,
    IMAGE_TOKEN,
    SIZE,
    SPECIAL,
    native_tokenizer,
    special_token,
)
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Result, Sampling

LORA = {"speech": (320, 640), "vision": (256, 512)}  # rank, alpha
SHARD = 1 << 30  # bytes
CPU = torch.device("cpu")


# ------------------------------------------------------------------------------------------------ random checkpoints


def released_config(divide: int) -> dict[str, Any]:
    """The released model's config.json in the native layout, with fewer layers; the rope factors are made up."""
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75}
    rope |= {"short_factor": [1.0] * 48, "long_factor": [1.0 + i for i in range(48)]}
    audio_config = {"hidden_size": 1024, "intermediate_size": 1536, "num_blocks": max(1, 24 // divide)}
    audio_config |= {"num_attention_heads": 16, "nemo_conv_channels": 1024, "ext_pw_out_channel": 1024}
    audio_config |= {"depthwise_separable_out_channel": 1024, "bias_max_distance": 500, "audio_token_id": AUDIO_TOKEN}
    vision_config = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": max(3, 27 // divide)}
    vision_config |= {"num_attention_heads": 16, "crop_size": 448, "feature_layer": -2, "image_token_id": IMAGE_TOKEN}
    return {
        "model_type": "phi4_multimodal",
        "architectures": ["Phi4MultimodalForCausalLM"],
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32 // divide,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "vocab_size": SIZE,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "sliding_window": 262144,
        "rms_norm_eps": 1e-05,
        "tie_word_embeddings": True,
        "bos_token_id": END_OF_TEXT,
        "pad_token_id": END_OF_TEXT,
        "eos_token_id": [END_OF_TEXT, END_OF_TURN],
        "rope_parameters": rope,
        "audio_config": audio_config,
        "vision_config": vision_config,
        "dtype": "bfloat16",
    }


def write_random(folder: Path, divide: int) -> None:
    """A checkpoint in the native layout, shard by shard."""
    folder.mkdir(parents=True)
    config = released_config(divide)
    with torch.device("meta"):
        network = Phi4MultimodalForCausalLM(Phi4MultimodalConfig(**config))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name != "lm_head.weight"}
    generator = torch.Generator().manual_seed(0)
    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        shard[name] = _random(name, shape, generator)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD or name == [*shapes][-1]:
            file = f"model-{len(set(places.values())) + 1:05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            places |= dict.fromkeys(shard, file)
            shard.clear()
    for adapter, (rank, alpha) in LORA.items():
        tensors = {name: _random(name, shape, generator) for name, shape in lora_shapes(shapes, rank).items()}
        (folder / f"{adapter}-lora").mkdir()
        save_file(tensors, folder / f"{adapter}-lora" / "adapter_model.safetensors", metadata={"format": "pt"})
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": TARGETS}
        (folder / f"{adapter}-lora" / "adapter_config.json").write_text(json.dumps(settings))
    files = {
        "config.json": config,
        "model.safetensors.index.json": {"metadata": {}, "weight_map": places},
        "generation_config.json": {"eos_token_id": [END_OF_TURN, END_OF_TEXT]},
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content))
    (folder / "tokenizer.json").write_text(native_tokenizer(json.dumps(_byte_tokenizer())))


def _random(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Of a size that keeps activations finite: norms are 1, layers keep variance."""
    if "norm" in name and name.endswith("weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    scale = 0.02 if name == EMBEDDINGS or len(shape) < 2 else 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape, dtype=torch.bfloat16).uniform_(-scale, scale, generator=generator)


def _byte_tokenizer() -> dict[str, Any]:
    """Byte b is token b; special tokens have their released ids."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in printable]
    letters = {b: chr(b) for b in printable} | {b: chr(256 + place) for place, b in enumerate(others)}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "added_tokens": [special_token(name) for name in SPECIAL],
        "pre_tokenizer": by_bytes,
        "decoder": by_bytes,
        "model": {"type": "BPE", "vocab": {letters[b]: b for b in range(256)} | SPECIAL, "merges": []},
    }


# ------------------------------------------------------------------------------------------------------- one process


def most_resident() -> float:
    """Most bytes of memory that this process has had so far."""
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux's ru_maxrss begins with what the parent had.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def load_and_ask(folder: Path, dtype_name: str, quantize: str | None, ask: bool) -> None:
    """Load the checkpoint, then answer one request of each kind, if asked to; print a line of each."""
    checkpoint = resolve(str(folder))
    contents = open_contents(checkpoint)
    dtype = choose_dtype(dtype_name, checkpoint, CPU, lambda dtype: memory.fits(contents, CPU, dtype, quantize))
    numbers = sum(tensor.count for tensor in contents.tensors.values())
    stored = sum(tensor.size for tensor in contents.tensors.values())
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    model = assemble(checkpoint, contents, CPU, dtype, lambda done, total: None, quantize=quantize)
    seconds, peak = time.perf_counter() - began, most_resident() - before
    weights = numbers * dtype.itemsize
    kind = str(dtype).removeprefix("torch.") + (f" {quantize}" if quantize else "")
    print(
        f"{checkpoint.layout:9} {kind:9} {len(contents.tensors):5} tensors, {numbers / 1e9:.2f} B numbers, "
        f"{in_gb(stored)} on disk, loaded in {seconds:.1f} s ({stored / 1e6 / seconds:.0f} MB/s), "
        f"peak {in_gb(peak)} = {peak / weights:.2f} times the weights ({in_gb(most_resident())} with the program)",
        flush=True,
    )
    if not ask:
        return
    with tempfile.TemporaryDirectory() as scratch:
        engine = _engine(checkpoint, model)
        for name, request in _requests(Path(scratch)).items():
            began = time.perf_counter()
            engine.submit(request)
            [(_, outcome)] = engine.poll()
            if not isinstance(outcome, Result):
                raise outcome
            seconds = time.perf_counter() - began
            print(
                f"    {name:10} {outcome.prompt_tokens:4} + {len(outcome.tokens)} tokens in {seconds:5.1f} s",
                flush=True,
            )
    print(f"    peak with the requests {in_gb(most_resident())}", flush=True)


def _engine(checkpoint: Checkpoint, model: Any) -> LocalEngine:
    engine = LocalEngine(checkpoint, device="cpu")
    engine._model = model  # loaded and timed above
    return engine


def _requests(folder: Path) -> dict[str, Request]:
    """A clip of 3 s, a picture of one crop, and a question."""
    sound, picture = folder / "a.wav", folder / "a.png"
    generator = np.random.default_rng(0)
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(generator.normal(0, 3000, 48000).astype("<i2").tobytes())
    Image.fromarray(generator.integers(0, 255, (448, 448, 3), dtype=np.uint8)).save(picture)

    def request(*parts: Part) -> Request:
        return Request((Message("user", parts),), Sampling(max_new_tokens=8))

    return {
        "transcribe": request(Clip(audio.source(sound), 0.0, 3.0), "Transcribe the audio clip into text."),
        "describe": request(Picture(audio.source(picture), most_crops=1), "Describe the image in detail."),
        "chat": request("What is the capital of France?"),
    }


# --------------------------------------------------------------------------------------------------------------- all


def main() -> None:
    """Make the checkpoints, then load each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--divide", type=int, default=8)
    parser.add_argument("--layouts", default="native,original")
    parser.add_argument("--dtypes", default="bfloat16", help="with commas: auto, bfloat16, float32")
    parser.add_argument("--quantize", default="none", help="with commas: none, int8, int4")
    parser.add_argument("--requests", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path, help="where the checkpoints are made; a temporary one unless given")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there, and use those that are")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        load_and_ask(asked.load, asked.dtypes, None if asked.quantize == "none" else asked.quantize, asked.requests)
        return
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="phi4mm-loading-"))
    layouts = {name: folder / f"random-{asked.divide}-{name}" for name in ("native", "original")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    try:
        if not layouts["native"].exists():
            began = time.perf_counter()
            write_random(layouts["native"], asked.divide)
            print(f"made the native layout in {time.perf_counter() - began:.0f} s", flush=True)
        if "original" in asked.layouts and not layouts["original"].exists():
            began = time.perf_counter()
            write_original(layouts["native"], layouts["original"])
            print(f"converted it in {time.perf_counter() - began:.0f} s, peak {in_gb(most_resident())}", flush=True)
        for name in asked.layouts.split(","):
            for dtype, kind in product(asked.dtypes.split(","), asked.quantize.split(",")):
                command = [sys.executable, __file__, "--load", str(layouts[name]), "--dtypes", dtype]
                command += ["--quantize", kind, "--requests" if asked.requests else "--no-requests"]
                subprocess.run(command, check=True)
    finally:
        if not asked.keep:
            for made in layouts.values():
                shutil.rmtree(made, ignore_errors=True)


if __name__ == "__main__":
    main()
