"""Draws what the demo learns to see: colored shapes, bar charts and pages of text, each with where everything is."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PIL import Image, ImageDraw, ImageFont

from phi4mm_cli.demo.world.scenes import Scene

CROP = 448  # pixels
LARGER = 8  # pixels, of a heading
FIGURE = 28.0  # pixels that each figure takes: as many as one position of the model's view, which holds one token well
Color = tuple[int, int, int]
INKS: dict[str, Color] = {
    "red": (215, 30, 35),
    "blue": (35, 75, 215),
    "green": (30, 150, 60),
    "yellow": (245, 215, 30),
    "black": (15, 15, 15),
    "purple": (130, 40, 160),
    "orange": (245, 130, 20),
}


@dataclass(frozen=True, slots=True)
class Mark:
    """Something in a picture: a shape, its tint, or a word of text, and its left, top, right and bottom in pixels."""

    kind: Literal["shape", "tint", "text"]
    text: str
    box: tuple[float, float, float, float]
    edges: tuple[float, ...] = ()  # of text: where each character begins, and the last one ends


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A picture and what is in it."""

    image: Image.Image
    marks: tuple[Mark, ...]


# ------------------------------------------------------------------------------------------------ shapes, bars


def draw_scene(items: Scene, rng: random.Random, size: int = CROP) -> Drawing:
    """Shapes near their places on a light ground of size x size pixels."""
    image, pen = _canvas(size, size, rng)
    third = size / 3
    marks: list[Mark] = []
    for item in items:
        radius = third * rng.uniform(0.22, 0.42)
        slack = third / 2 - radius
        x = third * (item.spot % 3 + 0.5) + rng.uniform(-slack, slack)
        y = third * (item.spot // 3 + 0.5) + rng.uniform(-slack, slack)
        _draw_shape(pen, item.shape, (x, y), radius, _shade(INKS[item.tint], rng))
        box = (x - radius, y - radius, x + radius, y + radius)
        marks += [Mark("shape", item.shape, box), Mark("tint", item.tint, box)]
    return Drawing(_grain(image, rng), tuple(marks))


def _draw_shape(pen: ImageDraw.ImageDraw, shape: str, center: tuple[float, float], radius: float, ink: Color) -> None:
    x, y = center
    match shape:
        case "circle":
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
        case "square":
            side = radius * 0.88
            pen.rectangle((x - side, y - side, x + side, y + side), fill=ink)
        case "triangle":
            pen.polygon([(x, y - radius), (x + radius, y + 0.8 * radius), (x - radius, y + 0.8 * radius)], fill=ink)
        case _:  # a star of five points
            corners = [(radius * (0.42 if i % 2 else 1.0), math.pi * (0.2 * i - 0.5)) for i in range(10)]
            pen.polygon([(x + reach * math.cos(turn), y + reach * math.sin(turn)) for reach, turn in corners], fill=ink)


def draw_bars(bars: Sequence[tuple[str, int]], rng: random.Random, size: int = CROP) -> Drawing:
    """A bar chart: one bar of each tint, with heights in tenths of the chart's."""
    image, pen = _canvas(size, size, rng)
    left, right, floor, top = size * 0.1, size * 0.95, size * 0.9, size * 0.06
    pen.line([(left, top), (left, floor), (right, floor)], fill=(70, 70, 70), width=2)
    step = (right - left) / len(bars)
    width = step * rng.uniform(0.5, 0.8)
    marks: list[Mark] = []
    for number, (tint, height) in enumerate(bars):
        x = left + step * (number + 0.5) - width / 2
        box = (x, floor - (floor - top) * height / 10, x + width, floor - 1)
        pen.rectangle(box, fill=_shade(INKS[tint], rng))
        marks += [Mark("shape", "bar", box), Mark("tint", tint, box)]
    return Drawing(_grain(image, rng), tuple(marks))


# ------------------------------------------------------------------------------------------------ text


@cache
def _font(family: str, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size) if family == "" else ImageFont.truetype(family, size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType")
    return font


@dataclass(slots=True)
class _Page:
    """Where the next word goes, and how it looks."""

    pen: ImageDraw.ImageDraw
    family: str
    ink: Color
    marks: list[Mark]

    def width(self, text: str, size: int) -> float:
        """Of words, in pixels."""
        pieces = re.findall(r"\S+", text)
        return sum(self._edges(piece, size)[-1] for piece in pieces) + self._space(size) * max(0, len(pieces) - 1)

    def _space(self, size: int) -> float:
        return _font(self.family, size).getlength(" ")

    def _edges(self, piece: str, size: int) -> list[float]:
        """Where each letter begins and the last one ends; figures stand apart."""
        if any(letter.isdigit() for letter in piece):
            return [FIGURE * count for count in range(len(piece) + 1)]
        font = _font(self.family, size)
        return [font.getlength(piece[:count]) for count in range(len(piece) + 1)]

    def write(self, text: str, x: float, middle: float, size: int, bold: bool = False) -> float:
        """Write words from x on, centered on the line `middle`; where the text ends."""
        font = _font(self.family, size)
        stroke = 1 if bold else 0
        for piece in re.findall(r"\S+", text):
            edges = tuple(x + edge for edge in self._edges(piece, size))
            if any(letter.isdigit() for letter in piece):
                for letter, edge in zip(piece, edges, strict=False):
                    place = (edge + FIGURE / 2, middle)
                    self.pen.text(place, letter, font=font, fill=self.ink, anchor="mm", stroke_width=stroke)
            else:
                self.pen.text((x, middle), piece, font=font, fill=self.ink, anchor="lm", stroke_width=stroke)
            self.marks.append(Mark("text", piece, (x, middle - size / 2, edges[-1], middle + size / 2), edges))
            x = edges[-1] + self._space(size)
        return x


def draw_text(markdown: str, rng: random.Random, families: Sequence[str] = ("",)) -> Drawing:
    """A page of the text: headings large, **bold** heavy, tables ruled, amounts at line ends on the right.

    The page is as small as it can be, in a grid of at most 2 x 2 crops.
    """
    size = rng.randint(23, 30)
    lines = markdown.split("\n")
    table = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines if line.startswith("|")]
    pitch = size * rng.uniform(1.35, 1.8)
    margin = rng.uniform(10, 40)
    page = _Page(ImageDraw.Draw(Image.new("RGB", (1, 1))), rng.choice(families), (0, 0, 0), [])
    widest = max(
        page.width(re.sub(r"[*#|]", "", line), size + (LARGER if line.startswith("#") else 0)) for line in lines
    )
    if widest + 2 * margin > 2 * CROP:  # a long line in large type
        return draw_text(markdown, rng, families)
    if table:
        widest = sum(_columns(page, table, size))
    elif len(lines) > 1:
        widest += rng.uniform(0, 60)
    wide, high = (_up(value) for value in (widest + 2 * margin, len(lines) * pitch + 2 * margin))
    image, page.pen = _canvas(wide, high, rng)
    page.ink = (rng.randint(0, 50),) * 3
    y = margin + pitch / 2
    if table:
        _draw_table(page, table, (margin, y), pitch, size)
    for line in lines if not table else ():
        _draw_line(page, line, (margin, y, margin + widest), size)
        y += pitch
    return Drawing(_grain(image, rng), tuple(page.marks))


def _up(pixels: float) -> int:
    return CROP * min(2, -(-int(pixels) // CROP))


def _draw_line(page: _Page, line: str, at: tuple[float, float, float], size: int) -> None:
    left, middle, right = at
    heading = re.match(r"#+ ", line)
    if heading:
        page.write(line[heading.end() :], left, middle, size + LARGER, bold=True)
        return
    bold = "**" in line
    words, _, amount = line.replace("**", "").rpartition(" ")
    if re.fullmatch(r"\d+\.\d\d", amount):
        page.write(words, left, middle, size, bold)
        page.write(amount, right - page.width(amount, size), middle, size)
    else:
        page.write(line.replace("**", ""), left, middle, size, bold)


def _columns(page: _Page, table: Sequence[Sequence[str]], size: int) -> list[float]:
    rows = [row for row in table if row[0] != "---"]
    return [max(page.width(row[column], size) for row in rows) + 28 for column in range(len(rows[0]))]


def _draw_table(page: _Page, table: Sequence[Sequence[str]], at: tuple[float, float], pitch: float, size: int) -> None:
    left, middle = at
    widths = _columns(page, table, size)
    rows = [row for row in table if row[0] != "---"]
    top = middle - pitch / 2
    for number, row in enumerate(rows):
        x = left
        for cell, width in zip(row, widths, strict=True):
            page.write(cell, x + 14, middle + number * pitch, size, bold=number == 0)
            x += width
    for number in range(len(rows) + 1):
        y = top + number * pitch
        page.pen.line([(left, y), (left + sum(widths), y)], fill=(120, 120, 120))
    for column in range(len(widths) + 1):
        x = left + sum(widths[:column])
        page.pen.line([(x, top), (x, top + len(rows) * pitch)], fill=(120, 120, 120))


def on_ground(drawing: Drawing, size: int) -> Drawing:
    """The drawing in the upper left corner of an empty page of size x size pixels."""
    ground = Image.new("RGB", (size, size), drawing.image.getpixel((0, 0)))
    ground.paste(drawing.image)
    return Drawing(ground, drawing.marks)


# ------------------------------------------------------------------------------------------------ grounds


def _canvas(width: int, height: int, rng: random.Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    light = rng.randint(232, 255)
    image = Image.new("RGB", (width, height), tuple(min(255, light + rng.randint(-6, 6)) for _ in range(3)))
    return image, ImageDraw.Draw(image)


def _shade(ink: Color, rng: random.Random) -> Color:
    red, green, blue = (max(0, min(255, part + rng.randint(-14, 14))) for part in ink)
    return red, green, blue


def _grain(image: Image.Image, rng: random.Random) -> Image.Image:
    """Light noise over some of the pictures."""
    if rng.random() < 0.5:
        return image
    noise = Image.effect_noise(image.size, rng.uniform(2, 12)).convert("RGB")
    return Image.blend(image, noise, rng.uniform(0.01, 0.05))
