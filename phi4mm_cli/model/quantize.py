"""The decoder's linear layers at 8 or 4 bits a weight, each made from its weights as they are read.

Only what is stored is small: a layer computes in the arithmetic of its input, so that no row of a batch depends on the
others. (bitsandbytes' own 8-bit layer rounds its input too, and spares the columns that are large in any row of it.)
Towers, projections, embeddings and adapters stay as they are.
"""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.adapters import TARGETS

# Bytes a weight. At 4 bits, 64 weights share a scale, a byte, and 256 scales one of theirs, a float32.
BYTES = {"int8": 1.0, "int4": 0.5 + 1 / 64 + 4 / (64 * 256)}

_DECODER = re.compile(TARGETS + r"\.weight")


def is_quantized(name: str) -> bool:
    """Whether the tensor of that native name is one of those that are stored small."""
    return _DECODER.fullmatch(name) is not None


def require_library(kind: str) -> None:
    """Raise UsageError where there is no such way of storing weights, MissingError where its package is missing."""
    if kind not in BYTES:
        raise UsageError(f"there is no quantization {kind!r}", f"Use {' or '.join(BYTES)}")
    if find_spec("bitsandbytes") is None:
        raise MissingError("bitsandbytes is not installed", "Run: pip install 'phi4mm[quantize]'")
    # It warns of a package that would make 4 bits on CPUs faster, whatever is asked for.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def quantized(weight: Tensor, kind: str) -> nn.Linear:
    """A layer without bias that stores `weight`, (outputs, inputs), as `kind`."""
    if kind == "int8":
        return Int8Linear(weight)
    import bitsandbytes  # on use: it takes seconds

    layers: Any = bitsandbytes.nn
    rows, columns = weight.shape
    made: Any = layers.Linear4bit(
        columns, rows, bias=False, compute_dtype=weight.dtype, quant_type="nf4", device=torch.device("meta")
    )
    # For some CPUs it would pack weights anew, in multiples of 32 rows, and compute in bfloat16 whatever is asked for.
    made.support_avx512bf16_for_cpu = False
    made.weight = layers.Params4bit(weight, quant_type="nf4").to(weight.device)  # which quantizes it
    layer: nn.Linear = made
    return layer


class Int8Linear(nn.Linear):
    """A layer whose weights are whole numbers from -127 to 127, with a scale for each output."""

    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        from bitsandbytes.functional import int8_vectorwise_quant

        rows, columns = weight.shape
        super().__init__(columns, rows, bias=False, device="meta")
        numbers, largest, _ = int8_vectorwise_quant(weight.half())  # it takes no other arithmetic
        self.weight = nn.Parameter(numbers, requires_grad=False)
        self.register_buffer("scale", largest.flatten() / 127)

    def forward(self, input: Tensor) -> Tensor:
        """As every linear layer: (..., inputs) to (..., outputs)."""
        weight = self.weight.to(input.dtype).mul_(self.scale.to(input.dtype)[:, None])
        return nn.functional.linear(input, weight)
