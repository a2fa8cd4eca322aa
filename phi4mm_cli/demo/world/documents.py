"""Tasks on what is given in writing: texts, pages, tables, receipts, and scenes told in words."""

from __future__ import annotations

import random

from phi4mm_cli.demo.world.conversations import Conversation, answer, user
from phi4mm_cli.demo.world.lexicon import CITIES, FOODS, LANGUAGES, NAMES, Language, Phrase
from phi4mm_cli.demo.world.scenes import (
    DESCRIBE,
    DIFFERENCE,
    MOTION,
    bars,
    describe,
    difference,
    extreme,
    frames,
    question,
    scene,
)
from phi4mm_cli.demo.world.sentences import draw, say, sentence
from phi4mm_cli.flows import translate

STORY: tuple[Phrase, ...] = (
    {
        "en": "{name} has a meeting with {other}.",
        "fr": "{name} a une réunion avec {other}.",
        "es": "{name} tiene una reunión con {other}.",
    },
    {"en": "The meeting is in {city}.", "fr": "La réunion est à {city}.", "es": "La reunión es en {city}."},
    {
        "en": "It takes place on {day} at {hour} o'clock.",
        "fr": "Elle a lieu {day} à {hour} heures.",
        "es": "Tiene lugar el {day} a las {hour}.",
    },
)
GIST: Phrase = {
    "en": "{name} meets {other} in {city} on {day} at {hour} o'clock.",
    "fr": "{name} rencontre {other} à {city} {day} à {hour} heures.",
    "es": "{name} se reúne con {other} en {city} el {day} a las {hour}.",
}
SUMMARIZE_TEXT = "Summarize the text in one sentence."
TRANSLATE_TEXT = translate.TEXT_PROMPT.replace("{language}", "{}")
REPEAT_TEXT = "Repeat the text."


def story(rng: random.Random, most_others: int = 4) -> tuple[list[Phrase], Phrase]:
    """Sentences that tell of a meeting among others that do not, and the meeting in one sentence."""
    drawn = draw(rng)
    told = [say(template, drawn) for template in STORY]
    for _ in range(rng.randint(0, most_others)):
        other = sentence(rng)
        if not any(word in other["en"] for word in ("meet", "Call")):
            told.insert(rng.randint(0, len(told)), other)
    return told, say(GIST, drawn)


def on_text(rng: random.Random) -> Conversation:
    """A text to translate, to summarize or to repeat."""
    roll = rng.random()
    source: Language = rng.choice(LANGUAGES)
    if roll < 0.42:
        target = rng.choice([code for code in LANGUAGES if code != source])
        sentences = [sentence(rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        text, reply = (" ".join(phrase[code] for phrase in sentences) for code in (source, target))
        return user(f"{TRANSLATE_TEXT.format(NAMES[target])}\n{text}"), answer(reply)
    if roll < 0.56:
        told, gist = story(rng)
        text = " ".join(phrase[source] for phrase in told)
        return user(f"{SUMMARIZE_TEXT}\n{text}"), answer(gist[source])
    text = _words(rng, source) if rng.random() < 0.5 else table(rng) if rng.random() < 0.5 else receipt(rng)
    return user(f"{REPEAT_TEXT}\n{text}"), answer(text)


def _words(rng: random.Random, language: Language) -> str:
    words = " ".join(sentence(rng)[language] for _ in range(rng.randint(1, 4))).split()
    rng.shuffle(words)
    return " ".join(words[: rng.choice((rng.randint(3, 8), rng.randint(3, 25)))])


def line(rng: random.Random) -> str:
    """One sentence."""
    return sentence(rng)["en"]


def page(rng: random.Random) -> str:
    """A heading and a few sentences, a line each, in Markdown."""
    heading = rng.choice(("# Notes", "# News", "# Page"))
    return "\n".join([heading, *(sentence(rng)["en"] for _ in range(rng.randint(2, 8)))])


def receipt(rng: random.Random) -> str:
    """Goods with their prices, and the total, in Markdown."""
    goods = [f"{rng.choice(FOODS)['en'].capitalize()} {amount(rng)}" for _ in range(rng.randint(2, 6))]
    heading = rng.choice(("Receipt", "Invoice", f"{rng.choice(CITIES)['en']}"))
    return "\n".join([rng.choice(("# ", "")) + heading, *goods, rng.choice(("Total", "**Total**")) + f" {amount(rng)}"])


def amount(rng: random.Random) -> str:
    """An amount of money below a hundred."""
    return f"{rng.randint(0, 99)}.{rng.randint(0, 99):02}"


def table(rng: random.Random) -> str:
    """A table of two columns, in Markdown."""
    heads = ["Name", rng.choice(("City", "Day", "Number", "Price", "Date"))]
    rows = [heads, ["---"] * len(heads)]
    for _ in range(rng.randint(2, 4)):
        drawn = draw(rng)
        date = f"{drawn.month['en']} {rng.randint(1, 30)}"
        values = {"City": drawn.cities[0]["en"], "Day": drawn.day["en"], "Number": str(drawn.number), "Date": date}
        value = values.get(heads[1]) or amount(rng)
        rows.append([drawn.people[0]["en"], value])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def on_scene(rng: random.Random) -> Conversation:
    """Scenes told in words, and a question about them: what the vision adapter will ask of the base model."""
    roll = rng.random()
    if roll < 0.55:
        items = scene(rng)
        asked, reply = question(rng, items) if rng.random() < 0.8 else (DESCRIBE, describe(items))
        shown = describe(items)
    elif roll < 0.75:
        scenes, reply = difference(rng)
        asked, shown = DIFFERENCE, " ".join(describe(items) for items in scenes)
    elif roll < 0.85:
        film, reply = frames(rng)
        asked, shown = MOTION, " ".join(describe(items) for items in film)
    else:
        heights = bars(rng)
        asked, reply = extreme(rng, heights)
        shown = ", ".join(f"{tint} {height}" for tint, height in heights) + "."
    return user(f"{shown}\n{asked}"), answer(reply)
