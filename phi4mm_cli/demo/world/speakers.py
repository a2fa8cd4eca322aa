"""The synthetic voices that the demo is trained on, and those that are kept for its tests."""

from __future__ import annotations

import random

from phi4mm_cli.demo.voice import Speech, speak
from phi4mm_cli.demo.world.lexicon import Language

VOICES: dict[Language, tuple[str, ...]] = {
    "en": ("en", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp"),
    "fr": ("fr", "fr-be", "fr-ch"),
    "es": ("es", "es-419"),
}
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m8", "f1", "f2", "f3", "f5", "Alex", "Andy", "Annie", "belinda"),
    *("benjamin", "Denis", "ed", "john", "linda"),
)
UNSEEN_VARIANTS = ("m7", "f4", "Michael", "Alicia", "paul")


class Speaker:
    """A voice with its speed, pitch and liveliness, drawn at random; `unseen` ones are never trained on."""

    def __init__(self, rng: random.Random, language: Language, unseen: bool = False) -> None:
        variant = rng.choice(UNSEEN_VARIANTS if unseen else VARIANTS)
        self._rng, self._voice = rng, f"{rng.choice(VOICES[language])}+{variant}"
        self._settings = {
            "rate_wpm": rng.randint(125, 210),
            "pitch": rng.randint(25, 75),
            "pitch_range": rng.randint(25, 75),
        }

    def say(self, text: str) -> Speech:
        """The text, spoken."""
        return speak(text, voice=self._voice, seed=self._rng.randint(1, 10**6), **self._settings)
