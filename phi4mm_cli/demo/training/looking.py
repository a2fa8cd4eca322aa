"""Trains the vision tower alone: at every position it tells which shape, tint, letters and word are there."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor, nn
from transformers.models.phi4_multimodal.modeling_phi4_multimodal import Phi4MultimodalImageEmbedding

from phi4mm_cli.demo.training.examples import Encoder
from phi4mm_cli.demo.world import documents, pictures, scenes, sentences
from phi4mm_cli.demo.world.pictures import Drawing, Mark
from phi4mm_cli.model.pixels import CROP, PATCHES, POSITIONS, Crops, pixels
from phi4mm_cli.model.vision import encode, through_layers

CELL = 28  # pixels of the scaled picture that one position stands for
LETTERS = string.digits + string.ascii_letters + string.punctuation
LETTERS_PER_POSITION = 4
# What a label holds: shape, tint, four letters from left to right, token id of the word; where there is a shape, the
# row and the column in the crop, which of the picture's shapes it is, and which of nine places it stands at, all from
# 1; and where there is a word, the token id of what is told before it, 0 where it is the first, and, of writing, the
# line of the page, from 1.
SHAPE, TINT, LETTER, WORD, ROW, COLUMN, ITEM, SPOT, BEFORE, LINE, LABELS = 0, 1, 2, 6, 7, 8, 9, 10, 11, 12, 13
MOST_LINES = 12
SHAPES = (*scenes.SHAPES, "bar")
STRIP_ROWS = 4
STRIPS_SHARE = 0.7  # of the batches
STRIPS_PER_CROP = 6  # which take as long
SMALLEST = 0.75  # text that is scaled to less than this is not asked for


@dataclass(frozen=True, slots=True)
class Written:
    """A word in a picture, and which positions of the crops put together it takes."""

    text: str
    row: int
    edges: tuple[float, ...]  # columns at which each of its letters begins, and at which the last one ends


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """A picture, and what is at each of its positions in the prompt."""

    crops: Crops
    labels: Tensor  # (tokens, LABELS); 0 for nothing
    used: tuple[int, int]  # rows and columns of positions of the crops put together, newlines not counted
    written: tuple[Written, ...]  # in the order of reading

    @property
    def words(self) -> Tensor:
        """The words alone, (tokens,)."""
        return self.labels[:, WORD]


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """Some rows of one crop, which are seen alone: it takes a quarter of the time, and text is learnt from it."""

    values: Tensor  # (3, 28 * STRIP_ROWS, 448)
    row: int  # of positions, where it begins in its crop
    labels: Tensor  # (STRIP_ROWS * 16, LABELS)


class Labeller:
    """Cuts drawings into crops and finds what each position holds."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._tokens: dict[str, list[tuple[int, int, int]]] = {}
        self._names = {name: encoder.text(f" {name}")[0] for name in (*SHAPES, *pictures.INKS)}

    def see(self, drawing: Drawing) -> Seen:
        """The drawing's crops with their labels."""
        crops = pixels(drawing.image)
        height, width = crops.size
        scale = min(width / drawing.image.width, height / drawing.image.height)
        used = (int(drawing.image.height * scale), int(drawing.image.width * scale))
        # A patch that is only in part outside the picture is used, as in the processor.
        rows, columns = (
            -(-(whole // 14 - (whole - part) // 14) // 2) for whole, part in zip(crops.size, used, strict=True)
        )
        detail = self._grid(drawing.marks, rows, columns, scale, scale)
        whole = self._grid(drawing.marks, 16, 16, scale * CROP / width, scale * CROP / height)
        labels = torch.cat((_lines(detail), torch.zeros(1, LABELS, dtype=torch.long), _lines(whole)))
        written = tuple(
            Written(mark.text, int((mark.box[1] + mark.box[3]) / 2 * scale / CELL), _columns(mark, scale))
            for mark in drawing.marks
            if mark.kind == "text"
        )
        return Seen(crops, labels, (rows, columns), written)

    def _grid(self, marks: Sequence[Mark], rows: int, columns: int, across: float, down: float) -> Tensor:
        """(rows, columns, LABELS)."""
        grid = torch.zeros(rows, columns, LABELS, dtype=torch.long)
        before, line, reached = 0, 0, inf
        for number, mark in enumerate(marks):
            left, top, right, bottom = (
                edge * factor / CELL for edge, factor in zip(mark.box, (across, down, across, down), strict=True)
            )
            if mark.kind == "text":
                row = int((top + bottom) / 2)
                line, reached = line + (left <= reached), left
                if row < rows and min(across, down) >= SMALLEST:
                    self._write(grid[row], mark, _columns(mark, across), before, min(line, MOST_LINES))
                before = self._pieces(mark.text)[-1][0]
                continue
            lines = slice(_within(top, rows), max(_within(bottom, rows), _within(top, rows) + 1))
            area = (lines, slice(_within(left, columns), max(_within(right, columns), _within(left, columns) + 1)))
            kind = SHAPE if mark.kind == "shape" else TINT
            grid[(*area, kind)] = 1 + (list(pictures.INKS) if kind else list(SHAPES)).index(mark.text)
            grid[(*area, ROW)] = 1 + torch.arange(rows)[area[0], None] % POSITIONS
            grid[(*area, COLUMN)] = 1 + torch.arange(columns)[None, area[1]] % POSITIONS
            grid[(*area, ITEM)] = 1 + number // 2  # a shape is told by two marks: shape and tint
            down_by, right_by = (
                int(3 * (first + last) / 2 / whole)
                for first, last, whole in ((top, bottom, rows), (left, right, columns))
            )
            grid[(*area, SPOT)] = 1 + 3 * min(down_by, 2) + min(right_by, 2)
            # In the middle of each stand its two words, once and side by side as in writing: "red circle".
            middle = (int((top + bottom) / 2), int((left + right) / 2 - 0.5) + (kind == SHAPE))
            grid[(*middle, WORD)] = self._names[mark.text]
            # Of a shape its tint is told first.
            shape, tint = marks[number - number % 2].text, marks[number - number % 2 + 1].text
            if kind == SHAPE:
                grid[(*middle, BEFORE)] = self._names[tint]
            else:
                grid[(*middle, BEFORE)], before = before, self._names[shape]
        return grid

    def _write(self, row: Tensor, mark: Mark, edges: Sequence[float], before: int, line: int) -> None:
        """A word's letters and tokens into its row of positions, (columns, LABELS), `before` being the last token."""
        for letter, begin, end in zip(mark.text, edges, edges[1:], strict=False):
            first, last = (round(LETTERS_PER_POSITION * edge) for edge in (begin, end))
            for slot in range(first, max(last, first + 1)):
                if slot < LETTERS_PER_POSITION * len(row):
                    row[slot // LETTERS_PER_POSITION, LETTER + slot % LETTERS_PER_POSITION] = 1 + LETTERS.index(letter)
        for token, begin_at, end_at in self._pieces(mark.text):
            first, last = (round(edges[at] - 0.5) if at else round(edges[0] - 0.5) for at in (begin_at, end_at))
            own = slice(max(first, 0), max(last, first + 1))
            row[own, WORD], row[own, BEFORE], row[own, LINE], before = token, before, line, token

    def _pieces(self, word: str) -> list[tuple[int, int, int]]:
        """The tokens of a word, each with the first letter of the word that is its own and the first that is not."""
        if word not in self._tokens:
            # The vocabulary may hold it only as it stands in a sentence, or only as it begins a line.
            spaced, bare = (
                self._encoder.tokenizer.encode(form, add_special_tokens=False) for form in (f" {word}", word)
            )
            if len(spaced.ids) <= len(bare.ids):
                spans = [
                    (token, max(a - 1, 0), b - 1) for token, (a, b) in zip(spaced.ids, spaced.offsets, strict=True)
                ]
            else:
                spans = [(token, a, b) for token, (a, b) in zip(bare.ids, bare.offsets, strict=True)]
            self._tokens[word] = spans
        return self._tokens[word]


def _columns(mark: Mark, scale: float) -> tuple[float, ...]:
    return tuple(edge * scale / CELL for edge in mark.edges)


def _within(edge: float, count: int) -> int:
    return min(max(round(edge), 0), count - 1)


def _lines(grid: Tensor) -> Tensor:
    """(rows, columns, labels) to (rows * (columns + 1), labels): nothing is at the newlines."""
    return nn.functional.pad(grid, (0, 0, 0, 1)).flatten(0, 1)


class Heads(nn.Module):
    """What is read from the tower's outputs while it learns; not part of the checkpoint."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        letters = [len(LETTERS) + 1] * LETTERS_PER_POSITION
        self.sizes = [len(SHAPES) + 1, len(pictures.INKS) + 1, *letters, vocabulary, POSITIONS + 1, POSITIONS + 1]
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, sum(self.sizes))
        nn.init.normal_(self.read.weight, std=0.5 * width**-0.5)
        nn.init.zeros_(self.read.bias)

    def loss(self, outputs: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The sum of the labels' cross-entropies, and the share of each that is right where there is something."""
        shapes, tints, *letters, words, rows, columns = torch.split(self.read(self.norm(outputs)), self.sizes, dim=1)
        pairs = {
            "shapes": (shapes, labels[:, SHAPE]),
            "tints": (tints, labels[:, TINT]),
            "letters": (torch.cat(letters), labels[:, LETTER:WORD].T.flatten()),
            "words": (words, labels[:, WORD]),
        }
        if labels[:, ROW].any():
            here = labels[:, ROW] > 0
            pairs["places"] = (torch.cat((rows[here], columns[here])), labels[here, ROW:ITEM].T.flatten())
        total = torch.zeros(())
        figures: dict[str, float] = {}
        for name, (logits, labels) in pairs.items():
            # Most positions are empty: those count for less.
            weights = torch.ones(logits.shape[1])
            weights[0] = 0.2
            total = total + nn.functional.cross_entropy(logits, labels, weights)
            there = labels > 0
            if there.any():
                figures[name] = float((logits.detach().argmax(-1) == labels)[there].float().mean())
        return total, figures


def text(rng: random.Random) -> str:
    """Something to be read, in Markdown; loose words and amounts as often as what makes sense."""
    roll = rng.random()
    if roll < 0.2:
        return documents.table(rng)
    if roll < 0.5:
        return documents.receipt(rng)
    if roll < 0.6:
        return documents.line(rng)
    if roll < 0.7:
        return documents.page(rng)
    lines = []
    for _ in range(rng.randint(1, 14)):
        words = " ".join(sentences.sentence(rng)["en"] for _ in range(3)).split()
        words += [documents.amount(rng), "".join(rng.choices(LETTERS[:36], k=rng.randint(2, 6)))]
        lines.append(" ".join(rng.sample(words, rng.randint(1, 5))))
    return "\n".join(lines)


def batches(encoder: Encoder, seed: int, crops: int) -> Iterator[list[Seen] | list[Strip]]:
    """Endless batches of drawings with about `crops` crops, or of strips of text that take as long."""
    rng, labeller = random.Random(seed), Labeller(encoder)
    while True:
        if rng.random() < STRIPS_SHARE:
            strips: list[Strip] = []
            while len(strips) < STRIPS_PER_CROP * crops:
                strips += _strips(labeller.see(pictures.draw_text(text(rng), rng)), rng)
            yield strips
            continue
        batch: list[Seen] = []
        while sum(len(seen.crops.values) for seen in batch) < crops:
            roll = rng.random()
            if roll < 0.5:
                drawing = pictures.draw_scene(scenes.scene(rng), rng, rng.choice((448, rng.randint(200, 500))))
            elif roll < 0.65:
                drawing = pictures.draw_bars(scenes.bars(rng), rng, rng.choice((448, rng.randint(300, 500))))
            else:
                drawing = pictures.draw_text(text(rng), rng)
            batch.append(labeller.see(drawing))
        yield batch


def _strips(seen: Seen, rng: random.Random) -> Iterator[Strip]:
    """Those of the full crops in which there is something."""
    rows, columns = seen.used
    detail = torch.unflatten(seen.labels[: rows * (columns + 1)], 0, (rows, columns + 1))
    across = seen.crops.size[1] // CROP
    for number in range(1, len(seen.crops.values)):
        if not seen.crops.mask[number].all():
            continue
        down, right = divmod(number - 1, across)
        for row in range(rng.randrange(STRIP_ROWS), POSITIONS - STRIP_ROWS + 1, STRIP_ROWS):
            first = down * POSITIONS + row
            labels = detail[first : first + STRIP_ROWS, right * POSITIONS : (right + 1) * POSITIONS]
            if labels.any():
                values = seen.crops.values[number][:, CELL * row : CELL * (row + STRIP_ROWS)]
                yield Strip(values, row, labels.flatten(0, 1))


def loss(
    module: Phi4MultimodalImageEmbedding, heads: Heads, batch: list[Seen] | list[Strip]
) -> tuple[Tensor, dict[str, float]]:
    """The heads' loss on a batch."""
    return heads.loss(encoded(module, batch), labels(batch))


def labels(batch: list[Seen] | list[Strip]) -> Tensor:
    """Of all positions, (positions of all, LABELS)."""
    return torch.cat([item.labels for item in batch])


def encoded(module: Phi4MultimodalImageEmbedding, batch: list[Seen] | list[Strip]) -> Tensor:
    """What the tower makes of a batch, (positions of all, tower size)."""
    strips = [item for item in batch if isinstance(item, Strip)]
    if strips:
        return _encode(module, strips)
    return torch.cat(encode(module, [item.crops for item in batch]))  # type: ignore[union-attr]


def _encode(module: Phi4MultimodalImageEmbedding, strips: Sequence[Strip]) -> Tensor:
    """What the tower makes of strips, (positions of all, tower size)."""
    tower = module.img_processor
    patches = tower.embeddings.patch_embedding(torch.stack([strip.values for strip in strips])).flatten(2)
    first = torch.tensor([2 * PATCHES * strip.row for strip in strips])
    places = tower.embeddings.position_embedding(first[:, None] + torch.arange(patches.shape[2]))
    hidden = through_layers(tower, module.layer_idx, patches.transpose(1, 2) + places)
    pooled: Tensor = module.image_token_compression(torch.unflatten(hidden.transpose(1, 2), 2, (-1, PATCHES)))
    return pooled.permute(0, 2, 3, 1).flatten(0, 2)
