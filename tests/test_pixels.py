"""Pictures as pixel values: to the last bit those of transformers' processor, in any size and number of crops."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Phi4MultimodalImageProcessor

from phi4mm_cli.errors import InputError
from phi4mm_cli.model.grid import image_tokens
from phi4mm_cli.model.pixels import pixels

PROCESSOR = Phi4MultimodalImageProcessor()


def picture(width: int, height: int) -> Image.Image:
    """Noise: every pixel that is misplaced shows."""
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def random_sizes(count: int) -> list[tuple[int, int, int]]:
    """Width, height and most crops: evenly spread ones, and slim ones."""
    rng = random.Random(1)
    sizes = []
    for number in range(count):
        sides = [rng.randint(1, 3000) if number % 2 else int(10 ** rng.uniform(0, 3.4)) for _ in range(2)]
        sizes.append((*sides, rng.choice((36, 36, 36, 16, 12, 4, 1))))
    return sizes


CHOSEN = [
    (448, 448, 36),
    (1, 1, 36),
    (449, 1, 36),
    (2688, 2688, 36),
    (2689, 2688, 36),
    (3000, 3000, 36),
    (462, 461, 36),
]


def test_pixels_are_those_of_transformers() -> None:
    grids = set()
    refused = 0
    for width, height, most in CHOSEN + random_sizes(50):
        image = picture(width, height)
        try:
            wanted = PROCESSOR(image, return_tensors="pt", dynamic_hd=most)
        except (ValueError, RuntimeError):  # it does not foresee a side of no pixels
            with pytest.raises(InputError, match=f"{width} x {height}"):
                pixels(image, most)
            refused += 1
            continue
        crops = pixels(image, most)
        assert torch.equal(crops.values, wanted["image_pixel_values"][0]), (width, height, most)
        assert torch.equal(crops.mask, wanted["image_attention_mask"][0].bool())
        assert crops.size == tuple(wanted["image_sizes"][0].tolist())
        assert crops.tokens == image_tokens(width, height, most) == wanted["num_img_tokens"][0]
        grids.add(crops.size)
    assert len(grids) > 15
    assert 3 < refused < 20


def test_tokens_are_known_beforehand() -> None:
    rng = random.Random(2)
    for _ in range(200):
        width, height = (int(10 ** rng.uniform(1.6, 3.3)) for _ in range(2))
        most = rng.choice((12, 6, 4, 2))
        made = PROCESSOR(Image.new("RGB", (width, height)), return_tensors="pt", dynamic_hd=most)
        assert image_tokens(width, height, most) == made["num_img_tokens"][0], (width, height, most)


def test_tokens_of_common_sizes() -> None:
    """Figures of the original's processor."""
    known = {(448, 448): 545, (640, 480): 1065, (1280, 720): 1596, (1920, 1080): 3918, (4032, 3024): 3393}
    known |= {(1654, 2339): 6188, (2480, 3508): 9345}
    assert {size: image_tokens(*size) for size in known} == known
    assert image_tokens(2048, 2048, 16) == 4433


@pytest.mark.parametrize(("width", "height"), [(3000, 5), (9, 4000), (100_000, 1)])
def test_pictures_too_narrow_are_refused_with_advice(width: int, height: int) -> None:
    with pytest.raises(InputError, match=f"{width} x {height}") as caught:
        image_tokens(width, height)
    assert "Cut it" in caught.value.advice
