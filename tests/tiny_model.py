"""A random checkpoint of some kilobytes in the native layout, with LongRoPE that switches at 64 tokens."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.model.layout import RENAMED

DATA = Path(__file__).parent / "data" / "tiny"
# For transformers' `from_pretrained`, which takes regular expressions.
KEY_MAPPING = {re.escape(original): native for _, original, native in RENAMED}
SWITCH, CONTEXT = 64, 4096  # tokens
LORA = {"speech": (3, 5), "vision": (2, 7)}  # rank, alpha


def write_tiny_model(folder: Path) -> Path:
    """The demo's architecture with narrower layers, and a small tokenizer of English."""
    config = json.loads((DATA / "config.json").read_text())
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.5}
    rope |= {"short_factor": [1.0, 1.1, 1.5], "long_factor": [1.0, 4.0, 30.0]}
    config |= {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "rope_parameters": rope}
    config |= {"max_position_embeddings": CONTEXT, "original_max_position_embeddings": SWITCH, "sliding_window": 4096}
    config["audio_config"] |= {"hidden_size": 24, "intermediate_size": 32, "num_blocks": 2, "nemo_conv_channels": 8}
    config["audio_config"] |= {"ext_pw_out_channel": 24, "depthwise_separable_out_channel": 24}
    config["vision_config"] |= {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config["vision_config"] |= {"num_hidden_layers": 3, "feature_layer": -2}
    network = Phi4MultimodalForCausalLM(Phi4MultimodalConfig(**config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.dim() > 1:  # larger than usual, so that every input matters to the answers
                weight.normal_(0, 1.3 / math.sqrt(weight[0].numel()), generator=generator)
        network.model.embed_tokens.weight.normal_(0, 0.4, generator=generator)
        norm = network.model.embed_tokens_extend.audio_embed.encoder.encoder_embedding
        norm.global_mean.fill_(10.0)
        norm.global_invstd.fill_(0.3)
    network.save_pretrained(folder)
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copy(DATA / name, folder)
    return folder


def write_adapter(folder: Path, prefix: str = "", name: str = "speech") -> dict[str, Tensor]:
    """Add a random adapter, its tensor names after `prefix`; gives what it adds to each weight, by name."""
    rank, alpha = LORA[name]
    weights = Phi4MultimodalForCausalLM.from_pretrained(folder).state_dict()
    generator = torch.Generator().manual_seed(rank)
    saved, added = {}, {}
    for key, weight in weights.items():
        if key.startswith("model.layers.") and "_proj." in key:
            rows, columns = weight.shape
            down = torch.randn(rank, columns, generator=generator) / columns**0.5
            up = torch.randn(rows, rank, generator=generator) / rank**0.5
            module = prefix + key.removesuffix(".weight")
            saved |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
            added[key] = alpha / rank * up @ down
    target = folder / f"{name}-lora"
    target.mkdir()
    save_file(saved, target / "adapter_model.safetensors")
    # As in the released file: a list that would also match layers of the audio encoder.
    modules = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": modules}
    (target / "adapter_config.json").write_text(json.dumps(config))
    return added
