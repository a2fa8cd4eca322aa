"""How tokens are chosen: by transformers' definitions, and of every row alone."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from prompts import CLIP, END, USER, prompt, sound, transformers_tokens
from tiny_model import SWITCH
from torch import Tensor

from phi4mm_cli.model import generate
from phi4mm_cli.model.composing import Prompt, compose, rope_side
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.sampling import Chooser
from phi4mm_cli.schema import Sampling

NONE = torch.tensor([], dtype=torch.long)


def answer(model: Model, asked: Prompt) -> list[int]:
    [result] = generate.generate(model, [asked])
    return list(result.tokens)


# -------------------------------------------------------------------------------------------------- no chance

PENALTIES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.8},
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.1, "no_repeat_ngram_size": 3},
]


@pytest.mark.parametrize("settings", PENALTIES, ids=str)
@pytest.mark.parametrize(("words", "frames"), [(5, None), (3, 100), (70, 200), (50, None)])
def test_penalties_are_those_of_transformers(tiny: Model, words: int, frames: int | None, settings: Any) -> None:
    asked = prompt(tiny, words, frames, budget=24, **settings)
    crossing = rope_side(tiny, asked) == "crossing"
    assert crossing == (words == 50)
    assert answer(tiny, asked) == transformers_tokens(tiny, asked, use_cache=not crossing, **settings)
    if settings != PENALTIES[1]:
        assert answer(tiny, asked) != answer(tiny, prompt(tiny, words, frames, budget=24))


def test_media_tokens_are_not_repetitions(tiny: Model) -> None:
    """A clip is hundreds of equal tokens: no rule may fall over them, and none changes for them."""
    asked = prompt(tiny, 3, 800, budget=12, no_repeat_ngram_size=1, repetition_penalty=1.2)
    assert asked.ids.count(tiny.audio_token) == 100
    tokens = answer(tiny, asked)
    assert len({*tokens}) == len(tokens) == 12
    assert not {*tokens} & {*asked.ids}


def test_chance_of_probability_nothing_is_greedy(tiny: Model) -> None:
    greedy = answer(tiny, prompt(tiny, 5, 100, budget=24))
    assert answer(tiny, prompt(tiny, 5, 100, budget=24, temperature=1.0, top_p=1e-9)) == greedy
    assert answer(tiny, prompt(tiny, 5, 100, budget=24, temperature=1e-4)) == greedy
    assert answer(tiny, prompt(tiny, 5, 100, budget=24, top_p=0.5, seed=7)) == greedy


# ------------------------------------------------------------------------------------------------------- chance


def drawn(logits: Tensor, count: int, **settings: Any) -> Counter[int]:
    chooser = Chooser(Sampling(1, **settings), [0], NONE)
    return Counter(int(chooser.next(logits)) for _ in range(count))


def test_tokens_come_as_often_as_they_are_probable() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0, -torch.inf])
    for temperature in (0.5, 1.0, 2.0):
        found = drawn(logits, 2000, temperature=temperature)
        for token, probability in enumerate((logits / temperature).softmax(-1).tolist()):
            assert found[token] == pytest.approx(2000 * probability, abs=4 * math.sqrt(500))
        assert found[4] == 0


def test_the_fewest_best_tokens_that_make_up_top_p() -> None:
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()
    assert {*drawn(logits, 300, temperature=1.0, top_p=0.65)} == {1, 3}
    assert {*drawn(logits, 300, temperature=1.0, top_p=0.75)} == {1, 3, 2}
    assert {*drawn(logits, 300, temperature=1.0, top_p=1e-6)} == {1}  # one is always left
    assert {*drawn(logits, 300, temperature=0.2, top_p=0.65)} == {1}  # the temperature comes first


def test_draws_do_not_hang_on_the_last_digits() -> None:
    """Two tokens are even, and rounding decides which of them top-p leaves out: who draws another is as before."""
    logits = torch.linspace(4, 0, 400)
    last = int((logits.softmax(-1).cumsum(-1) < 0.8).sum())
    logits[last] = logits[last + 1]
    places = torch.randperm(400, generator=torch.Generator().manual_seed(0))
    rounded = []
    for place in (last, last + 1):
        changed = logits.clone()
        changed[place] += 1e-6
        rounded.append(changed[places])
    settings = [Sampling(1, temperature=1.0, top_p=0.8, seed=n) for n in range(200)]
    found = [[int(Chooser(own, [0], NONE).next(one)) for one in rounded] for own in settings]
    assert len({one for one, _ in found}) > 80
    assert sum(one != other for one, other in found) <= 2


def test_temperature_and_top_p_reach_the_model(tiny: Model) -> None:
    """The probabilities drawn from are those of transformers' own sampling of the same prompt."""
    asked = prompt(tiny, 5, budget=1, temperature=0.7, top_p=0.8, repetition_penalty=1.2)
    counts = Counter(answer(tiny, replace(asked, sampling=replace(asked.sampling, seed=n)))[0] for n in range(200))
    output = tiny.network.generate(
        torch.tensor([asked.ids]),
        max_new_tokens=1,
        do_sample=True,
        temperature=0.7,
        top_p=0.8,
        top_k=0,
        repetition_penalty=1.2,
        suppress_tokens=[tiny.audio_token, tiny.image_token],
        output_scores=True,
        return_dict_in_generate=True,
    )
    wanted = output.scores[0][0].softmax(-1)
    assert {*counts} <= {*wanted.nonzero()[:, 0].tolist()}
    for token in wanted.topk(5).indices.tolist():
        assert counts[token] == pytest.approx(200 * float(wanted[token]), abs=4 * math.sqrt(50))


def test_seeds_and_prompts_make_the_difference(tiny: Model) -> None:
    tokens = {n: answer(tiny, prompt(tiny, 5, budget=20, temperature=1.0, seed=n)) for n in range(3)}
    assert len({*map(tuple, tokens.values())}) == 3
    assert answer(tiny, prompt(tiny, 5, budget=20, temperature=1.0, seed=1)) == tokens[1]
    assert answer(tiny, prompt(tiny, 5, budget=9, temperature=1.0, seed=1)) == tokens[1][:9]
    assert answer(tiny, prompt(tiny, 5, budget=20, temperature=1.0)) == tokens[0]


def test_rows_are_chosen_for_as_each_alone(tiny: Model) -> None:
    settings = [{}, *PENALTIES, *({"temperature": 0.9, "top_p": 0.9, "seed": n} for n in range(4))]
    asked = [prompt(tiny, 2 + n, 20 * n or None, 6 + 3 * n, **own) for n, own in enumerate(settings)]
    assert all(rope_side(tiny, one) == "short" for one in asked)
    alone = [generate.generate(tiny, [one])[0] for one in asked]
    for seed in range(6):
        order = random.Random(seed).sample(range(len(asked)), k=3 + seed)
        assert generate.generate(tiny, [asked[i] for i in order]) == [alone[i] for i in order]


def test_a_drawn_answer_may_cross_the_longrope_switch(tiny: Model) -> None:
    """It is the one that the same draws make of logits that are computed anew for every token."""
    asked = prompt(tiny, 50, budget=40, temperature=0.8, top_p=0.9, seed=3)
    assert rope_side(tiny, asked) == "crossing"
    banned = torch.tensor([tiny.audio_token, tiny.image_token])
    chooser, ids = Chooser(asked.sampling, asked.ids, banned), list(asked.ids)
    with torch.inference_mode():
        for _ in range(40):
            ids.append(int(chooser.next(tiny.network(torch.tensor([ids])).logits[0, -1])))
            if ids[-1] in tiny.end_tokens:
                break
    assert len(ids) > SWITCH + 5
    assert answer(tiny, asked) == [token for token in ids[len(asked.ids) :] if token not in tiny.end_tokens]


# --------------------------------------------------------------------------------------------------------- ends


def test_what_ended_an_answer(tiny: Model, tmp_path: Path) -> None:
    cut = compose(tiny, [USER, "a", END], [], Sampling(5))
    assert generate.generate(tiny, [cut])[0].finish == "length"
    small = replace(tiny, context=len(cut.ids) + 3)
    full = compose(small, [USER, "a", END], [], Sampling(5))
    [result] = generate.generate(small, [full])
    assert (len(result.tokens), result.finish) == (4, "context")  # the last is not read any more
    exact = compose(small, [USER, "a", END], [], Sampling(4))
    assert generate.generate(small, [exact])[0].finish == "length"


def test_drawn_answers_are_streamed(tiny: Model) -> None:
    asked = compose(tiny, [USER, CLIP, "a", END], [sound(50)], Sampling(30, temperature=1.0, seed=5))
    pieces, answer = [], generate.stream(tiny, asked)
    while True:
        try:
            pieces.append(next(answer))
        except StopIteration as end:
            assert [end.value] == generate.generate(tiny, [asked])
            assert "".join(pieces) == end.value.text
            break
    assert len(pieces) > 10
