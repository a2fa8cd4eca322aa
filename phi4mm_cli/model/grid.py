"""Where a picture comes to lie in the grid of crops that the vision tower takes, and how many tokens that makes.

The numbers are exactly those of transformers' image processor for this model.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

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


class Layout(NamedTuple):
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

    @property
    def tokens(self) -> int:
        """How many positions of the prompt it takes."""
        rows, columns = (math.ceil(patches / 2) for patches in self.patches)
        return FIXED_TOKENS + rows * (columns + 1)


def image_tokens(width: int, height: int, most_crops: int = MOST_CROPS) -> int:
    """How many positions of the prompt a picture of that size takes. Raises InputError where it is too narrow."""
    return layout_of(width, height, most_crops).tokens


def layout_of(width: int, height: int, most_crops: int) -> Layout:
    """The smallest grid that holds the picture unreduced; where that is too large, the one nearest in its form."""
    columns, rows = math.ceil(width / CROP), math.ceil(height / CROP)
    if columns * rows > most_crops:
        columns, rows = _nearest_grid(width, height, most_crops)
    across, down = columns * CROP / width, rows * CROP / height
    if across < down:
        layout = Layout(columns, rows, columns * CROP, int(height * across))
    else:
        layout = Layout(columns, rows, int(width * down), rows * CROP)
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
