"""One model over several devices: which of the decoder's layers go where, and what moves their inputs there.

The first device keeps all else (embeddings, towers, the output layer) and as many layers as it has room for; the others
take the next ones. Layers that no device has room for stay in the machine's memory, and are copied to the first device
each time they are used, which is slow.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.errors import MemoryExhaustedError
from phi4mm_cli.model.folder import in_gb
from phi4mm_cli.model.memory import ROW_SECONDS, map_numbers, row_numbers
from phi4mm_cli.model.original import Contents

CPU = torch.device("cpu")
KEPT = 0.1  # of each device's free memory, for what a forward pass takes

_LAYER = re.compile(r"model\.layers\.(\d+)\.")

Split = Mapping[int, torch.device]  # where each layer of the decoder is


def split(
    contents: Contents, devices: Sequence[torch.device], dtype: torch.dtype, free: Callable[[torch.device], int]
) -> Split:
    """Where each layer goes, with its adapters. Raises MemoryExhaustedError where there is not room enough.

    `free` tells how many bytes a device has left.
    """
    sizes = [0] * contents.config["num_hidden_layers"]
    rest = row_numbers(contents.config, ROW_SECONDS) + map_numbers(contents.config)
    for (_, name), tensor in contents.tensors.items():
        layer = _LAYER.match(name)
        if layer:
            sizes[int(layer[1])] += tensor.count
        else:
            rest += tensor.count
    waiting = [*dict.fromkeys((*devices, CPU))]
    room = {device: (1 - KEPT) * free(device) / dtype.itemsize for device in waiting}
    room[devices[0]] -= rest
    places: dict[int, torch.device] = {}
    for number, size in enumerate(sizes):
        while waiting and room[waiting[0]] < size:
            waiting.pop(0)
        if not waiting or room[devices[0]] < 0:  # ... and none else can take what the first one keeps
            need, alone = in_gb(dtype.itemsize * (sum(sizes) + rest)), in_gb(dtype.itemsize * rest)
            there = ", ".join(f"{in_gb(free(device))} on {device}" for device in room)
            message = f"the model needs {need}, {alone} of them on {devices[0]}, and there are {there}"
            raise MemoryExhaustedError(message, "End other programs, or use a machine with more memory")
        places[number] = waiting[0]
        room[waiting[0]] -= size
    return places


def device_of(name: str, places: Split | None, main: torch.device) -> torch.device:
    """Where the tensor of that name goes."""
    layer = _LAYER.match(name)
    return places[int(layer[1])] if places is not None and layer else main


def connect(network: Phi4MultimodalForCausalLM, places: Split | None, main: torch.device) -> None:
    """Make a model whose weights are on their devices ready to run there.

    A layer takes its inputs from where the one before it is, and its weights from the machine's memory where they had
    to stay there.
    """
    if places is None:
        modules: nn.Module = network
        modules.to(main)  # buffers are not there yet
    else:
        named = {f"model.layers.{layer}": str(device) for layer, device in places.items()}
        rest = ("model.embed_tokens", "model.embed_tokens_extend", "model.norm", "model.rotary_emb", "lm_head")
        named |= dict.fromkeys(rest, str(main))
        dispatch_model(network, named, main_device=str(main), skip_keys="past_key_values", force_hooks=True)
    if main.type == "cuda":
        torch.cuda.empty_cache()  # so that what is free can be seen
