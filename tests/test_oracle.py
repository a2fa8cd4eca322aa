"""The model's original code and this program, on the same weights in the original layout: same embeddings, same logits,
same answers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from oracle_media import image, waveform
from oracle_model import ANSWERS, write_oracle_model
from PIL import Image
from torch import Tensor

from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.composing import Prompt, compose
from phi4mm_cli.model.convert import write_native
from phi4mm_cli.model.encoder import embed_audio
from phi4mm_cli.model.features import log_mel
from phi4mm_cli.model.generate import generate
from phi4mm_cli.model.loading import Model, load
from phi4mm_cli.model.pixels import Crops, pixels
from phi4mm_cli.model.vision import embed_pictures
from phi4mm_cli.prompt import Marker, Piece
from phi4mm_cli.schema import Clip, Picture, Sampling, Source

CASES: dict[str, dict[str, Any]] = ANSWERS["cases"]
STEPS = 12
FILE = Source("a", 1, "f")
MEDIA: dict[str, Piece] = {"audio": Clip(FILE, 0.0, 1.0), "image": Picture(FILE)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("oracle")
    write_native(write_oracle_model(folder / "original"), folder / "native")
    return load(resolve(str(folder / "native")), torch.device("cpu"), torch.float32)


def audio(answer: dict[str, Any]) -> Tensor:
    samples = waveform(answer["seconds"], answer["variant"])
    assert zlib.crc32(samples.astype("<i2").tobytes()) == answer["samples_crc32"]
    return log_mel((samples / 32768).astype(np.float32), 16000)


def picture(answer: dict[str, Any]) -> Crops:
    rgb = image(answer["width"], answer["height"])
    assert zlib.crc32(rgb.tobytes()) == answer["pixels_crc32"]
    return pixels(Image.fromarray(rgb))


def pieces(prompt: str) -> Iterator[Piece]:
    for part in re.split(r"(<\|\w+\|>)", prompt):
        if medium := re.fullmatch(r"<\|(audio|image)_\d\|>", part):
            yield MEDIA[medium[1]]
        elif part:
            yield Marker(part) if part.startswith("<|") else part


def prompts(model: Model, case: dict[str, Any]) -> list[Prompt]:
    media: list[Tensor | Crops] = [picture(case["image"])] if "image" in case else []
    media += [audio(answer) for answer in case.get("audios", ())]
    rows = case["rows"]
    shares = [media] if len(rows) == 1 else [[medium] for medium in media]
    return [
        compose(model, pieces(row["prompt"]), share, Sampling(STEPS)) for row, share in zip(rows, shares, strict=True)
    ]


def ids(row: dict[str, Any]) -> tuple[int, ...]:
    """A run of one token is written as [token, count]."""
    runs = [run if isinstance(run, list) else [run, 1] for run in row["ids"]]
    return tuple(token for token, count in runs for _ in range(count))


@pytest.mark.parametrize("name", CASES)
def test_logits_and_answers_are_the_originals(model: Model, name: str) -> None:
    case = CASES[name]
    switch_adapter(model.network, case["adapter"])
    seen: list[Tensor] = []
    hook = model.network.lm_head.register_forward_hook(lambda layer, inputs, output: seen.append(output))
    asked = prompts(model, case)
    answers = generate(model, asked)
    hook.remove()
    for row, prompt, logits, answer in zip(case["rows"], asked, seen[0][:, -1], answers, strict=True):
        assert prompt.ids == ids(row)
        expected = torch.tensor(row["logits"])
        torch.testing.assert_close(logits[ANSWERS["vocab_columns"]], expected, rtol=0, atol=1e-4)
        assert answer.tokens == tuple(row["greedy"])


@pytest.mark.parametrize("name", [name for name in CASES if "audios" in CASES[name]])
def test_speech_embeddings_are_the_originals(model: Model, name: str) -> None:
    case = CASES[name]
    with torch.inference_mode():
        clips = [audio(answer) for answer in case["audios"]]
        module = model.network.model.embed_tokens_extend.audio_embed
        for answer, found in zip(case["audios"], embed_audio(module, clips, case["projection"]), strict=True):
            sample = answer["embedding"]
            expected = torch.tensor(sample["value"])
            torch.testing.assert_close(found.flatten()[sample["index"]], expected, rtol=0, atol=2e-5)


def test_picture_embeddings_are_the_originals(model: Model) -> None:
    answer = CASES["c3"]["image"]
    crops = picture(answer)
    assert len(crops.values) == answer["crops"]
    with torch.inference_mode():
        (found,) = embed_pictures(model.network.model.embed_tokens_extend.image_embed, [crops])
    for values, sample in ((crops.values, answer["pixels"]), (found, answer["embedding"])):
        torch.testing.assert_close(values.flatten()[sample["index"]], torch.tensor(sample["value"]), rtol=0, atol=2e-5)
