"""The two layouts that the model is published in, name by name.

The original one (`phi4mm`) has both low-rank adapters inside its shards; transformers' own (`phi4_multimodal`, here:
native) has them in `speech-lora/` and `vision-lora/`. Their configs are translated in `configs.py`; `original.py`
reads the files, and `convert.py` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from phi4mm_cli.errors import MissingError

ADAPTERS = ("speech", "vision")

EMBEDDINGS = "model.embed_tokens.weight"

# Parts of names: where they stand, in the original layout, in the native one. All other names are the same in both.
AUDIO, IMAGE = "model.embed_tokens_extend.audio_embed.", "model.embed_tokens_extend.image_embed."
LORA_TARGETS = tuple(
    ("model.layers.", f".{linear}.base_layer.weight", f".{linear}.weight")
    for linear in ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
)
RENAMED = (
    *LORA_TARGETS,
    *((AUDIO, f".feed_forward_{side}.net.{old}.", f".feed_forward_{side}.{new}.")
      for side in ("in", "out") for old, new in (("0.linear", "gate_up_proj"), ("2", "down_proj"))),
    *((AUDIO, f".self_attn.linear_{old}.", f".self_attn.{new}_proj.")
      for old, new in (("q", "q"), ("k", "k"), ("v", "v"), ("out", "o"))),
    *((AUDIO, f".audio_projection.{old}.{layer}.", f".{direction}_proj_for_{new}.")
      for old, new in (("speech", "speech"), ("vision", "vision_speech"))
      for layer, direction in ((0, "up"), (2, "down"))),
    (IMAGE, ".img_projection.0.", ".img_projection_up."),
    (IMAGE, ".img_projection.2.", ".img_projection_down."),
    (IMAGE, ".glb_GN", ".global_img_feature_extensor"),
    (IMAGE, ".sub_GN", ".sub_img_feature_extensor"),
)  # fmt: skip
_LORA = re.compile(rf"(model\.layers\..+\.lora_[AB])\.({'|'.join(ADAPTERS)})\.weight")


def native_name(name: str) -> tuple[str | None, str]:
    """The adapter that an original tensor belongs to, None for the model itself, and its native name there.

    Raises MissingError for a name that the original layout does not have. (Whether a layer of that name and number
    exists depends on the model's sizes, and is not known here.)
    """
    lora = _LORA.fullmatch(name)
    if lora:
        return lora[2], f"{lora[1]}.weight"
    native = name
    for scope, old, new in RENAMED:
        if native.startswith(scope):
            native = native.replace(old, new)
    if original_name(native) != name:
        raise MissingError(f"{name} is no tensor of the original layout", "Copy or download the checkpoint again")
    return None, native


def original_name(name: str, adapter: str | None = None) -> str:
    """The original name of a native tensor, which is one of `adapter`'s or of the model itself."""
    if adapter is not None:
        return f"{name.removesuffix('.weight')}.{adapter}.weight"
    for scope, old, new in RENAMED:
        if name.startswith(scope):
            name = name.replace(new, old)
    return name


def lora_shapes(shapes: Mapping[str, tuple[int, ...]], rank: int) -> dict[str, tuple[int, ...]]:
    """Native names and shapes of an adapter's tensors, for a model whose own tensors have `shapes`."""
    result: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        if any(name.endswith(new) for scope, _, new in LORA_TARGETS if name.startswith(scope)):
            module = name.removesuffix(".weight")
            result |= {f"{module}.lora_A.weight": (rank, shape[1]), f"{module}.lora_B.weight": (shape[0], rank)}
    return result
