"""Which attention kernel is taken where, what is refused, and that the kernels agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import Phi4mm
from test_local_engine import ASK, SENTENCES, answers, request, saved
from tiny_model import write_adapter, write_tiny_model

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MissingError, Phi4Error, UsageError
from phi4mm_cli.model import precision
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.precision import choose_attention
from phi4mm_cli.schema import Result

CPU, GPU, APPLE = torch.device("cpu"), torch.device("cuda", 0), torch.device("mps")
HALF, WHOLE = torch.float16, torch.float32
V100, A100 = (7, 0), (8, 0)


def machine(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], installed: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(precision, "find_spec", lambda name: object() if installed and name == "flash_attn" else None)


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "gpu", "installed", "taken"),
    [
        ("auto", CPU, WHOLE, A100, True, "sdpa"),
        ("auto", APPLE, HALF, A100, True, "sdpa"),
        ("auto", GPU, torch.bfloat16, A100, True, "flash"),
        ("auto", GPU, HALF, A100, True, "flash"),
        ("auto", GPU, torch.bfloat16, A100, False, "sdpa"),
        ("auto", GPU, WHOLE, A100, True, "sdpa"),
        ("auto", GPU, HALF, V100, True, "eager"),
        ("auto", GPU, WHOLE, V100, False, "eager"),
        ("sdpa", GPU, HALF, V100, True, "sdpa"),
        ("eager", CPU, WHOLE, A100, True, "eager"),
        ("flash", GPU, HALF, A100, True, "flash"),
    ],
)
def test_what_is_taken(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: torch.device,
    dtype: torch.dtype,
    gpu: tuple[int, int],
    installed: bool,
    taken: str,
) -> None:
    machine(monkeypatch, gpu, installed)
    assert choose_attention(asked, device, dtype) == taken


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "gpu", "installed", "error", "words"),
    [
        ("flash", CPU, WHOLE, A100, True, UsageError, "not for cpu"),
        ("flash", GPU, HALF, V100, True, UsageError, "GPUs from Ampere on"),
        ("flash", GPU, WHOLE, A100, True, UsageError, "not in float32"),
        ("flash", GPU, HALF, A100, False, MissingError, r"pip install 'phi4mm\[flash-attn\]'"),
        ("magic", CPU, WHOLE, A100, True, UsageError, "Use auto, flash, sdpa, eager"),
    ],
)
def test_what_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    asked: str,
    device: torch.device,
    dtype: torch.dtype,
    gpu: tuple[int, int],
    installed: bool,
    error: type[Phi4Error],
    words: str,
) -> None:
    machine(monkeypatch, gpu, installed)
    with pytest.raises(error, match=words):
        choose_attention(asked, device, dtype)


def test_kernels_give_the_same_tokens(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    write_adapter(folder)
    clip = saved(tmp_path / "a.wav", SENTENCES[0])
    asked = [request(clip, ASK, budget=12), request("a b c", budget=12), request("d " * 70, budget=12)]
    found = {}
    for kernel in ("sdpa", "eager"):
        with LocalEngine(resolve(str(folder)), device="cpu", attention=kernel) as engine:
            found[kernel] = answers(engine, *asked)
            config = engine._loaded().network.config
            for part in (config, config.vision_config, config.audio_config):
                assert part._attn_implementation == kernel
            assert engine.info.attention == kernel
    assert found["eager"] == found["sdpa"]
    assert all(isinstance(one, Result) and len(one.tokens) > 3 for one in found["sdpa"].values())


def test_through_the_program(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", SAMPLES / "meeting.flac", "-m", "demo", "--attn", "flash", "--device", "cpu", "-q")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == (
        "phi4mm: error: --attn flash is for GPUs from Ampere on, not for cpu. Leave --attn out, or use --attn sdpa\n"
    )
