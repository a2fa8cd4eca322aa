"""The two layouts of a checkpoint are one model: converted there and back, nothing is lost and no answer changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from oracle_model import config, tensors, write_oracle_model
from safetensors.torch import load_file
from tiny_model import KEY_MAPPING, write_adapter, write_tiny_model
from tokenizers import Tokenizer
from transformers import AutoProcessor, Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import DEMO_FOLDER, resolve
from phi4mm_cli.model.composing import Prompt, compose
from phi4mm_cli.model.configs import native_config
from phi4mm_cli.model.convert import write_native, write_original
from phi4mm_cli.model.features import log_mel
from phi4mm_cli.model.generate import generate
from phi4mm_cli.model.layout import lora_shapes, native_name, original_name
from phi4mm_cli.model.loading import Model, load
from phi4mm_cli.model.original import Contents, read_native, read_original
from phi4mm_cli.model.vocabulary import SIZE, SPECIAL, moved_rows, original_tokenizer
from phi4mm_cli.prompt import Marker, Piece
from phi4mm_cli.schema import Clip, Sampling, Source

EMBEDDINGS = "model.embed_tokens.weight"
NAMES = {"<|image|>": "<|endoftext10|>", "<|audio|>": "<|endoftext11|>"}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the original layout."""
    return write_oracle_model(tmp_path_factory.mktemp("oracle") / "original")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the native layout, with an adapter and LongRoPE."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "native")
    write_adapter(folder)
    return folder


@pytest.fixture(scope="module", params=["demo", "tiny"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Path, Path]:
    """A native checkpoint, and what it is after it was written in the original layout and read back."""
    source = DEMO_FOLDER if request.param == "demo" else tiny
    folder = tmp_path_factory.mktemp("pair")
    write_original(source, folder / "original")
    write_native(folder / "original", folder / "native")
    return source, folder / "native"


def same_tensors(one: Contents, other: Contents) -> bool:
    assert one.tensors.keys() == other.tensors.keys()
    return all(torch.equal(lazy.read(), other.tensors[place].read()) for place, lazy in one.tensors.items())


def moved_ids(folder: Path) -> dict[int, int]:
    return original_tokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"))[1]


def read_config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return content


# ---------------------------------------------------------------------------------------------------------- names


def released() -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The released model's native config, and the shapes of its tensors by native name."""
    original = config()
    sizes = {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 24}
    factors = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0 + i for i in range(48)]}
    original |= sizes | {"num_key_value_heads": 8, "rope_scaling": factors}
    audio = original["audio_processor"]["config"]
    audio |= {"attention_dim": 1024, "attention_heads": 16, "linear_units": 1536, "num_blocks": 24}
    audio |= {"ext_pw_out_channel": 1024, "depthwise_seperable_out_channel": 1024}
    audio["nemo_conv_settings"] = {"conv_channels": 1024}
    tower = "model.embed_tokens_extend.image_embed.img_processor."
    seen: dict[str, tuple[int, ...]] = {f"{tower}embeddings.patch_embedding.weight": (1152, 3, 14, 14)}
    seen |= {f"{tower}encoder.layers.{i}.layer_norm1.weight": (1152,) for i in range(27)}
    native = native_config(original, seen | {f"{tower}encoder.layers.0.mlp.fc1.weight": (4304, 1152)})
    with torch.device("meta"):
        network = Phi4MultimodalForCausalLM(Phi4MultimodalConfig(**native))
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items() if name != "lm_head.weight"}
    return native, state


def test_every_name_of_the_released_model_is_translated_both_ways() -> None:
    native, shapes = released()
    names: dict[str, tuple[str | None, str]] = {original_name(name): (None, name) for name in shapes}
    for adapter, rank in (("speech", 320), ("vision", 256)):
        names |= {original_name(name, adapter): (adapter, name) for name in lora_shapes(shapes, rank)}
    assert len(names) == 2047
    assert {name: native_name(name) for name in names} == names
    assert sum("lora_" in name for name in names) == 512
    assert native["vision_config"]["num_attention_heads"] == 16
    assert shapes["model.embed_tokens_extend.audio_embed.encoder.relative_attention_bias_layer.bias_values.weight"] == (
        1000,
        16,
    )


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.qkv_proj.weight",
        "model.embed_tokens_extend.audio_embed.encoder.encoders.0.self_attn.q_proj.weight",
        "model.embed_tokens_extend.image_embed.img_projection_up.bias",
    ],
)
def test_native_names_are_not_taken_for_original_ones(name: str) -> None:
    with pytest.raises(MissingError, match=name):
        native_name(name)


# -------------------------------------------------------------------------------------------------- there and back


def test_original_to_native_and_back(oracle: Path, tmp_path: Path) -> None:
    limit = 200_000
    write_native(oracle, tmp_path / "native", shard_bytes=limit)
    write_original(tmp_path / "native", tmp_path / "original", shard_bytes=limit)
    assert {path.name for path in tmp_path.iterdir()} == {"native", "original"}
    assert read_config(tmp_path / "original") == {k: v for k, v in config().items() if k != "_name_or_path"}
    contents = read_original(tmp_path / "original")
    assert len(contents.tensors) == len(tensors())
    assert same_tensors(contents, read_original(oracle)) and same_tensors(contents, read_native(tmp_path / "native"))
    assert contents.adapters["speech"].rank == 6 and contents.adapters["vision"].alpha == 10
    vocabulary = [json.loads((folder / "tokenizer.json").read_text()) for folder in (oracle, tmp_path / "original")]
    assert vocabulary[0] == vocabulary[1]
    for folder in (tmp_path / "native", tmp_path / "original"):
        shards = [load_file(path) for path in folder.glob("model-*.safetensors")]
        places = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
        assert sorted(places) == sorted(name for shard in shards for name in shard)
        assert all(len(shard) == 1 or sum(t.nbytes for t in shard.values()) <= limit for shard in shards)


def test_native_to_original_and_back(pair: tuple[Path, Path]) -> None:
    source, back = map(read_native, pair)
    moved = moved_ids(source.folder)
    assert source.adapters == back.adapters
    old, new = source.tensors.pop((None, EMBEDDINGS)).read(), back.tensors.pop((None, EMBEDDINGS)).read()
    assert torch.equal(old, new[[moved.get(row, row) for row in range(len(old))]])
    assert new.shape == (SIZE, old.shape[1])
    assert same_tensors(source, back)
    expected = source.config | {"vocab_size": SIZE, "bos_token_id": 199999, "pad_token_id": 199999}
    expected |= {"eos_token_id": [199999, 200020]}
    expected["audio_config"]["audio_token_id"], expected["vision_config"]["image_token_id"] = 200011, 200010
    expected["rope_parameters"].pop("type", None)
    assert back.config == expected


def test_tokens_are_the_released_ones(pair: tuple[Path, Path], tmp_path: Path) -> None:
    write_original(pair[1], tmp_path / "original")  # which changes nothing but names
    source, native, original = (
        Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (*pair, tmp_path / "original")
    )
    assert {name: original.token_to_id(name) for name in SPECIAL} == SPECIAL
    assert native.token_to_id("<|audio|>") == 200011 and native.token_to_id("<|endoftext11|>") is None
    moved = moved_ids(pair[0])
    text = "<|user|>Please send 12 letters, naïve Zoë! <|end|><|assistant|>"
    ids = [moved.get(token, token) for token in source.encode(text).ids]
    assert native.encode(text).ids == original.encode(text).ids == ids
    assert native.decode(ids, skip_special_tokens=False) == source.decode(
        source.encode(text).ids, skip_special_tokens=False
    )
    for folder in (pair[1], tmp_path / "original"):
        assert set(json.loads((folder / "generation_config.json").read_text())["eos_token_id"]) == {199999, 200020}
    added = json.loads((tmp_path / "original" / "added_tokens.json").read_text())
    assert added == {name: number for name, number in SPECIAL.items() if number >= 200019}


# -------------------------------------------------------------------------------------------------------- answers


def opened(folder: Path) -> Model:
    return load(resolve(str(folder)), torch.device("cpu"), torch.float32)


def prompts(model: Model) -> list[tuple[str | None, Prompt]]:
    """Text and speech, each with the adapter that it is for."""
    clip = Clip(Source("a.wav", 1, "f"), 0.0, 1.0)
    user, end, assistant = Marker("<|user|>"), Marker("<|end|>"), Marker("<|assistant|>")
    asked: list[tuple[str | None, Prompt]] = []
    for text in ("Who is Nina?", "What colour is the bicycle?", "one two three", "?"):
        pieces: list[Piece] = [user, text, end, assistant]
        asked.append((None, compose(model, pieces, [], Sampling(16))))
    adapter = "speech" if "speech" in model.adapters else None
    for text in ("Oscar forgot the letter on Monday.", "I see a yellow bicycle near the house."):
        features = log_mel(speak(text).samples, 16000)
        pieces = [user, clip, "Transcribe the audio clip into text.", end, assistant]
        asked.append((adapter, compose(model, pieces, [features], Sampling(30))))
    return asked


def test_answers_are_the_same(pair: tuple[Path, Path]) -> None:
    before, after = map(opened, pair)
    moved = moved_ids(pair[0])
    lengths = set()
    for (adapter, old), (_, new) in zip(prompts(before), prompts(after), strict=True):
        for model in (before, after):
            if model.adapters:
                switch_adapter(model.network, adapter)
        assert [moved.get(token, token) for token in old.ids] == list(new.ids)
        (expected,), (found,) = generate(before, [old]), generate(after, [new])
        assert [moved.get(token, token) for token in expected.tokens] == list(found.tokens)
        assert (found.text, found.finish) == (expected.text, expected.finish)
        lengths.add(len(found.tokens))
    assert max(lengths) > 5


def test_rows_without_a_token_never_win() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = (torch.randn(300, 32, generator=generator) + 1.0).bfloat16()
    media = (10, 11)
    moved = {number: SIZE - 30 + number for number in range(12)}
    table = moved_rows(rows, moved, media).float()
    taken = torch.tensor([moved.get(row, row) for row in range(300)])
    free = torch.ones(SIZE, dtype=torch.bool)
    free[taken] = False
    kept = torch.tensor([moved.get(row, row) for row in range(300) if row not in media])
    hidden = torch.randn(200, 32, generator=generator)
    # The last looks away from all tokens: each scores below 0, where a row of zeros would win.
    states = torch.cat((hidden, -table[kept].mean(0, keepdim=True)))
    scores = states @ table[kept].T
    assert scores[-1].max() < 0
    margins = scores.max(1).values - (states @ table[free].T).max(1).values
    assert margins.min() > 0.5 * scores.std()


# --------------------------------------------------------------------------------------------- reading by others


def test_transformers_loads_the_original_layout_under_the_translated_names(oracle: Path) -> None:
    contents = read_original(oracle)
    loaded: Any = Phi4MultimodalForCausalLM.from_pretrained(
        oracle,
        config=Phi4MultimodalConfig(**contents.config),
        key_mapping=KEY_MAPPING,
        dtype=torch.bfloat16,
        output_loading_info=True,
    )
    network, report = loaded
    assert set(report["missing_keys"]) <= {"lm_head.weight"} and not report["mismatched_keys"]
    assert all(".lora_" in key for key in report["unexpected_keys"])
    state = network.state_dict()
    assert all(torch.equal(state[name], lazy.read()) for name, lazy in contents.weights().items())


def test_transformers_own_processor_reads_what_is_written(oracle: Path, tmp_path: Path) -> None:
    write_native(oracle, tmp_path / "native")
    processor = AutoProcessor.from_pretrained(tmp_path / "native")  # type: ignore[no-untyped-call]
    assert (processor.image_token, processor.audio_token) == ("<|image|>", "<|audio|>")
    prompt = processor.tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Help.", "tools": "[]"},
            {"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": "Hi"}]},
        ],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert prompt == "<|system|>Help.<|tool|>[]<|/tool|><|end|><|user|><|audio|>Hi<|end|><|assistant|>"
    assert processor.tokenizer("<|user|><|audio|>").input_ids == [200021, 200011]
