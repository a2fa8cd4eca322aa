"""`phi4mm transcribe`: recordings to text, JSON and captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from phi4mm_cli import languages, timing
from phi4mm_cli.batch import Task, run_files
from phi4mm_cli.errors import UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.options import EngineOptions, LogOptions, OutputOptions, SamplingOptions, option, with_shared
from phi4mm_cli.schema import (
    Body,
    Clip,
    Coverage,
    Message,
    Profile,
    Request,
    Result,
    Segment,
    Source,
    Transcript,
    Warning,
)

if TYPE_CHECKING:
    from phi4mm_cli.media.audio import Recording
    from phi4mm_cli.media.speech import Chunk

PROMPT = "Transcribe the audio clip into text."  # the model card's
LANGUAGE_PROMPT = "Transcribe the {language} audio clip into text."  # the Open ASR leaderboard's, multilingual
LONGEST_CHUNK = 40.0  # seconds: the encoder's window, and the longest clip that the model card advises

# The token budget of a clip. Fast speech makes 4 to 6 tokens a second in the languages that the model hears; what
# needs twice that is a loop, and ends here.
BASE_TOKENS = 16
TOKENS_PER_SECOND = 10

EXAMPLES = """
Every option has a variable of its name ([b]PHI4MM_BATCH_SIZE[/b]) and may stand in a configuration file.

[b]Examples[/b]

phi4mm transcribe meeting.flac --srt

phi4mm transcribe talk.mp4 --json -o out/

phi4mm transcribe recordings/ -o out/ --srt --json
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What shapes a transcript."""

    language: str | None = None  # code; None lets the model judge
    max_chunk_seconds: float = 30.0
    vad: bool = True  # find the speech first; False hears everything
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


def flow(source: Source, options: Options) -> Flow[Body]:
    """The transcript of `source`: cut into chunks in silence, each transcribed on its own. Raises InputError."""
    from phi4mm_cli.media import audio, speech

    chunks: list[Chunk] = []

    def requests(recording: Recording) -> Iterator[Request]:
        for chunk in speech.chunks(recording, options.max_chunk_seconds, options.vad):
            chunks.append(chunk)
            yield _request(Clip(source, chunk.start, chunk.end), options)

    with audio.open_recording(source) as recording:
        results = yield requests(recording)
    segments = _segments(chunks, results)
    return Transcript(
        text=" ".join(segment.text for segment in segments),
        language=options.language or "und",
        duration=recording.seconds,
        segments=segments,
        coverage=_coverage(recording, chunks, options),
        warnings=(*_input_warnings(recording), *_chunk_warnings(chunks, results)),
    )


def _request(clip: Clip, options: Options) -> Request:
    name = languages.AUDIO.get(options.language or "")
    prompt = LANGUAGE_PROMPT.format(language=name) if name else PROMPT
    budget = BASE_TOKENS + round(TOKENS_PER_SECOND * (clip.end - clip.start))
    return Request((Message("user", (clip, prompt)),), options.sampling.sampling(budget))


def _segments(chunks: Sequence[Chunk], results: Sequence[Result]) -> tuple[Segment, ...]:
    """A segment for each sentence, timed by the voices in its chunk."""
    segments: list[Segment] = []
    for chunk, result in zip(chunks, results, strict=True):
        sentences = timing.sentences(result.text)
        if sentences:
            voiced = [(region.start, region.end) for region in chunk.speech] or [(chunk.start, chunk.end)]
            for sentence, (start, end) in zip(sentences, timing.spread(sentences, voiced), strict=True):
                segments.append(Segment(len(segments), start, end, sentence))
    return tuple(segments)


def _coverage(recording: Recording, chunks: Sequence[Chunk], options: Options) -> Coverage:
    total = max(recording.seconds, recording.expected_seconds or 0.0)
    voiced = sum(region.end - region.start for chunk in chunks for region in chunk.speech)
    return Coverage("seconds", total, recording.seconds, voiced if options.vad else None)


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


def _require_language(language: str | None, profile: Profile) -> None:
    if language and profile.languages is not None and language not in profile.languages:
        known = ", ".join(profile.languages)
        raise UsageError(f"this checkpoint does not hear the language '{language}'", f"It hears {known}")


@with_shared
def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Recordings, videos, folders; [b]-[/b] is stdin.", show_default=False),
    ],
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: OutputOptions,
    log: LogOptions,
    language: Annotated[
        str, option("--language", "-l", help="What is spoken: a code, a name, or [b]auto[/b].")
    ] = languages.AUTO,
    chunk_seconds: Annotated[
        float | None, option("--chunk-seconds", help="Longest chunk, 1 to 40.", show_default="what the model takes")
    ] = None,
    vad: Annotated[bool, option("--vad/--no-vad", help="Find the speech first, or hear everything.")] = True,
) -> None:
    """Turn recordings into text, JSON and captions."""
    code = languages.audio_code(language)
    if chunk_seconds is not None and not 1 <= chunk_seconds <= LONGEST_CHUNK:
        raise UsageError(f"--chunk-seconds is 1 to {LONGEST_CHUNK:g}, not {chunk_seconds:g}")

    def prepare(profile: Profile) -> Callable[[Source], Flow[Body]]:
        _require_language(code, profile)
        options = Options(code, chunk_seconds or profile.max_chunk_seconds, vad, sampling)
        return lambda source: flow(source, options)

    recorded = {"language": code, "vad": vad, **sampling.recorded()}
    task = Task(AUDIO_SUFFIXES | VIDEO_SUFFIXES, _probe, _source, prepare, recorded)
    raise typer.Exit(run_files(task, inputs, engine, output, log))


def _probe(path: Path) -> float | None:
    from phi4mm_cli.media import audio

    return audio.probe(path).seconds


def _source(path: Path) -> Source:
    from phi4mm_cli.media import audio

    return audio.source(path)
