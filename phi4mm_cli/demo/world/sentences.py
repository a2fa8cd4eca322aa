"""The demo's sentences: each is drawn once and can be said in English, French and Spanish."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from phi4mm_cli.demo.world.lexicon import (
    CITIES,
    COLORS,
    COUNTS,
    DAYS,
    FAMILY,
    FOODS,
    JOBS,
    LANGUAGES,
    MONTHS,
    PEOPLE,
    PLACES,
    SHOPS,
    THINGS,
    UNITS,
    WEATHER,
    Color,
    Language,
    Phrase,
    Thing,
    spell,
)

_ARTICLES: dict[Language, dict[str, tuple[str, str]]] = {  # definite, indefinite
    "en": {"m": ("the", "a")},
    "fr": {"m": ("le", "un"), "f": ("la", "une")},
    "es": {"m": ("el", "un"), "f": ("la", "una")},
}


@dataclass(frozen=True, slots=True)
class Draw:
    """What one sentence speaks of, drawn at random."""

    people: tuple[Phrase, ...]  # two different ones
    cities: tuple[Phrase, ...]
    day: Phrase
    month: Phrase
    unit: Phrase
    place: Phrase
    food: Phrase
    family: Phrase
    job: Phrase
    shop: Phrase
    weather: Phrase
    thing: Thing
    color: Color
    number: int  # one of COUNTS
    hour: int  # 2 to 12
    digits: tuple[int, ...]  # 3 to 6 of them

    def words(self, language: Language) -> dict[str, str]:
        """What the places in a template stand for."""
        thing = self.thing
        gender = thing.gender[language]
        the, a = _ARTICLES[language][gender]
        color = (self.color.feminine if gender == "f" else self.color.masculine)[language]
        noun = thing.one[language]
        article = "an" if language == "en" and color[0] in "aeiou" else a
        return {
            "name": self.people[0][language],
            "other": self.people[1][language],
            "city": self.cities[0][language],
            "day": self.day[language],
            "month": self.month[language],
            "unit": self.unit[language],
            "place": self.place[language],
            "food": self.food[language],
            "family": self.family[language],
            "job": self.job[language],
            "shop": self.shop[language],
            "weather": self.weather[language],
            "the_thing": f"{the} {noun}",
            "The_thing": f"{the.capitalize()} {noun}",
            "a_colored_thing": f"{article} {color} {noun}" if language == "en" else f"{a} {noun} {color}",
            "things": thing.many[language],
            "color": color,
            "number": spell(self.number, language),
            "hour": spell(self.hour, language),
            "digits": " ".join(spell(digit, language) for digit in self.digits),
        }


TEMPLATES: tuple[Phrase, ...] = tuple(
    {"en": english, "fr": french, "es": spanish}
    for english, french, spanish in (
        (
            "The meeting starts at {hour} o'clock on {day}.",
            "La réunion commence à {hour} heures {day}.",
            "La reunión empieza a las {hour} el {day}.",
        ),
        (
            "Please send {the_thing} to {name} before {day}.",
            "Veuillez envoyer {the_thing} à {name} avant {day}.",
            "Por favor, envíe {the_thing} a {name} antes del {day}.",
        ),
        ("The price is {number} dollars.", "Le prix est de {number} dollars.", "El precio es de {number} dólares."),
        ("I see {a_colored_thing} {place}.", "Je vois {a_colored_thing} {place}.", "Veo {a_colored_thing} {place}."),
        (
            "{name} forgot {the_thing} on {day}.",
            "{name} a oublié {the_thing} {day}.",
            "{name} olvidó {the_thing} el {day}.",
        ),
        (
            "{name} and {other} are working on {the_thing}.",
            "{name} et {other} travaillent sur {the_thing}.",
            "{name} y {other} trabajan en {the_thing}.",
        ),
        (
            "We need {number} more {unit}.",
            "Il nous faut encore {number} {unit}.",
            "Necesitamos {number} {unit} más.",
        ),
        ("My number is {digits}.", "Mon numéro est {digits}.", "Mi número es {digits}."),
        ("{name} lives in {city}.", "{name} habite à {city}.", "{name} vive en {city}."),
        (
            "{name} meets {other} in {city} on {day}.",
            "{name} rencontre {other} à {city} {day}.",
            "{name} se reúne con {other} en {city} el {day}.",
        ),
        (
            "The train to {city} leaves at {hour} o'clock.",
            "Le train pour {city} part à {hour} heures.",
            "El tren a {city} sale a las {hour}.",
        ),
        ("{The_thing} is {color}.", "{The_thing} est {color}.", "{The_thing} es {color}."),
        ("{name} bought {number} {things}.", "{name} a acheté {number} {things}.", "{name} compró {number} {things}."),
        (
            "The weather in {city} is {weather}.",
            "Le temps à {city} est {weather}.",
            "El tiempo en {city} es {weather}.",
        ),
        ("{name} likes {food}.", "{name} aime {food}.", "A {name} le gusta {food}."),
        ("{family} is {job}.", "{family} est {job}.", "{family} es {job}."),
        ("Do you have {the_thing}?", "Avez-vous {the_thing} ?", "¿Tiene usted {the_thing}?"),
        (
            "{The_thing} costs {number} euros.",
            "{The_thing} coûte {number} euros.",
            "{The_thing} cuesta {number} euros.",
        ),
        (
            "Call {name} at {hour} o'clock.",
            "Appelez {name} à {hour} heures.",
            "Llame a {name} a las {hour}.",
        ),
        ("{shop} opens on {day}.", "{shop} ouvre {day}.", "{shop} abre el {day}."),
        ("There are {number} {things} {place}.", "Il y a {number} {things} {place}.", "Hay {number} {things} {place}."),
        (
            "{name} will travel to {city} in {month}.",
            "{name} voyagera à {city} en {month}.",
            "{name} viajará a {city} en {month}.",
        ),
        (
            "{name} lost {a_colored_thing} in {city}.",
            "{name} a perdu {a_colored_thing} à {city}.",
            "{name} perdió {a_colored_thing} en {city}.",
        ),
        (
            "We are waiting for {name} {place}.",
            "Nous attendons {name} {place}.",
            "Esperamos a {name} {place}.",
        ),
    )
)


def draw(rng: random.Random) -> Draw:
    """What a sentence may speak of."""
    pick: Callable[[tuple[Phrase, ...]], Phrase] = rng.choice
    return Draw(
        people=tuple(rng.sample(PEOPLE, 2)),
        cities=tuple(rng.sample(CITIES, 2)),
        day=pick(DAYS),
        month=pick(MONTHS),
        unit=pick(UNITS),
        place=pick(PLACES),
        food=pick(FOODS),
        family=pick(FAMILY),
        job=pick(JOBS),
        shop=pick(SHOPS),
        weather=pick(WEATHER),
        thing=rng.choice(THINGS),
        color=rng.choice(COLORS),
        number=rng.choice(COUNTS),
        hour=rng.randint(2, 12),
        digits=tuple(rng.randint(0, 9) for _ in range(rng.randint(3, 6))),
    )


def sentence(rng: random.Random) -> Phrase:
    """One sentence, in every language."""
    drawn, template = draw(rng), rng.choice(TEMPLATES)
    return say(template, drawn)


def say(template: Phrase, drawn: Draw) -> Phrase:
    """The template with what was drawn in its places, in every language."""
    return {language: template[language].format(**drawn.words(language)) for language in LANGUAGES}


def held_out(english: str) -> bool:
    """Whether a sentence, by its English form, belongs to the tests: one in ten does, and is never trained on."""
    return hashlib.sha256(english.encode()).digest()[0] % 10 == 0


def vocabulary(language: Language) -> list[str]:
    """Every word that a sentence in `language` can hold, as it is written without punctuation."""
    rng = random.Random(0)
    words: set[str] = set()
    for _ in range(20_000):
        words.update(word.strip(".,?¿") for word in sentence(rng)[language].split())
    return sorted(words - {""})
