"""`phi4mm serve-command`: the line that has vLLM serve a checkpoint on this machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from phi4mm_cli import console
from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.checkpoint import Checkpoint, resolve
from phi4mm_cli.model.folder import in_gb, read_json, shards_of
from phi4mm_cli.model.layout import ADAPTERS

SHORT_ROPE = 4096  # tokens; vLLM takes the factors for long texts, for every text, where its limit is above
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as --max-lora-rank
MEDIA = {"audio": 8, "image": 8}  # in one request; vLLM keeps memory for as many
SPARE = 0.75  # of a GPU's memory that weights may take; the rest is for what is read and answered

EXAMPLES = """
[b]Examples[/b]

phi4mm models convert microsoft/Phi-4-multimodal-instruct phi4 --to vllm

phi4mm serve-command phi4

phi4mm serve-command phi4 --max-length 32768 --port 8001
"""


def command(
    folder: Annotated[Path, typer.Argument(help="As `phi4mm models convert --to vllm` writes it.")],
    max_length: Annotated[
        int, typer.Option("--max-length", min=1, help="Most tokens of a request together with its answer.")
    ] = SHORT_ROPE,
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port to listen at.")] = 8000,
) -> None:
    """Print the command that has vLLM serve a folder with this machine's GPUs, and its adapters."""
    checkpoint = resolve(str(folder.absolute()))
    config = read_json(checkpoint.path / "config.json")
    if not (checkpoint.path / "processing_phi4mm.py").is_file() or "AutoConfig" not in config.get("auto_map", {}):
        advice = f"Write one: `phi4mm models convert {folder} NEW-FOLDER --to vllm`"
        raise UsageError(f"vLLM cannot serve {folder}", advice)
    if max_length > checkpoint.profile.context:
        message = f"--max-length {max_length} is more than the {checkpoint.profile.context} tokens of the model"
        raise UsageError(message, "Take less")
    _tell(config, max_length)
    import torch

    gpus = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    words = [] if gpus else ["VLLM_CPU_KVCACHE_SPACE=4"]
    words += ["vllm", "serve", str(checkpoint.path), "--served-model-name", checkpoint.name, "--trust-remote-code"]
    words += ["--dtype", checkpoint.dtype or "auto", "--max-model-len", str(max_length)]
    words += adapters(checkpoint.path, spare=0 if gpus else 1)
    words += ["--limit-mm-per-prompt", json.dumps(MEDIA, separators=(",", ":"))]
    words += [*spread(_weights(checkpoint), gpus), "--host", host, "--port", str(port)]
    with console.results() as stdout:
        stdout.write(" ".join(word if word.startswith("VLLM_") else shlex.quote(word) for word in words) + "\n")


def adapters(folder: Path, spare: int) -> list[str]:
    """The options for the adapters in the folder, and so many places for more.

    On a CPU vLLM 0.32 takes -1, which stands for no adapter, as an index: requests without one that share a batch with
    others get what is in the last place, and are right where that is empty.
    """
    found = [name for name in ADAPTERS if (folder / f"{name}-lora").is_dir()]
    if not found:
        return []
    rank = max(read_json(folder / f"{name}-lora" / "adapter_config.json")["r"] for name in found)
    if rank > max(RANKS):
        raise UsageError(f"an adapter in {folder} has rank {rank}, and vLLM takes at most {max(RANKS)}")
    fitting = min(known for known in RANKS if known >= rank)
    modules = [f"{name}={folder / f'{name}-lora'}" for name in found]
    return [
        "--enable-lora",
        "--max-lora-rank",
        str(fitting),
        "--max-loras",
        str(len(found) + spare),
        "--lora-modules",
        *modules,
    ]


def spread(weights: int, gpus: list[int]) -> list[str]:
    """The options for a model of so many bytes on GPUs with so many: a copy on each, or on as few as hold one."""
    share = 1
    while gpus and weights / share > SPARE * min(gpus):
        share *= 2  # heads are divided among them
    if share > max(1, len(gpus)):
        message = f"the model's {in_gb(weights)} do not fit into the GPUs here, {in_gb(sum(gpus))} in all"
        raise MissingError(message, "Serve it on a larger machine")
    copies = len(gpus) // share
    words = ["--tensor-parallel-size", str(share)] if share > 1 else []
    return words + (["--data-parallel-size", str(copies)] if copies > 1 else [])


def _weights(checkpoint: Checkpoint) -> int:
    return sum((checkpoint.path / name).stat().st_size for name in shards_of(checkpoint.path))


def _tell(config: dict[str, Any], max_length: int) -> None:
    """What the user of such a server should know."""
    if config.get("rope_scaling") and max_length > SHORT_ROPE:
        again = f"a second server with --max-length {SHORT_ROPE} computes short ones as the model was trained"
        console.say(f"above {SHORT_ROPE} tokens vLLM computes every request as a long one; {again}")
    if config["embd_layer"]["image_embd_layer"].get("vision_config"):
        console.say("vLLM loads no vision tower but the released one's size, and this model's is another", "warning")
