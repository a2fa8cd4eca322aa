"""What the demo checkpoint is tested with: fresh questions within its world, as flows of the program, and the answers.

The sentences and conversations are those that training leaves out by their hash; every voice setting, noise and
picture is drawn anew.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
from numpy.typing import NDArray

from phi4mm_cli.commands import transcribe
from phi4mm_cli.demo.world import conversations, noises, prompts, sentences, tools
from phi4mm_cli.demo.world.conversations import Conversation, user
from phi4mm_cli.demo.world.lexicon import LANGUAGES, NAMES, Language, Phrase
from phi4mm_cli.demo.world.speakers import Speaker
from phi4mm_cli.flow import Flow
from phi4mm_cli.media import audio
from phi4mm_cli.schema import Clip, Message, Request, Sampling

RATE = 16000  # Hz
BUDGET = 400  # tokens
BEYOND = 335.0  # seconds of silence that take more than 4,096 tokens
TURNS_BEYOND = 230  # of small talk, which do so too
Samples = NDArray[np.float32]
Measure = Literal["word error rate", "character error rate", "chrF", "exact"]


@dataclass(frozen=True, slots=True)
class Case:
    """One question to the program: how it is asked, and the answer that is right."""

    ask: Callable[[], Flow[str]]
    expected: str


@dataclass(frozen=True, slots=True)
class Skill:
    """A row of the card."""

    name: str
    measure: Measure
    target: float | None  # percent
    cases: Callable[[Studio, bool], Iterator[Case]]  # endless; True: all past 4,096 tokens


# ------------------------------------------------------------------------------------------------ asking


def asked(messages: Conversation, offered: str | None = None) -> Flow[str]:
    """The model's answer to one request."""
    request = Request(messages, Sampling(max_new_tokens=BUDGET), offered)
    (result,) = yield [request]
    return result.text


def transcribed(path: Path, language: Language) -> Flow[str]:
    """The text that `phi4mm transcribe` writes for a recording."""
    body = yield from transcribe.flow(audio.source(path), transcribe.Options(language))
    return body.text


class Studio:
    """Makes recordings in a folder, from one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng, self._folder, self._count = random.Random(seed), folder, 0
        self.noise = np.random.default_rng(seed)

    def sentences(self, most_seconds: float = 28.0) -> list[Phrase]:
        """New sentences, as many as fit into a clip of a random length."""
        wanted = self.rng.uniform(1, most_seconds)
        chosen = [self.sentence()]
        while 3.2 * (len(chosen) + 1) < wanted:
            chosen.append(self.sentence())
        return chosen

    def sentence(self) -> Phrase:
        """A sentence that training leaves out."""
        while not sentences.held_out((phrase := sentences.sentence(self.rng))["en"]):
            pass
        return phrase

    def record(
        self,
        texts: Sequence[str],
        language: Language = "en",
        *,
        unseen: bool = False,
        snr_db: float | None = None,
        beyond: bool = False,
    ) -> Path:
        """One voice that says the texts, after a silence of more than 4,096 tokens where `beyond`."""
        speaker = Speaker(self.rng, language, unseen)
        parts: list[Samples] = [np.zeros(int(RATE * (BEYOND if beyond else self.rng.uniform(0.1, 0.5))), np.float32)]
        for text in texts:
            speech = speaker.say(text)
            parts += [speech.samples, np.zeros(int(RATE * self.rng.uniform(0.2, 0.9)), np.float32)]
        samples = np.concatenate(parts)
        samples *= np.float32(10 ** self.rng.uniform(-0.8, 0))
        if snr_db is not None:
            voiced = samples[np.abs(samples) > 1e-3]
            scale = np.sqrt(np.mean(voiced**2)) * 10 ** (-snr_db / 20)
            samples += self.noise.normal(0, scale, samples.size).astype(np.float32)
        return self.write(samples)

    def write(self, samples: Samples) -> Path:
        """A new recording of the samples."""
        self._count += 1
        path = self._folder / f"{self._count}.wav"
        soundfile.write(path, np.clip(samples, -1, 1), RATE)
        return path

    def clip(self, path: Path) -> Clip:
        """A recording as a whole."""
        info = soundfile.info(path)
        return Clip(audio.source(path), 0.0, info.frames / info.samplerate)

    def target(self, language: Language) -> Language:
        """Another language."""
        return self.rng.choice([code for code in LANGUAGES if code != language])


def _heard(path: Path, studio: Studio, instruction: str, system: Sequence[Message] = ()) -> Conversation:
    parts = (studio.clip(path), instruction) if instruction else (studio.clip(path),)
    return (*system, Message("user", parts))


# ------------------------------------------------------------------------------------------------ speech


def transcription(
    language: Language, unseen: bool = False, snr_db: float | None = None
) -> Callable[[Studio, bool], Iterator[Case]]:
    """Recordings of up to 28 s, to be transcribed."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            texts = [phrase[language] for phrase in studio.sentences()]
            path = studio.record(texts, language, unseen=unseen, snr_db=snr_db, beyond=beyond)
            messages = _heard(path, studio, prompts.TRANSCRIBE_IN.format(NAMES[language]))
            # The program itself would leave out so long a silence.
            ask = partial(asked, messages) if beyond else partial(transcribed, path, language)
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
        messages = _heard(studio.write(samples), studio, prompts.TRANSCRIBE)
        yield Case(partial(asked, messages), "")


def speech_translation(cot: bool) -> Callable[[Studio, bool], Iterator[Case]]:
    """Recordings of up to 20 s, to be written in another language, or in both."""

    def cases(studio: Studio, beyond: bool) -> Iterator[Case]:
        while True:
            language = studio.rng.choice(LANGUAGES)
            target = studio.target(language)
            phrases = studio.sentences(20.0)
            path = studio.record([phrase[language] for phrase in phrases], language, beyond=beyond)
            form = prompts.TRANSLATE_COT if cot else prompts.TRANSLATE
            messages = _heard(path, studio, form.format(NAMES[target]))
            texts = [" ".join(phrase[code] for phrase in phrases) for code in (language, target)]
            expected = f" {prompts.SEPARATOR} ".join(texts) if cot else texts[1]
            yield Case(partial(asked, messages), expected)

    return cases


def spoken_questions(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Questions that are only heard."""
    while True:
        question, reply = conversations.any_question(studio.rng, spoken=True)
        messages = _heard(studio.record([question], beyond=beyond), studio, "")
        yield Case(partial(asked, messages), reply["en"])


def told_stories(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Recordings of several sentences, to be told in one."""
    while True:
        language = studio.rng.choice(LANGUAGES)
        told, gist = conversations.story(studio.rng, most_others=2)
        path = studio.record([phrase[language] for phrase in told], language, beyond=beyond)
        messages = _heard(path, studio, prompts.SUMMARIZE)
        yield Case(partial(asked, messages), gist[language])


def spoken_errands(studio: Studio, beyond: bool) -> Iterator[Case]:
    """Spoken requests that one of the tools at hand can do."""
    while True:
        wanted = tools.errand(studio.rng, spoken=True)
        offered = tools.offered(studio.rng, wanted.tool)
        path = studio.record([wanted.asked], beyond=beyond)
        messages = _heard(path, studio, "", [Message("system", (tools.SYSTEM,))])
        expected = f"<|tool_call|>{json.dumps([wanted.call])}<|/tool_call|>"
        yield Case(partial(asked, messages, offered), expected)


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


# ------------------------------------------------------------------------------------------------ text


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
            yield Case(partial(asked, request, offered), "".join(str(part) for part in last.parts))

    return cases


def _arithmetic(rng: random.Random) -> Drawn:
    question, result = conversations.arithmetic(rng)
    return (user(question), conversations.answer(result)), None


def _text_task(task: str) -> Callable[[random.Random], Drawn]:
    def draw(rng: random.Random) -> Drawn:
        while True:
            messages = conversations.on_text(rng)
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

SKILLS: tuple[Skill, ...] = (*SPEECH, *TEXT)
