"""Conversations in writing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial

from phi4mm_cli.demo.exam.cases import TURNS_BEYOND, Case, Skill, Studio, asked
from phi4mm_cli.demo.world import conversations, documents, tools
from phi4mm_cli.demo.world.conversations import Conversation, user

Drawn = tuple[Conversation, str | None]


def written(draw: Callable[[random.Random], Drawn]) -> Callable[[Studio, bool], Iterator[Case]]:
    """Conversations in writing that training leaves out; the last answer is to be given."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            messages, offered = draw(studio.rng)
            if not conversations.held_out(messages):
                continue
            *before, last = messages
            if beyond:  # the chat stands before the question, and behind the system message
                talk = conversations.long_chat(studio.rng, TURNS_BEYOND, tell=False)
                place = 1 if before[0].role == "system" else 0
                before[place:place] = talk
            request = tuple(before)
            yield Case(partial(asked, request, offered, beyond=beyond), "".join(str(part) for part in last.parts))

    return cases


def _arithmetic(rng: random.Random) -> Drawn:
    question, result = conversations.arithmetic(rng)
    return (user(question), conversations.answer(result)), None


def _text_task(task: str) -> Callable[[random.Random], Drawn]:
    def draw(rng: random.Random) -> Drawn:
        while True:
            messages = documents.on_text(rng)
            if str(messages[0].parts[0]).startswith(task):
                return messages, None

    return draw


def _tools(*, call: bool) -> Callable[[random.Random], Drawn]:
    def draw(rng: random.Random) -> Drawn:
        while True:
            messages, offered = tools.conversation(rng)
            ends_in_call = "<|tool_call|>" in str(messages[-1].parts[0])
            if ends_in_call == call and (call or messages[-2].role == "tool"):
                return messages, offered

    return draw


def _helpless(rng: random.Random) -> Drawn:
    if rng.random() < 0.5:
        question = conversations.unanswerable(rng)
        return (user(question), conversations.answer(conversations.UNKNOWN["en"])), None
    while True:
        messages, offered = tools.conversation(rng)
        if messages[-1].parts[0] == conversations.UNKNOWN["en"]:
            return messages, offered


TEXT = (
    Skill("Chat that remembers", "exact", None, written(lambda rng: (conversations.memory(rng), None))),
    Skill("System prompts", "exact", None, written(lambda rng: (conversations.instructed(rng), None))),
    Skill("Sums, differences, products", "exact", None, written(_arithmetic)),
    Skill("Text translated", "chrF", 90, written(_text_task("Translate"))),
    Skill("Text told in one sentence", "exact", None, written(_text_task("Summarize"))),
    Skill("Tool calls", "exact", 95, written(_tools(call=True))),
    Skill("Results of tools told", "exact", None, written(_tools(call=False))),
    Skill('"I do not know."', "exact", None, written(_helpless)),
)
