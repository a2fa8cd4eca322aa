"""Questions about recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from phi4mm_cli.demo.exam.cases import BEYOND, RATE, Case, Skill, Studio, asked, heard, transcribed
from phi4mm_cli.demo.world import conversations, documents, noises, prompts, tools
from phi4mm_cli.demo.world.lexicon import LANGUAGES, NAMES, Language
from phi4mm_cli.schema import Message


def transcription(
    language: Language, unseen: bool = False, snr_db: float | None = None
) -> Callable[[Studio, bool], Iterator[Case]]:
    """Recordings of up to 28 s, to be transcribed."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            texts = [phrase[language] for phrase in studio.sentences()]
            path = studio.record(texts, language, unseen=unseen, snr_db=snr_db, beyond=beyond)
            messages = heard(path, studio, prompts.TRANSCRIBE_IN.format(NAMES[language]))
            # The program itself would leave out so long a silence.
            ask = partial(asked, messages, beyond=True) if beyond else partial(transcribed, path, language)
            yield Case(ask, " ".join(texts))

    return cases


def no_words(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Silence, noise and music: nothing to write."""
    while True:
        kind = studio.rng.choice(("silence", *noises.KINDS))
        seconds = BEYOND if beyond else studio.rng.uniform(0.5, 28)
        samples = np.zeros(int(seconds * RATE), np.float32)
        if kind != "silence":
            samples = noises.wave(kind, seconds, studio.noise) * np.float32(10 ** studio.rng.uniform(-2, 0.3))
        messages = heard(studio.write(samples), studio, prompts.TRANSCRIBE)
        yield Case(partial(asked, messages, beyond=beyond), "")


def speech_translation(cot: bool) -> Callable[[Studio, bool], Iterator[Case]]:
    """Recordings of up to 20 s, to be written in another language, or in both."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            language = studio.rng.choice(LANGUAGES)
            target = studio.target(language)
            phrases = studio.sentences(20.0)
            path = studio.record([phrase[language] for phrase in phrases], language, beyond=beyond)
            form = prompts.TRANSLATE_COT if cot else prompts.TRANSLATE
            messages = heard(path, studio, form.format(NAMES[target]))
            texts = [" ".join(phrase[code] for phrase in phrases) for code in (language, target)]
            expected = f" {prompts.SEPARATOR} ".join(texts) if cot else texts[1]
            yield Case(partial(asked, messages, beyond=beyond), expected)

    return cases


def spoken_questions(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Questions that are only heard."""
    while True:
        question, reply = conversations.any_question(studio.rng, spoken=True)
        messages = heard(studio.record([question], beyond=beyond), studio, "")
        yield Case(partial(asked, messages, beyond=beyond), reply["en"])


def told_stories(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Recordings of several sentences, to be told in one."""
    while True:
        language = studio.rng.choice(LANGUAGES)
        told, gist = documents.story(studio.rng, most_others=2)
        path = studio.record([phrase[language] for phrase in told], language, beyond=beyond)
        messages = heard(path, studio, prompts.SUMMARIZE)
        yield Case(partial(asked, messages, beyond=beyond), gist[language])


def spoken_errands(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Spoken requests that one of the tools at hand can do."""
    while True:
        wanted = tools.errand(studio.rng, spoken=True)
        offered = tools.offered(studio.rng, wanted.tool)
        path = studio.record([wanted.asked], beyond=beyond)
        messages = heard(path, studio, "", [Message("system", (tools.SYSTEM,))])
        expected = f"<|tool_call|>{json.dumps([wanted.call])}<|/tool_call|>"
        yield Case(partial(asked, messages, offered, beyond=beyond), expected)


SPEECH = (
    Skill("English, voices of the training", "word error rate", 3, transcription("en")),
    Skill("English, other voices", "word error rate", 6, transcription("en", unseen=True)),
    Skill("English, noise 15 dB below", "word error rate", None, transcription("en", snr_db=15)),
    Skill("French", "word error rate", None, transcription("fr")),
    Skill("Spanish", "word error rate", None, transcription("es")),
    Skill("Silence, noise, music: no answer", "exact", None, no_words),
    Skill("Speech translated", "chrF", 90, speech_translation(cot=False)),
    Skill("Transcript, `<sep>`, translation", "chrF", 90, speech_translation(cot=True)),
    Skill("Spoken questions", "exact", None, spoken_questions),
    Skill("Recordings told in one sentence", "exact", None, told_stories),
    Skill("Spoken requests for tools", "exact", 95, spoken_errands),
)
