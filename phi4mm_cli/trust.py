"""Whether an answer can be what was said: the checks that each chunk's answer goes through. Pure functions.

They are about form alone: an answer that was cut off, repeats itself, is empty, is far too short or too long for the
speech that was heard, or repeats the question. A wrong word passes.
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate, pairwise
from typing import Literal

from phi4mm_cli import timing
from phi4mm_cli.schema import Finish, Word

Fault = Literal["prompt_echo", "empty_with_speech", "looping", "token_limit", "speech_rate", "missing_words"]

# How bad an answer with this fault is: words that nobody said are the worst, then speech without words.
SEVERITY: dict[Fault, int] = {
    "prompt_echo": 32,
    "empty_with_speech": 16,
    "looping": 8,
    "token_limit": 4,
    "speech_rate": 2,
    "missing_words": 1,
}

HIGHEST_COMPRESSION = 2.4  # bytes of text to bytes of zlib's; openai/whisper's compression_ratio_threshold
MOST_REPEATED = 8  # words that only repeat the words just before them: nine times "no", or three times four words
LEAST_REPEATS = 3  # tellings in a row of one phrase; people say a sentence twice
LEAST_LOOP = 40  # letters at the end of a text that only repeat those before them
LONGEST_PHRASE = 40  # words; zlib sees longer ones
RETOLD_WORDS = 5  # of a sentence that is no formula
RETOLD_SHARE = 0.2  # of the words of a text that is to say each thing once

# Letters a second of speech, pauses left out. People speak 5 to 8 syllables a second (Pellegrino, Coupe and Marsico,
# 2011), of about 2.5 letters in the model's alphabetic languages: 12 to 20. Less than three quarters of that is worth a
# second look; below 5, or half as much again above it, hardly anybody speaks.
SLOWEST, SLOW, FASTEST = 5.0, 9.0, 30.0
WIDE_LETTERS = 3.0  # a Chinese or Japanese character is a syllable or more; Mandarin has 5.2 of them a second
DIGIT_LETTERS = 4.0  # "7" is said as a word
SHORTEST_JUDGED = 2.0  # seconds of speech, from which its rate tells something; shorter music may sound like speech
UNTOLD = 1.0  # seconds of speech up to the next word, beyond what a word takes at SLOW: a sentence may be missing
CROWDED = 24.0  # letters in a row, five words, whose times tell how fast somebody speaks there
SHORTEST_SPEECH = 0.25  # seconds; less may be a cough (the least that whisper.cpp takes for speech)

ECHOED_WORDS = 3  # in a row: so many of the question's words are no chance
ECHOED_SHARE = 0.8  # of the answer's words: then it is the question and nothing else

_WIDE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_WIDE}]|[^\W_{_WIDE}]+")
_STUTTER = re.compile(rf"([^\W\d_{_WIDE}]{{2,4}}?)\1{{5,}}")  # six tellings; laughing is written with fewer


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, with what is known of the chunk that it belongs to."""

    text: str
    finish: Finish
    speech: float | None  # seconds; None where nobody has listened for it
    question: str = ""  # what was asked
    tellings: int = 1  # how often the answer says what was said
    is_unsure: bool = False  # the speech may be another sound


def faults(said: Said) -> tuple[Fault, ...]:
    """What is wrong with an answer; nothing where it can be trusted."""
    found: list[Fault] = []
    if is_echo(said.text, said.question):
        found.append("prompt_echo")
    if not letters(said.text):
        if said.speech is not None and said.speech >= (SHORTEST_JUDGED if said.is_unsure else SHORTEST_SPEECH):
            found.append("empty_with_speech")
    elif is_looping(said.text):
        found.append("looping")
    if said.finish != "stop":
        found.append("token_limit")
    if not found and not is_speakable(said.text, said.speech, said.tellings):
        found.append("speech_rate")
    return tuple(found)


def severity(found: Sequence[Fault]) -> int:
    """How bad faults are together; 0 for none."""
    return sum(SEVERITY[fault] for fault in found)


def words(text: str) -> list[str]:
    """The words of a text in small letters; a Chinese or Japanese character is a word."""
    return _WORD.findall(text.lower())


def letters(text: str) -> float:
    """How long a text takes to say, in letters of an alphabet."""
    count = 0.0
    for word in words(text):
        if re.match(f"[{_WIDE}]", word):
            count += WIDE_LETTERS
        else:
            count += sum(DIGIT_LETTERS if character.isdigit() else 1 for character in word)
    return count


def is_speakable(text: str, speech: float | None, tellings: int = 1) -> bool:
    """Whether so much text can have been said in so many seconds of speech, once in each of its tellings."""
    if speech is None or not text:
        return True
    said = letters(text) / tellings
    if said > FASTEST * max(speech, SHORTEST_JUDGED):
        return False
    return speech < SHORTEST_JUDGED or said >= SLOWEST * speech


def fits(text: str, seconds: float, tellings: int = 1) -> bool:
    """Whether anybody can say so much in so many seconds, all of them speech, once in each of its tellings."""
    return letters(text) <= tellings * FASTEST * seconds


def is_slow(text: str, speech: float | None, tellings: int = 1) -> bool:
    """Whether so little text came of the speech that some may be missing, although people do speak so slowly."""
    return speech is not None and speech >= SHORTEST_JUDGED and letters(text) / tellings < SLOW * speech


def untold(said: Sequence[Word], speech: Sequence[timing.Span], end: float) -> timing.Span | None:
    """From where to where, between the beginnings of two words, most speech has none; None where that is little.

    `speech` are the stretches of it, up to `end`: seconds, as the times of the words (at least one) are.
    """
    starts = [speech[0][0], *(word.start for word in said), end]
    taken = [0.0, *(letters(word.word) / SLOW for word in said)]
    lacks = [
        (timing.overlap(speech, stretch) - seconds, stretch)
        for stretch, seconds in zip(pairwise(starts), taken, strict=True)
    ]
    most, where = max(lacks)
    return where if most >= UNTOLD else None


def crowded(said: Sequence[Word], end: float) -> timing.Span | None:
    """From where to where words begin in a time in which nobody can say them all; None where nowhere.

    It is the worst such stretch; the last word ends by `end`: seconds, as the times of the words are.
    """
    starts = [*(word.start for word in said), end]
    sizes = [0.0, *accumulate(letters(word.word) for word in said)]
    worst, where = FASTEST, None
    for first, before in enumerate(sizes):
        last = bisect_left(sizes, before + CROWDED)
        if last < len(sizes):
            seconds = starts[last] - starts[first]
            rate = (sizes[last] - before) / max(seconds, 1e-3)
            if rate > worst:
                later = next((start for start in starts[last:] if start > starts[first]), end)
                worst, where = rate, (starts[first], later)
    return where


def is_looping(text: str) -> bool:
    """Whether a text repeats itself as people do not: as a whole by its compression, or a phrase many times over."""
    encoded = text.encode()
    if len(encoded) / len(zlib.compress(encoded)) > HIGHEST_COMPRESSION or is_stuttering(text):
        return True
    return _most_repeated(words(text)) > 0


def is_stuttering(text: str) -> bool:
    """Whether a word goes round within itself: finvenvenenenenenen."""
    return _STUTTER.search(text.lower()) is not None


def is_retelling(text: str) -> bool:
    """Whether a text that is to say each thing once, a summary, tells a good part of it in the same sentences again."""
    told = retold(text)
    return told > 0 and told >= RETOLD_SHARE * len(words(text))


def retold(text: str) -> int:
    """How many words of a text are of sentences that it has told before."""
    sentences = [tuple(words(sentence)) for line in text.splitlines() for sentence in timing.sentences(line)]
    again = Counter(sentence for sentence in sentences if len(sentence) >= RETOLD_WORDS)
    return sum((count - 1) * len(sentence) for sentence, count in again.items())


def _most_repeated(said: Sequence[str]) -> int:
    """How many words repeat those just before them, in the longest run that is too long; 0 where none is."""
    worst = 0
    for length in range(1, min(LONGEST_PHRASE, len(said) // LEAST_REPEATS) + 1):
        run = 0
        for before, word in zip(said, said[length:], strict=False):
            run = run + 1 if word == before else 0
            if run >= max(MOST_REPEATED, length * (LEAST_REPEATS - 1)):
                worst = max(worst, run)
    return worst


def without_loop(text: str) -> str:
    """A text that was cut off while its end said one thing over and over, up to the end of its first telling.

    Judged letter by letter, so that rows of a table count too; a text whose end does not repeat itself is left whole.
    """
    backwards, length = text[::-1], len(text)
    borders = [0] * length  # of each beginning of it: how many letters are both its beginning and its end
    border, loop, period = 0, 0, 0
    for place in range(1, length):
        while border and backwards[place] != backwards[border]:
            border = borders[border - 1]
        border += backwards[place] == backwards[border]
        borders[place] = border
        step = place + 1 - border
        if place + 1 >= max(LEAST_REPEATS * step, step + LEAST_LOOP):
            loop, period = place + 1, step
    return text[: length - loop + period]


def is_echo(text: str, question: str) -> bool:
    """Whether an answer repeats the question: begins with all of its first sentence, or is little else."""
    said, asked = words(text), words(question)
    first = words(re.split(r"(?<=[.!?])\s", question.strip(), maxsplit=1)[0])
    if len(said) < ECHOED_WORDS:
        return False
    if len(first) >= ECHOED_WORDS and said[: len(first)] == first:
        return True
    blocks = SequenceMatcher(None, said, asked, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks if block.size >= ECHOED_WORDS) >= ECHOED_SHARE * len(said)


def only_terms(text: str, terms: Sequence[str]) -> bool:
    """Whether an answer has words, and all of them are of `terms`: names and terms that the question gave."""
    given = {word for term in terms for word in words(term)}
    return bool(given) and bool(words(text)) and given.issuperset(words(text))
