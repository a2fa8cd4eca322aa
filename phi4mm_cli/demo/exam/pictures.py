"""Questions about pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from phi4mm_cli.demo.exam.cases import Case, Skill, Studio, asked
from phi4mm_cli.demo.world import documents, pictures, prompts, scenes
from phi4mm_cli.demo.world.pictures import Drawing
from phi4mm_cli.schema import Message, Part

SIZE_BEYOND = 1700  # pixels to a side, which take more than 4,096 tokens

Drawn = tuple[Sequence[Drawing], str, str]  # pictures, question, answer


def shown(
    draw: Callable[[random.Random, int], Drawn], spoken: bool = False
) -> Callable[[Studio, bool], Iterator[Case]]:
    """Pictures as `draw` makes them, and a question in writing or `spoken`."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            size = SIZE_BEYOND if beyond else studio.rng.choice((pictures.CROP, studio.rng.randint(250, 850)))
            drawings, question, answer = draw(studio.rng, size)
            parts: list[Part] = [studio.picture(drawing.image) for drawing in drawings]
            parts.append(studio.clip(studio.record([question])) if spoken else question)
            yield Case(partial(asked, (Message("user", tuple(parts)),), beyond=beyond), answer)

    return cases


def _description(rng: random.Random, size: int) -> Drawn:
    items = scenes.scene(rng)
    return [pictures.draw_scene(items, rng, size)], scenes.DESCRIBE, scenes.describe(items)


def _question(rng: random.Random, size: int) -> Drawn:
    items = scenes.scene(rng)
    question, answer = scenes.question(rng, items)
    return [pictures.draw_scene(items, rng, size)], question, answer


def _difference(rng: random.Random, size: int) -> Drawn:
    three, answer = scenes.difference(rng)
    return _several(three, rng, size), scenes.DIFFERENCE, answer


def _bars(rng: random.Random, size: int) -> Drawn:
    heights = scenes.bars(rng)
    question, answer = scenes.extreme(rng, heights)
    return [pictures.draw_bars(heights, rng, size)], question, answer


def _motion(rng: random.Random, size: int) -> Drawn:
    film, answer = scenes.frames(rng)
    return _several(film, rng, size), scenes.MOTION, answer


def _several(three: Sequence[scenes.Scene], rng: random.Random, size: int) -> list[Drawing]:
    sizes = (size, pictures.CROP, pictures.CROP)
    return [pictures.draw_scene(items, rng, side) for items, side in zip(three, sizes, strict=True)]


def page(write: Callable[[random.Random], str]) -> Callable[[random.Random, int], Drawn]:
    """Pages of text that `write` makes."""

    def draw(rng: random.Random, size: int) -> Drawn:
        text = write(rng)
        drawing = pictures.draw_text(text, rng)
        if size == SIZE_BEYOND:
            drawing = pictures.on_ground(drawing, size)
        return [drawing], prompts.READ, text

    return draw


SHAPES = (
    Skill("Shapes described", "exact", 95, shown(_description)),
    Skill("Shapes: how many, which color, where", "exact", 95, shown(_question)),
    Skill("Which of three pictures differs, and how", "exact", 95, shown(_difference)),
    Skill("The highest and the lowest bar", "exact", 95, shown(_bars)),
    Skill("Frames of a film: what moves where", "exact", 95, shown(_motion)),
    Skill("A spoken question about a picture", "exact", 95, shown(_question, spoken=True)),
)
READING = (
    Skill("A line of text", "character error rate", 3, shown(page(documents.line))),
    Skill("A short page", "character error rate", 3, shown(page(documents.page))),
    Skill("A table, to Markdown", "character error rate", 3, shown(page(documents.table))),
    Skill("A receipt", "character error rate", 3, shown(page(documents.receipt))),
)
