"""The low-rank adapters beside the weights: `speech-lora/` and `vision-lora/`, at most one at work at a time.

The released model hears only with its speech adapter at work and sees only with its vision adapter, which is also the
one for sound beside pictures; it answers text with none. Two at work at once would add up.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from phi4mm_cli.errors import MissingError

# The decoder's linear layers only. The list of names in the released adapter_config.json would match layers of the
# audio encoder too, for which there are no tensors.
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"

PEFT_PREFIX = "base_model.model."


def load_adapter(network: nn.Module, folder: Path, name: str) -> None:
    """Put the adapter of `folder` into the network under `name`, switched off. Scaling is alpha / r of its config.

    Raises MissingError unless the file's tensors are exactly the adapter's.
    """
    tensors = _tensors(folder, name)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    reference = next(network.parameters())
    lora = LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"], target_modules=TARGETS, inference_mode=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is what is meant
        inject_adapter_in_model(lora, network, adapter_name=name, low_cpu_mem_usage=True)
    wanted = {k: p.shape for k, p in network.named_parameters() if ".lora_" in k and f".{name}." in k}
    found = {key: tensor.shape for key, tensor in tensors.items()}
    wrong = sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key))
    if wrong:
        message = f"{folder} does not fit the model: {wrong[0]} and {len(wrong) - 1} more tensors do not match"
        raise MissingError(message, "Copy or download the checkpoint again")
    state = {key: tensor.to(reference.device, reference.dtype) for key, tensor in tensors.items()}
    network.load_state_dict(state, strict=False, assign=True)
    switch_adapter(network, None)


def switch_adapter(network: nn.Module, name: str | None) -> None:
    """Put adapter `name` to work, and no other; None for the bare weights."""
    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(name is not None)
            if name is not None:
                module.set_adapter(name)


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    """The adapter's tensors by the names they get inside the network."""
    try:
        saved = load_file(folder / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise MissingError(f"the adapter in {folder} cannot be read: {error}", "Copy or download it again") from error
    return {
        key.removeprefix(PEFT_PREFIX).removesuffix(".weight") + f".{name}.weight": value for key, value in saved.items()
    }
