"""Questions about pictures, through the flows of `describe` and `ocr`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from phi4mm_cli.demo.exam.cases import SWITCH, Case, Skill, Studio
from phi4mm_cli.demo.world import documents, pictures, scenes
from phi4mm_cli.demo.world.pictures import Drawing
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import describe, ocr
from phi4mm_cli.looking import Looking
from phi4mm_cli.schema import Clip, Profile, Source
from phi4mm_cli.video_options import VideoOptions

SIZE_BEYOND = 1700  # pixels to a side, which take more than 4,096 tokens
FILM_BEYOND = 900  # ... of three frames of a video
FRAMES = 3  # of a film that the model is shown, as many as in training

Drawn = tuple[Sequence[Drawing], str, str]  # pictures, question, answer


def shown(
    draw: Callable[[random.Random, int], Drawn], spoken: bool = False
) -> Callable[[Studio, bool], Iterator[Case]]:
    """Pictures as `draw` makes them, and a question in writing or `spoken`."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            size = SIZE_BEYOND if beyond else studio.rng.choice((pictures.CROP, studio.rng.randint(250, 850)))
            drawings, question, answer = draw(studio.rng, size)
            sources = [studio.picture(drawing.image) for drawing in drawings]
            asked = studio.clip(studio.record([question])) if spoken else question
            yield Case(Described(tuple(sources), asked, beyond), answer)

    return cases


def filmed(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Videos of 20 s in which a shape moves."""
    while True:
        film, answer = scenes.frames(studio.rng)
        size = FILM_BEYOND if beyond else pictures.CROP
        source = studio.film([pictures.draw_scene(items, studio.rng, size).image for items in film])
        yield Case(Described((source,), scenes.MOTION, beyond), answer)


@dataclass(frozen=True, slots=True)
class Described:
    """A question about what is to be seen in files; asking raises ValueError where `beyond` 4,096 tokens is not."""

    sources: tuple[Source, ...]
    question: str | Clip
    beyond: bool

    def __call__(self) -> Flow[str]:
        """What the command answers."""
        options = describe.Options(
            context=Profile().context,
            count=len,  # letters: more than the tokens, which are few beside those of pictures
            prompt=self.question if isinstance(self.question, str) else None,
            voice=self.question if isinstance(self.question, Clip) else None,
            looking=Looking(video=VideoOptions(frames=FRAMES)),
            times=False,  # the demo is not trained to be told them
        )
        body = yield from describe.flow(self.sources, options)
        _require(self.beyond, sum(picture.tokens for picture in body.pictures))
        return body.text

    @property
    def command(self) -> list[str]:
        """The same, as it is typed behind `phi4mm`."""
        asked = (
            ["--prompt", self.question] if isinstance(self.question, str) else ["--voice", self.question.source.path]
        )
        return ["describe", *(source.path for source in self.sources), *asked, "--frames", str(FRAMES), "--no-times"]


@dataclass(frozen=True, slots=True)
class Read:
    """A page; reading it raises ValueError where `beyond` 4,096 tokens is not."""

    source: Source
    beyond: bool

    def __call__(self) -> Flow[str]:
        """What the command writes."""
        body = yield from ocr.flow(self.source, ocr.Options())
        _require(self.beyond, sum(page.image_tokens for page in body.pages))
        return body.text

    @property
    def command(self) -> list[str]:
        """The same, as it is typed behind `phi4mm`."""
        return ["ocr", self.source.path]


def _require(beyond: bool, tokens: int) -> None:
    if beyond and tokens <= SWITCH:
        raise ValueError(f"pictures of only {tokens} tokens")


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


def page(write: Callable[[random.Random], str]) -> Callable[[Studio, bool], Iterator[Case]]:
    """Pages of text that `write` makes."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            text = write(studio.rng)
            drawing = pictures.draw_text(text, studio.rng)
            if beyond:
                drawing = pictures.on_ground(drawing, SIZE_BEYOND)
            yield Case(Read(studio.picture(drawing.image), beyond), text)

    return cases


SHAPES = (
    Skill("Shapes described", "exact", 95, shown(_description)),
    Skill("Shapes: how many, which color, where", "exact", 95, shown(_question)),
    Skill("Which of three pictures differs, and how", "exact", 95, shown(_difference)),
    Skill("The highest and the lowest bar", "exact", 95, shown(_bars)),
    Skill("Frames of a film: what moves where", "exact", 95, shown(_motion)),
    Skill("A video of 20 s: what moves where", "exact", 95, filmed),
    Skill("A spoken question about a picture", "exact", 95, shown(_question, spoken=True)),
)
READING = (
    Skill("A line of text", "character error rate", 3, page(documents.line)),
    Skill("A short page", "character error rate", 3, page(documents.page)),
    Skill("A table, to Markdown", "character error rate", 3, page(documents.table)),
    Skill("A receipt", "character error rate", 3, page(documents.receipt)),
)
