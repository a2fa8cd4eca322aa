"""The audio encoder over a batch of clips of any lengths: each clip's embeddings are those of the clip alone.

transformers' own forward pass does not give that: its mask adds 1 to the attention scores of valid frames in place of
shutting out the others, and its strided convolutions see the batch's padding where a lone clip's edge has zeros. So
only its layers and weights are used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalAudioEmbedding,
    Phi4MultimodalAudioModel,
)

from phi4mm_cli.model.features import FRAMES_PER_TOKEN, audio_tokens

Projection = Literal["speech", "vision"]

WINDOW = 500  # encoder positions (40 s) that attend to each other; longer clips fall into independent windows
CONVOLVED_AT_ONCE = 3000  # frames: 30 s, in which a GPU has enough to do


def embed_audio(module: Phi4MultimodalAudioEmbedding, clips: Sequence[Tensor], projection: Projection) -> list[Tensor]:
    """Prompt embeddings of log-mel `clips` of shape (frames, 80): one (ceil(frames / 8), hidden size) for each."""
    return [project(module, encoded, projection) for encoded in encode(module.encoder, clips)]


def project(module: Phi4MultimodalAudioEmbedding, encoded: Tensor, projection: Projection) -> Tensor:
    """Prompt embeddings (positions, hidden size) of what the encoder has made of a clip.

    `projection` is "vision" in a prompt that also has images, else "speech".
    """
    if projection == "speech":
        up, down = module.up_proj_for_speech, module.down_proj_for_speech
    else:
        up, down = module.up_proj_for_vision_speech, module.down_proj_for_vision_speech
    embeddings: Tensor = down(nn.functional.gelu(up(encoded)))
    return embeddings


def encode(encoder: Phi4MultimodalAudioModel, clips: Sequence[Tensor]) -> list[Tensor]:
    """What the encoder makes of each clip, before the projection: (ceil(frames / 8), encoder size) for each."""
    weight = encoder.embed.out.weight
    lengths = torch.tensor([len(clip) for clip in clips], device=weight.device)
    padded = pad_sequence(list(clips), batch_first=True).to(weight.device, weight.dtype)
    hidden = _subsample(encoder, encoder.encoder_embedding(padded), lengths)
    per_clip = [row[: audio_tokens(len(clip))] for row, clip in zip(hidden, clips, strict=True)]
    windows = [_windows(row) for row in per_clip]
    encoded = iter(_attend(encoder, [window for row in windows for window in row]))
    joined = [torch.cat([next(encoded) for _ in row]) for row in windows]
    return [row[: len(clip)] for row, clip in zip(joined, per_clip, strict=True)]


def _subsample(encoder: Phi4MultimodalAudioModel, hidden: Tensor, lengths: Tensor) -> Tensor:
    """The convolutions: (batch, frames, bands) to (batch, positions, hidden size).

    Their maps are by far the largest of the encoder, so that they are made of CONVOLVED_AT_ONCE at a time. A position
    depends on no frame after its own 8, and on none more than 7 before these.
    """
    rows = max(1, CONVOLVED_AT_ONCE // hidden.shape[1])
    batches = []
    for some, ends in zip(torch.split(hidden, rows), torch.split(lengths, rows), strict=True):
        pieces = [_convolved(encoder, some[:, :CONVOLVED_AT_ONCE], ends)]
        for first in range(CONVOLVED_AT_ONCE, hidden.shape[1], CONVOLVED_AT_ONCE):
            before = first - FRAMES_PER_TOKEN
            piece = _convolved(encoder, some[:, before : first + CONVOLVED_AT_ONCE], ends - before)
            pieces.append(piece[:, 1:])
        batches.append(torch.cat(pieces, dim=1))
    return torch.cat(batches)


def _convolved(encoder: Phi4MultimodalAudioModel, hidden: Tensor, lengths: Tensor) -> Tensor:
    """The convolutions over rows of which so many frames count."""
    hidden = hidden.unsqueeze(1)
    for layer in encoder.embed.conv:
        if isinstance(layer, nn.Conv2d) and layer.stride[0] > 1:
            valid = torch.arange(hidden.shape[2], device=hidden.device) < lengths[:, None]
            hidden = hidden * valid[:, None, :, None]  # beyond its end a lone clip has the convolution's zeros
            lengths = (lengths - 1) // layer.stride[0] + 1
        hidden = layer(hidden)
    positions: Tensor = encoder.embed.out(hidden.transpose(1, 2).flatten(2))
    return positions


def _windows(row: Tensor) -> Sequence[Tensor]:
    """One clip's positions in windows; the last of several is filled up with zeros, which the model then attends to."""
    if len(row) <= WINDOW:
        return [row]
    return list(nn.functional.pad(row, (0, 0, 0, -len(row) % WINDOW)).reshape(-1, WINDOW, row.shape[1]))


def _attend(encoder: Phi4MultimodalAudioModel, windows: Sequence[Tensor]) -> list[Tensor]:
    """The conformer blocks over windows of different lengths, which see nothing of each other's padding."""
    hidden = pad_sequence(list(windows), batch_first=True)
    lengths = torch.tensor([len(window) for window in windows], device=hidden.device)
    valid = torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None]
    bias = encoder.relative_attention_bias_layer(hidden)
    scores = bias.masked_fill(~valid[:, None, None, :], torch.finfo(bias.dtype).min)
    for layer in encoder.encoders:
        hidden = layer(hidden, scores)
    return [row[: len(window)] for row, window in zip(hidden, windows, strict=True)]
