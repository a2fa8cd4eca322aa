"""Quantized models: what is stored small and what is not, how near the answers are, and what they take of memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import Phi4mm
from jsonschema import Draft202012Validator
from test_local_engine import ASK, SENTENCES, answers, request, result, saved
from tiny_model import write_adapter, write_tiny_model
from torch import Tensor

from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.demo.voice import speak
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model import memory, quantize
from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.loading import Model, assemble, open_contents
from phi4mm_cli.model.quantize import BYTES, is_quantized, quantized

CPU = torch.device("cpu")
ERROR = {"int8": 0.01, "int4": 0.12}  # of a layer's output, to its size


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    for name in ("speech", "vision"):
        write_adapter(folder, name=name)
    return folder


def loaded(folder: Path, kind: str | None = None, dtype: torch.dtype = torch.float32) -> Model:
    checkpoint = resolve(str(folder))
    return assemble(checkpoint, open_contents(checkpoint), CPU, dtype, lambda done, total: None, quantize=kind)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", BYTES)
def test_a_layer_is_near_the_one_that_it_is_made_of(kind: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = (torch.randn(192, 320, generator=generator) / 18).to(dtype)
    inputs = torch.randn(3, 5, 320, generator=generator).to(dtype)
    layer = quantized(weight, kind)
    with torch.inference_mode():
        found, exact = layer(inputs), inputs.float() @ weight.float().T
    assert found.dtype == dtype
    assert 0 < (found.float() - exact).norm() / exact.norm() < ERROR[kind] + (dtype == torch.bfloat16) * 0.004
    assert layer.weight.untyped_storage().nbytes() == pytest.approx(weight.numel() * BYTES[kind], rel=0.05)


@pytest.mark.parametrize("kind", BYTES)
def test_only_the_decoders_linear_layers_are_stored_small(tiny: Path, kind: str) -> None:
    full, small = loaded(tiny).network.state_dict(), loaded(tiny, kind).network.state_dict()
    changed = [
        name for name in full if not (full[name].shape == small[name].shape and bool((full[name] == small[name]).all()))
    ]
    assert {name.replace(".base_layer", "") for name in changed} == {name for name in plain(full) if is_quantized(name)}
    assert len(changed) == 2 * 4  # layers, and their projections
    assert all(small[name].dtype == (torch.int8 if kind == "int8" else torch.uint8) for name in changed)


def plain(state: dict[str, Tensor]) -> set[str]:
    return {name.replace(".base_layer", "") for name in state}


def logits(model: Model) -> Tensor:
    with torch.inference_mode():
        output: Tensor = model.network(input_ids=torch.arange(20, 60)[None]).logits[0, -1]
    return output


@pytest.mark.parametrize("kind", BYTES)
def test_adapters_work_on_top_and_leave_no_trace(tiny: Path, kind: str) -> None:
    rounded, small = loaded(tiny), loaded(tiny, kind)
    exact = logits(rounded)
    for name, layer in small.network.named_modules():
        if is_quantized(f"{name}.weight"):  # give the other model what the small weights stand for
            base = layer.base_layer
            rounded.network.get_submodule(name).base_layer.weight.data = base(torch.eye(base.in_features)).T
    seen: dict[str | None, Tensor] = {}
    for name in (None, "speech", None, "vision", "speech", None):
        for model in (rounded, small):
            switch_adapter(model.network, name)
        assert torch.equal(logits(small), seen.setdefault(name, logits(small)))
        torch.testing.assert_close(logits(small), logits(rounded), rtol=0, atol=1e-3)
    assert (seen["speech"] - seen[None]).abs().max() > 1
    assert (exact - seen[None]).abs().max() > 0.01


@pytest.mark.parametrize("kind", BYTES)
def test_the_same_tokens_alone_and_in_a_batch(tiny: Path, tmp_path: Path, kind: str) -> None:
    whole = saved(tmp_path / "a.wav", *SENTENCES[:2])
    texts = ["a", "b c d", "e " * 20, "f " * 70, "g h"]
    asked = [request(text, budget=12) for text in texts] + [request(whole, ASK, budget=12), request(whole, budget=12)]
    found = []
    for size in (1, 8):
        with LocalEngine(resolve(str(tiny)), device="cpu", batch_size=size, quantize=kind) as engine:
            found.append(answers(engine, *asked))
            assert (engine.info.quantize, engine.info.dtype) == (kind, "float32")
    assert found[0] == found[1]
    assert len({result(one).tokens for one in found[0].values()}) == len(asked)


@pytest.mark.parametrize("kind", BYTES)
def test_the_forecast_is_what_it_takes(kind: str) -> None:
    checkpoint = resolve("demo")
    contents = open_contents(checkpoint)
    seen = {}
    for bits in (None, kind):
        network = loaded(checkpoint.path, bits).network
        numbers = {id(t): t.untyped_storage().nbytes() for t in (*network.parameters(), *network.buffers())}
        for module in network.modules():  # what bitsandbytes keeps beside the weights
            state = getattr(getattr(module, "weight", None), "quant_state", None)
            if state is not None:
                scales = (state.absmax, state.state2.absmax)
                numbers |= {id(scale): scale.untyped_storage().nbytes() for scale in scales}
        seen[bits] = sum(numbers.values())
    largest = max(t.count for (owner, name), t in contents.tensors.items() if is_quantized(name))
    saved = memory.needed(contents, torch.float32) - memory.needed(contents, torch.float32, kind) + 4 * largest
    assert seen[None] - seen[kind] == pytest.approx(saved, rel=0.02)
    assert saved > 0.15 * seen[None]


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tiny: Path) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"pip install 'phi4mm\[quantize\]'"):
        loaded(tiny, "int4")
    with pytest.raises(UsageError, match="Use int8 or int4"):
        loaded(tiny, "int3")


def test_through_the_program(phi4mm: Phi4mm, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speak(SENTENCES[0], sample_rate=16000).samples, 16000)
    run = phi4mm("transcribe", "a.wav", "-m", "demo", "--quantize", "int4", "--jsonl", "-v", "--device", "cpu")
    assert run.returncode == 0, run.stderr
    written = json.loads(run.stdout)
    Draft202012Validator(json_schema()).validate(written)
    assert written["text"] == SENTENCES[0]
    assert (written["model"]["quantize"], written["model"]["attention"]) == ("int4", "sdpa")
    assert "phi4mm: demo runs on cpu in float32 and int4 with sdpa attention, at most 16 clips at once\n" in run.stderr
