"""Trains the audio encoder alone: at every position it tells the sounds and the word that are being said there."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalAudioModel

from phi4mm_cli.demo.training.clips import FRAMES_PER_SECOND, Composer, Labelled
from phi4mm_cli.demo.training.examples import Encoder
from phi4mm_cli.demo.training.pool import Pool, Utterance
from phi4mm_cli.model.encoder import encode

SOUNDS_PER_POSITION = 4
LONGEST = 12.0  # seconds, reached half-way


class Heads(nn.Module):
    """What is read from the encoder's outputs while it learns; not part of the checkpoint."""

    def __init__(self, width: int, sounds: int, vocabulary: int) -> None:
        super().__init__()
        self.count = sounds
        self.sounds = nn.Linear(width, SOUNDS_PER_POSITION * sounds)
        self.words = nn.Linear(width, vocabulary)
        for layer in (self.sounds, self.words):
            nn.init.normal_(layer.weight, std=0.5 * width**-0.5)
            nn.init.zeros_(layer.bias)

    def loss(self, outputs: Sequence[Tensor], clips: Sequence[Labelled]) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of sounds and words, with the share of each that is right where there is one."""
        hidden = torch.cat(list(outputs))
        sounds = torch.cat([clip.sounds for clip in clips]).flatten()
        words = torch.cat([clip.words for clip in clips])
        heard, read = self.sounds(hidden).view(-1, self.count), self.words(hidden)
        loss = nn.functional.cross_entropy(heard, sounds) + 0.5 * nn.functional.cross_entropy(read, words)
        voiced, spoken = sounds > 0, words > 0
        return loss, {
            "sounds": float((heard.argmax(-1) == sounds)[voiced].float().mean()),
            "words": float((read.argmax(-1) == words)[spoken].float().mean()),
        }


def set_moments(encoder: Phi4MultimodalAudioModel, pool: Pool) -> None:
    """Give the encoder the mean and the spread of the pool's features."""
    mean, inverse = pool.moments()
    encoder.encoder_embedding.global_mean.copy_(torch.from_numpy(mean))
    encoder.encoder_embedding.global_invstd.copy_(torch.from_numpy(inverse))


def batches(
    folder: Path, writer: Encoder, seed: int, begin: float, pace: float, seconds: float
) -> Iterator[list[Labelled]]:
    """Endless batches of about `seconds` of sound; clips grow from 3 s to LONGEST as `begin` grows by `pace` each."""
    rng = random.Random(seed)
    pool = Pool(folder)
    composer = Composer(pool, writer, rng)
    progress = begin
    while True:
        longest = 3 + (LONGEST - 3) * min(1.0, 2 * progress)
        batch: list[Labelled] = []
        total, wanted = 0.0, rng.uniform(2, longest)
        while total < seconds:
            chosen: list[Utterance] = []
            length = 0.0
            while not chosen or length < wanted:
                utterance = rng.choice(pool.utterances)
                length += (utterance.frames[1] - utterance.frames[0]) / FRAMES_PER_SECOND + 0.4
                chosen.append(utterance)
            clip = composer.clip(chosen)
            total += len(clip.features) / FRAMES_PER_SECOND
            batch.append(clip)
        progress += pace
        yield batch


def loss(encoder: Phi4MultimodalAudioModel, heads: Heads, batch: Sequence[Labelled]) -> tuple[Tensor, dict[str, float]]:
    """The heads' loss on a batch."""
    return heads.loss(encode(encoder, [clip.features for clip in batch]), batch)
