"""Which device the model runs on, in which arithmetic, and with which attention kernel."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.checkpoint import Checkpoint

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
ATTENTION = {"flash": "flash_attention_2", "sdpa": "sdpa", "eager": "eager"}  # transformers' names for them

AMPERE = (8, 0)  # the first GPUs with bfloat16, and with what flash attention needs


def choose_device(name: str) -> torch.device:
    """The device of that name: auto, cpu, cuda, cuda:N or mps. Raises MissingError where the machine has none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device {name!r}", "Use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise MissingError("no CUDA device was found", "Check the driver with `nvidia-smi`, or use --device cpu")
        if (device.index or 0) >= torch.cuda.device_count():
            last = torch.cuda.device_count() - 1
            raise MissingError(f"there is no device {name}: the last one is cuda:{last}", f"Use --device cuda:{last}")
        return torch.device("cuda", device.index or 0)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise MissingError("this machine has no Apple GPU", "Use --device cpu")
    if device.type not in ("cpu", "mps"):
        raise UsageError(f"device {name} is not supported", "Use auto, cpu, cuda, cuda:N or mps")
    return device


def choose_dtype(
    name: str, checkpoint: Checkpoint, device: torch.device, fits: Callable[[torch.dtype], bool] = lambda dtype: True
) -> torch.dtype:
    """The arithmetic of that name; `auto` is the checkpoint's own wish, else the fastest that the device does well.

    A CPU does float32 well, and with it every batch gives the same tokens; bfloat16, which most do slowly, is for where
    only that `fits` into its memory.
    """
    if name == "auto" and checkpoint.dtype is not None:
        name = checkpoint.dtype
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.get_device_capability(device) >= AMPERE else torch.float16
        return torch.float32 if device.type == "cpu" and fits(torch.float32) else torch.bfloat16
    if name not in DTYPES:
        raise UsageError(f"there is no dtype {name!r}", f"Use auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The attention kernel of that name: flash, sdpa or eager; `auto` is the fastest that works there.

    Eager on GPUs older than Ampere, as the model card advises. Raises UsageError where flash attention cannot work
    there, MissingError where it is not installed.
    """
    old = device.type == "cuda" and torch.cuda.get_device_capability(device) < AMPERE
    fault = None
    if device.type != "cuda" or old:
        fault = f"--attn flash is for GPUs from Ampere on, not for {device}"
    elif dtype == torch.float32:
        fault = "--attn flash computes in bfloat16 or float16, not in float32"
    if name == "auto":
        return "eager" if old else "flash" if fault is None and _has_flash() else "sdpa"
    if name not in ATTENTION:
        raise UsageError(f"there is no attention {name!r}", f"Use auto, {', '.join(ATTENTION)}")
    if name == "flash":
        if fault is not None:
            raise UsageError(fault, "Leave --attn out, or use --attn sdpa")
        if not _has_flash():
            raise MissingError("flash-attn is not installed", "Run: pip install 'phi4mm[flash-attn]'")
    return name


def use_attention(network: Phi4MultimodalForCausalLM, name: str) -> None:
    """Let the decoder attend by that kernel, and the towers too where they can.

    Both towers add a mask of their own to the scores, which flash attention does not take.
    """
    tower = "sdpa" if name == "flash" else name
    network.set_attn_implementation({"": ATTENTION[name], "vision_config": tower, "audio_config": tower})


def _has_flash() -> bool:
    return find_spec("flash_attn") is not None
