"""Loading takes every weight from its file or refuses; adapters do what merged weights would, and only when on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from oracle_model import write_oracle_model
from safetensors.torch import load_file, save_file
from tiny_model import KEY_MAPPING, LORA, write_adapter, write_tiny_model
from torch import Tensor
from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.convert import write_native
from phi4mm_cli.model.layout import EMBEDDINGS
from phi4mm_cli.model.loading import Model, load, open_contents
from phi4mm_cli.model.original import read_original
from phi4mm_cli.model.precision import choose_device, choose_dtype
from phi4mm_cli.model.tensors import PIECE, stored_in

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "model"))


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Model:
    return load(resolve(str(folder)), CPU, dtype)


def change_weights(folder: Path, name: str, change: Callable[[dict[str, Tensor]], object]) -> None:
    weights = load_file(folder / name)
    change(weights)
    save_file(weights, folder / name, metadata={"format": "pt"})


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop(NORM), "model are missing, such as model.norm.weight"),
        (lambda weights: weights.update(more=torch.ones(2)), "model are unexpected, such as more"),
        (lambda weights: weights.update({NORM: torch.ones(7)}), NORM),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    change_weights(folder, "model.safetensors", change)
    with pytest.raises(MissingError) as caught:
        opened(folder)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_an_output_layer_that_is_saved_though_it_is_tied(folder: Path) -> None:
    expected = logits(opened(folder))
    change_weights(folder, "model.safetensors", lambda w: w.update({"lm_head.weight": w[EMBEDDINGS].clone()}))
    assert torch.equal(logits(opened(folder)), expected)


@pytest.mark.parametrize("kept", [0, 4, 5000, -1])
def test_files_that_are_cut_short_are_refused(folder: Path, kept: int) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:kept])
    with pytest.raises(MissingError, match=r"model\.safetensors cannot be read"):
        opened(folder)


def test_a_file_that_shrinks_while_it_is_read_is_refused(folder: Path) -> None:
    contents = open_contents(resolve(str(folder)))
    last = max(contents.weights().values(), key=lambda stored: stored.start)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(MissingError, match="ends too early"):
        last.read()


# --------------------------------------------------------------------------- the same as transformers' own loading


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_oracle_model(tmp_path_factory.mktemp("oracle") / "original")


@pytest.mark.parametrize("layout", ["native", "original"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_number_is_what_transformers_loads(layout: str, dtype: torch.dtype, tiny: Path, original: Path) -> None:
    folder = original if layout == "original" else tiny
    config = Phi4MultimodalConfig(**read_original(original).config) if layout == "original" else None
    mapping = KEY_MAPPING if layout == "original" else None
    theirs = Phi4MultimodalForCausalLM.from_pretrained(folder, config=config, key_mapping=mapping, dtype=dtype)
    ours = opened(folder, dtype).network
    state = {name.replace(".base_layer.", "."): value for name, value in ours.state_dict().items()}
    state |= dict(ours.named_buffers())
    expected = theirs.state_dict() | dict(theirs.named_buffers())
    assert {name for name in state.keys() - expected.keys() if ".lora_" not in name} == set()
    for name, value in expected.items():
        assert value.dtype == state[name].dtype
        assert torch.equal(value, state[name]), name
    assert ours.lm_head.weight is ours.model.embed_tokens.weight
    assert not ours.training


def test_the_original_layout_is_the_converted_model(original: Path, tmp_path: Path) -> None:
    write_native(original, tmp_path / "native")
    models = [opened(original), opened(tmp_path / "native")]
    for name in (None, "speech", "vision"):
        for model in models:
            switch_adapter(model.network, name)
        assert torch.equal(*map(logits, models))
    for field in ("adapters", "end_tokens", "audio_token", "image_token", "context", "rope_switch", "unseen_tokens"):
        assert getattr(models[0], field) == getattr(models[1], field)
    assert models[0].adapters == {"speech", "vision"}
    assert (models[0].audio_token, models[0].end_tokens) == (200011, {199999, 200020})


def test_large_tensors_are_read_in_pieces(tmp_path: Path) -> None:
    numbers = torch.arange(3 * PIECE // 4, dtype=torch.int32).view(3, -1).bfloat16()
    save_file({"small": torch.ones(3, dtype=torch.bfloat16), "large": numbers}, tmp_path / "a.safetensors")
    stored = stored_in(tmp_path, ["a.safetensors"])["large"]
    heard: list[int] = []
    assert torch.equal(stored.load(CPU, torch.float32, heard.append), numbers.float())
    assert torch.equal(stored.read(), numbers)
    assert sum(heard) == stored.size and len(heard) > 1 and max(heard) == PIECE


def test_progress_of_loading(folder: Path) -> None:
    write_adapter(folder)
    heard: list[tuple[int, int]] = []
    load(resolve(str(folder)), CPU, torch.bfloat16, lambda done, total: heard.append((done, total)))
    size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    assert heard[-1][0] == heard[-1][1] == pytest.approx(size, rel=0.1)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_loading_says_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_adapter(folder)
    write_adapter(folder, name="vision")
    capfd.readouterr()
    opened(folder)
    assert capfd.readouterr() == ("", "")


def test_tokens_come_from_the_checkpoint(folder: Path) -> None:
    model = opened(folder)
    assert model.end_tokens == {0, 4}
    assert (model.image_token, model.audio_token) == (10, 11)
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')
    assert opened(folder).end_tokens == {7}


def test_control_tokens_in_texts_stay_text_however_they_are_marked(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(content))
    model = opened(folder)
    control = [token["content"] for token in content["added_tokens"]]
    ids = model.tokenizer.encode("".join(control), add_special_tokens=False).ids
    assert not {token["id"] for token in content["added_tokens"]} & set(ids)
    seen = {name for name in control if model.tokenizer.token_to_id(name) not in model.unseen_tokens}
    assert seen == {"<|tool_call|>", "<|/tool_call|>"}


# ------------------------------------------------------------------------------------------------------ adapters


def logits(model: Model) -> Tensor:
    with torch.inference_mode():
        return model.network(input_ids=torch.arange(20, 60)[None]).logits[0, -1]


def merged(folder: Path, added: dict[str, Tensor]) -> Tensor:
    """Logits of the bare model, the adapter in its weights."""
    for lora in folder.glob("*-lora"):
        shutil.rmtree(lora)
    change_weights(folder, "model.safetensors", lambda w: w.update({name: w[name] + added[name] for name in added}))
    return logits(opened(folder))


@pytest.mark.parametrize("prefix", ["", "base_model.model."])
def test_adapter_equals_merged_weights(folder: Path, prefix: str) -> None:
    bare = logits(opened(folder))
    added = write_adapter(folder, prefix)
    model = opened(folder)
    assert model.adapters == {"speech"}
    assert torch.equal(logits(model), bare)  # off until it is asked for
    switch_adapter(model.network, "speech")
    adapted = logits(model)
    switch_adapter(model.network, None)
    assert torch.equal(logits(model), bare)

    wanted = merged(folder, added)
    torch.testing.assert_close(adapted, wanted, rtol=0, atol=1e-4)
    assert (wanted - bare).abs().max() > 1


def test_of_two_adapters_one_is_at_work(folder: Path, tmp_path: Path) -> None:
    bare = logits(opened(folder))
    added = {name: write_adapter(folder, name=name) for name in LORA}
    model = opened(folder)
    assert model.adapters == LORA.keys()
    assert torch.equal(logits(model), bare)
    found = {}
    for name in ("vision", "speech", None, "vision", "speech"):
        switch_adapter(model.network, name)
        now = logits(model)
        assert torch.equal(now, found.setdefault(name, now))
    assert torch.equal(found[None], bare)
    for name in LORA:
        copy = shutil.copytree(folder, tmp_path / name)
        torch.testing.assert_close(found[name], merged(copy, added[name]), rtol=0, atol=1e-4)
    assert (found["vision"] - found["speech"]).abs().max() > 1


def test_adapter_takes_the_models_dtype(folder: Path) -> None:
    write_adapter(folder)
    model = opened(folder, torch.bfloat16)
    kinds = {parameter.dtype for name, parameter in model.network.named_parameters() if ".lora_" in name}
    assert kinds == {torch.bfloat16}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.popitem(),
        lambda tensors: tensors.update({"model.layers.9.mlp.down_proj.lora_A.weight": torch.ones(1)}),
        lambda tensors: tensors.update({name: torch.ones(1, 1) for name in [*tensors][:1]}),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_adapter_that_does_not_fit_is_refused(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    write_adapter(folder)
    change_weights(folder / "speech-lora", "adapter_model.safetensors", change)
    with pytest.raises(MissingError, match="speech-lora"):
        opened(folder)


# ----------------------------------------------------------------------------------------------------- precision


def test_devices_and_dtypes(folder: Path) -> None:
    free, demo = resolve(str(folder)), resolve("demo")
    assert choose_device("cpu") == CPU
    assert choose_dtype("auto", free, CPU) == torch.float32
    assert choose_dtype("bfloat16", free, CPU) == torch.bfloat16
    assert choose_dtype("auto", free, CPU, lambda dtype: dtype != torch.float32) == torch.bfloat16
    assert choose_dtype("auto", demo, torch.device("cuda")) == torch.float32  # the demo's own wish
    for device in ("gpu", "xla"):
        with pytest.raises(UsageError, match=device):
            choose_device(device)
    with pytest.raises(UsageError, match="int3"):
        choose_dtype("int3", free, CPU)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu() -> None:
    with pytest.raises(MissingError, match="no CUDA device"):
        choose_device("cuda:0")
