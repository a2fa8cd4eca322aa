"""The config of a checkpoint in the original layout, for programs that take it from the checkpoint's folder."""

from __future__ import annotations

from typing import Any

from transformers import Phi3Config


class Phi4MMConfig(Phi3Config):  # type: ignore[no-untyped-call]
    """The decoder is one of Phi-3; the settings of the towers are kept as config.json has them."""

    model_type = "phi4mm"
    img_processor: str | None = None
    embd_layer: dict[str, Any] | None = None
    audio_processor: dict[str, Any] | None = None
    speech_lora: dict[str, Any] | None = None
    vision_lora: dict[str, Any] | None = None
