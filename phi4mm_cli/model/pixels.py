"""A picture as the vision tower takes it: one view of the whole, and crops of 448 x 448 pixels in full detail.

The numbers are exactly those of transformers' image processor for this model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from phi4mm_cli.model.grid import CROP, MOST_CROPS, PATCHES, POSITIONS, layout_of


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """One picture: the view of the whole first, then its grid of crops, row by row."""

    values: Tensor  # (crops, 3, 448, 448), float32 in [-1, 1]
    mask: Tensor  # (crops, 32, 32), bool: which patches hold some of the picture
    size: tuple[int, int]  # height and width of the grid, pixels
    tokens: int  # positions that it takes in the prompt


def pixels(image: Image.Image, most_crops: int = MOST_CROPS) -> Crops:
    """The pixel values of an RGB `image` in at most `most_crops` crops. Raises InputError where it is too narrow."""
    layout = layout_of(image.width, image.height, most_crops)
    beside, below = layout.columns * CROP - layout.width, layout.rows * CROP - layout.height
    scaled = transforms.resize(transforms.pil_to_tensor(image), [layout.height, layout.width])  # bilinear
    grid = transforms.pad(scaled, [0, 0, beside, below], fill=[255.0]).float()
    grid = transforms.normalize(grid, [127.5] * 3, [127.5] * 3)
    whole = transforms.resize(grid, [CROP, CROP], transforms.InterpolationMode.BICUBIC, antialias=False)
    mask = torch.zeros(layout.rows * PATCHES, layout.columns * PATCHES, dtype=torch.bool)
    used_rows, used_columns = layout.patches
    mask[:used_rows, :used_columns] = True
    return Crops(
        values=torch.cat((whole[None], _cut(grid, CROP))),
        mask=torch.cat((torch.ones(1, PATCHES, PATCHES, dtype=torch.bool), _cut(mask[None], PATCHES)[:, 0])),
        size=(layout.rows * CROP, layout.columns * CROP),
        tokens=layout.tokens,
    )


def _cut(grid: Tensor, side: int) -> Tensor:
    """(channels, rows * side, columns * side) to (rows * columns, channels, side, side)."""
    tiles = torch.unflatten(torch.unflatten(grid, 2, (-1, side)), 1, (-1, side))
    return tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)  # from (channels, rows, side, columns, side)


__all__ = ["CROP", "PATCHES", "POSITIONS", "Crops", "pixels"]
