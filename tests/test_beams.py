"""Beam search: the answers of transformers' own, on either side of the LongRoPE switch and across it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from prompts import prompt, transformers_tokens
from tiny_model import SWITCH

from phi4mm_cli.model import generate
from phi4mm_cli.model.composing import Prompt, rope_side
from phi4mm_cli.model.loading import Model


def answer(model: Model, asked: Prompt) -> list[int]:
    [result] = generate.generate(model, [asked])
    return list(result.tokens)


def of_transformers(model: Model, asked: Prompt, **settings: Any) -> list[int]:
    crossing = rope_side(model, asked) == "crossing"
    # Without a cache where it would lose the context.
    return transformers_tokens(model, asked, not crossing, num_beams=asked.sampling.num_beams, **settings)


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize(("words", "frames", "budget"), [(5, None, 12), (3, 200, 20), (80, None, 15), (52, None, 30)])
def test_answers_are_those_of_transformers(
    tiny: Model, words: int, frames: int | None, budget: int, beams: int
) -> None:
    asked = prompt(tiny, words, frames, budget, num_beams=beams)
    found = answer(tiny, asked)
    assert found == of_transformers(tiny, asked)
    if words == 52:
        assert rope_side(tiny, asked) == "crossing"
        assert len(asked.ids) + len(found) > SWITCH + 5


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}], ids=str)
def test_penalties_are_those_of_transformers(tiny: Model, settings: dict[str, Any]) -> None:
    asked = prompt(tiny, 6, 100, 20, num_beams=3, **settings)
    assert answer(tiny, asked) == of_transformers(tiny, asked, **settings)


def test_answers_that_end_are_those_of_transformers(demo: Model) -> None:
    """The demo ends its answers: those that have ended compete with those that go on."""
    lengths = set()
    for words, frames in ((4, 120), (2, 60), (1, 250), (6, None)):
        for beams in (2, 4):
            asked = prompt(demo, words, frames, 40, num_beams=beams)
            found = answer(demo, asked)
            assert found == of_transformers(demo, asked)
            lengths.add(len(found))
    assert len(lengths) > 1
    assert min(lengths) < 30


def score(model: Model, asked: Prompt, tokens: list[int]) -> float:
    """The mean log-probability of an answer, computed in one go."""
    with torch.inference_mode():
        logits = model.network(torch.tensor([[*asked.ids, *tokens]])).logits[0].float().log_softmax(-1)
    start = len(asked.ids) - 1
    return float(logits[range(start, start + len(tokens)), tokens].mean())


def test_more_beams_find_better_answers(tiny: Model) -> None:
    better = 0
    for words in range(70, 76):  # beyond the switch, so that all is computed with the same angles
        asked = prompt(tiny, words, budget=8)
        wide = replace(asked, sampling=replace(asked.sampling, num_beams=6))
        better += score(tiny, wide, answer(tiny, wide)) > score(tiny, asked, answer(tiny, asked)) + 1e-4
    assert better >= 4


def test_the_answer_is_streamed_at_its_end(tiny: Model) -> None:
    asked = prompt(tiny, 6, 100, 20, num_beams=3)
    pieces, answer = [], generate.stream(tiny, asked)
    while True:
        try:
            pieces.append(next(answer))
        except StopIteration as end:
            assert [end.value] == generate.generate(tiny, [asked])
            assert "".join(pieces) == end.value.text
            return
