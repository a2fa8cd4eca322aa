"""Sound and pictures through their encoders, up to where the prompt's projections begin.

What comes out depends on nothing but the clip or the picture, so that it may be kept and used in other prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phi4mm_cli.media import audio, document
from phi4mm_cli.model import encoder, vision
from phi4mm_cli.model.features import audio_tokens, log_mel
from phi4mm_cli.model.grid import MOST_CROPS
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.pixels import Crops, pixels
from phi4mm_cli.schema import Clip, Picture


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What an encoder has made of a clip or a picture."""

    values: Tensor  # (positions in the prompt, encoder size)


Medium = Tensor | Crops | Encoded  # a clip's log-mel features (frames, 80), a picture's crops, or either encoded


def read(part: Clip | Picture) -> Tensor | Crops:
    """The features of a clip, or the crops of a picture. Raises InputError."""
    if isinstance(part, Clip):
        return log_mel(*audio.read(part))
    return pixels(document.read(part), part.most_crops or MOST_CROPS)


def positions(medium: Medium) -> int:
    """How many positions of the prompt it takes."""
    if isinstance(medium, Crops):
        return medium.tokens
    return len(medium.values) if isinstance(medium, Encoded) else audio_tokens(len(medium))


@torch.inference_mode()
def encode(model: Model, media: Sequence[Medium]) -> Iterator[Tensor]:
    """What the encoders make of each, (positions, encoder size); clips go through theirs together."""
    modules = model.network.model.embed_tokens_extend
    clips = [medium for medium in media if isinstance(medium, Tensor)]
    heard = iter(encoder.encode(modules.audio_embed.encoder, clips) if clips else ())
    for medium in media:
        if isinstance(medium, Encoded):
            yield medium.values
        elif isinstance(medium, Crops):
            yield from vision.encode(modules.image_embed, [medium])
        else:
            yield next(heard)
