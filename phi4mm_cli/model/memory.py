"""What a model needs of a device's memory and what is there, compared before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from phi4mm_cli.errors import MemoryExhaustedError
from phi4mm_cli.model.encoder import CONVOLVED_AT_ONCE, WINDOW
from phi4mm_cli.model.features import MEL_BANDS
from phi4mm_cli.model.folder import in_gb
from phi4mm_cli.model.original import Contents
from phi4mm_cli.model.quantize import BYTES, is_quantized

ROW_SECONDS, ROW_TOKENS = 30.0, 512  # of sound, and of text, in the least that a model should be able to take

CPU = torch.device("cpu")

# Of a container: its limit and what of it is used, in bytes (control groups version 2, and 1).
LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def needed(contents: Contents, dtype: torch.dtype, quantize: str | None = None) -> int:
    """Bytes for the weights, adapters included, as `dtype`, and for one short request.

    With `quantize`, most of the decoder's are stored small; one layer at a time is then made large to compute with it.
    """
    small = [tensor.count for (owner, name), tensor in contents.tensors.items() if not owner and is_quantized(name)]
    numbers = sum(tensor.count for tensor in contents.tensors.values())
    numbers += row_numbers(contents.config, ROW_SECONDS) + map_numbers(contents.config)
    if quantize is None:
        return dtype.itemsize * numbers
    return int(dtype.itemsize * (numbers - sum(small) + max(small)) + BYTES[quantize] * sum(small))


def row_numbers(config: dict[str, Any], seconds: float) -> int:
    """About how many numbers a clip, and ROW_TOKENS of text beside it, take in the model."""
    scores = 3 * 12.5 * seconds * WINDOW * config["audio_config"]["num_attention_heads"]
    return int(token_numbers(config) * (12.5 * seconds + ROW_TOKENS) + scores)


def token_numbers(config: dict[str, Any]) -> int:
    """About how many numbers a token takes in the KV cache, and on its way through one of the decoder's layers."""
    head = config["hidden_size"] // config["num_attention_heads"]
    cache = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * head
    return int(cache + 3 * config["intermediate_size"] + 4 * config["hidden_size"])


def map_numbers(config: dict[str, Any]) -> int:
    """About how many numbers the encoder's first maps take, which are its largest; however many clips there are."""
    return 3 * int(config["audio_config"]["nemo_conv_channels"]) * (CONVOLVED_AT_ONCE // 2) * (MEL_BANDS // 2)


def free(device: torch.device) -> int:
    """Bytes that a program may still take of the device's memory, or of the machine's where it shares that."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_left())


def _left() -> Iterator[int]:
    yield int(psutil.virtual_memory().available)
    for limit, used in LIMITS:
        try:
            yield int(Path(limit).read_text()) - int(Path(used).read_text()) + _cache_in(Path(used).parent)
        except (OSError, ValueError):  # no such control group, or no limit ("max")
            continue


def _cache_in(group: Path) -> int:
    """Bytes of files that are counted as used, and are given back when memory is asked for."""
    try:
        lines = (line.split() for line in (group / "memory.stat").read_text().splitlines())
        known = {name: int(size) for name, size in lines}
    except (OSError, ValueError):
        return 0
    return sum(known.get(f"total_{name}", known.get(name, 0)) for name in ("active_file", "inactive_file"))


def fits(contents: Contents, device: torch.device, dtype: torch.dtype, quantize: str | None = None) -> bool:
    """Whether there is room for the model and a short request."""
    return needed(contents, dtype, quantize) <= free(device)


def rows_that_fit(contents: Contents, device: torch.device, dtype: torch.dtype, seconds: float) -> int:
    """How many clips of `seconds` the memory takes that is free beside the loaded model."""
    numbers = 0.7 * free(device) / dtype.itemsize - map_numbers(contents.config)
    return max(0, int(numbers / row_numbers(contents.config, seconds)))


def require_room(device: torch.device, size: int) -> None:
    """Raise MemoryError where a CPU has not so many bytes left, for a system ends the program that takes more.

    A GPU says itself what it cannot hold.
    """
    if device.type == "cpu" and size > free(device):
        raise MemoryError


def why_smaller(
    contents: Contents, device: torch.device, dtype: torch.dtype, quantize: str | None = None
) -> str | None:
    """Why a model on a CPU runs in less than float32; None where it does not."""
    if device.type != "cpu" or dtype == torch.float32 or fits(contents, device, torch.float32, quantize):
        return None
    need = in_gb(needed(contents, torch.float32, quantize))
    return f"runs in {_name(dtype)}: float32 needs {need}, and {in_gb(free(device))} are free"


def require(
    name: str, contents: Contents, device: torch.device, dtype: torch.dtype, quantize: str | None = None
) -> None:
    """Raise MemoryExhaustedError where the model `name` does not fit, with what would."""
    need, there = needed(contents, dtype, quantize), free(device)
    if need > there:
        place = "this machine" if device.type != "cuda" else f"the GPU {device}"
        kind = f"{_name(dtype)} and {quantize}" if quantize else _name(dtype)
        message = f"the model {name} needs {in_gb(need)} in {kind}, and {place} has {in_gb(there)} free"
        raise MemoryExhaustedError(message, _advice(contents, device, dtype, quantize))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _advice(contents: Contents, device: torch.device, dtype: torch.dtype, quantize: str | None) -> str:
    """The options under which the model fits: those that lose least first, and a GPU is not given up while it can."""
    half = [dtype, torch.bfloat16] if dtype == torch.float32 else [dtype]
    ways = [(device, kind, bits) for bits in _smaller(quantize) for kind in half]
    if device.type != "cpu":
        ways += [(CPU, kind, bits) for bits in _smaller(quantize) for kind in (torch.float32, torch.bfloat16)]
    for place, kind, bits in ways:
        if fits(contents, place, kind, bits):
            options = "--device cpu " if place != device else ""
            options += "--dtype bfloat16 " if kind == torch.bfloat16 and (kind != dtype or place != device) else ""
            options += f"--quantize {bits} " if bits else ""
            return f"Use {options.strip()}, which needs {in_gb(needed(contents, kind, bits))}"
    return "End other programs, use a machine with more memory, or --model demo, a toy"


def _smaller(quantize: str | None) -> list[str | None]:
    """Ways of storing weights, from `quantize` on to the smallest."""
    kinds = [None, *BYTES]
    return kinds[kinds.index(quantize) :]
