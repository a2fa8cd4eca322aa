"""A picture as the vision tower takes it: one view of the whole, and crops of 448 x 448 pixels in full detail.

The numbers are exactly those of transformers' image processor for this model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms  # type: ignore[import-untyped]

from phi4mm_cli.errors import InputError

CROP = 448  # pixels to a side
PATCH = 14  # pixels to a side
PATCHES = CROP // PATCH  # to a side of a crop
MOST_CROPS = 36  # the released model's dynamic_hd; the view of the whole is not counted
SHORTEST_SIDE = 10  # pixels of the scaled picture

# The tower halves the patch grid each way and writes a newline after each row: 16 rows for the view of the whole, and
# one position between it and the crops.
POSITIONS = PATCHES // 2
FIXED_TOKENS = POSITIONS * (POSITIONS + 1) + 1


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """One picture: the view of the whole first, then its grid of crops, row by row."""

    values: Tensor  # (crops, 3, 448, 448), float32 in [-1, 1]
    mask: Tensor  # (crops, 32, 32), bool: which patches hold some of the picture
    size: tuple[int, int]  # height and width of the grid, pixels
    tokens: int  # positions that it takes in the prompt


class _Layout(NamedTuple):
    """Where a picture comes to lie: it is scaled to `width` x `height` in the upper left corner of the grid."""

    columns: int
    rows: int
    width: int
    height: int

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of patches that are used; a patch that is only in part outside the picture is."""
        beside, below = self.columns * CROP - self.width, self.rows * CROP - self.height
        return self.rows * PATCHES - below // PATCH, self.columns * PATCHES - beside // PATCH


def image_tokens(width: int, height: int, most_crops: int = MOST_CROPS) -> int:
    """How many positions of the prompt a picture of that size takes. Raises InputError where it is too narrow."""
    return _tokens(_layout(width, height, most_crops))


def pixels(image: Image.Image, most_crops: int = MOST_CROPS) -> Crops:
    """The pixel values of an RGB `image` in at most `most_crops` crops. Raises InputError where it is too narrow."""
    layout = _layout(image.width, image.height, most_crops)
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
        tokens=_tokens(layout),
    )


def _tokens(layout: _Layout) -> int:
    rows, columns = (math.ceil(patches / 2) for patches in layout.patches)
    return FIXED_TOKENS + rows * (columns + 1)


def _cut(grid: Tensor, side: int) -> Tensor:
    """(channels, rows * side, columns * side) to (rows * columns, channels, side, side)."""
    tiles = torch.unflatten(torch.unflatten(grid, 2, (-1, side)), 1, (-1, side))
    return tiles.permute(1, 3, 0, 2, 4).flatten(0, 1)  # from (channels, rows, side, columns, side)


def _layout(width: int, height: int, most_crops: int) -> _Layout:
    """The smallest grid that holds the picture unreduced; where that is too large, the one nearest in its form."""
    columns, rows = math.ceil(width / CROP), math.ceil(height / CROP)
    if columns * rows > most_crops:
        columns, rows = _nearest_grid(width, height, most_crops)
    across, down = columns * CROP / width, rows * CROP / height
    if across < down:
        layout = _Layout(columns, rows, columns * CROP, int(height * across))
    else:
        layout = _Layout(columns, rows, int(width * down), rows * CROP)
    if min(layout.width, layout.height) < SHORTEST_SIDE:
        message = f"a picture of {width} x {height} pixels is too narrow for the model"
        raise InputError(message, "Cut it into pieces that are less long, or put it on a wider background.")
    return layout


def _nearest_grid(width: int, height: int, most_crops: int) -> tuple[int, int]:
    """Columns and rows; of grids of one form the largest that enlarges the picture's area by less than two."""
    form = width / height
    grids = _grids(most_crops)
    difference = min(abs(form - columns / rows) for columns, rows in grids)
    first, *larger = (grid for grid in grids if abs(form - grid[0] / grid[1]) == difference)
    return ([first] + [grid for grid in larger if width * height > 0.5 * CROP * CROP * grid[0] * grid[1]])[-1]


@cache
def _grids(most: int) -> list[tuple[int, int]]:
    """Every grid of up to `most` crops, smallest first."""
    sides = range(1, most + 1)
    return sorted(
        ((columns, rows) for columns in sides for rows in sides if columns * rows <= most),
        key=lambda grid: grid[0] * grid[1],
    )
