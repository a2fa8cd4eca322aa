"""Loads a checkpoint: every weight from its file or an error, never a layer left at random values."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.checkpoint import Checkpoint
from phi4mm_cli.model.precision import choose_attention
from phi4mm_cli.prompt import TOOL_CALL, TOOL_CALL_END

ADAPTERS = ("speech", "vision")

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
    rope_switch: int | None  # LongRoPE: sequences longer than this turn all positions by other angles


def load(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Model:
    """The model in memory on `device`. Raises MissingError where weights do not fit the architecture."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    network = _network(checkpoint, device, dtype)
    if device.type == "cpu" and sum(weight.numel() for weight in network.parameters()) < SMALL:
        torch.set_num_threads(1)
    adapters = [name for name in ADAPTERS if (checkpoint.path / f"{name}-lora").is_dir()]
    for name in adapters:
        from phi4mm_cli.model.adapters import load_adapter  # peft, which takes a second, only where it is needed

        load_adapter(network, checkpoint.path / f"{name}-lora", name)
    tokenizer = _tokenizer(checkpoint)
    control = tokenizer.get_added_tokens_decoder()
    config: Any = network.config  # whose fields are typed as optional, and are not
    long_rope = config.rope_parameters["rope_type"] == "longrope"
    return Model(
        network=network,
        tokenizer=tokenizer,
        device=device,
        adapters=frozenset(adapters),
        end_tokens=_end_tokens(network, checkpoint.name),
        unseen_tokens=frozenset(number for number, token in control.items() if token.content not in SEEN),
        audio_token=config.audio_config.audio_token_id,
        image_token=config.vision_config.image_token_id,
        context=config.max_position_embeddings,
        rope_switch=config.original_max_position_embeddings if long_rope else None,
    )


def _network(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Phi4MultimodalForCausalLM:
    try:
        loaded: Any = Phi4MultimodalForCausalLM.from_pretrained(
            checkpoint.path,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            attn_implementation=choose_attention(device, dtype),
            device_map={"": device},  # each tensor goes straight to its device, without a copy of all in memory
            ignore_mismatched_sizes=True,  # reports them with the others; nothing is ignored here
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _misfit(checkpoint, " ".join(str(error).split())[:300]) from error
    network: Phi4MultimodalForCausalLM = loaded[0]
    report = loaded[1]
    faults = {
        "missing": [key for key in report["missing_keys"] if key != "lm_head.weight"],  # tied to the embeddings
        "unexpected": report["unexpected_keys"],
        "of another shape": report["mismatched_keys"],
        "unreadable": report["error_msgs"],
    }
    for fault, keys in faults.items():
        if keys:
            sample = ", ".join(str(key) for key in sorted(keys)[:3])
            raise _misfit(checkpoint, f"{len(keys)} weights are {fault}, such as {sample}")
    return network


def _tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer, for which "<|end|>" in a user's text is text, and so is every other control token."""
    content = json.loads((checkpoint.path / "tokenizer.json").read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["special"] |= token["content"].startswith("<|")  # or texts could not be kept from naming it
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _misfit(checkpoint: Checkpoint, what: str) -> MissingError:
    message = f"the weights of {checkpoint.name} cannot be used: {what}"
    return MissingError(message, "Copy, download or convert the checkpoint again")


def _end_tokens(network: Phi4MultimodalForCausalLM, name: str) -> frozenset[int]:
    """The ids in generation_config.json; the tokenizer's own end token lacks `<|end|>`, at which answers stop."""
    ids = network.generation_config.eos_token_id
    if ids is None:
        raise MissingError(f"the model {name} names no end-of-text token", "Its generation_config.json must have one")
    return frozenset(ids if isinstance(ids, list) else [ids])
