"""The configs of the two layouts, translated into each other: sizes, adapters' settings, token ids."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.layout import ADAPTERS, IMAGE
from phi4mm_cli.model.vocabulary import AUDIO_TOKEN, END_OF_TEXT, END_OF_TURN, IMAGE_TOKEN

# Constants of the original config.json. Where its code can also do otherwise, the native architecture cannot:
_AUDIO_CODE: dict[str, Any] = {
    "batch_norm": False,
    "bias_in_glu": True,
    "causal": True,
    "cnn_layer_norm": True,
    "ext_pw_kernel_size": 1,
    "input_layer": "nemo_conv",
}
_AUDIO_EMBEDDING: dict[str, Any] = {
    "compression_rate": 8,
    "embedding_cls": "audio",
    "projection_cls": "mlp",
    "use_conv_downsample": False,
    "use_qformer": False,
}
_IMAGE_EMBEDDING: dict[str, Any] = {
    "embedding_cls": "tune_image",
    "hd_transform_order": "sub_glb",
    "image_token_compression_cls": "avg_pool_2d",
    "projection_cls": "mlp",
    "use_hd_transform": True,
    "with_learnable_separator": True,
}
# ... and these say nothing about the model, or nothing that its tensors do not say.
_UNUSED: dict[str, Any] = {
    "_attn_implementation": "flash_attention_2",
    "architectures": ["Phi4MMForCausalLM"],
    "attention_bias": False,
    "auto_map": {
        "AutoConfig": "configuration_phi4mm.Phi4MMConfig",
        "AutoModelForCausalLM": "modeling_phi4mm.Phi4MMForCausalLM",
        "AutoTokenizer": "Xenova/gpt-4o",
    },
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "transformers_version": "4.46.1",
}
_CHECKPOINTING = {"interval": 1, "module": "transformer", "offload": False}

# The SigLIP tower's settings are in the original code. What differs is written under this key of image_embd_layer,
# which that code ignores.
VISION_KEY = "vision_config"
SIGLIP_HEAD = 72  # 1152 / 16
_SIGLIP: dict[str, Any] = {
    "attention_dropout": 0.0,
    "feature_layer": -2,
    "hidden_act": "gelu_pytorch_tanh",
    "image_size": 448,
    "layer_norm_eps": 1e-06,
    "num_channels": 3,
    "patch_size": 14,
}
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers")  # of SigLIP; seen in the tensors' shapes

_AUDIO_FIELDS = {  # original: native
    "attention_dim": "hidden_size",
    "attention_heads": "num_attention_heads",
    "linear_units": "intermediate_size",
    "depthwise_seperable_out_channel": "depthwise_separable_out_channel",
}
_AUDIO_DEFAULTS = {"bias_symmetric": False, "feature_layer": -2, "initializer_range": 0.02, "nemo_activation": "relu"}

_LORA_LAYERS = {
    "speech": r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))",
    "vision": r"layers.*((self_attn\.(qkv_proj|o_proj))|(mlp\.(gate_up|down)_proj))",
}


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Of one adapter: what it adds to a layer is alpha / rank times B A."""

    rank: int
    alpha: float
    dropout: float


def lora_block_settings(block: Mapping[str, Any], dropout_key: str) -> LoraSettings:
    """The settings in a LoRA block of config.json or in an adapter_config.json."""
    try:
        return LoraSettings(block["r"], block["lora_alpha"], block.get(dropout_key, 0.0))
    except KeyError as error:
        message = f"the settings of an adapter have no {error.args[0]}"
        raise MissingError(message, "Copy or download the checkpoint again") from error


def lora_settings(original: Mapping[str, Any]) -> dict[str, LoraSettings]:
    """The adapters that an original config.json declares, by name."""
    found = {name: original[f"{name}_lora"] for name in ADAPTERS if original.get(f"{name}_lora")}
    return {name: lora_block_settings(block, "dp") for name, block in found.items()}


def native_config(original: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The native config.json for an original one and the `shapes` of the tensors under their native names.

    Every size comes from the checkpoint: the defaults of transformers' classes are not those of the released model.
    Raises MissingError for a setting that the native architecture cannot follow, or where one is missing.
    """
    config: dict[str, Any] = copy.deepcopy(dict(original))
    try:
        layers, audio = config.pop("embd_layer"), config.pop("audio_processor")["config"]
        image_layer, audio_layer = layers["image_embd_layer"], layers["audio_embd_layer"]
        for found, wanted in ((audio, _AUDIO_CODE), (audio_layer, _AUDIO_EMBEDDING), (image_layer, _IMAGE_EMBEDDING)):
            _require(found, wanted)
        _require(config, {"tie_word_embeddings": True})
        eos, scaling = config["eos_token_id"], config.pop("rope_scaling") or {}
        config["rope_parameters"] = {
            "rope_type": scaling.pop("type", "default"),
            "rope_theta": config.pop("rope_theta"),
            "partial_rotary_factor": config.pop("partial_rotary_factor", 1.0),
            **scaling,
        }
        config |= {
            "model_type": "phi4_multimodal",
            "architectures": ["Phi4MultimodalForCausalLM"],
            "tie_word_embeddings": True,
            # `<|end|>` ends an answer too; the original says so in generation_config.json alone.
            "eos_token_id": eos if isinstance(eos, list) else [eos, END_OF_TURN],
            "audio_config": _native_audio(audio, audio_layer),
            "vision_config": _native_vision(image_layer, shapes),
        }
    except KeyError as error:
        raise MissingError(f"the model's config.json has no {error.args[0]}", "Copy or download it again") from error
    gone = ("_name_or_path", "auto_map", "speech_lora", "vision_lora", "transformers_version", "_attn_implementation")
    return {k: v for k, v in config.items() if k not in gone and (k not in _UNUSED or v != _UNUSED[k])}


def _require(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key, value in wanted.items():
        if found.get(key, value) != value:
            message = f"the model's config.json sets {key} to {found[key]}, which is not supported (only {value})"
            raise MissingError(message, "Use a checkpoint of the released architecture")


def _native_audio(audio: dict[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    for key in (*_AUDIO_CODE, "activation_checkpointing", "encoder_embedding_config"):
        audio.pop(key, None)
    native = {_AUDIO_FIELDS.get(key, key): value for key, value in audio.items()}
    native["nemo_conv_channels"] = native.pop("nemo_conv_settings")["conv_channels"]
    native["bias_max_distance"] = native.pop("relative_attention_bias_args")["t5_bias_max_distance"]
    return native | {"downsample_rate": layer["downsample_rate"], "audio_token_id": AUDIO_TOKEN}


def _native_vision(layer: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    tower = f"{IMAGE}img_processor."
    patches, inner = f"{tower}embeddings.patch_embedding.weight", f"{tower}encoder.layers.0.mlp.fc1.weight"
    if patches not in shapes or inner not in shapes:
        raise MissingError("the model's image tower is missing", "Copy or download the checkpoint again")
    hidden = shapes[patches][0]
    blocks = [name for name in shapes if name.startswith(tower) and name.endswith(".layer_norm1.weight")]
    sizes: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": shapes[inner][0],
        "num_hidden_layers": len(blocks),
        "num_attention_heads": hidden // SIGLIP_HEAD,
        "crop_size": layer["crop_size"],
        "image_token_id": IMAGE_TOKEN,
    }
    return {**_SIGLIP, **sizes, **layer.get(VISION_KEY, {})}


def original_config(native: Mapping[str, Any], adapters: Mapping[str, LoraSettings]) -> dict[str, Any]:
    """The original config.json for a native one with all its fields. Token ids become the released ones.

    Raises MissingError for a model with an output layer of its own, which the original layout has no place for.
    """
    config: dict[str, Any] = copy.deepcopy(dict(native))
    _require(config, {"tie_word_embeddings": True})
    rope, audio, vision = (config.pop(key) for key in ("rope_parameters", "audio_config", "vision_config"))
    dtype = config.pop("dtype", "bfloat16")
    scaling = {"type": rope["rope_type"]} | {key: rope.get(key) for key in ("short_factor", "long_factor")}
    return config | copy.deepcopy(_UNUSED) | {
        "model_type": "phi4mm",
        "torch_dtype": dtype,
        "tie_word_embeddings": True,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TEXT,
        "pad_token_id": END_OF_TEXT,
        "rope_theta": rope["rope_theta"],
        "partial_rotary_factor": rope["partial_rotary_factor"],
        "rope_scaling": None if rope["rope_type"] == "default" else scaling,
        "audio_processor": {"name": "cascades", "config": _original_audio(audio)},
        "embd_layer": {
            "embedding_cls": "image_audio",
            "audio_embd_layer": _AUDIO_EMBEDDING
            | {"downsample_rate": audio["downsample_rate"], "enable_gradient_checkpointing": True},
            "image_embd_layer": _original_vision(vision),
        },
    } | {f"{name}_lora": _lora_block(name, settings) for name, settings in adapters.items()}  # fmt: skip


def _original_audio(native: Mapping[str, Any]) -> dict[str, Any]:
    names = {new: old for old, new in _AUDIO_FIELDS.items()}
    gone = (
        "model_type",
        "audio_token_id",
        "downsample_rate",
        "nemo_final_size",
        "nemo_conv_channels",
        "bias_max_distance",
    )
    own = {names.get(key, key): value for key, value in native.items() if key not in gone}
    own = {key: value for key, value in own.items() if key not in _AUDIO_DEFAULTS or value != _AUDIO_DEFAULTS[key]}
    return _AUDIO_CODE | own | {
        "activation_checkpointing": dict(_CHECKPOINTING),
        "encoder_embedding_config": {"input_size": native["input_size"]},
        "nemo_conv_settings": {"conv_channels": native["nemo_conv_channels"]},
        "relative_attention_bias_args": {"t5_bias_max_distance": native["bias_max_distance"], "type": "t5"},
    }  # fmt: skip


def _original_vision(native: Mapping[str, Any]) -> dict[str, Any]:
    implied = _SIGLIP | {"num_attention_heads": native["hidden_size"] // SIGLIP_HEAD}
    gone = ("model_type", "image_token_id", "crop_size", *_SIZES)
    own = {
        key: value for key, value in native.items() if key not in gone and (key not in implied or value != implied[key])
    }
    layer = _IMAGE_EMBEDDING | {"crop_size": native["crop_size"], "enable_gradient_checkpointing": True}
    return layer | ({VISION_KEY: own} if own else {})


def _lora_block(name: str, settings: LoraSettings) -> dict[str, Any]:
    return {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "dp": settings.dropout,
        "layer": _LORA_LAYERS[name],
    }
