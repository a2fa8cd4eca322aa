"""`phi4mm transcribe`: recordings to text, JSON and captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import hearing, language_check, languages
from phi4mm_cli.batch import CountTokens, Task, run_files
from phi4mm_cli.flow import Flow
from phi4mm_cli.hearing import Listening, Question
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.options import (
    CaptionOutputOptions,
    EngineOptions,
    ListeningOptions,
    LogOptions,
    SamplingOptions,
    option,
    with_shared,
)
from phi4mm_cli.schema import WORD_TIMES, Body, Profile, Source, Transcript

PROMPT = "Transcribe the audio clip into text."  # the model card's
LANGUAGE_PROMPT = "Transcribe the {language} audio clip into text."  # the Open ASR leaderboard's, multilingual

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
    listening: Listening = field(default_factory=Listening)


def flow(source: Source, options: Options) -> Flow[Body]:
    """The transcript of `source`: cut into chunks in silence, each transcribed on its own. Raises InputError."""
    heard = yield from hearing.hear(source, _question(options), options.listening)
    segments = hearing.segments(heard.answers)
    text = " ".join(segment.text for segment in segments)
    return Transcript(
        text=text,
        language=options.language or language_check.judge(text),
        duration=heard.duration,
        segments=segments,
        coverage=heard.coverage,
        warnings=heard.warnings,
    )


def _question(options: Options) -> Question:
    name = languages.AUDIO.get(options.language or "")
    return Question(LANGUAGE_PROMPT.format(language=name) if name else PROMPT)


@with_shared
def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="INPUT", help="Recordings, videos, folders; [b]-[/b] is stdin.", show_default=False),
    ],
    listening: ListeningOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: CaptionOutputOptions,
    log: LogOptions,
    language: Annotated[
        str, option("--language", "-l", help="What is spoken: a code, a name, or [b]auto[/b].")
    ] = languages.AUTO,
    word_timestamps: Annotated[
        bool, option("--word-timestamps/--no-word-timestamps", help="Write each word's times into JSON and VTT.")
    ] = False,
) -> None:
    """Turn recordings into text, JSON and captions."""
    code = languages.audio_code(language)

    def prepare(profile: Profile, _: CountTokens) -> Callable[[Source], Flow[Body]]:
        hearing.require_language(code, profile)
        options = Options(code, hearing.listening(listening, sampling, profile))
        return lambda source: flow(source, options)

    recorded = {"language": code, "vad": listening.vad, WORD_TIMES: word_timestamps, **sampling.recorded()}
    task = Task(AUDIO_SUFFIXES | VIDEO_SUFFIXES, hearing.probe, hearing.source, prepare, recorded)
    raise typer.Exit(run_files(task, inputs, engine, output, log))
