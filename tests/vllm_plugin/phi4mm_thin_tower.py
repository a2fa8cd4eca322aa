"""FOR TESTS ONLY: a plug-in of vLLM that gives its Phi-4-multimodal a vision tower of the size that the demo has.

vLLM has the size of the released tower in its code. All else of it is as it was installed.
"""

from __future__ import annotations

import json
import os
from typing import Any


def register() -> None:
    """Called by vLLM in each of its processes. PHI4MM_THIN_TOWER is JSON: the vision settings of a native config."""
    from transformers import SiglipVisionConfig
    from vllm.model_executor.models import phi4mm
    from vllm.model_executor.models.idefics2_vision_model import Idefics2VisionTransformer

    def thin(layer_idx: int = -1, **settings: Any) -> Any:
        own = json.loads(os.environ["PHI4MM_THIN_TOWER"])
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        config = SiglipVisionConfig(image_size=448, patch_size=14, **{name: own[name] for name in names}, **settings)
        layers = config.num_hidden_layers + own["feature_layer"] + 1
        return Idefics2VisionTransformer(config, require_post_norm=False, num_hidden_layers_override=layers)

    phi4mm.get_navit_vision_model = thin
