"""Answers piece by piece: each as soon as its tokens are there, and nothing is left of one that is broken off."""

from __future__ import annotations

import gc
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import write_tiny_model
from torch import Tensor
from transformers import DynamicCache

from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Clip, Message, Request, Result, Sampling


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    with LocalEngine(resolve(str(folder)), device="cpu") as opened:
        yield opened


@pytest.fixture
def steps(engine: LocalEngine) -> Iterator[list[int]]:
    """How many rows were in the network at each of its steps."""
    seen: list[int] = []
    network = engine._loaded().network
    hook = network.lm_head.register_forward_hook(lambda layer, inputs, logits: seen.append(len(logits)))
    yield seen
    hook.remove()


def asked(text: str, budget: int = 30, temperature: float = 0.0) -> Request:
    return Request((Message("user", (text,)),), Sampling(budget, temperature=temperature))


def answered(engine: LocalEngine, request: Request) -> Result:
    engine.submit(request)
    [(_, result)] = engine.poll()
    assert isinstance(result, Result)
    return result


def caches() -> int:
    gc.collect()
    return sum(type(item) is DynamicCache for item in gc.get_objects())


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("words", [2, 50, 80])  # short of the LongRoPE switch, across it, beyond it
def test_pieces_come_while_the_answer_is_written(
    engine: LocalEngine, steps: list[int], words: int, temperature: float
) -> None:
    request = asked("a b " * (words // 2), temperature=temperature)
    answer, pieces, steps_before = engine.stream(request), [], []
    while True:
        try:
            pieces.append(next(answer))
        except StopIteration as end:
            result = end.value
            break
        steps_before.append(len(steps))
    assert "".join(pieces) == result.text
    assert steps_before == sorted({*steps_before})  # every piece needed another step, and no piece waited for one more
    assert steps_before[0] <= 5
    assert len(pieces) > 10
    assert answered(engine, request) == result


def test_a_closed_answer_takes_no_more_steps_and_one_cache_is_kept(engine: LocalEngine, steps: list[int]) -> None:
    engine._forget()
    before = caches()
    request = asked("a b c d", budget=200)
    answer = engine.stream(request)
    for _ in range(3):
        next(answer)
    assert caches() == before + 1
    answer.close()
    assert caches() == before + 1
    taken = len(steps)
    assert taken < 20
    with pytest.raises(StopIteration):
        next(answer)
    assert len(steps) == taken
    assert not torch.is_inference_mode_enabled()
    broken_off = engine.stream(request)
    next(broken_off)
    del broken_off  # as when a chat is left
    assert caches() == before + 1
    assert answered(engine, request).text.startswith(next(engine.stream(request)))
    assert caches() == before + 1
    assert engine._forget()
    assert caches() == before


def scripted(engine: LocalEngine, script: list[int]) -> Generator[str, None, Result]:
    """A stream of the answer that these tokens are."""
    left = [*script]

    def write(layer: torch.nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        return torch.zeros_like(logits).index_fill(2, torch.tensor([left.pop(0)]), 1.0)

    hook = engine._loaded().network.lm_head.register_forward_hook(write)
    try:
        return (yield from engine.stream(asked("a", budget=len(script))))
    finally:
        hook.remove()


def test_tool_calls_are_streamed_with_their_markers(engine: LocalEngine) -> None:
    tokenizer = engine._loaded().tokenizer
    call, call_end, end = (tokenizer.token_to_id(f"<|{name}|>") for name in ("tool_call", "/tool_call", "end"))
    words = tokenizer.encode('[{"name": "rain", "arguments": {"city": "Paris"}}]').ids
    stream, pieces = scripted(engine, [call, *words, call_end, end]), []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as stop:
            result = stop.value
            break
    assert pieces[0] == "<|tool_call|>"
    assert pieces[-1] == "<|/tool_call|>"
    assert "".join(pieces) == result.text
    assert result.text == '<|tool_call|>[{"name": "rain", "arguments": {"city": "Paris"}}]<|/tool_call|>'
    assert result.finish == "stop"
    assert len(words) * 0.8 < len(pieces) <= len(words) + 2  # white space waits for what follows


def test_other_requests_are_answered_between_the_pieces(tiny_folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(16000), 16000)
    clip = Clip(audio.source(tmp_path / "a.wav"), 0.0, 1.0)
    heard, written = Request((Message("user", (clip,)),), Sampling(12)), asked("a b", 4)
    with LocalEngine(resolve(str(tiny_folder)), device="cpu") as engine:
        alone = answered(engine, heard), answered(engine, written)
        answer, between = engine.stream(heard), []  # with the speech adapter, which the others do without
        while True:
            try:
                next(answer)
            except StopIteration as end:
                result = end.value
                break
            between.append(answered(engine, written))
        assert result == alone[0]
        assert len(between) > 5
        assert {*between} == {alone[1]}
