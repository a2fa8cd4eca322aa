"""The vision tower: from a picture's crops to its embeddings in the prompt, the same whatever stands beside it.

transformers' own forward pass lets a patch see only those before it wherever no patch is masked, as in every square
picture, and goes on through layers and a head whose outputs are not used. So only its layers and weights are used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import (
    Phi4MultimodalImageEmbedding,
    Phi4MultimodalVisionModel,
)

from phi4mm_cli.model.grid import CROP
from phi4mm_cli.model.pixels import Crops

CROPS_AT_ONCE = 8  # 8192 patches keep a GPU busy; bounds the memory of a picture of 36 crops


def embed_pictures(module: Phi4MultimodalImageEmbedding, pictures: Sequence[Crops]) -> list[Tensor]:
    """Prompt embeddings of `pictures`: one (tokens, hidden size) for each."""
    return [project(module, encoded) for encoded in encode(module, pictures)]


def project(module: Phi4MultimodalImageEmbedding, encoded: Tensor) -> Tensor:
    """Prompt embeddings (tokens, hidden size) of what the tower has made of a picture."""
    embeddings: Tensor = module.img_projection_down(nn.functional.gelu(module.img_projection_up(encoded)))
    return embeddings


def encode(module: Phi4MultimodalImageEmbedding, pictures: Sequence[Crops]) -> list[Tensor]:
    """What the tower makes of each picture, before the projection: (tokens, tower size) for each.

    The crops come first, put together and read row by row, then a separator, then the view of the whole. A newline
    ends each row.
    """
    newline = module.sub_img_feature_extensor.reshape(-1)
    separator = module.global_img_feature_extensor.reshape(1, -1)
    encoded = []
    for picture in pictures:  # one at a time: the sizes of batches, and with them rounding, depend on it alone
        positions = _positions(module, picture)
        whole, detail = positions[0], _joined(positions[1:], picture)
        encoded.append(torch.cat((_lines(detail, newline), separator, _lines(whole, newline))))
    return encoded


def _positions(module: Phi4MultimodalImageEmbedding, picture: Crops) -> Tensor:
    """The tower's features of every crop, averaged over 2 x 2 patches: (crops, 16, 16, tower size)."""
    seen = 1 if _is_its_own_whole(picture) else len(picture.values)
    batches = zip(*(torch.split(part[:seen], CROPS_AT_ONCE) for part in (picture.values, picture.mask)), strict=True)
    features = torch.cat([_tower(module.img_processor, module.layer_idx, *batch) for batch in batches])
    side = picture.mask.shape[1]
    pooled: Tensor = module.image_token_compression(torch.unflatten(features.transpose(1, 2), 2, (side, side)))
    return pooled.permute(0, 2, 3, 1).expand(len(picture.values), -1, -1, -1)


def _is_its_own_whole(picture: Crops) -> bool:
    """Whether the view of the whole equals the only crop, as in a square picture that one crop holds."""
    parts = (picture.values, picture.mask)
    return len(picture.values) == 2 and all(torch.equal(part[0], part[1]) for part in parts)


def _tower(tower: Phi4MultimodalVisionModel, feature_layer: int, values: Tensor, mask: Tensor) -> Tensor:
    """Hidden states (crops, patches, tower size) after the layer that `feature_layer` names.

    It counts as an index into the embeddings and the outputs of all layers: -2 leaves out the last layer.
    """
    weight = tower.embeddings.patch_embedding.weight
    unmasked = bool(mask.all())
    values, mask = values.to(weight.device, weight.dtype), mask.to(weight.device)
    hidden: Tensor = tower.embeddings(pixel_values=values, patch_attention_mask=mask)
    scores = None
    if not unmasked:
        bias = torch.zeros(len(mask), 1, 1, hidden.shape[1], device=hidden.device, dtype=hidden.dtype)
        scores = bias.masked_fill(~mask.flatten(1)[:, None, None], torch.finfo(bias.dtype).min)
    return through_layers(tower, feature_layer, hidden, scores)


def through_layers(
    tower: Phi4MultimodalVisionModel, feature_layer: int, hidden: Tensor, scores: Tensor | None = None
) -> Tensor:
    """Hidden states (crops, patches, tower size) from the embeddings of patches; `scores` are added to attention's."""
    layers: Any = tower.encoder.layers
    for layer in layers[: feature_layer % (len(layers) + 1)]:
        layer.self_attn.is_causal = False  # as it is in every vision transformer; the class says otherwise
        hidden = layer(hidden, scores)
    return hidden


def _joined(crops: Tensor, picture: Crops) -> Tensor:
    """The crops of the grid as one (rows, columns, tower size), without the positions beside the picture."""
    rows, columns = (length // CROP for length in picture.size)
    used = torch.unflatten(picture.mask[1:, ::2, ::2], 0, (rows, columns))
    height, width = int(used[:, 0, :, 0].sum()), int(used[0, :, 0, :].sum())
    tiles = torch.unflatten(crops, 0, (rows, columns)).transpose(1, 2)  # (rows, 16, columns, 16, tower size)
    return tiles.flatten(2, 3).flatten(0, 1)[:height, :width]


def _lines(grid: Tensor, newline: Tensor) -> Tensor:
    """(rows, columns, size) to (rows * (columns + 1), size), with a newline behind each row."""
    return torch.cat((grid, newline.expand(len(grid), 1, -1)), dim=1).flatten(0, 1)
