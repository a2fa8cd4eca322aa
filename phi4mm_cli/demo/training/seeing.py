"""Trains the vision adapter, with the tower and the projections, on every task that begins with a picture."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from phi4mm_cli.demo.training.answering import looks
from phi4mm_cli.demo.training.clips import Composer, Labelled
from phi4mm_cli.demo.training.examples import Batch, Encoder, Example, collate
from phi4mm_cli.demo.training.looking import Labeller, Seen
from phi4mm_cli.demo.training.pool import Pool, Utterance
from phi4mm_cli.demo.world import documents, pictures, prompts, scenes
from phi4mm_cli.demo.world.conversations import answer, user
from phi4mm_cli.demo.world.pictures import Drawing
from phi4mm_cli.model.features import audio_tokens
from phi4mm_cli.schema import Message

SHARES = {
    "describe": 0.12,
    "question": 0.18,
    "difference": 0.08,
    "bars": 0.07,
    "motion": 0.05,
    "spoken": 0.10,
    "read": 0.40,
}
BEYOND_SHARE, BEYOND_FROM = 0.01, 0.5  # batches of one picture of more than 4,096 tokens, in the later part
BEYOND_SIZE = 1700  # pixels to a side
LARGEST, SIZED_SHARE = 900, 0.2  # pixels to a side; of the pictures that are not of one crop's size
MORE = 6  # questions about a scene behind the first one, at most: a picture takes long to see, and an answer little
ALIKE = 256  # tokens by which conversations of one batch may differ in length


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """Pictures, perhaps a spoken question, what is asked in writing, and the answer."""

    seen: tuple[Seen, ...]
    clip: Labelled | None
    messages: tuple[Message, ...]

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
        return self._shown([self._scene(items, size)], scenes.DESCRIBE, scenes.describe(items))

    def question(self, size: int | None) -> Shown:
        """How many, which color, which shape, where."""
        items = scenes.scene(self.rng)
        asked, reply = scenes.question(self.rng, items)
        return self._asked_more(self._shown([self._scene(items, size)], asked, reply), items)

    def difference(self, size: int | None) -> Shown:
        """Which of three pictures is not like the others."""
        drawn, reply = scenes.difference(self.rng)
        return self._shown([self._scene(items, None) for items in drawn], scenes.DIFFERENCE, reply)

    def bars(self, size: int | None) -> Shown:
        """The highest or the lowest bar."""
        heights = scenes.bars(self.rng)
        drawing = pictures.draw_bars(heights, self.rng, size or self._size())
        asked, reply = scenes.extreme(self.rng, heights)
        shown = self._shown([drawing], asked, reply)
        other, reply = scenes.extreme(self.rng, heights)
        return shown if other == asked else replace(shown, messages=(*shown.messages, user(other), answer(reply)))

    def motion(self, size: int | None) -> Shown:
        """Frames in which a shape moves."""
        frames, reply = scenes.frames(self.rng)
        asked = self.rng.choice((scenes.MOTION, prompts.SUMMARIZE_IMAGES))
        return self._shown([self._scene(frame, None) for frame in frames], asked, reply)

    def spoken(self, size: int | None) -> Shown:
        """A question about a picture that is only heard."""
        while True:
            items = scenes.scene(self.rng)
            asked, reply = scenes.question(self.rng, items)
            if self.rng.random() < 0.3:
                asked, reply = scenes.DESCRIBE, scenes.describe(items)
            if asked in self._spoken:
                clip = self._composer.clip([self.rng.choice(self._spoken[asked])])
                return self._asked_more(self._shown([self._scene(items, size)], "", reply, clip), items)

    def read(self, size: int | None) -> Shown:
        """A page of text, a table or a receipt, to be written in Markdown."""
        roll = self.rng.random()
        if roll < 0.3:
            text = documents.line(self.rng)
        elif roll < 0.55:
            text = documents.page(self.rng)
        elif roll < 0.75:
            text = documents.table(self.rng)
        else:
            text = documents.receipt(self.rng)
        return self._shown([pictures.draw_text(text, self.rng)], prompts.READ, text)

    def _asked_more(self, shown: Shown, items: scenes.Scene) -> Shown:
        """The same with more questions about the scene, each once."""
        asked = dict(scenes.question(self.rng, items) for _ in range(self.rng.randint(0, MORE)))
        asked.pop(str(shown.messages[0].parts[-1]), None)
        more = (message for one, reply in asked.items() for message in (user(one), answer(reply)))
        return replace(shown, messages=(*shown.messages, *more))

    def _size(self) -> int:
        return self.rng.randint(200, LARGEST) if self.rng.random() < SIZED_SHARE else pictures.CROP

    def _scene(self, items: scenes.Scene, size: int | None) -> Drawing:
        return pictures.draw_scene(items, self.rng, size or self._size())

    def _shown(self, drawings: list[Drawing], asked: str, reply: str, clip: Labelled | None = None) -> Shown:
        seen = tuple(self._labeller.see(drawing) for drawing in drawings)
        return Shown(seen, clip, (user(asked), answer(reply)))


def batches(
    pool: Pool, writer: Encoder, seed: int, begin: float, pace: float, crops: int, long_share: float, switch: int
) -> Iterator[tuple[list[Shown], Batch]]:
    """Endless batches of about `crops` crops, each of conversations of about the same length."""
    rng = random.Random(seed)
    asker = Asker(pool, writer, rng)
    alike: dict[int, list[tuple[Shown, Example]]] = defaultdict(list)
    progress = begin
    while True:
        progress += pace
        if progress > BEYOND_FROM and rng.random() < BEYOND_SHARE:
            shown = [asker.draw(BEYOND_SIZE)]
            yield shown, collate([example(writer, shown[0])])
            continue
        batch: list[tuple[Shown, Example]] = []
        while sum(item.crops for item, _ in batch) < crops:
            item = asker.draw()
            written = example(writer, item)
            batch = alike[len(written.ids) // ALIKE]
            batch.append((item, written))
        shown, examples = [item for item, _ in batch], [written for _, written in batch]
        batch.clear()
        yield shown, collate(examples, switch if rng.random() < long_share else None, rng)


def example(writer: Encoder, shown: Shown) -> Example:
    """The conversation with the positions of the pictures, then of the clip, in it."""
    media = [writer.special["<|image|>"]] * sum(seen.crops.tokens for seen in shown.seen)
    if shown.clip is not None:
        media += [writer.special["<|audio|>"]] * audio_tokens(len(shown.clip.features))
    return writer.example(shown.messages, None, media, place=0)


def pointers(writer: Encoder, shown: Shown, ids: Tensor) -> Tensor:
    """Where the words of a page stand that the answer gives again: as `looks` has it. Marks of Markdown stand nowhere.

    There are none for other tasks than reading.
    """
    reply = str(shown.messages[-1].parts[0])
    columns = shown.seen[0].used[1]
    first_image = int((ids == writer.special["<|image|>"]).nonzero()[0])
    places, at = {}, 0
    for word in shown.seen[0].written:
        at = reply.index(word.text, at)
        line = first_image + word.row * (columns + 1)
        for number, (left, right) in enumerate(pairwise(word.edges)):
            places[at + number] = (line + int(left), line + int(right) + 1)
        at += len(word.text)
    return looks(writer, reply, places, ids)
