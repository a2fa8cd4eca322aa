"""Load time, memory and speed of the full-size model on a GPU, in each arithmetic, beside plain transformers.

    python benchmarks/gpu.py --folder /big/disk | tee benchmarks/results/gpu.txt

That is all: it makes a checkpoint of random weights with the released model's shapes (12 GB; --keep leaves it there for
the next time) and takes a few minutes and 24 GB of GPU memory. It needs `pip install 'phi4mm[quantize]'`, and
measures flash attention where flash-attn is installed. This tries every line of it without a GPU:

    python benchmarks/gpu.py --device cpu --divide 32 --batches 1,2 --seconds 1 --tokens 4 --prompt 16 --rounds 1

Each model is given the same prompts: text to read (prefill) and to continue (decode), then clips of 30 s of noise in
batches, with the same features for both sides. Words of a random model mean nothing, so that nothing is said of them:
every answer is as long as asked for. Plain transformers is `from_pretrained`, `load_adapter` and `generate`, with
bitsandbytes through its own `BitsAndBytesConfig`; its answers for clips in a batch are right here because all are of
one length (see benchmarks/port.py).
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import torch
import transformers
from loading import write_random
from torch import Tensor
from transformers import BitsAndBytesConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.composing import Prompt, compose
from phi4mm_cli.model.features import log_mel
from phi4mm_cli.model.generate import generate
from phi4mm_cli.model.loading import Model, assemble, open_contents
from phi4mm_cli.model.tokenizer import read_tokenizer
from phi4mm_cli.model.vocabulary import AUDIO_TOKEN, IMAGE_TOKEN
from phi4mm_cli.prompt import Marker, Piece
from phi4mm_cli.schema import Clip, Sampling, Source

Answer = Callable[[Sequence[Prompt]], int]  # runs a batch, and tells how many tokens it wrote

WAYS = {  # the arithmetic of each, and how weights are stored
    "bfloat16": (torch.bfloat16, None),
    "float16": (torch.float16, None),
    "int8": (torch.bfloat16, "int8"),
    "int4": (torch.bfloat16, "int4"),
}
USER, END, ASSISTANT = Marker("<|user|>"), Marker("<|end|>"), Marker("<|assistant|>")


# ---------------------------------------------------------------------------------------------------- the two sides


def load_ours(folder: Path, way: str, device: torch.device) -> tuple[Model, Answer]:
    """The model as phi4mm loads and runs it."""
    checkpoint, (dtype, quantize) = resolve(str(folder)), WAYS[way]
    model = assemble(checkpoint, open_contents(checkpoint), device, dtype, lambda done, total: None, quantize=quantize)

    def answer(prompts: Sequence[Prompt]) -> int:
        switch_adapter(model.network, "speech" if prompts[0].clips else None)
        return sum(len(result.tokens) for result in generate(model, prompts))

    return model, answer


def load_plain(folder: Path, way: str, device: torch.device) -> tuple[Any, Answer]:
    """The model as the documentation of transformers loads and runs it."""
    dtype, quantize = WAYS[way]
    config = None
    if quantize == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head", "embed_tokens_extend"])
    elif quantize == "int4":
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "embed_tokens_extend"],
        )
    network: Any = Phi4MultimodalForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": device}, quantization_config=config
    )
    for adapter in ("speech", "vision"):
        network.load_adapter(str(folder / f"{adapter}-lora"), adapter_name=adapter)
    network.eval()

    def answer(prompts: Sequence[Prompt]) -> int:
        inputs: dict[str, Tensor] = {"input_ids": torch.tensor([prompt.ids for prompt in prompts], device=device)}
        if prompts[0].clips:
            network.enable_adapters()
            network.set_adapter("speech")
            clips = torch.stack([prompt.clips[0] for prompt in prompts]).to(device)
            sizes = torch.full((len(prompts),), -(-clips.shape[1] // 8), device=device)
            inputs |= {"audio_input_features": clips, "audio_embed_sizes": sizes}
        else:
            network.disable_adapters()
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        count = prompts[0].sampling.max_new_tokens
        with torch.inference_mode():
            tokens = network.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False)
        return len(prompts) * int(tokens.shape[1] - inputs["input_ids"].shape[1])

    return network, answer


SIDES = {"phi4mm": load_ours, "transformers": load_plain}


# ------------------------------------------------------------------------------------------------------- measuring


@contextmanager
def timed(device: torch.device, found: dict[str, float], name: str) -> Iterator[None]:
    """Seconds under `name`, all work of the device included."""
    synchronize(device)
    began = time.perf_counter()
    yield
    synchronize(device)
    found[name] = min(found.get(name, 1e9), time.perf_counter() - began)


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_taken(device: torch.device, before: int) -> float:
    """GB: the most of the GPU's since the last call; of a CPU what the process has now more than before."""
    if device.type != "cuda":
        return (psutil.Process().memory_info().rss - before) / 1e9
    most = torch.cuda.max_memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    return most / 1e9


def measure(side: str, way: str, model_folder: Path, asked: argparse.Namespace) -> str:
    """Load and run one model; its line of the table."""
    device, found = torch.device(asked.device), dict[str, float]()
    before = psutil.Process().memory_info().rss
    with timed(device, found, "load"):
        model, answer = SIDES[side](model_folder, way, device)
    columns = [f"{found['load']:7.1f}", f"{memory_taken(device, before):7.2f}"]
    short, long = text_prompt(model_folder, asked.prompt, 1), text_prompt(model_folder, asked.prompt, asked.tokens)
    answer([short])  # the first run is slower
    for _ in range(asked.rounds):
        with timed(device, found, "prefill"):
            answer([short])
        with timed(device, found, "all"):
            written = answer([long])
    decode = (written - 1) / max(1e-9, found["all"] - found["prefill"])
    columns += [f"{len(short.ids) / found['prefill']:9.0f}", f"{decode:8.1f}"]
    for rows in asked.sizes:
        prompts = [clip_prompt(model_folder, seed, asked) for seed in range(rows)]
        try:
            for _ in range(asked.rounds):
                with timed(device, found, f"{rows}"):
                    answer(prompts)
            columns.append(f"{rows * asked.seconds / found[f'{rows}']:8.1f}")
        except (torch.OutOfMemoryError, MemoryError):
            columns.append("  no room")
    columns.append(f"{memory_taken(device, before):7.2f}")
    del model, answer
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return f"{way:10} {side:13}" + " ".join(columns)


def text_prompt(folder: Path, tokens: int, budget: int) -> Prompt:
    """A question of so many letters, each of which is a token."""
    return _composed(folder, [USER, "a" * (tokens - 3), END, ASSISTANT], [], budget)


def clip_prompt(folder: Path, seed: int, asked: argparse.Namespace) -> Prompt:
    """Noise to transcribe."""
    noise = torch.randn(int(16000 * asked.seconds), generator=torch.Generator().manual_seed(seed)) / 10
    clip = Clip(Source("noise", 1, "f"), 0.0, asked.seconds)
    pieces: list[Piece] = [USER, clip, "Transcribe the audio clip into text.", END, ASSISTANT]
    return _composed(folder, pieces, [log_mel(noise.numpy(), 16000)], asked.tokens)


def _composed(folder: Path, pieces: list[Piece], media: list[Tensor], budget: int) -> Prompt:
    """By the tokenizer alone: the same for both sides."""
    named: Any = SimpleNamespace(
        tokenizer=read_tokenizer(folder), audio_token=AUDIO_TOKEN, image_token=IMAGE_TOKEN, context=131072
    )
    return compose(named, pieces, media, Sampling(budget))


def machine(device: torch.device) -> str:
    """What it ran on, and with what."""
    place = f"{platform.machine()}, {os.cpu_count()} cores"
    if device.type == "cuda":
        size = torch.cuda.get_device_properties(device).total_memory / 1e9
        place = f"{torch.cuda.get_device_name(device)} ({size:.0f} GB), CUDA {torch.version.cuda}"
    names = ["torch", "transformers", "peft", "bitsandbytes"]
    return f"{place}, Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in names)


def main() -> None:
    """Make the checkpoint, then print a line for each way and side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--divide", type=int, default=1, help="leave out all but every Nth layer")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--batches", default="1,8,32,64", help="clips at once")
    parser.add_argument("--prompt", type=int, default=1024, help="tokens")
    parser.add_argument("--tokens", type=int, default=100, help="of each answer; 100 are half a minute of speech")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each clip")
    parser.add_argument("--rounds", type=int, default=2, help="the best is taken")
    parser.add_argument("--folder", type=Path, help="where the checkpoint is made; a temporary one unless given")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoint there, and use one that is")
    asked = parser.parse_args()
    asked.sizes = [int(size) for size in asked.batches.split(",")]
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="phi4mm-gpu-"))
    model_folder = folder / f"random-{asked.divide}-native"
    print(f"python {' '.join(sys.argv)}\n{machine(torch.device(asked.device))}")
    print(f"prompt {asked.prompt} tokens, answers {asked.tokens} tokens, clips of {asked.seconds:.0f} s\n")
    try:
        if not model_folder.exists():
            write_random(model_folder, asked.divide)
        sizes = " ".join(f"{size:>8}" for size in asked.sizes)
        print("                          load  memory  prefill   decode  times real time, clips at once  memory")
        print(f"                             s      GB  tokens/s tokens/s {sizes}      GB")
        for way in asked.ways.split(","):
            for side in asked.sides.split(","):
                print(measure(side, way, model_folder, asked), flush=True)
    finally:
        if not asked.keep:
            shutil.rmtree(model_folder, ignore_errors=True)


if __name__ == "__main__":
    main()
