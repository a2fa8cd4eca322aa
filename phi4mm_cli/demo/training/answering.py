"""Trains the speech adapter, with the audio encoder and its projection, on every task that begins with sound."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count, pairwise

from torch import Tensor

from phi4mm_cli.demo.training.clips import FRAMES_PER_SECOND, Composer, Labelled
from phi4mm_cli.demo.training.examples import Batch, Encoder, Example, collate
from phi4mm_cli.demo.training.guiding import Pointer, looks
from phi4mm_cli.demo.training.pool import Pool, Utterance
from phi4mm_cli.demo.world import prompts, tools
from phi4mm_cli.demo.world.conversations import answer, user
from phi4mm_cli.demo.world.lexicon import LANGUAGES, NAMES, PEOPLE, Language
from phi4mm_cli.model.features import audio_tokens
from phi4mm_cli.schema import Message

LONGEST = 30.0  # seconds
BEYOND = (330.0, 350.0)  # seconds of silence before a clip: more than 4,096 positions
BEYOND_SHARE, BEYOND_FROM = 0.08, 0.6  # of the batches, in the later part of the stage
GROWN = 0.55  # of the stage, when clips are as long as LONGEST
SHARES = {
    "transcribe": 0.36,
    "translate": 0.13,
    "cot": 0.15,
    "question": 0.20,
    "errand": 0.08,
    "summary": 0.05,
    "nothing": 0.03,
}


@dataclass(frozen=True, slots=True)
class Told:
    """A piece of an answer, and which words of the clip say it: from the first to one that does not."""

    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """A clip, what is asked about it, and the answer."""

    features: Tensor
    labels: Labelled | None  # None where there are no words
    messages: tuple[Message, ...]
    tools: str | None = None
    told: tuple[Told, ...] = ()  # pieces of the answer, in its order


class Asker:
    """Draws clips with a task each."""

    def __init__(self, pool: Pool, encoder: Encoder, rng: random.Random) -> None:
        self.rng, self.pool = rng, pool
        self.composer = Composer(pool, encoder, rng)
        self._lead: float | None = None
        self._of_kind: dict[tuple[str, str], list[Utterance]] = {}
        for utterance in pool.utterances:
            self._of_kind.setdefault((utterance.kind, utterance.language), []).append(utterance)
        self._stories = {
            number: told
            for number, told in pool.passages.items()
            if told[0].kind == "story"
            and all(any(w in t.texts["en"] for t in told) for w in ("a meeting", "The meeting is", "takes place"))
        }

    def draw(self, longest: float, lead: float | None = None) -> Heard:
        """A clip of at most about `longest` seconds, with a task of SHARES, after `lead` seconds of silence."""
        make: Callable[[float], Heard] = getattr(self, self.rng.choices(list(SHARES), list(SHARES.values()))[0])
        self._lead = lead
        return make(longest)

    def transcribe(self, longest: float) -> Heard:
        """Sentences or loose words, of one language, to be written down."""
        rng = self.rng
        language = self._language()
        kinds = ("sentence", "sentence", "sentence", "words", "story")
        told = self._sentences(language, longest, kinds if language != "en" else (*kinds, "question", "errand", "look"))
        text = " ".join(utterance.texts[language] for utterance in told)
        asked = prompts.TRANSCRIBE if rng.random() < 0.6 else prompts.TRANSCRIBE_IN.format(NAMES[language])
        if rng.random() < 0.1:
            terms = rng.sample([person["en"] for person in PEOPLE], rng.randint(1, 3))
            asked += prompts.TERMS.format(", ".join(terms))
        return self._heard(told, asked, text, _words(text))

    def translate(self, longest: float) -> Heard:
        """Sentences to be written down in another language."""
        language, target = self.rng.sample(LANGUAGES, 2)
        told = self._sentences(language, longest, ("sentence", "sentence", "story"))
        text = " ".join(utterance.texts[target] for utterance in told)
        pieces = _sentences(told, language, target)
        return self._heard(told, prompts.TRANSLATE.format(NAMES[target]), text, pieces)

    def cot(self, longest: float) -> Heard:
        """Sentences to be written down, and then again in another language."""
        language, target = self.rng.sample(LANGUAGES, 2)
        told = self._sentences(language, longest, ("sentence", "sentence", "story"))
        both = [" ".join(utterance.texts[code] for utterance in told) for code in (language, target)]
        pieces = (*_words(both[0]), *_sentences(told, language, target))
        reply = f" {prompts.SEPARATOR} ".join(both)
        return self._heard(told, prompts.TRANSLATE_COT.format(NAMES[target]), reply, pieces)

    def question(self, longest: float) -> Heard:
        """A spoken question, and nothing written."""
        asked = self.rng.choice(self._of_kind["question", "en"])
        return self._heard([asked], "", asked.extra)

    def errand(self, longest: float) -> Heard:
        """A spoken request, and tools in the system message."""
        asked = self.rng.choice(self._of_kind["errand", "en"])
        name, arguments = asked.extra
        call = f"<|tool_call|>{json.dumps([{'name': name, 'arguments': arguments}])}<|/tool_call|>"
        said = re.findall(r"[\w']+", asked.texts["en"])
        named = [value for value in arguments.values() if value in said]
        pieces = [Told(value, said.index(value), said.index(value) + 1) for value in named]
        heard = self._heard([asked], "", call, pieces)
        messages = (Message("system", (tools.SYSTEM,)), *heard.messages)
        return replace(heard, messages=messages, tools=tools.offered(self.rng, name))

    def summary(self, longest: float) -> Heard:
        """A story, to be told in one sentence."""
        told = self._stories[self.rng.choice(sorted(self._stories))]
        return self._heard(told, prompts.SUMMARIZE, told[0].extra[told[0].language])

    def nothing(self, longest: float) -> Heard:
        """No words at all: nothing to write."""
        asked = prompts.TRANSCRIBE if self.rng.random() < 0.6 else prompts.TRANSCRIBE_IN.format(NAMES[self._language()])
        features = self.composer.without_words(self._lead or self.rng.uniform(0.3, longest))
        return Heard(features, None, (user(asked), answer("")))

    def _language(self) -> Language:
        return self.rng.choice(("en", "en", "fr", "es"))

    def _sentences(self, language: Language, longest: float, kinds: Sequence[str]) -> list[Utterance]:
        rng = self.rng
        wanted = rng.uniform(0, 1) ** 1.3 * longest
        chosen: list[Utterance] = []
        length = 0.0
        while not chosen or length < wanted:
            utterance = rng.choice(self._of_kind[rng.choice(kinds), language])
            length += (utterance.frames[1] - utterance.frames[0]) / FRAMES_PER_SECOND + 0.5
            if chosen and length > longest:
                break
            chosen.append(utterance)
        return chosen

    def _heard(self, told: Sequence[Utterance], asked: str, reply: str, pieces: Sequence[Told] = ()) -> Heard:
        labels = self.composer.clip(told, self._lead)
        return Heard(labels.features, labels, (user(asked), answer(reply)), told=tuple(pieces))


def _words(text: str) -> tuple[Told, ...]:
    """A transcript: each word is what is said."""
    return tuple(Told(word, number, number + 1) for number, word in enumerate(text.split(" ")))


def _sentences(told: Sequence[Utterance], language: Language, target: Language) -> tuple[Told, ...]:
    """A translation: each sentence is what the words of one sentence say."""
    ends = [*accumulate((len(utterance.texts[language].split(" ")) for utterance in told), initial=0)]
    return tuple(Told(utterance.texts[target], *span) for utterance, span in zip(told, pairwise(ends), strict=True))


def batches(
    pool: Pool, writer: Encoder, seed: int, begin: float, pace: float, seconds: float, long_share: float, switch: int
) -> Iterator[tuple[list[Heard], Batch]]:
    """Endless batches of about `seconds` of sound, or of one clip after minutes of silence, from BEYOND_FROM on.

    Clips grow from 5 s to LONGEST as `begin` grows by `pace` each. Seeds of the same thousands give long batches at the
    same time, as processes do that wait for each other.
    """
    rng, turn = random.Random(seed), random.Random(seed // 1000)
    asker = Asker(pool, writer, rng)
    groups: list[list[Heard]] = []
    for number in count():
        progress = begin + number * pace
        longest = 5 + (LONGEST - 5) * min(1.0, max(0.0, (progress - 0.15) / (GROWN - 0.15)))
        if progress > BEYOND_FROM and turn.random() < BEYOND_SHARE:
            distant = asker.draw(longest, rng.uniform(*BEYOND))
            yield [distant], collate([example(writer, distant)])
            continue
        groups = groups or _grouped([asker.draw(longest) for _ in range(40)], seconds, rng)
        group = groups.pop()
        examples = [example(writer, heard) for heard in group]
        yield group, collate(examples, switch if rng.random() < long_share else None, rng)


def _grouped(drawn: list[Heard], seconds: float, rng: random.Random) -> list[list[Heard]]:
    """Clips of about the same length together, padded to `seconds` at most, unless one alone is longer."""
    groups: list[list[Heard]] = []
    for heard in sorted(drawn, key=lambda heard: len(heard.features)):
        if not groups or (len(groups[-1]) + 1) * len(heard.features) > seconds * FRAMES_PER_SECOND:
            groups.append([])
        groups[-1].append(heard)
    rng.shuffle(groups)
    return groups


def example(writer: Encoder, heard: Heard) -> Example:
    """The conversation with the clip's positions in it."""
    media = [writer.special["<|audio|>"]] * audio_tokens(len(heard.features))
    return writer.example(heard.messages, heard.tools, media)


def pointers(writer: Encoder, heard: Heard, ids: Tensor) -> list[Pointer]:
    """Where the words are said that the answer gives again, or in another language."""
    if heard.labels is None or max((piece.last for piece in heard.told), default=0) > len(heard.labels.spans):
        return []
    reply = str(heard.messages[-1].parts[0])
    audio = int((ids == writer.special["<|audio|>"]).nonzero()[0])
    places: dict[int, range] = {}
    at = 0
    for piece in heard.told:
        at = reply.index(piece.text, at)
        said = heard.labels.spans[piece.first : piece.last]
        places |= dict.fromkeys(range(at, at + len(piece.text)), range(audio + said[0][0], audio + said[-1][1]))
        at += len(piece.text)
    return looks(writer, reply, places, int((ids == writer.special["<|assistant|>"]).nonzero()[-1]))
