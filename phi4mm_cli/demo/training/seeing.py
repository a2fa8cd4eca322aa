"""Trains the vision adapter, with the tower and the projections, on every task that begins with a picture."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, count, pairwise

import torch
from torch import Tensor

from phi4mm_cli.demo.training.clips import Composer, Labelled
from phi4mm_cli.demo.training.examples import IGNORED, Batch, Encoder, Example, collate
from phi4mm_cli.demo.training.guiding import Pointer, looks
from phi4mm_cli.demo.training.looking import ITEM, Labeller, Seen
from phi4mm_cli.demo.training.pool import Pool, Utterance
from phi4mm_cli.demo.world import documents, pictures, prompts, scenes
from phi4mm_cli.demo.world.conversations import answer, user
from phi4mm_cli.demo.world.pictures import Drawing
from phi4mm_cli.model.features import audio_tokens
from phi4mm_cli.schema import Message

SHARES = {
    "describe": 0.12,
    "question": 0.12,
    "difference": 0.08,
    "bars": 0.03,
    "motion": 0.03,
    "spoken": 0.20,
    "read": 0.42,
}
BEYOND_SHARE, BEYOND_FROM = 0.1, 0.5  # batches of more than 4,096 tokens, in the later part
BEYOND_SIZE = 1700  # pixels to a side
LARGEST, SIZED_SHARE = 900, 0.35  # pixels to a side; of the pictures that are not of one crop's size
MORE = 6  # questions about a scene behind the first one, at most: a picture takes long to see, and an answer little
ALIKE = 256  # tokens by which conversations of one batch may differ in length


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of an answer, and which shape of which picture shows it, each counted from 0."""

    reply: int
    text: str
    picture: int
    item: int
    begin: int = 0  # from which letter of the reply on the piece is to be looked for


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Pictures, perhaps a spoken question, what is asked in writing, and the answer."""

    seen: tuple[Seen, ...]
    clip: Labelled | None
    messages: tuple[Message, ...]
    told: tuple[Told, ...] = ()

    @property
    def crops(self) -> int:
        """Of all pictures."""
        return sum(len(seen.crops.values) for seen in self.seen)


class Asker:
    """Draws pictures with a task each."""

    def __init__(self, pool: Pool, encoder: Encoder, rng: random.Random) -> None:
        self.rng = rng
        self._labeller, self._composer = Labeller(encoder), Composer(pool, encoder, rng)
        self._spoken: dict[str, list[Utterance]] = {}
        for utterance in pool.utterances:
            if utterance.kind == "look":
                self._spoken.setdefault(utterance.texts["en"], []).append(utterance)

    def draw(self, size: int | None = None) -> Shown:
        """Pictures with a task of SHARES; `size` pixels to a side, drawn at random without."""
        make: Callable[[int | None], Shown] = getattr(self, self.rng.choices(list(SHARES), list(SHARES.values()))[0])
        return make(size)

    def describe(self, size: int | None) -> Shown:
        """What is in a picture."""
        items = scenes.scene(self.rng)
        reply = scenes.describe(items)
        return self._shown(
            [self._scene(items, size)], scenes.DESCRIBE, reply, told=_told(scenes.DESCRIBE, reply, items)
        )

    def question(self, size: int | None) -> Shown:
        """How many, which color, which shape, where."""
        items = scenes.scene(self.rng)
        asked, reply = scenes.question(self.rng, items)
        told = _told(asked, reply, items)
        return self._asked_more(self._shown([self._scene(items, size)], asked, reply, told=told), items)

    def difference(self, size: int | None) -> Shown:
        """Which of three pictures is not like the others."""
        drawn, reply = scenes.difference(self.rng)
        told: list[Told] = []
        end = 0
        for number, (item,) in enumerate(drawn):
            told.append(Told(0, str(item), number, 0, end))
            end = reply.lower().index(str(item), end) + len(str(item))
        return self._shown(self._several(drawn, size), scenes.DIFFERENCE, reply, told=tuple(told))

    def bars(self, size: int | None) -> Shown:
        """The highest or the lowest bar."""
        heights = scenes.bars(self.rng)
        drawing = pictures.draw_bars(heights, self.rng, size or self._size())
        asked = dict(scenes.extreme(self.rng, heights) for _ in range(2))
        tints = [tint for tint, _ in heights]
        told = tuple(
            Told(number, reply.rstrip("."), 0, tints.index(reply.split()[1]))
            for number, reply in enumerate(asked.values())
        )
        messages = (message for one, reply in asked.items() for message in (user(one), answer(reply)))
        return Shown((self._labeller.see(drawing),), None, tuple(messages), told)

    def motion(self, size: int | None) -> Shown:
        """Frames in which a shape moves."""
        frames, reply = scenes.frames(self.rng)
        asked = self.rng.choice((scenes.MOTION, prompts.SUMMARIZE_IMAGES))
        begin, end = reply.rstrip(".").split(" to ")
        told = (Told(0, begin, 0, 0), Told(0, f"to {end}", 2, 0))
        return self._shown(self._several(frames, size), asked, reply, told=told)

    def spoken(self, size: int | None) -> Shown:
        """A question about a picture that is only heard."""
        while True:
            items = scenes.scene(self.rng)
            asked, reply = scenes.question(self.rng, items)
            if self.rng.random() < 0.3:
                asked, reply = scenes.DESCRIBE, scenes.describe(items)
            if asked in self._spoken:
                clip = self._composer.clip([self.rng.choice(self._spoken[asked])])
                shown = self._shown([self._scene(items, size)], "", reply, clip, _told(asked, reply, items))
                return self._asked_more(shown, items)

    def read(self, size: int | None) -> Shown:
        """A page of text, a table or a receipt, to be written in Markdown."""
        roll = self.rng.random()
        if roll < 0.12:
            text = documents.line(self.rng)
        elif roll < 0.55:
            text = documents.page(self.rng)
        elif roll < 0.75:
            text = documents.table(self.rng)
        else:
            text = documents.receipt(self.rng)
        drawing = pictures.draw_text(text, self.rng)
        return self._shown([pictures.on_ground(drawing, size) if size else drawing], prompts.READ, text)

    def _asked_more(self, shown: Shown, items: scenes.Scene) -> Shown:
        """The same with more questions about the scene, each once."""
        asked = dict(scenes.question(self.rng, items) for _ in range(self.rng.randint(0, MORE)))
        asked.pop(str(shown.messages[0].parts[-1]), None)
        more = (message for one, reply in asked.items() for message in (user(one), answer(reply)))
        told = [_told(one, reply, items, number + 1) for number, (one, reply) in enumerate(asked.items())]
        return replace(shown, messages=(*shown.messages, *more), told=(*shown.told, *chain(*told)))

    def _size(self) -> int:
        return self.rng.randint(200, LARGEST) if self.rng.random() < SIZED_SHARE else pictures.CROP

    def _scene(self, items: scenes.Scene, size: int | None) -> Drawing:
        return pictures.draw_scene(items, self.rng, size or self._size())

    def _several(self, drawn: Sequence[scenes.Scene], size: int | None) -> list[Drawing]:
        """The first of `size` pixels to a side."""
        return [self._scene(items, size if number == 0 else None) for number, items in enumerate(drawn)]

    def _shown(
        self,
        drawings: list[Drawing],
        asked: str,
        reply: str,
        clip: Labelled | None = None,
        told: tuple[Told, ...] = (),
    ) -> Shown:
        seen = tuple(self._labeller.see(drawing) for drawing in drawings)
        return Shown(seen, clip, (user(asked), answer(reply)), told)


def _told(asked: str, reply: str, items: scenes.Scene, number: int = 0) -> tuple[Told, ...]:
    """Which shapes of a scene its description tells of, or the answer to a question about one of them."""
    if asked == scenes.DESCRIBE or reply[-2].isdigit():
        told: list[Told] = []
        end = 0
        for index, item in enumerate(items):
            text = scenes.placed(item)
            if text in reply[end:].lower():  # of those counted only some are told
                told.append(Told(number, text, 0, index, end))
                end = reply.lower().index(text, end) + len(text)
        return tuple(told)
    words = set(re.findall(r"\w+", f"{asked} {reply}".lower()))
    meant = [index for index, item in enumerate(items) if {item.tint, item.shape} <= words]
    if asked.startswith("What is "):
        meant = [index for index in meant if asked == f"What is {scenes.SPOTS[items[index].spot]}?"]
    return (Told(number, reply.rstrip("."), 0, meant[0]),) if len(meant) == 1 else ()


def batches(
    pool: Pool, writer: Encoder, seed: int, begin: float, pace: float, crops: int, long_share: float, switch: int
) -> Iterator[tuple[list[Shown], Batch]]:
    """Endless batches of conversations of about the same length with at most `crops` crops, or of a far longer one.

    Seeds of the same thousands give long ones at the same time, as processes do that wait for each other.
    """
    rng, turn = random.Random(seed), random.Random(seed // 1000)
    asker = Asker(pool, writer, rng)
    short = _short(asker, writer, crops)
    for number in count():
        if begin + number * pace > BEYOND_FROM and turn.random() < BEYOND_SHARE:
            shown = [asker.draw(BEYOND_SIZE)]
            yield shown, collate([example(writer, shown[0])])
        else:
            shown, examples = next(short)
            yield shown, collate(examples, switch if rng.random() < long_share else None, rng)


def _short(asker: Asker, writer: Encoder, crops: int) -> Iterator[tuple[list[Shown], list[Example]]]:
    """Conversations of about the same length, whose pictures have at most `crops` crops, but for a single picture."""
    alike: dict[int, list[tuple[Shown, Example]]] = defaultdict(list)
    while True:
        item = asker.draw()
        written = example(writer, item)
        batch = alike[len(written.ids) // ALIKE]
        if not batch or sum(other.crops for other, _ in batch) + item.crops <= crops:
            batch.append((item, written))
            continue
        shown, examples = [other for other, _ in batch], [other for _, other in batch]
        batch[:] = [(item, written)]
        yield shown, examples


def comparisons(writer: Encoder, rng: random.Random, count: int) -> Batch:
    """Answers that compare three pictures, none of which is shown: only what follows from their own words counts."""
    judged = {writer.text(word)[-1] for word in (" not", " different", " 1", " 2", " 3")}
    examples = []
    for _ in range(count):
        _, reply = scenes.difference(rng)
        told = writer.example((user(scenes.DIFFERENCE), answer(reply)))
        examples.append(Example(told.ids, [token if token in judged else IGNORED for token in told.targets]))
    return collate(examples)


def example(writer: Encoder, shown: Shown) -> Example:
    """The conversation with the positions of the pictures, then of the clip, in it."""
    media = [writer.special["<|image|>"]] * sum(seen.crops.tokens for seen in shown.seen)
    if shown.clip is not None:
        media += [writer.special["<|audio|>"]] * audio_tokens(len(shown.clip.features))
    return writer.example(shown.messages, None, media, place=0)


def pointers(writer: Encoder, shown: Shown, ids: Tensor) -> list[Pointer]:
    """Where the words of a page stand that the answers give again, and the shapes that they tell of.

    Marks of Markdown stand nowhere, and neither do counts.
    """
    first = int((ids == writer.special["<|image|>"]).nonzero()[0])
    begins = (ids == writer.special["<|assistant|>"]).nonzero()[:, 0].tolist()
    replies = [str(message.parts[0]) for message in shown.messages if message.role == "assistant"]
    if shown.seen[0].written:
        found = looks(writer, replies[0], _read(shown.seen[0], replies[0], first), begins[0])
        return [(asking, _exact(writer, int(ids[asking + 1]), shown.seen[0], first, own)) for asking, own in found]
    found = []
    starts = [first, *accumulate((seen.crops.tokens for seen in shown.seen), initial=first)][1:]
    for number, (reply, begin) in enumerate(zip(replies, begins, strict=True)):
        places: dict[int, list[int]] = {}
        for told in shown.told:
            if told.reply == number:
                places |= _shown(writer, reply, told, shown.seen[told.picture], starts[told.picture])
        found += looks(writer, reply, places, begin)
    return found


def lines(writer: Encoder, ids: Tensor, held: Tensor, pointers: Sequence[Pointer]) -> Iterator[tuple[int, int]]:
    """For each token of an answer that gives a page again, the line of the next word, 0 behind the last.

    `held` has the lines of the words that stand at the positions of the page, 0 elsewhere.
    """
    begin = 0
    for asking, places in pointers:
        if line := int(held[places[0]]):
            yield from ((token, line) for token in range(begin or asking, asking + 1))
            begin = asking + 1
    if begin:
        end = begin + int((ids[begin:] == writer.special["<|end|>"]).nonzero()[0])
        yield from ((token, 0) for token in range(begin, end))


def _read(seen: Seen, reply: str, first: int) -> dict[int, range]:
    """The positions of each letter of a page, the first of whose positions is `first`."""
    places, at = {}, 0
    for word in seen.written:
        at = reply.index(word.text, at)
        line = first + word.row * (seen.used[1] + 1)
        for number, (left, right) in enumerate(pairwise(word.edges)):
            places[at + number] = range(line + int(left), line + int(right) + 1)
        at += len(word.text)
    return places


def _exact(writer: Encoder, token: int, seen: Seen, first: int, places: list[int]) -> list[int]:
    """Those of the positions that hold the token, as it begins a line or not; all where none does."""
    written = writer.tokenizer.decode([token]).strip()
    held = [writer.tokenizer.decode([label]).strip() for label in seen.words[torch.tensor(places) - first].tolist()]
    return [place for place, label in zip(places, held, strict=True) if label == written] or places


def _shown(writer: Encoder, reply: str, told: Told, seen: Seen, first: int) -> dict[int, list[int]]:
    """The positions that show each letter of what is told of a shape: its own word's, for other words all of them."""
    own = seen.labels[:, ITEM] == told.item + 1
    begin = reply.lower().index(told.text.lower(), told.begin)
    places: dict[int, list[int]] = {}
    for word in re.finditer(r"\w+", told.text):
        token = writer.text(f" {word[0].lower()}")[0]
        places |= dict.fromkeys(
            range(begin + word.start(), begin + word.end()),
            (first + (own & (seen.words == token)).nonzero()[:, 0]).tolist() or (first + own.nonzero()[:, 0]).tolist(),
        )
    return places
