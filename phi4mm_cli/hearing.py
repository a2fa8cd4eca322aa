"""What the commands for speech share: a recording is cut into chunks in silence, and each is asked the same question.

`hear` is a flow that other flows go through (`hearing = yield from hear(...)`): answers come back beside the chunks
that they belong to, with what could not be trusted and how much was heard.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from phi4mm_cli import languages, ranges, timing
from phi4mm_cli.errors import UsageError
from phi4mm_cli.flow import Flow, Gather
from phi4mm_cli.healing import Answer, Healed, Listener, Question
from phi4mm_cli.options import ListeningOptions, SamplingOptions
from phi4mm_cli.outputs import Coverage, Segment, Warning
from phi4mm_cli.schema import Profile, Source, Word

if TYPE_CHECKING:
    from phi4mm_cli.media.audio import Recording
    from phi4mm_cli.media.speech import Chunk

__all__ = [
    "Answer",
    "Healed",
    "Hearing",
    "Listening",
    "Question",
    "hear",
    "hear_and",
    "listening",
    "require_language",
    "segments",
]

P = TypeVar("P", bound=Healed)


@dataclass(frozen=True, slots=True)
class Listening:
    """How a recording is heard."""

    longest_chunk: float = 30.0  # seconds
    vad: bool = True  # find the speech first; False hears everything
    channel: int | None = None  # counted from 1; None mixes all down
    spans: tuple[ranges.Span, ...] = ranges.WHOLE
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


@dataclass(frozen=True, slots=True)
class Hearing(Generic[P]):
    """A recording with what came of each of its chunks, in order."""

    duration: float  # seconds
    parts: tuple[P, ...]
    coverage: Coverage
    warnings: tuple[Warning, ...]

    @property
    def answers(self) -> tuple[Answer, ...]:
        """All answers, in order."""
        return tuple(answer for part in self.parts for answer in part.answers)


def listening(asked: ListeningOptions, sampling: SamplingOptions, profile: Profile) -> Listening:
    """What the command line asks for, completed by what suits the checkpoint."""
    return Listening(
        asked.chunk_seconds or profile.max_chunk_seconds, asked.vad, asked.channel, asked.spans(), sampling
    )


def require_language(language: str | None, profile: Profile) -> None:
    """Raise UsageError where `language`, a code, is none of the checkpoint's."""
    if language and profile.languages is not None and language not in profile.languages:
        known = [languages.TEXT[code] for code in profile.languages]
        listed = ", ".join(known[:-1]) + " and " + known[-1] if known[1:] else known[0]
        name = languages.TEXT.get(language, language)
        raise UsageError(f"{name} is no language of this checkpoint", f"It knows {listed}")


def hear(source: Source, question: Question, how: Listening) -> Flow[Hearing[Healed]]:
    """`source`, cut into chunks in silence, each asked `question` on its own. Raises InputError.

    An answer that cannot be trusted is asked for again (`healing`); its chunk may come back in parts.
    """
    return (yield from hear_and(_as_heard, source, question, how))


def _as_heard(healed: Healed) -> Flow[Healed]:
    yield from ()
    return healed


def hear_and(
    go_on: Callable[[Healed], Flow[P]], source: Source, question: Question, how: Listening
) -> Flow[Hearing[P]]:
    """The same, where a flow goes on with the answers to each chunk, whatever has become of the others."""
    from phi4mm_cli.media import audio, speech

    def part(listener: Listener, chunk: Chunk) -> Flow[P]:
        healed = yield from listener.heal(chunk)
        return (yield from go_on(healed))

    parts: list[P] = []
    warnings: list[Warning] = []
    heard: list[Recording] = []
    for span in how.spans:
        with audio.open_recording(source, how.channel, span) as recording:
            listener = Listener(recording, question, how.sampling)
            chunks = speech.chunks(recording, how.longest_chunk, how.vad)
            gather = Gather(part(listener, chunk.later(recording.start)) for chunk in chunks)
            yield gather
        if not heard:
            warnings += track_warnings(recording)
        heard.append(recording)
        parts += gather.values
        warnings += input_warnings(recording)
        warnings += (warning for one in gather.values for warning in one.warnings)
    last = heard[-1]
    duration = last.end if how.spans[-1][1] == math.inf else max(last.end, last.expected_seconds or 0.0)
    answers = [answer for one in parts for answer in one.answers]
    return Hearing(duration, tuple(parts), _coverage(heard, answers, how), tuple(warnings))


def segments(answers: Sequence[Answer]) -> tuple[Segment, ...]:
    """A segment for each sentence of the answers, with its words, within its chunk."""
    found: list[Segment] = []
    for answer in answers:
        words = iter(_timed(answer))
        for sentence in timing.sentences(answer.text):
            said = tuple(islice(words, len(timing.words(sentence))))
            found.append(Segment(len(found), said[0].start, said[-1].end, sentence, said))
    return tuple(found)


def finished(part: Healed) -> tuple[Segment, ...]:
    """The segments of a chunk that has been heard, while others have not."""
    return segments(part.answers)


def _timed(answer: Answer) -> list[Word]:
    chunk = answer.chunk
    within = (chunk.start, chunk.end)
    voiced = [(region.start, region.end) for region in chunk.speech]
    words = [Word(chunk.start + word.start, chunk.start + word.end, word.word) for word in answer.words or ()]
    if [word.word for word in words] != timing.words(answer.text):  # none, or those of a text that was mended since
        return timing.spread_words(answer.text, voiced or [within])
    return timing.settle(words, voiced, within)


def _coverage(recordings: Sequence[Recording], answers: Sequence[Answer], how: Listening) -> Coverage:
    read = sum(recording.seconds for recording in recordings)
    total = sum(wanted(recording, end) for recording, (_, end) in zip(recordings, how.spans, strict=True))
    if not how.vad:
        return Coverage("seconds", total, read)
    heard = sum(answer.speech or 0.0 for answer in answers if answer.text or answer.faults)  # else it was no speech
    trusted = sum(_trusted(answer) for answer in answers if answer.text)
    return Coverage("seconds", total, read, heard, trusted)


def _trusted(answer: Answer) -> float:
    """Seconds of speech that have words, and whose words can be trusted."""
    if answer.faults and answer.stretch is None:
        return 0.0
    voiced = [(region.start, region.end) for region in answer.chunk.speech]
    return (answer.speech or 0.0) - (timing.overlap(voiced, answer.stretch) if answer.stretch else 0.0)


def wanted(recording: Recording, end: float) -> float:
    """Seconds up to `end` that the recording holds, as far as is known."""
    return max(recording.seconds, min(recording.expected_seconds or 0.0, end) - recording.start)


def input_warnings(recording: Recording) -> Iterator[Warning]:
    """What is to be said of a recording that has been decoded to its end."""
    if recording.truncated:
        yield Warning("truncated_input", recording.truncated, "what could be read was used", start=recording.end)


def track_warnings(recording: Recording) -> Iterator[Warning]:
    """That others of its sound tracks were not heard."""
    track, count = recording.tracks
    if count > 1:
        yield Warning("one_track", f"it has {count} sound tracks", f"track {track} alone was heard")


def probe(path: Path, asked: ListeningOptions) -> float | None:
    """How many seconds of a recording are to be heard, where its header tells.

    Raises InputError where it is none, or has not what is asked for.
    """
    from phi4mm_cli.media import audio

    info, spans = audio.probe(path), asked.spans()
    audio.require(info, asked.channel, spans[-1][0])
    return None if info.seconds is None else ranges.covered(spans, info.seconds) or None
