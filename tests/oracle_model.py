"""A random checkpoint in the original layout whose right answers are known, from the model's original code.

Every tensor follows from its name alone, so that no weights are kept here; `data/oracle.json` has the answers.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from phi4mm_cli.model.vocabulary import SPECIAL, special_token

ANSWERS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "oracle.json").read_text())
DIGEST = "a091bdbe5e5a482d9982742faf35dfb251221a93b7512a8be6e5446d30475c02"  # of all tensors

WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, HEAD, MLP, VOCABULARY = 48, 2, 6, 2, 8, 80, 200064
LORA = {"speech": (6, 9, 0.01), "vision": (4, 10, 0.0)}  # rank, alpha, dropout
AUDIO, AUDIO_BLOCKS, AUDIO_MLP, AUDIO_HEADS, CHANNELS, DISTANCE, BANDS = 40, 2, 56, 4, 32, 500, 80
SIGLIP, SIGLIP_LAYERS, SIGLIP_MLP = 216, 3, 304
LINEARS = {
    "self_attn.qkv_proj": ((HEADS + 2 * KEY_VALUE_HEADS) * HEAD, WIDTH),
    "self_attn.o_proj": (WIDTH, HEADS * HEAD),
    "mlp.gate_up_proj": (2 * MLP, WIDTH),
    "mlp.down_proj": (WIDTH, MLP),
}

Shapes = dict[str, tuple[int, ...]]


# -------------------------------------------------------------------------------------------------------- weights


@cache
def tensors() -> dict[str, Tensor]:
    """All tensors in bfloat16. Fails where numpy's random numbers are not those that the answers are for."""
    found = {name: _tensor(name, shape) for name, shape in sorted(_shapes().items())}
    digest = hashlib.sha256()
    for name, tensor in found.items():
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.int16).numpy().astype("<i2").tobytes())
    assert digest.hexdigest() == DIGEST
    return found


def _tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    scale, offset = _spread(name, shape)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    values = generator.standard_normal(shape, dtype=np.float32) * np.float32(scale) + np.float32(offset)
    return torch.from_numpy(values).to(torch.bfloat16)


def _spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Standard deviation and mean of a tensor."""
    *_, owner, last = name.split(".")
    fixed = {
        "global_mean": (1.5, 17.0),  # of the log-mel features of the test audio
        "global_invstd": (0.02, 0.3),
        "glb_GN": (1.0, 0.0),
        "sub_GN": (1.0, 0.0),
        "probe": (1.0, 0.0),
        "b1": (0.1, 0.0),
        "b2": (0.1, 0.0),
    }
    if last in fixed:
        return fixed[last]
    owners = {"bias_values": (0.6, 0.0), "position_embedding": (0.4, 0.0), "embed_tokens": (0.35, 0.0)}
    if owner in owners:
        return owners[owner]
    if last.endswith("bias"):
        return 0.1, 0.0
    if "norm" in owner:
        return 0.1, 1.0
    gain = 1.0 if ".lora_A." in name else 0.5 if ".lora_B." in name else 1.3
    return gain / math.sqrt(math.prod(shape[1:])), 0.0


def _shapes() -> Shapes:
    shapes: Shapes = {"model.embed_tokens.weight": (VOCABULARY, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        inside = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{inside}{norm}.weight"] = (WIDTH,)
        for linear, (rows, columns) in LINEARS.items():
            shapes[f"{inside}{linear}.base_layer.weight"] = (rows, columns)
            for adapter, (rank, _, _) in LORA.items():
                shapes[f"{inside}{linear}.lora_A.{adapter}.weight"] = (rank, columns)
                shapes[f"{inside}{linear}.lora_B.{adapter}.weight"] = (rows, rank)
    extend = "model.embed_tokens_extend."
    return shapes | _audio(f"{extend}audio_embed.") | _image(f"{extend}image_embed.")


def _biased(name: str, *shape: int) -> Shapes:
    """A layer with weights and biases, a norm where there is one size only."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _audio(inside: str) -> Shapes:
    shapes: Shapes = {}
    for projection in ("speech", "vision"):
        shapes |= _biased(f"{inside}audio_projection.{projection}.0", WIDTH, AUDIO)
        shapes |= _biased(f"{inside}audio_projection.{projection}.2", WIDTH, WIDTH)
    encoder = f"{inside}encoder."
    shapes |= {f"{encoder}encoder_embedding.{name}": (BANDS,) for name in ("global_mean", "global_invstd")}
    shapes[f"{encoder}relative_attention_bias_layer.bias_values.weight"] = (2 * DISTANCE, AUDIO_HEADS)
    for depthwise in (0, 2, 5):
        shapes |= _biased(f"{encoder}embed.conv.{depthwise}", CHANNELS, 1, 3, 3)
    for pointwise in (3, 6):
        shapes |= _biased(f"{encoder}embed.conv.{pointwise}", CHANNELS, CHANNELS, 1, 1)
    shapes |= _biased(f"{encoder}embed.out", AUDIO, CHANNELS * BANDS // 8)
    for number in range(AUDIO_BLOCKS):
        block = f"{encoder}encoders.{number}."
        for side in ("feed_forward_in", "feed_forward_out"):
            shapes |= _biased(f"{block}{side}.layer_norm", AUDIO)
            shapes |= _biased(f"{block}{side}.net.0.linear", 2 * AUDIO_MLP, AUDIO)
            shapes |= _biased(f"{block}{side}.net.2", AUDIO, AUDIO_MLP)
        for linear in ("q", "k", "v", "out"):
            shapes |= _biased(f"{block}self_attn.linear_{linear}", AUDIO, AUDIO)
        for norm in ("layer_norm_att", "layer_norm", "conv.layer_norm"):
            shapes |= _biased(block + norm, AUDIO)
        shapes |= {f"{block}conv.glu.b1": (1, AUDIO, 1), f"{block}conv.glu.b2": (1, AUDIO, 1)}
        shapes |= _biased(f"{block}conv.glu.ext_pw_conv_1d", 2 * AUDIO, AUDIO, 1)
        shapes |= _biased(f"{block}conv.dw_sep_conv_1d.dw_conv", AUDIO, 1, 3)
        shapes |= _biased(f"{block}conv.dw_sep_conv_1d.pw_conv", AUDIO, AUDIO, 1)
        shapes |= _biased(f"{block}conv.ext_pw_conv_1d", AUDIO, AUDIO, 1)
    return shapes


def _image(inside: str) -> Shapes:
    shapes: Shapes = {f"{inside}glb_GN": (1, 1, SIGLIP), f"{inside}sub_GN": (1, 1, 1, SIGLIP)}
    shapes |= _biased(f"{inside}img_projection.0", WIDTH, SIGLIP) | _biased(f"{inside}img_projection.2", WIDTH, WIDTH)
    tower = f"{inside}img_processor."
    shapes |= _biased(f"{tower}embeddings.patch_embedding", SIGLIP, 3, 14, 14)
    shapes[f"{tower}embeddings.position_embedding.weight"] = (1024, SIGLIP)
    places = [f"{tower}encoder.layers.{number}.mlp" for number in range(SIGLIP_LAYERS)] + [f"{tower}head.mlp"]
    for place in places:
        shapes |= _biased(f"{place}.fc1", SIGLIP_MLP, SIGLIP) | _biased(f"{place}.fc2", SIGLIP, SIGLIP_MLP)
    for number in range(SIGLIP_LAYERS):
        block = f"{tower}encoder.layers.{number}."
        shapes |= _biased(f"{block}layer_norm1", SIGLIP) | _biased(f"{block}layer_norm2", SIGLIP)
        for linear in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _biased(f"{block}self_attn.{linear}", SIGLIP, SIGLIP)
    shapes |= _biased(f"{tower}post_layernorm", SIGLIP) | _biased(f"{tower}head.layernorm", SIGLIP)
    shapes[f"{tower}head.probe"] = (1, 1, SIGLIP)
    shapes |= {
        f"{tower}head.attention.in_proj_weight": (3 * SIGLIP, SIGLIP),
        f"{tower}head.attention.in_proj_bias": (3 * SIGLIP,),
    }
    return shapes | _biased(f"{tower}head.attention.out_proj", SIGLIP, SIGLIP)


# ----------------------------------------------------------------------------------------------------- the folder


def write_oracle_model(folder: Path) -> Path:
    """The checkpoint: three shards and an index, config.json, tokenizer.json, generation_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    groups: dict[str, dict[str, Tensor]] = {"embed_tokens.": {}, "embed_tokens_extend.": {}, "": {}}
    for name, tensor in tensors().items():
        groups[next(start for start in groups if name.startswith(f"model.{start}"))][name] = tensor
    places: dict[str, str] = {}
    for number, shard in enumerate(groups.values(), 1):
        file = f"model-{number:05d}-of-00003.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    size = sum(tensor.nbytes for tensor in tensors().values())
    files = {
        "model.safetensors.index.json": {"metadata": {"total_size": size}, "weight_map": places},
        "config.json": config(),
        "generation_config.json": {"bos_token_id": 199999, "eos_token_id": [200020, 199999], "pad_token_id": 199999},
        "tokenizer.json": _tokenizer(),
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content), encoding="utf-8")
    return folder


def config() -> dict[str, Any]:
    """config.json with the fields and the constants of the released one, and small sizes."""
    audio = {
        "activation": "swish",
        "activation_checkpointing": {"interval": 1, "module": "transformer", "offload": False},
        "attention_dim": AUDIO,
        "attention_heads": AUDIO_HEADS,
        "batch_norm": False,
        "bias_in_glu": True,
        "causal": True,
        "chunk_size": -1,
        "cnn_layer_norm": True,
        "conv_activation": "swish",
        "conv_glu_type": "swish",
        "depthwise_multiplier": 1,
        "depthwise_seperable_out_channel": AUDIO,
        "dropout_rate": 0.0,
        "encoder_embedding_config": {"input_size": BANDS},
        "ext_pw_kernel_size": 1,
        "ext_pw_out_channel": AUDIO,
        "input_layer": "nemo_conv",
        "input_size": BANDS,
        "kernel_size": 3,
        "left_chunk": 18,
        "linear_units": AUDIO_MLP,
        "nemo_conv_settings": {"conv_channels": CHANNELS},
        "num_blocks": AUDIO_BLOCKS,
        "relative_attention_bias_args": {"t5_bias_max_distance": DISTANCE, "type": "t5"},
        "time_reduction": 8,
    }
    both = {"enable_gradient_checkpointing": True, "projection_cls": "mlp"}
    audio_layer = {"compression_rate": 8, "downsample_rate": 1, "embedding_cls": "audio"}
    image_layer = {"crop_size": 448, "embedding_cls": "tune_image", "hd_transform_order": "sub_glb"}
    image_layer |= {"image_token_compression_cls": "avg_pool_2d", "use_hd_transform": True}
    layers = {
        "speech": r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))",
        "vision": r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))",
    }
    adapters = {
        f"{name}_lora": {"r": rank, "lora_alpha": alpha, "dp": dropout, "layer": layers[name]}
        for name, (rank, alpha, dropout) in LORA.items()
    }
    return adapters | {
        "_attn_implementation": "flash_attention_2",
        "_name_or_path": "Phi-4-multimodal-instruct",
        "architectures": ["Phi4MMForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "audio_processor": {"config": audio, "name": "cascades"},
        "auto_map": {
            "AutoConfig": "configuration_phi4mm.Phi4MMConfig",
            "AutoModelForCausalLM": "modeling_phi4mm.Phi4MMForCausalLM",
            "AutoTokenizer": "Xenova/gpt-4o",
        },
        "bos_token_id": 199999,
        "embd_layer": {
            "audio_embd_layer": both | audio_layer | {"use_conv_downsample": False, "use_qformer": False},
            "embedding_cls": "image_audio",
            "image_embd_layer": both | image_layer | {"with_learnable_separator": True},
        },
        "embd_pdrop": 0.0,
        "eos_token_id": 199999,
        "full_attn_mod": 1,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": MLP,
        "interpolate_factor": 1,
        "lm_head_bias": False,
        "max_position_embeddings": 131072,
        "mlp_bias": False,
        "model_type": "phi4mm",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "original_max_position_embeddings": 4096,
        "pad_token_id": 199999,
        "partial_rotary_factor": 0.75,
        "resid_pdrop": 0.0,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "long_factor": [1, 4.279200023, 32.03],
            "short_factor": [1.0, 1.125, 1.5],
            "type": "longrope",
        },
        "rope_theta": 10000.0,
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.1",
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def _tokenizer() -> dict[str, Any]:
    """Byte b is token b; special tokens have their released ids; other ids have no token."""
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    others = [b for b in range(256) if b not in printable]
    letters = {b: chr(b) for b in printable} | {b: chr(256 + place) for place, b in enumerate(others)}
    by_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special_token(name) for name in SPECIAL],
        "normalizer": None,
        "pre_tokenizer": by_bytes,
        "post_processor": None,
        "decoder": by_bytes,
        "model": {"type": "BPE", "vocab": {letters[b]: b for b in range(256)} | SPECIAL, "merges": []},
    }
