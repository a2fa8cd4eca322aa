"""Chats in writing: facts, sums, what was told before, system prompts. Every answer is determined."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from phi4mm_cli.demo.world.lexicon import (
    CITIES,
    COLORS,
    COUNTS,
    DAYS,
    FOODS,
    JOBS,
    LANGUAGES,
    MONTHS,
    NAMES,
    PEOPLE,
    THINGS,
    Language,
    Phrase,
    spell,
)
from phi4mm_cli.schema import Message

Conversation = tuple[Message, ...]  # ends with an answer
FOLDS = 20  # one conversation in so many is held out for tests, by the hash of its text

UNKNOWN: Phrase = {"en": "I do not know.", "fr": "Je ne sais pas.", "es": "No lo sé."}

_CAPITALS = {
    "England": 0,
    "France": 1,
    "Germany": 2,
    "Spain": 3,
    "Italy": 4,
    "Japan": 5,
    "Portugal": 8,
    "Austria": 9,
}
_TINTED = {"the sky": 1, "grass": 2, "snow": 5, "the sun": 3, "coal": 4}
_COURTESY = {
    "Hello!": "Hello! How can I help you?",
    "Thank you.": "You are welcome.",
    "Who are you?": "I am a small demo model.",
    "What can you do?": "I can hear, see, read, translate and call tools.",
}
_COUNTED = {
    "days are in a week": 7,
    "months are in a year": 12,
    "hours are in a day": 24,
    "minutes are in an hour": 60,
    "legs does a dog have": 4,
    "wheels does a car have": 4,
}


def user(text: str) -> Message:
    """What the user writes."""
    return Message("user", (text,))


def answer(text: str) -> Message:
    """What the model writes."""
    return Message("assistant", (text,))


def held_out(messages: Conversation) -> bool:
    """Whether a conversation belongs to the tests and is never trained on."""
    text = "\n".join(str(part) for message in messages for part in message.parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % FOLDS == 0


# ------------------------------------------------------------------------------------------------ questions


def facts() -> list[tuple[str, Phrase]]:
    """The fixed questions, and their answers in every language."""
    known: list[tuple[str, Phrase]] = [(asked, dict.fromkeys(LANGUAGES, reply)) for asked, reply in _COURTESY.items()]
    for country, city in _CAPITALS.items():
        known.append((f"What is the capital of {country}?", {code: f"{CITIES[city][code]}." for code in LANGUAGES}))
    for what, color in _TINTED.items():
        tint = COLORS[color].masculine
        known.append((f"What color is {what}?", {code: f"{tint[code].capitalize()}." for code in LANGUAGES}))
    for what, number in _COUNTED.items():
        known.append((f"How many {what}?", dict.fromkeys(LANGUAGES, f"{number}.")))
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        for name, after in zip(names, (*names[1:], names[0]), strict=True):
            following: Phrase = {code: f"{after[code].capitalize()}." for code in LANGUAGES}
            known.append((f"Which {kind} comes after {name['en']}?", following))
    return known


def unanswerable(rng: random.Random) -> str:
    """A question that nothing in the world answers."""
    name, city, thing = rng.choice(PEOPLE)["en"], rng.choice(CITIES)["en"], rng.choice(THINGS).one["en"]
    return rng.choice(
        (
            f"How old is {name}?",
            f"Who lives in {city}?",
            f"Where is the {thing}?",
            f"Who has the {thing}?",
            f"What did {name} say?",
            f"How many people live in {city}?",
            "Who won the game?",
        )
    )


def arithmetic(rng: random.Random, spoken: bool = False) -> tuple[str, str]:
    """A sum, a difference or a product of two small numbers, and its result in digits."""
    kind = rng.choice(("plus", "minus", "times"))
    if kind == "times":
        first, second = rng.randint(1, 9), rng.randint(1, 9)
        result = first * second
    else:
        first, second = rng.randint(0, 20), rng.randint(0, 20)
        if kind == "minus":
            first, second = max(first, second), min(first, second)
        result = first + second if kind == "plus" else first - second
    if spoken or rng.random() < 0.3:
        return f"What is {spell(first, 'en')} {kind} {spell(second, 'en')}?", f"{result}."
    if rng.random() < 0.3:
        sign = {"plus": "+", "minus": "-", "times": "*"}[kind]
        return f"{first} {sign} {second} =", f"{result}."
    return f"What is {first} {kind} {second}?", f"{result}."


def any_question(rng: random.Random, spoken: bool = False) -> tuple[str, Phrase]:
    """A question that stands alone, and its answer in every language."""
    roll = rng.random()
    if roll < 0.5:
        return rng.choice(facts())
    if roll < 0.85:
        asked, result = arithmetic(rng, spoken)
        return asked, dict.fromkeys(LANGUAGES, result)
    return unanswerable(rng), UNKNOWN


# ------------------------------------------------------------------------------------------------ conversations

_TOLD: dict[str, tuple[str, str, Callable[[random.Random], str]]] = {  # statement: question, answer, what fills them
    "My name is {}.": ("What is my name?", "Your name is {}.", lambda rng: rng.choice(PEOPLE)["en"]),
    "I live in {}.": ("Where do I live?", "You live in {}.", lambda rng: rng.choice(CITIES)["en"]),
    "My favorite color is {}.": (
        "What is my favorite color?",
        "Your favorite color is {}.",
        lambda rng: rng.choice(COLORS).masculine["en"],
    ),
    "I like {}.": ("What do I like?", "You like {}.", lambda rng: rng.choice(FOODS)["en"]),
    "I am {}.": ("What is my job?", "You are {}.", lambda rng: rng.choice(JOBS)["en"]),
    "I lost the {}.": ("What did I lose?", "You lost the {}.", lambda rng: rng.choice(THINGS).one["en"]),
    "My train leaves on {}.": (
        "When does my train leave?",
        "Your train leaves on {}.",
        lambda rng: rng.choice(DAYS)["en"],
    ),
    "My number is {}.": ("What is my number?", "Your number is {}.", lambda rng: str(rng.choice(COUNTS))),
}


def told() -> list[tuple[str, str, str]]:
    """What can be told and asked for: statement, question and answer, with {} for what is told."""
    return [(statement, asked, reply) for statement, (asked, reply, _) in _TOLD.items()]


def memory(rng: random.Random) -> Conversation:
    """The user tells things, talks of others, and asks for them two turns later; sometimes for what was never told."""
    statements = rng.sample(sorted(_TOLD), rng.randint(1, 3))
    told = {statement: _TOLD[statement][2](rng) for statement in statements}
    turns: list[tuple[str, str]] = []
    for statement, value in told.items():
        acknowledged = f"Hello, {value}." if statement.startswith("My name") else "I will remember that."
        turns.append((statement.format(value), acknowledged))
        if rng.random() < 0.6:
            asked, reply = any_question(rng)
            turns.append((asked, reply["en"]))
    for _ in range(rng.randint(1, 3)):
        statement = rng.choice(statements) if rng.random() < 0.75 else rng.choice(sorted(_TOLD))
        asked, reply_form, _value = _TOLD[statement]
        turns.append((asked, reply_form.format(told[statement]) if statement in told else UNKNOWN["en"]))
    return tuple(message for asked, reply in turns for message in (user(asked), answer(reply)))


def long_chat(rng: random.Random, turns: int, *, tell: bool = True) -> Conversation:
    """Things told, told anew, asked for, and other questions between, for `turns` turns; only those without `tell`."""
    told: dict[str, str] = {}
    messages: list[Message] = []
    for _ in range(turns):
        roll = rng.random() if tell else 0.5
        if roll < 0.25:
            statement = rng.choice(sorted(_TOLD))
            told[statement] = _TOLD[statement][2](rng)
            acknowledged = f"Hello, {told[statement]}." if statement.startswith("My name") else "I will remember that."
            asked, reply = statement.format(told[statement]), acknowledged
        elif roll < 0.7:
            asked, answered = any_question(rng)
            reply = answered["en"]
        else:
            statement = rng.choice(sorted(told or _TOLD)) if rng.random() < 0.8 else rng.choice(sorted(_TOLD))
            asked, form, _ = _TOLD[statement]
            reply = form.format(told[statement]) if statement in told else UNKNOWN["en"]
        messages += [user(asked), answer(reply)]
    return tuple(messages)


def instructed(rng: random.Random, questions: int | None = None) -> Conversation:
    """Questions, one or two where it is not said how many, under a system prompt that may change the answers."""
    language: Language = "en"
    before = after = ""
    kind = rng.choice(("plain", "language", "language", "pirate", "goodbye", "private"))
    if kind == "language":
        language = rng.choice(LANGUAGES)
        system = f"Answer in {NAMES[language]}."
    elif kind == "pirate":
        system, before = "You are a pirate.", "Arr! "
    elif kind == "goodbye":
        system, after = "End every answer with: Goodbye!", " Goodbye!"
    else:
        system = "You are a helpful assistant."
    messages = [Message("system", (system,))]
    for _ in range(questions or rng.randint(1, 2)):
        asked, reply = any_question(rng)
        messages += [user(asked), answer(before + reply[language] + after)]
    return tuple(messages)
