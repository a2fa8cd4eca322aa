"""Prompts for small models, and what transformers' own `generate` answers to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phi4mm_cli.model.composing import Prompt, compose
from phi4mm_cli.model.loading import Model
from phi4mm_cli.prompt import Marker, Piece
from phi4mm_cli.schema import Clip, Picture, Sampling, Source

CLIP = Clip(Source("a.wav", 1, "f"), 0.0, 1.0)
PICTURE = Picture(Source("a.png", 1, "f"))
USER, END, ASSISTANT = Marker("<|user|>"), Marker("<|end|>"), Marker("<|assistant|>")


def sound(frames: int) -> Tensor:
    """Stand-in for log-mel features: noise of their mean and spread."""
    return 12 + 3 * torch.randn(frames, 80, generator=torch.Generator().manual_seed(frames))


def prompt(model: Model, words: int, frames: int | None = None, budget: int = 12, **settings: Any) -> Prompt:
    """So many letters, behind a clip of so many frames; `settings` are those of Sampling."""
    pieces: list[Piece] = [USER, " ".join("abcdefghij"[i % 10] for i in range(words)), END, ASSISTANT]
    if frames is None:
        return compose(model, pieces, [], Sampling(budget, **settings))
    return compose(model, [USER, CLIP, *pieces[1:]], [sound(frames)], Sampling(budget, **settings))


def transformers_tokens(model: Model, asked: Prompt, use_cache: bool = True, **settings: Any) -> list[int]:
    """What transformers' `generate` gives for a lone prompt of at most one clip."""
    clip = asked.clips[0] if asked.clips else None
    audio = (
        {}
        if clip is None
        else {"audio_input_features": clip[None], "audio_embed_sizes": torch.tensor([-(-len(clip) // 8)])}
    )
    answer = model.network.generate(
        torch.tensor([asked.ids]),
        max_new_tokens=asked.sampling.max_new_tokens,
        use_cache=use_cache,
        suppress_tokens=[model.audio_token, model.image_token],
        **{"do_sample": False} | settings,
        **audio,
    )[0, len(asked.ids) :].tolist()
    return [token for token in answer if token not in model.end_tokens]
