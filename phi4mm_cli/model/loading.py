"""Loads a checkpoint: every weight from its file or an error, never a layer left at random values."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Phi4MultimodalForCausalLM
from transformers.initialization import no_init_weights

from phi4mm_cli import cancel
from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.checkpoint import Checkpoint
from phi4mm_cli.model.folder import read_json
from phi4mm_cli.model.layout import EMBEDDINGS
from phi4mm_cli.model.memory import require, token_numbers
from phi4mm_cli.model.original import OUTPUT, Contents, Place, full_config, read
from phi4mm_cli.model.precision import choose_attention, use_attention
from phi4mm_cli.model.quantize import is_quantized, quantized, require_library
from phi4mm_cli.model.split import Split, connect, device_of
from phi4mm_cli.model.tokenizer import read_tokenizer
from phi4mm_cli.prompt import TOOL_CALL, TOOL_CALL_END

OnLoad = Callable[[int, int], None]
Where = Callable[[str], torch.device]  # the place of the tensor of that name

SEEN = (TOOL_CALL, TOOL_CALL_END)

# A model of fewer parameters is faster on one CPU thread: its steps are shorter than the waits of threads for each
# other, which on a busy machine are twenty times as long. It then also computes the same on any number of cores.
SMALL = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """The weights on their device, the tokenizer, and what generation needs to know of them."""

    network: Phi4MultimodalForCausalLM
    tokenizer: Tokenizer
    device: torch.device
    adapters: frozenset[str]  # those that came with the checkpoint
    end_tokens: frozenset[int]  # any of them ends an answer
    unseen_tokens: frozenset[int]  # control tokens that are no part of an answer's text
    audio_token: int  # stands in the prompt where audio embeddings go
    image_token: int  # ... and where those of pictures go; neither may be generated
    context: int  # the longest sequence, in tokens
    token_bytes: int  # about what each token of a sequence takes in memory
    rope_switch: int | None  # LongRoPE: sequences longer than this turn all positions by other angles
    attention: str  # the decoder's kernel: flash, sdpa or eager
    quantize: str | None  # how most of the decoder's weights are stored, where it is not as the others are


def load(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, on_load: OnLoad = lambda done, total: None
) -> Model:
    """The model in memory on `device`. Raises MissingError where weights do not fit the architecture.

    `on_load` hears, again and again, how many bytes of how many have been read.
    """
    return assemble(checkpoint, open_contents(checkpoint), device, dtype, on_load)


def open_contents(checkpoint: Checkpoint) -> Contents:
    """What the checkpoint holds, checked but not read. Raises MissingError."""
    return read(checkpoint.path, checkpoint.layout, dict(checkpoint.adapters))


def assemble(
    checkpoint: Checkpoint,
    contents: Contents,
    device: torch.device,
    dtype: torch.dtype,
    on_load: OnLoad,
    attention: str = "auto",
    quantize: str | None = None,
    split: Split | None = None,
) -> Model:
    """The model of these contents; with `split`, some of its layers are on other devices than `device`.

    Raises MemoryExhaustedError where there is no room for it, MissingError, and UsageError where `attention` is none
    for that device.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    kernel = choose_attention(attention, device, dtype)
    if quantize is not None:
        require_library(quantize)
    if split is None:
        require(checkpoint.name, contents, device, dtype, quantize)
    if device.type == "cpu" and sum(tensor.count for tensor in contents.tensors.values()) < SMALL:
        torch.set_num_threads(1)
    config: Any = full_config(contents.config)
    network = _network(contents, config, lambda name: device_of(name, split, device), dtype, quantize, on_load)
    connect(network, split, device)
    use_attention(network, kernel)
    tokenizer = read_tokenizer(checkpoint.path)
    control = tokenizer.get_added_tokens_decoder()
    long_rope = config.rope_parameters["rope_type"] == "longrope"
    return Model(
        network=network,
        tokenizer=tokenizer,
        device=device,
        adapters=frozenset(contents.adapters),
        end_tokens=_end_tokens(checkpoint, config.eos_token_id),
        unseen_tokens=frozenset(number for number, token in control.items() if token.content not in SEEN),
        audio_token=config.audio_config.audio_token_id,
        image_token=config.vision_config.image_token_id,
        context=config.max_position_embeddings,
        token_bytes=dtype.itemsize * token_numbers(contents.config),
        rope_switch=config.original_max_position_embeddings if long_rope else None,
        attention=kernel,
        quantize=quantize,
    )


def _network(
    contents: Contents, config: Any, where: Where, dtype: torch.dtype, quantize: str | None, on_load: OnLoad
) -> Phi4MultimodalForCausalLM:
    """The layers with their weights; each tensor goes straight from its file to its place.

    Like transformers' own `from_pretrained`, which would hold the file's pages beside the weights, and reads only one
    layout.
    """
    with init_empty_weights(include_buffers=False), no_init_weights():  # buffers are computed, and in no file
        network = Phi4MultimodalForCausalLM(config)
    modules: nn.Module = network
    weights: dict[str, Tensor] = {}
    adapters: dict[str, dict[str, Tensor]] = {name: {} for name in contents.adapters}
    for (owner, name), tensor in _read(contents, where, dtype, on_load):
        if owner is not None:
            adapters[owner][name] = tensor
        elif quantize is not None and is_quantized(name):  # at once, so that only one is there in full
            modules.set_submodule(name.removesuffix(".weight"), quantized(tensor, quantize))
        else:
            weights[name] = tensor
    if config.tie_word_embeddings:
        weights[OUTPUT] = weights[EMBEDDINGS]
    network.load_state_dict(weights, strict=quantize is None, assign=True)
    network.tie_weights()
    modules.eval()
    for adapter, tensors in adapters.items():
        from phi4mm_cli.model.adapters import load_adapter

        load_adapter(network, adapter, contents.adapters[adapter], tensors)
    return network


def _read(contents: Contents, where: Where, dtype: torch.dtype, on_load: OnLoad) -> Iterator[tuple[Place, Tensor]]:
    """All tensors, in the order in which they stand in the files."""
    total, done = sum(tensor.size for tensor in contents.tensors.values()), 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        on_load(done, total)

    for place, tensor in sorted(contents.tensors.items(), key=lambda item: (item[1].path, item[1].start)):
        cancel.check()
        yield place, tensor.load(where(place[1]), dtype, advance)


def _end_tokens(checkpoint: Checkpoint, ids: int | list[int] | None) -> frozenset[int]:
    """Those of generation_config.json, else the config's; the tokenizer's lacks `<|end|>`, at which answers stop."""
    path = checkpoint.path / "generation_config.json"
    if path.exists():
        ids = read_json(path).get("eos_token_id", ids)
    if ids is None:
        message = f"the model {checkpoint.name} names no end-of-text token"
        raise MissingError(message, "Its generation_config.json must have one")
    return frozenset(ids if isinstance(ids, list) else [ids])
