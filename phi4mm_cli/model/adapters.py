"""The low-rank adapters on top of the weights, `speech` and `vision`, at most one at work at a time.

The released model hears only with its speech adapter at work and sees only with its vision adapter, which is also the
one for sound beside pictures; it answers text with none. Two at work at once would add up.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from phi4mm_cli.model.configs import LoraSettings

# The decoder's linear layers, as a converted checkpoint's adapter_config.json names them.
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"


def load_adapter(network: nn.Module, name: str, settings: LoraSettings, tensors: Mapping[str, Tensor]) -> None:
    """Put an adapter into the network under `name`, switched off. `tensors` are named as in files.

    Scaling is alpha / rank.
    """
    from peft import LoraConfig, inject_adapter_in_model  # on use: it takes a second

    # The layers by name: a list of their last names, as in the released adapter_config.json, would also match layers
    # of the audio encoder, for which there are no tensors.
    modules = {key.rsplit(".lora_", 1)[0] for key in tensors}
    targets = "|".join(map(re.escape, sorted(modules)))
    alpha: Any = settings.alpha  # may be a fraction, whatever peft declares
    lora = LoraConfig(r=settings.rank, lora_alpha=alpha, target_modules=targets, inference_mode=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is what is meant
        inject_adapter_in_model(lora, network, adapter_name=name, low_cpu_mem_usage=True)
    state = {key.removesuffix(".weight") + f".{name}.weight": tensor for key, tensor in tensors.items()}
    network.load_state_dict(state, strict=False, assign=True)
    switch_adapter(network, None)


def switch_adapter(network: nn.Module, name: str | None) -> None:
    """Put adapter `name` to work, and no other; None for the bare weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in network.modules():
        if isinstance(module, BaseTunerLayer):
            module.enable_adapters(name is not None)
            if name is not None:
                module.set_adapter(name)
