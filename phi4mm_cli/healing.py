"""Asks about one chunk of a recording, and asks again where the answer cannot be trusted.

A bad answer is asked for again in two parts, cut in silence, and these again while they are long enough; then without
repeats; then at rising temperature. The best answer is kept, and what was done is told in warnings. One that may be
right, although it has little text or tells a sentence twice, is kept unless its parts say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from phi4mm_cli import timing, trust
from phi4mm_cli.flow import Flow
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Warning
from phi4mm_cli.schema import Clip, Message, Request, Word
from phi4mm_cli.trust import Fault, Said

if TYPE_CHECKING:
    from phi4mm_cli.media.audio import Recording
    from phi4mm_cli.media.speech import Chunk

# The token budget of a clip. Fast speech makes 4 to 6 tokens a second in the languages that the model hears; what
# needs twice that is a loop, and ends here.
BASE_TOKENS = 16
TOKENS_PER_SECOND = 10

SHORTEST_SPLIT = 4.0  # seconds: shorter chunks hold a sentence, and lose more by a cut than they gain
SPLIT_GAIN = 1.25  # so much more text from the parts of a chunk shows that some was missing from the whole
NO_REPEAT = 5  # tokens: a loop ends after one telling and four tokens more, and short phrases may still come twice
LEAST_SPEECH = 0.5  # seconds; in less, nobody has said a question
WITHOUT_HINTS, IN_PARTS = "without the hints", "in parts"
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)  # openai/whisper's

MESSAGES: dict[Fault, str] = {
    "prompt_echo": "the answer repeats the question, not what was said",
    "empty_with_speech": "speech was heard, but no text came of it",
    "looping": "the text repeats itself",
    "token_limit": "the text was cut off by its token budget",
    "speech_rate": "the text is too short or too long for the speech that was heard",
    "missing_words": "some of the speech has no words",
}


@dataclass(frozen=True, slots=True)
class Question:
    """What each chunk is asked, and what is known of the answer before it comes."""

    instruction: str
    word_times: bool = False  # whether the answer, a transcript, is to be timed
    tellings: int = 1  # how often the answer says what was said: twice where a translation follows the transcript
    hints: str = ""  # words behind the instruction that help, and that a bad answer may repeat
    terms: tuple[str, ...] = ()  # the names and terms among the hints


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a chunk, or to a part of one."""

    chunk: Chunk
    text: str
    words: tuple[Word, ...] | None = None  # of the text, timed from the chunk's start; None where that is not known
    faults: tuple[Fault, ...] = ()  # why it cannot be trusted
    speech: float | None = None  # seconds; None where nobody has listened for it
    way: str = ""  # how it was asked for, where not as usual
    left_out: str = ""  # words of the model that nobody has said
    stretch: timing.Span | None = None  # what the faults are about, in seconds of the recording; None: the chunk


@dataclass(frozen=True, slots=True)
class Healed:
    """The answers to a chunk, one or those of its parts in order, and what is to be told about them."""

    answers: tuple[Answer, ...]
    warnings: tuple[Warning, ...] = ()


@dataclass(frozen=True, slots=True)
class Listener:
    """Asks one question about the chunks of one recording, whose sound it can go back to."""

    recording: Recording
    question: Question
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    def heal(self, chunk: Chunk) -> Flow[Healed]:
        """The best answers that can be had about `chunk`."""
        first = yield from self._ask(chunk)
        best = yield from self._improved(first)
        kept = tuple(self._kept(answer) for answer in best)
        found = first.faults or (self._doubt(first) or "speech_rate",)
        return Healed(kept, tuple(_warnings(found, first, kept)))

    def _improved(self, first: Answer, parent: Answer | None = None) -> Flow[tuple[Answer, ...]]:
        """`first`, or what is better; `parent` answers the chunk that this one's is a half of."""
        seconds = first.chunk.end - first.chunk.start
        if first.chunk.is_unsure and not trust.fits(first.text, seconds, self.question.tellings):
            return (replace(first, text="", words=None, faults=(), left_out=first.text),)
        doubt = self._doubt(first)
        if not (first.faults or doubt):
            return (first,)
        if "prompt_echo" in first.faults and self.question.hints:
            bare = yield from self._ask(first.chunk, way=WITHOUT_HINTS, hints=False)
            if not bare.faults or not trust.letters(bare.text):
                return (replace(bare, left_out=first.text, faults=first.faults if bare.faults else ()),)
        hopeless = parent is not None and "empty_with_speech" in parent.faults and "empty_with_speech" in first.faults
        if seconds >= SHORTEST_SPLIT and not hopeless:
            parts = yield from self._split(first)
            if "missing_words" in first.faults:
                return parts if self._tells_more(parts, first) else (first,)
            if doubt is None:
                return min((first,), parts, key=_badness)
            told = " ".join(part.text for part in parts)
            more = trust.letters(told) >= SPLIT_GAIN * trust.letters(first.text)
            better = more if doubt == "speech_rate" else trust.retold(told) == 0
            return parts if better and _badness(parts) == 0 else (first,)
        if self._repeats_as_spoken(first):
            return (replace(first, faults=()),)
        if doubt or {"missing_words", "empty_with_speech"} & {*first.faults}:
            return (first,)  # chance would invent words where the model hears none
        best = yield from self._varied(first)
        return (best,)

    def _tells_more(self, parts: Sequence[Answer], whole: Answer) -> bool:
        """Whether parts that can be trusted as much as the whole have words for speech that has none there."""
        more = sum(trust.letters(part.text) for part in parts) - trust.letters(whole.text)
        worst = max(trust.severity(part.faults) for part in parts)
        return more >= trust.SLOWEST * trust.UNTOLD and worst <= trust.severity(whole.faults)

    def _doubt(self, answer: Answer) -> Fault | None:
        """What makes an answer without faults worth a second look: people do speak so slowly, and say things twice."""
        if answer.faults:
            return None
        if trust.is_slow(answer.text, answer.speech, self.question.tellings):
            return "speech_rate"
        return "looping" if trust.retold(answer.text) else None

    def _repeats_as_spoken(self, answer: Answer) -> bool:
        """Whether a short chunk's only fault is that it repeats itself, and it ended by itself at the pace of speech.

        Loops seldom end, and more seldom where the speech does: people drill, sing and dictate numbers.
        """
        is_paced = answer.speech is not None and not trust.is_slow(answer.text, answer.speech, self.question.tellings)
        is_told = trust.is_speakable(answer.text, answer.speech, self.question.tellings)
        return answer.faults == ("looping",) and is_paced and is_told and not trust.is_stuttering(answer.text)

    def _split(self, whole: Answer) -> Flow[tuple[Answer, ...]]:
        from phi4mm_cli.media import speech

        chunk = whole.chunk
        samples = self.recording.read(chunk.start, chunk.end)
        found: list[Answer] = []
        for half in speech.halves(chunk, samples, self.recording.rate):
            answer = yield from self._ask(half, way=IN_PARTS)
            found += yield from self._improved(answer, whole)
        return tuple(found)

    def _varied(self, first: Answer) -> Flow[Answer]:
        """The first answer without fault that other ways of choosing tokens give, else the best of all."""
        usual, found = self.sampling, [first]
        ways = [("without repeats", replace(usual, no_repeat_ngram_size=usual.no_repeat_ngram_size or NO_REPEAT))]
        ways += [
            (f"at temperature {warmth:g}", replace(usual, temperature=warmth, num_beams=1))
            for warmth in TEMPERATURES
            if warmth > usual.temperature
        ]
        for way, sampling in ways:
            answer = yield from self._ask(first.chunk, sampling, way)
            found.append(answer)
            if not answer.faults:
                break
        return min(found, key=lambda answer: trust.severity(answer.faults))

    def _ask(
        self, chunk: Chunk, sampling: SamplingOptions | None = None, way: str = "", hints: bool = True
    ) -> Flow[Answer]:
        question = self.question
        clip = Clip(self.recording.source, chunk.start, chunk.end, self.recording.channel)
        asked = question.instruction + question.hints * hints
        [result] = yield [request(clip, asked, question, sampling or self.sampling)]
        speech = sum(region.end - region.start for region in chunk.speech) if chunk.speech else None
        said = Said(result.text, result.finish, speech, asked, question.tellings, chunk.is_unsure)
        faults, stretch = trust.faults(said), None
        if not faults and result.words:
            words = [Word(chunk.start + word.start, chunk.start + word.end, word.word) for word in result.words]
            if stretch := _crowded(chunk, words):
                faults = ("speech_rate",)
            elif stretch := _untold(chunk, words):
                faults = ("missing_words",)
        answer = Answer(chunk, result.text, result.words, faults, speech, way, stretch=stretch)
        if hints and trust.only_terms(result.text, question.terms):
            bare = yield from self._ask(chunk, sampling, WITHOUT_HINTS, hints=False)
            if not trust.letters(bare.text):
                return replace(answer, faults=("prompt_echo",), stretch=None)
        return answer

    def _kept(self, answer: Answer) -> Answer:
        """The answer, without its text where that is an echo that no voice can have said."""
        if "prompt_echo" not in answer.faults or not answer.text:
            return answer
        from phi4mm_cli.media import speech

        heard = answer.speech
        if heard is None:
            samples = self.recording.read(answer.chunk.start, answer.chunk.end)
            heard = speech.spoken(samples, self.recording.rate)
        if heard >= LEAST_SPEECH and trust.is_speakable(answer.text, heard, self.question.tellings):
            return answer
        return replace(answer, text="", words=None, left_out=answer.text)


def request(clip: Clip, asked: str, question: Question, sampling: SamplingOptions) -> Request:
    """Asks about a clip, with as many tokens for the answer as saying it may need."""
    budget = question.tellings * (BASE_TOKENS + round(TOKENS_PER_SECOND * (clip.end - clip.start)))
    return Request((Message("user", (clip, asked)),), sampling.sampling(budget), word_times=question.word_times)


def _crowded(chunk: Chunk, words: Sequence[Word]) -> timing.Span | None:
    """Where a chunk of speech that is long enough to be judged has words that nobody can say in their time."""
    if not chunk.speech or chunk.end - chunk.start < trust.SHORTEST_JUDGED:
        return None
    return trust.crowded(words, chunk.end)


def _untold(chunk: Chunk, words: Sequence[Word]) -> timing.Span | None:
    """Where speech that can only be speech has no words."""
    if not chunk.speech or chunk.is_unsure:
        return None
    return trust.untold(words, [(region.start, region.end) for region in chunk.speech], chunk.end)


def _badness(answers: Sequence[Answer]) -> float:
    """How much of the chunk is behind answers with faults, and how bad these are."""
    return sum(trust.severity(answer.faults) * (answer.chunk.end - answer.chunk.start) for answer in answers)


def _warnings(found: Sequence[Fault], first: Answer, kept: Sequence[Answer]) -> Iterator[Warning]:
    """What is wrong with the answers that are kept; where nothing is, what was `found` wrong with the first one."""
    faulty = [answer for answer in kept if answer.faults]
    for answer in faulty:
        told = f"left out: {answer.left_out!r}" if answer.left_out else "kept as it is" if answer.text else "left out"
        for fault in answer.faults:
            action = f"decoded again to no avail, {told}"
            start, end = answer.stretch or (answer.chunk.start, answer.chunk.end)
            yield Warning(fault, MESSAGES[fault], action, start, end)
    if not faulty and [answer.text for answer in kept] != [first.text]:
        fault = found[0]
        ways = [f"in {len(kept)} parts"] if len(kept) > 1 else []
        ways += dict.fromkeys(answer.way for answer in kept if answer.way not in ("", IN_PARTS))
        told = "".join(f"; left out: {answer.left_out!r}" for answer in kept if answer.left_out)
        again = f"decoded again {' and '.join(ways)}, which healed it" if ways else "no speech after all"
        action = again + told
        yield Warning(fault, MESSAGES[fault], action, first.chunk.start, first.chunk.end, healed=True)
