"""How pictures are shown: the crops that they share, and the tokens that were told before anything was decoded."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from documents import write_texts
from films import shade, write_film
from PIL import Image

from phi4mm_cli import showing
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio, document
from phi4mm_cli.model.grid import MOST_CROPS, image_tokens
from phi4mm_cli.model.pixels import pixels
from phi4mm_cli.schema import Picture

ROOM = 100_000


def blank(folder: Path, width: int, height: int) -> Picture:
    path = folder / f"{width}x{height}.png"
    if not path.exists():
        Image.new("1", (width, height)).save(path)
    return Picture(audio.source(path))


def crops(one: showing.Shown) -> int:
    return one.layout.columns * one.layout.rows


def test_alone_a_picture_is_shown_as_the_model_was_trained(tmp_path: Path) -> None:
    for size in ((448, 448), (1920, 1080), (4032, 3024)):
        [one] = showing.shown([blank(tmp_path, *size)], ROOM)
        assert (one.tokens, one.picture.most_crops, one.is_reduced) == (image_tokens(*size), MOST_CROPS, False)
        assert one.size == size


def test_several_share_the_crops_that_the_model_knows(tmp_path: Path) -> None:
    for count, most in ((2, 25), (3, 16), (16, 4), (64, 1)):
        found = showing.shown([blank(tmp_path, 3000, 3000)] * count, ROOM)
        assert {*map(crops, found)} == {most}
        assert sum(map(crops, found)) <= showing.MOST_CROPS_TOGETHER
        assert all(one.is_reduced for one in found)
    small = showing.shown([blank(tmp_path, 448, 448)] * 40 + [blank(tmp_path, 1344, 1344)], ROOM)
    assert [one.is_reduced for one in small] == [False] * 41  # one that needs few crops leaves them to the others


def test_tokens_are_kept_to(tmp_path: Path) -> None:
    pages = [blank(tmp_path, 1654, 2339)] * 2
    for room in (13_000, 8_000, 2_000, 1_100):
        found = showing.shown(pages, room)
        assert sum(one.tokens for one in found) <= room
        assert found[0].is_reduced == (room < 2 * 6188)
    with pytest.raises(InputError, match="there is room for 900") as caught:
        showing.shown(pages, 900)
    assert caught.value.advice
    with pytest.raises(InputError, match="65 pictures are more"):
        showing.shown([blank(tmp_path, 20, 20)] * 65, ROOM)


def test_what_was_told_is_what_the_processor_makes(tmp_path: Path) -> None:
    """Of pictures, pages and frames, several together, in any size."""
    rng = random.Random(3)
    film = audio.source(write_film(tmp_path / "a.mp4", [shade(9, (720, 400))] * 5))
    text = audio.source(write_texts(tmp_path / "a.pdf", [["x"], ["y"]]))
    checked = 0
    while checked < 25:
        group = [
            blank(tmp_path, *(int(10 ** rng.uniform(1.6, 3.1)) for _ in range(2))) for _ in range(rng.randint(1, 5))
        ]
        group += rng.sample([Picture(film, time=0.2), Picture(text, 2), Picture(film, time=0.0)], rng.randint(0, 1))
        for one in showing.shown(group, rng.choice((5_000, 9_000, ROOM))):
            seen = document.read(one.picture)
            assert seen.size == one.size
            assert pixels(seen, one.picture.most_crops or 0).tokens == one.tokens
            checked += 1


def test_pictures_that_cannot_be_shown_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not a picture")
    for path, words in ((tmp_path / "a.png", "not a picture"), (None, "too narrow")):
        wrong = Picture(audio.source(path)) if path else blank(tmp_path, 9000, 2)
        with pytest.raises(InputError, match=words):
            showing.shown([blank(tmp_path, 50, 50), wrong], ROOM)
    assert np.asarray(document.read(blank(tmp_path, 50, 50))).max() == 0
