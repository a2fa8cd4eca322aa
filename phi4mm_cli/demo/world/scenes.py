"""Colored shapes on a grid of nine places: what is there, and what can be asked about it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

SHAPES = ("circle", "square", "triangle", "star")
TINTS = ("red", "blue", "green", "yellow", "black", "purple", "orange")
SPOTS = (
    "at the top left",
    "at the top",
    "at the top right",
    "on the left",
    "in the center",
    "on the right",
    "at the bottom left",
    "at the bottom",
    "at the bottom right",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One shape: its name, its color, and which of SPOTS it stands at."""

    shape: str
    tint: str
    spot: int

    def __str__(self) -> str:
        return f"{article(self.tint)} {self.tint} {self.shape}"


Scene = tuple[Item, ...]  # in the order of SPOTS


def article(word: str) -> str:
    """The English indefinite article before `word`."""
    return "an" if word[0] in "aeiou" else "a"


def scene(rng: random.Random, most: int = 4) -> Scene:
    """One to `most` shapes, each at another place."""
    spots = sorted(rng.sample(range(len(SPOTS)), rng.randint(1, most)))
    return tuple(Item(rng.choice(SHAPES), rng.choice(TINTS), spot) for spot in spots)


def placed(item: Item) -> str:
    """The shape, and where it stands."""
    return f"{item} {SPOTS[item.spot]}"


def describe(items: Scene) -> str:
    """The scene in one sentence."""
    phrases = [placed(item) for item in items]
    listed = ", ".join(phrases[:-1]) + " and " + phrases[-1] if len(phrases) > 1 else phrases[0]
    return listed[0].upper() + listed[1:] + "."


def counted(items: Sequence[Item]) -> str:
    """How many there are, behind what they are: to tell one after the other is to count."""
    listed = ", ".join(map(placed, items))
    return f"{listed[0].upper()}{listed[1:]}: {len(items)}." if items else "0."


def question(rng: random.Random, items: Scene) -> tuple[str, str]:
    """A question about a scene, and its answer."""
    shapes, tints = Counter(item.shape for item in items), Counter(item.tint for item in items)
    pairs = Counter((item.shape, item.tint) for item in items)
    asked = [("How many shapes are there?", counted(items))]
    shape, tint = rng.choice(SHAPES), rng.choice(TINTS)
    if rng.random() < 0.7:
        shape, tint = rng.choice(items).shape, rng.choice(items).tint
    asked.append((f"How many {shape}s are there?", counted([item for item in items if item.shape == shape])))
    asked.append((f"How many {tint} shapes are there?", counted([item for item in items if item.tint == tint])))
    asked += [(f"What color is the {i.shape}?", f"{i.tint.capitalize()}.") for i in items if shapes[i.shape] == 1][:1]
    asked += [(f"Which shape is {i.tint}?", f"The {i.shape}.") for i in items if tints[i.tint] == 1][:1]
    single = [item for item in items if pairs[item.shape, item.tint] == 1]
    if single:
        item = rng.choice(single)
        named = f"the {item.tint} {item.shape}"
        asked.append((f"Where is {named}?", f"{named.capitalize()} is {SPOTS[item.spot]}."))
    item = rng.choice(items)
    asked.append((f"What is {SPOTS[item.spot]}?", f"{article(item.tint).capitalize()} {item.tint} {item.shape}."))
    return rng.choice(asked)


DIFFERENCE = "Which image is different, and how?"


def compared(items: Sequence[Item], odd: int) -> str:
    """The shape of each picture, whether it is different from the first one's, and which picture differs."""
    first, *others = items
    listed = ", ".join([str(first), *(f"{item} is {'not' if item == first else 'different'}" for item in others)])
    return f"{listed[0].upper()}{listed[1:]}: image {odd + 1}."


def difference(rng: random.Random) -> tuple[tuple[Scene, ...], str]:
    """Three scenes of one shape, one of which has another, and the answer to DIFFERENCE."""
    (old,) = scene(rng, most=1)
    if rng.random() < 0.5:
        new = replace(old, tint=rng.choice([tint for tint in TINTS if tint != old.tint]))
    else:
        new = replace(old, shape=rng.choice([shape for shape in SHAPES if shape != old.shape]))
    scenes = [(old,)] * 3
    odd = rng.randrange(3)
    scenes[odd] = (new,)
    return tuple(scenes), compared([shown for (shown,) in scenes], odd)


MOTION = "What moves, and where?"


def motion(rng: random.Random) -> tuple[Item, int, str]:
    """A shape, the place it moves to, and the answer to MOTION."""
    start, end = rng.choice([(3, 5), (5, 3), (1, 7), (7, 1)])
    side = {3: "the left", 5: "the right", 1: "the top", 7: "the bottom"}
    item = Item(rng.choice(SHAPES), rng.choice(TINTS), start)
    return item, end, f"The {item.tint} {item.shape} moves from {side[start]} to {side[end]}."


def frames(rng: random.Random) -> tuple[tuple[Scene, ...], str]:
    """Three frames of a film in which a shape moves, and the answer to MOTION."""
    item, end, reply = motion(rng)
    return tuple((replace(item, spot=spot),) for spot in (item.spot, 4, end)), reply


HIGHEST, LOWEST = "Which bar is the highest?", "Which bar is the lowest?"


def bars(rng: random.Random) -> list[tuple[str, int]]:
    """Three to five colored bars with different heights from 1 to 10."""
    number = rng.randint(3, 5)
    return list(zip(rng.sample(TINTS, number), rng.sample(range(1, 11), number), strict=True))


def extreme(rng: random.Random, heights: list[tuple[str, int]]) -> tuple[str, str]:
    """A question for the highest or the lowest bar, and its answer."""
    asked = rng.choice((HIGHEST, LOWEST))
    best = (max if asked == HIGHEST else min)(heights, key=lambda bar: bar[1])
    return asked, f"The {best[0]} bar."


DESCRIBE = "What is shown in this image?"


def any_question(rng: random.Random) -> str:
    """A question that can be asked about some picture."""
    roll = rng.random()
    if roll < 0.1:
        return DESCRIBE
    if roll < 0.3:
        return rng.choice((DIFFERENCE, MOTION, HIGHEST, LOWEST))
    return question(rng, scene(rng))[0]
