"""The low-rank adapters on top of the weights, `speech` and `vision`, at most one at work at a time.

The released model hears only with its speech adapter at work and sees only with its vision adapter, which is also the
one for sound beside pictures; it answers text with none. Two at work at once would add up.

Layers have peft's names, and compute what peft's do. peft itself takes seconds to import, and with it whatever it finds
installed of the libraries that quantize.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from phi4mm_cli.model.configs import LoraSettings

# The decoder's linear layers, as a converted checkpoint's adapter_config.json names them.
TARGETS = r"model\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp\.(gate_up|down)_proj)"


class Adapted(nn.Module):
    """A linear layer and what the adapter at work adds to it: alpha / rank times B A (LoRA, Hu et al. 2021)."""

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.scaling: dict[str, float] = {}
        self.active: str | None = None

    def add(self, name: str, down: Tensor, up: Tensor, scaling: float) -> None:
        """Add an adapter, not at work: A is `down` (rank, inputs), B is `up` (outputs, rank)."""
        self.lora_A[name], self.lora_B[name] = _linear(down), _linear(up)
        self.scaling[name] = scaling

    def forward(self, input: Tensor) -> Tensor:
        """As the layer: (..., inputs) to (..., outputs)."""
        output: Tensor = self.base_layer(input)
        if self.active not in self.scaling:
            return output
        added: Tensor = self.lora_B[self.active](self.lora_A[self.active](input))
        return output + added * self.scaling[self.active]


def load_adapter(network: nn.Module, name: str, settings: LoraSettings, tensors: Mapping[str, Tensor]) -> None:
    """Put an adapter into the network under `name`, switched off. `tensors` are named as in files."""
    for module in {key.rsplit(".lora_", 1)[0] for key in tensors}:
        layer = network.get_submodule(module)
        if not isinstance(layer, Adapted):
            layer = Adapted(layer)
            network.set_submodule(module, layer)
        down, up = (tensors[f"{module}.lora_{side}.weight"] for side in "AB")
        layer.add(name, down, up, settings.alpha / settings.rank)


def switch_adapter(network: nn.Module, name: str | None) -> None:
    """Put adapter `name` to work, and no other; None for the bare weights."""
    for module in network.modules():
        if isinstance(module, Adapted):
            module.active = name


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device=torch.device("meta"))
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer
