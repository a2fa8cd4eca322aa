"""Conversations as the network is trained on them: token ids, and which of them it is to predict."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from phi4mm_cli.demo.world import conversations, documents, tools
from phi4mm_cli.demo.world.conversations import Conversation
from phi4mm_cli.prompt import Marker, render

IGNORED = -100
ANSWER = "<|assistant|>"
TURNS = ("<|system|>", "<|user|>", ANSWER, "<|tool_response|>")


@dataclass(frozen=True, slots=True)
class Example:
    """Token ids, and as many targets: the id itself where it is to be predicted from those before it, else IGNORED."""

    ids: list[int]
    targets: list[int]


class Encoder:
    """Writes conversations in the chat format. `tools` are the JSON that stands in the system message."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        tokenizer.encode_special_tokens = True
        self.special = {token: number for token, number in tokenizer.get_vocab().items() if token[:2] == "<|"}

    def text(self, text: str) -> list[int]:
        """Ids of plain text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def example(
        self, messages: Conversation, tools: str | None = None, media: Sequence[int] = (), place: int | None = None
    ) -> Example:
        """A conversation of text; `media` (audio or image token ids) come first in its message `place`.

        Without one that is its last user turn.
        """
        ids: list[int] = []
        targets: list[int] = []
        before = (len(messages) - 2 if place is None else place) if media else None
        turns = -1
        answering = False
        *pieces, _ = render(messages, tools)  # the last one asks for another answer
        for piece in pieces:
            new = [self.special[piece.token]] if isinstance(piece, Marker) else self.text(str(piece))
            if isinstance(piece, Marker) and piece.token in TURNS:
                turns += 1
                new += media if turns == before else ()
                targets += [IGNORED] * len(new)
                answering = piece.token == ANSWER
            else:
                targets += new if answering else [IGNORED] * len(new)
            ids += new
        return Example(ids, targets)


Drawn = tuple[Conversation, str | None]


def written(rng: random.Random) -> Drawn:
    """A conversation in writing, of any kind."""
    roll = rng.random()
    if roll < 0.18:
        return conversations.memory(rng), None
    if roll < 0.30:
        return conversations.instructed(rng), None
    if roll < 0.63:
        return documents.on_text(rng), None
    if roll < 0.73:
        return documents.on_scene(rng), None
    if roll < 0.84:
        return sums(rng), None
    if roll < 0.87:
        asked, reply = conversations.any_question(rng)
        return (conversations.user(asked), conversations.answer(reply["en"])), None
    return tools.conversation(rng)


def sums(rng: random.Random) -> Conversation:
    """One to four sums, differences or products."""
    asked = [conversations.arithmetic(rng) for _ in range(rng.randint(1, 4))]
    return tuple(
        message for one, result in asked for message in (conversations.user(one), conversations.answer(result))
    )


def drawn(source: Callable[[random.Random], Drawn], rng: random.Random, tests: bool) -> Drawn:
    """The next conversation of `source` that is held out for tests, or that is not."""
    while True:
        messages, offered = source(rng)
        if conversations.held_out(messages) == tests:
            return messages, offered


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded on the right: token ids, targets, positions, each (rows, tokens)."""

    ids: Tensor
    targets: Tensor
    positions: Tensor


def collate(examples: Sequence[Example], long: int | None = None, rng: random.Random | None = None) -> Batch:
    """One batch. `long` is the position that a gap in each row leads beyond, so that the long rope factors apply."""
    longest = max(len(example.ids) for example in examples)
    ids = torch.zeros(len(examples), longest, dtype=torch.long)
    targets = torch.full((len(examples), longest), IGNORED)
    positions = torch.arange(longest).repeat(len(examples), 1)
    for row, example in enumerate(examples):
        ids[row, : len(example.ids)] = torch.tensor(example.ids)
        targets[row, : len(example.ids)] = torch.tensor(example.targets)
        if long is not None and rng is not None:
            gap = rng.choice((0, rng.randint(0, len(example.ids))))
            positions[row, gap:] += long + rng.randint(0, 4 * long)
    return Batch(ids, targets, positions)


TOKENS_PER_TURN = 15  # of small talk, at most


def far(encoder: Encoder, rng: random.Random, switch: int) -> Batch:
    """A long conversation: small talk, then many tasks.

    It is longer than the LongRoPE switch, or of any length before it, or moved to positions behind it, which costs less
    than being so long.
    """
    kind = rng.choice(("longer", "longer", "shorter", "shorter", "moved"))
    length = switch if kind == "longer" else rng.randint(300, switch - 400)
    moved = switch if kind == "moved" else None
    if rng.random() < 0.15:
        turns = length // TOKENS_PER_TURN
        while len((asked := encoder.example(conversations.long_chat(rng, turns))).ids) <= length:
            turns += rng.randint(5, 20)
        return collate([_late(asked, length // 2)], moved, rng)
    system, tasks, offered = _many_tasks(encoder, rng)
    asked = encoder.example(tasks)
    turns = max(1, (length - len(asked.ids)) // TOKENS_PER_TURN)
    while True:
        talk = encoder.example((*system, *conversations.long_chat(rng, turns, tell=False)), offered)
        if len(talk.ids) + len(asked.ids) > length:  # the talk does not heed the system message: no example to follow
            talk = _late(talk, len(talk.ids) if system else len(talk.ids) * 2 // 3)
            joined = Example(talk.ids + asked.ids, talk.targets + asked.targets)
            return collate([joined], moved, rng)
        turns += 20


def _many_tasks(encoder: Encoder, rng: random.Random) -> tuple[Conversation, Conversation, str | None]:
    """The system message, if any, tasks of some 700 tokens under it, and the tools."""
    roll = rng.random()
    if roll < 0.35:
        messages, offered = tools.chat(rng, 30)
        return messages[:1], messages[1:], offered
    if roll < 0.5:
        messages = conversations.instructed(rng, 25)
        return messages[:1], messages[1:], None
    tasks: Conversation = ()
    while len(encoder.example(tasks).ids) < 700:
        messages, _ = drawn(written, rng, tests=False)
        tasks += () if messages[0].role == "system" else messages
    return (), tasks, None


def _late(example: Example, first: int) -> Example:
    """Only answers from token `first` on."""
    return Example(example.ids, [IGNORED] * first + example.targets[first:])


def text_batches(
    encoder: Encoder, seed: int, budget: int, long_share: float, switch: int, far_share: float
) -> Iterator[Batch]:
    """Endless batches of about `budget` tokens.

    `long_share` of them are short but have positions on the far side of the LongRoPE switch; beside them, `far_share`
    as many consist of one conversation that is longer than the switch.
    """
    rng = random.Random(seed)
    while True:
        pool = [encoder.example(*drawn(written, rng, tests=False)) for _ in range(400)]
        pool.sort(key=lambda example: len(example.ids))
        groups: list[list[Example]] = [[]]
        for example in pool:
            if (len(groups[-1]) + 1) * len(example.ids) > budget:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            if rng.random() < far_share:
                yield far(encoder, rng, switch)
            yield collate(group, switch if rng.random() < long_share else None, rng)
