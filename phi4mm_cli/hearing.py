"""What the commands for speech share: a recording is cut into chunks in silence, and each is asked the same question.

`hear` is a flow that other flows go through (`hearing = yield from hear(...)`): answers come back beside the chunks
that they belong to, with what could not be trusted and how much was heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from phi4mm_cli import timing
from phi4mm_cli.errors import UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.options import ListeningOptions, SamplingOptions
from phi4mm_cli.schema import Clip, Coverage, Message, Profile, Request, Result, Segment, Source, Warning, Word

if TYPE_CHECKING:
    from phi4mm_cli.media.audio import Recording
    from phi4mm_cli.media.speech import Chunk

# The token budget of a clip. Fast speech makes 4 to 6 tokens a second in the languages that the model hears; what
# needs twice that is a loop, and ends here.
BASE_TOKENS = 16
TOKENS_PER_SECOND = 10


@dataclass(frozen=True, slots=True)
class Question:
    """What each chunk is asked, and what is known of the answer before it comes."""

    instruction: str
    language: str | None = None  # code of the language of the answer; None where it is not known
    tellings: int = 1  # how often the answer says what was said: twice where a translation follows the transcript


@dataclass(frozen=True, slots=True)
class Listening:
    """How a recording is heard."""

    longest_chunk: float = 30.0  # seconds
    vad: bool = True  # find the speech first; False hears everything
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said to a chunk."""

    chunk: Chunk
    text: str
    words: tuple[Word, ...] | None = None  # of the text, timed from the chunk's start; None where that is not known


@dataclass(frozen=True, slots=True)
class Hearing:
    """A recording with all its answers, in order."""

    duration: float  # seconds
    answers: tuple[Answer, ...]
    coverage: Coverage
    warnings: tuple[Warning, ...]


def listening(asked: ListeningOptions, sampling: SamplingOptions, profile: Profile) -> Listening:
    """What the command line asks for, completed by what suits the checkpoint."""
    return Listening(asked.chunk_seconds or profile.max_chunk_seconds, asked.vad, sampling)


def require_language(language: str | None, profile: Profile) -> None:
    """Raise UsageError where the checkpoint does not hear `language`, a code."""
    if language and profile.languages is not None and language not in profile.languages:
        known = ", ".join(profile.languages)
        raise UsageError(f"this checkpoint does not hear the language '{language}'", f"It hears {known}")


def hear(source: Source, question: Question, how: Listening) -> Flow[Hearing]:
    """`source`, cut into chunks in silence, each asked `question` on its own. Raises InputError."""
    from phi4mm_cli.media import audio, speech

    chunks: list[Chunk] = []

    def requests(recording: Recording) -> Iterator[Request]:
        for chunk in speech.chunks(recording, how.longest_chunk, how.vad):
            chunks.append(chunk)
            yield _request(Clip(source, chunk.start, chunk.end), question, how)

    with audio.open_recording(source) as recording:
        results = yield requests(recording)
    return Hearing(
        duration=recording.seconds,
        answers=tuple(Answer(chunk, result.text, result.words) for chunk, result in zip(chunks, results, strict=True)),
        coverage=_coverage(recording, chunks, how),
        warnings=(*_input_warnings(recording), *_chunk_warnings(chunks, results)),
    )


def _request(clip: Clip, question: Question, how: Listening) -> Request:
    budget = question.tellings * (BASE_TOKENS + round(TOKENS_PER_SECOND * (clip.end - clip.start)))
    return Request((Message("user", (clip, question.instruction)),), how.sampling.sampling(budget))


def segments(answers: Sequence[Answer]) -> tuple[Segment, ...]:
    """A segment for each sentence of the answers, with its words, within its chunk."""
    found: list[Segment] = []
    for answer in answers:
        words = iter(_timed(answer))
        for sentence in timing.sentences(answer.text):
            said = tuple(islice(words, len(timing.words(sentence))))
            found.append(Segment(len(found), said[0].start, said[-1].end, sentence, said))
    return tuple(found)


def _timed(answer: Answer) -> list[Word]:
    chunk = answer.chunk
    if answer.words is not None:
        return [Word(chunk.start + word.start, chunk.start + word.end, word.word) for word in answer.words]
    voiced = [(region.start, region.end) for region in chunk.speech] or [(chunk.start, chunk.end)]
    return timing.spread_words(answer.text, voiced)


def _coverage(recording: Recording, chunks: Sequence[Chunk], how: Listening) -> Coverage:
    total = max(recording.seconds, recording.expected_seconds or 0.0)
    voiced = sum(region.end - region.start for chunk in chunks for region in chunk.speech)
    return Coverage("seconds", total, recording.seconds, voiced if how.vad else None)


def _input_warnings(recording: Recording) -> Iterator[Warning]:
    if recording.truncated:
        yield Warning("truncated_input", recording.truncated, "what could be read was used", start=recording.seconds)


def _chunk_warnings(chunks: Sequence[Chunk], results: Sequence[Result]) -> Iterator[Warning]:
    for chunk, result in zip(chunks, results, strict=True):
        if result.finish != "stop":
            message = "the text was cut off by its token budget"
            yield Warning("token_limit", message, "kept as it is", chunk.start, chunk.end)
        elif not result.text and chunk.speech:
            message = "speech was heard, but no text came of it"
            yield Warning("empty_with_speech", message, "left out", chunk.start, chunk.end)


def probe(path: Path) -> float | None:
    """The length of a recording in seconds, where its header tells. Raises InputError where it is none."""
    from phi4mm_cli.media import audio

    return audio.probe(path).seconds


def source(path: Path) -> Source:
    """The recording as it is now. Raises InputError."""
    from phi4mm_cli.media import audio

    return audio.source(path)
