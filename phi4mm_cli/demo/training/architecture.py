"""The demo's network: the released model's structure in small, its tokenizer, and weights to begin from."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.demo.world import conversations, documents, lexicon, scenes, sentences, tools
from phi4mm_cli.demo.world.prompts import all_prompts
from phi4mm_cli.model.adapters import TARGETS

SPECIAL = [
    "<|endoftext|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|tool|>",
    "<|/tool|>",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<|tool_response|>",
    "<|image|>",
    "<|audio|>",
]
# Words with the space or hyphen before them, single digits, runs of punctuation, single white space.
PIECES = r"[ -]?\p{L}+(?:['_]\p{L}+)*|\p{N}| ?[^\s\p{L}\p{N}]+|\s"

WIDTH, LAYERS, HEADS, KEY_VALUE_HEADS, MLP = 256, 4, 4, 2, 640
ROTARY = 0.75  # of each head's 64 dimensions, as in the released model
SWITCH, CONTEXT = 4096, 131072
RANK = {"speech": 80, "vision": 64}  # alpha is twice that, as in the released model
ENCODER, ENCODER_BLOCKS = 192, 5
VISION, VISION_LAYERS, VISION_HEADS = 128, 4, 2


# ------------------------------------------------------------------------------------------------ tokenizer


def build_tokenizer() -> Tokenizer:
    """A byte-level BPE whose vocabulary holds every word of the world whole; other text falls into bytes."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in _corpus():
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted(word for word, count in counts.items() if count >= 3 and len(word) > 1)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def _corpus() -> Iterator[str]:
    """Text in which every word of the world occurs, in every form it can take."""
    rng = random.Random(0)
    for _ in range(12_000):
        phrase = sentences.sentence(rng)
        for language in lexicon.LANGUAGES:
            yield phrase[language]
            yield " " + phrase[language]
    for _ in range(6_000):
        for messages in (
            conversations.memory(rng),
            conversations.instructed(rng),
            documents.on_text(rng),
            documents.on_scene(rng),
            tools.conversation(rng)[0],
        ):
            yield from (str(part) for message in messages for part in message.parts)
        told, gist = documents.story(rng)
        for language in lexicon.LANGUAGES:
            yield " ".join(phrase[language] for phrase in [*told, gist])
    names = [*lexicon.PEOPLE, *lexicon.CITIES, *lexicon.DAYS, *lexicon.MONTHS]
    words = [phrase[language] for phrase in names for language in lexicon.LANGUAGES]
    words += [*scenes.SHAPES, *scenes.TINTS]
    yield from all_prompts() * 3
    yield "# Page Chapter Item Tax Date Thank you image Image video frame picture page " * 3
    yield json.dumps(list(tools.TOOLS.values())) * 3
    for word in words:
        yield from (word, f" {word}", f' "{word}"') * 3


# ------------------------------------------------------------------------------------------------ network


def configuration(vocabulary: int) -> Phi4MultimodalConfig:
    """The structure of the released model, with small sizes and the demo's own token ids."""
    frequencies = int(WIDTH // HEADS * ROTARY) // 2
    long = [round(32 ** (i / (frequencies - 1)), 4) for i in range(frequencies)]
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": ROTARY}
    audio: dict[str, Any] = {
        "hidden_size": ENCODER,
        "num_blocks": ENCODER_BLOCKS,
        "num_attention_heads": 4,
        "intermediate_size": 2 * ENCODER,
        "kernel_size": 5,
        "nemo_conv_channels": 32,
        "bias_max_distance": 100,
        "ext_pw_out_channel": ENCODER,
        "depthwise_separable_out_channel": ENCODER,
        "dropout_rate": 0.0,
        "audio_token_id": SPECIAL.index("<|audio|>"),
    }
    vision: dict[str, Any] = {
        "hidden_size": VISION,
        "num_hidden_layers": VISION_LAYERS,
        "num_attention_heads": VISION_HEADS,
        "intermediate_size": 3 * VISION,
        "image_size": 448,
        "crop_size": 448,
        "patch_size": 14,
        "feature_layer": -2,
        "image_token_id": SPECIAL.index("<|image|>"),
    }
    return Phi4MultimodalConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        max_position_embeddings=CONTEXT,
        original_max_position_embeddings=SWITCH,
        sliding_window=262144,
        rope_parameters={**rope, "short_factor": [1.0] * frequencies, "long_factor": long},
        tie_word_embeddings=True,
        resid_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=[0, SPECIAL.index("<|end|>")],
        pad_token_id=0,
        audio_config=audio,
        vision_config=vision,
        dtype="bfloat16",
    )


def new_network(vocabulary: int) -> Phi4MultimodalForCausalLM:
    """The network at its random beginning: each layer scaled by its fan-in, outputs of the decoder's layers less."""
    torch.manual_seed(1)
    network = Phi4MultimodalForCausalLM(configuration(vocabulary))
    network.set_attn_implementation("sdpa")
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
                scale = (2 * LAYERS) ** -0.5 if name.endswith(("o_proj", "down_proj")) else 1.0
                module.weight.normal_(0, scale / math.sqrt(module.weight[0].numel()))
                if module.bias is not None:
                    module.bias.zero_()
        network.model.embed_tokens.weight.normal_(0, WIDTH**-0.5)
        network.tie_weights()
    return network


def add_adapter(network: nn.Module, name: str) -> None:
    """A LoRA adapter on the decoder's linear layers that changes nothing yet."""
    lora = LoraConfig(r=RANK[name], lora_alpha=2 * RANK[name], target_modules=TARGETS, lora_dropout=0.0)
    inject_adapter_in_model(lora, network, adapter_name=name)


def begin_adapter(network: nn.Module, name: str, other: str, weights: Mapping[str, Tensor]) -> None:
    """Give the adapter `name` the nearest of its rank to what `other` adds, whose `weights` are named as the network's.

    Both scale what they add by the same factor.
    """
    parameters = dict(network.named_parameters())
    for first in [known for known in parameters if f".lora_A.{name}." in known]:
        second = first.replace(".lora_A.", ".lora_B.")
        down, up = (weights[known.replace(f".{name}.", f".{other}.")].float() for known in (first, second))
        left, sizes, right = torch.linalg.svd(up @ down, full_matrices=False)
        roots = sizes[: RANK[name]].sqrt()
        with torch.no_grad():
            parameters[first].copy_(roots[:, None] * right[: RANK[name]])
            parameters[second].copy_(left[:, : RANK[name]] * roots)
