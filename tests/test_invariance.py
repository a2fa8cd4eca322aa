"""Every request gets the tokens that it gets alone: in any batch, at any place in it, beside any others.

In float32, over random mixes of text, sound, pictures and both, on both sides of the LongRoPE switch and across it. Two
ways to add up the same numbers differ in their last digits, so that where the two best tokens are nearly even, either
may come: a difference there is counted, and not judged.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny_model import SWITCH
from torch import Tensor

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Result, Sampling, Source

NEARLY_EVEN = 1e-4  # between the two best logits
SECONDS = (0.1, 0.3, 0.7, 1.5, 2.5, 3.0, 3.5, 4.0, 5.0, 9.0, 17.0, 30.0, 39.9, 40.1, 55.0, 90.0)
SIZES = ((448, 448), (300, 200), (40, 400), (500, 500), (640, 480), (900, 300))
WORDS = (
    "the",
    "meeting",
    "starts",
    "at",
    "six",
    "on",
    "Friday",
    "please",
    "send",
    "budget",
    "to",
    "Nina",
    "a",
    "yellow",
)
KINDS = ("text", "sound", "picture", "pictures", "both")
SETTINGS: tuple[dict[str, Any], ...] = (
    *({},) * 6,
    {"repetition_penalty": 1.2},
    {"no_repeat_ngram_size": 2},
    {"temperature": 0.8, "top_p": 0.9},
    {"num_beams": 2},
)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Two minutes of words."""
    chance, parts, size = random.Random(0), [], 0
    while size < 120 * 16000:
        parts.append(speak(" ".join(chance.choices(WORDS, k=6)), seed=len(parts)).samples)
        size += len(parts[-1])
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    soundfile.write(path, np.concatenate(parts)[: 120 * 16000], 16000)
    return audio.source(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Noise in large grains, in several sizes."""
    folder, made = tmp_path_factory.mktemp("pictures"), []
    for number, size in enumerate(SIZES):
        grains = np.random.default_rng(number).integers(0, 256, (3 + number, 5, 3), dtype=np.uint8)
        Image.fromarray(grains).resize(size, Image.Resampling.NEAREST).save(folder / f"{number}.png")
        made.append(Picture(audio.source(folder / f"{number}.png")))
    return made


def mix(
    chance: random.Random, count: int, speech: Source, pictures: list[Picture], kinds: Sequence[str]
) -> set[Request]:
    """`count` random requests; half of the sounds and texts are near the switch of the tiny model."""

    def clip() -> Clip:
        seconds = chance.choice(SECONDS)
        start = round(chance.uniform(0, 120 - seconds), 2)
        return Clip(speech, start, start + seconds)

    def parts(kind: str) -> Iterable[Part]:
        if kind in ("picture", "both"):
            yield chance.choice(pictures)
        if kind == "pictures":
            yield from chance.sample(pictures[:4], k=2)
        if kind in ("sound", "both"):
            yield from (clip() for _ in range(chance.choice((1, 1, 1, 2))))
        yield " ".join(chance.choices(WORDS, k=chance.choice((2, 20, 45, 55, 90)) if kind == "text" else 4))

    made: set[Request] = set()
    while len(made) < count:
        sampling = Sampling(chance.choice((1, 5, 12, 30)), **chance.choice(SETTINGS))
        made.add(Request((Message("user", tuple(parts(chance.choice(kinds)))),), sampling))
    return made


def answers(folder: str, requests: Iterable[Request], batch_size: int) -> tuple[dict[str, Result], Counter[int]]:
    """The results by key, and how many batches there were of each size."""
    found: dict[str, Result] = {}
    sizes: Counter[int] = Counter()
    with LocalEngine(resolve(folder), device="cpu", batch_size=batch_size) as engine:
        for request in requests:
            engine.submit(request)
        while outcomes := engine.poll():
            sizes[len(outcomes)] += 1
            for key, outcome in outcomes:
                assert isinstance(outcome, Result), outcome
                found[key] = outcome
    return found, sizes


def margin(folder: str, request: Request, step: int) -> float:
    """By how much the best logit of a step leads, for the request alone."""
    seen: list[Tensor] = []
    with LocalEngine(resolve(folder), device="cpu") as engine:
        model = engine._loaded()
        hook = model.network.lm_head.register_forward_hook(lambda layer, inputs, output: seen.append(output[0, -1]))
        engine.submit(request)
        engine.poll()
        hook.remove()
        logits = seen[step].index_fill(0, torch.tensor([model.audio_token, model.image_token]), -torch.inf)
    best, second = logits.topk(2).values.tolist()
    return float(best - second)


def compare(
    folder: str, requests: Iterable[Request], batch_sizes: Iterable[int], chance: random.Random
) -> Counter[str]:
    """Hold all answers in batches against those alone; what was met, by name."""
    by_key = {request.key: request for request in requests}
    alone, sizes = answers(folder, by_key.values(), 1)
    assert set(sizes) == {1}
    met: Counter[str] = Counter(tokens=sum(len(result.tokens) for result in alone.values()))
    for result in alone.values():
        end = result.prompt_tokens + len(result.tokens) - 1
        met["short" if end <= SWITCH else "long" if result.prompt_tokens > SWITCH else "crossing"] += 1
    for batch_size in batch_sizes:
        order = chance.sample([*by_key.values()], k=len(by_key))
        together, sizes = answers(folder, order, batch_size)
        met["rows in batches"] += sum(size * count for size, count in sizes.items() if size > 1)
        for key, result in together.items():
            if result == alone[key]:
                continue
            pairs = zip(result.tokens, alone[key].tokens, strict=False)
            step = next(
                (i for i, (ours, own) in enumerate(pairs) if ours != own),
                min(map(len, (result.tokens, alone[key].tokens))),
            )
            lead = margin(folder, by_key[key], step)
            assert lead < NEARLY_EVEN, f"{by_key[key]} differs at step {step}, where the best token leads by {lead}"
            met["nearly even"] += 1
    return met


def test_mixes_on_both_sides_of_the_switch(tiny_folder: Path, speech: Source, pictures: list[Picture]) -> None:
    chance = random.Random(1)
    asked = mix(chance, 24, speech, pictures, KINDS) | mix(chance, 16, speech, pictures, ("text", "sound"))
    met = compare(str(tiny_folder), asked, (3, 16), chance)
    assert min(met["short"], met["long"], met["crossing"]) >= 4
    assert met["rows in batches"] > len(asked)
    assert met["nearly even"] <= 1


def test_mixes_on_the_demo(speech: Source, pictures: list[Picture]) -> None:
    chance = random.Random(2)
    met = compare("demo", mix(chance, 16, speech, pictures, KINDS), (4, 16), chance)
    assert met["rows in batches"] > 16
    assert met["nearly even"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["tiny", "demo"])
def test_more_mixes(name: str, seed: int, tiny_folder: Path, speech: Source, pictures: list[Picture]) -> None:
    folder = "demo" if name == "demo" else str(tiny_folder)
    chance = random.Random(100 + seed)
    asked = mix(chance, 60, speech, pictures, KINDS) | mix(chance, 40, speech, pictures, KINDS[:2])
    met = compare(folder, asked, (2, 3, 7, 16, 40), chance)
    assert min(met["short"], met["long"]) >= 10
    assert met["nearly even"] <= 3
