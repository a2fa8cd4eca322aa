"""`phi4mm transcribe`: recordings to text, JSON and captions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import hearing, languages
from phi4mm_cli.batch import run_files
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows.transcribe import Options, flow
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.options import (
    BatchOptions,
    ListeningOptions,
    LogOptions,
    SamplingOptions,
    named_inputs,
    option,
    with_shared,
)
from phi4mm_cli.output_options import CaptionOutputOptions
from phi4mm_cli.outputs import WORD_TIMES, Body
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.schema import Profile, Source
from phi4mm_cli.task import Task

EXAMPLES = """
Every option has a variable of its name ([b]PHI4MM_BATCH_SIZE[/b]) and may stand in a configuration file.

[b]Examples[/b]

phi4mm transcribe meeting.flac --srt

phi4mm transcribe talk.mp4 --json -o out/

phi4mm transcribe recordings/ -o out/ --srt --json

phi4mm transcribe board.wav --range 10:00-20:00 --hotwords "Kowalski, Zoltan"
"""


@with_shared
def command(
    inputs: Annotated[list[Path], named_inputs("Recordings, videos, folders; [b]-[/b] is stdin.")],
    listening: ListeningOptions,
    batch: BatchOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: CaptionOutputOptions,
    log: LogOptions,
    language: Annotated[
        str, option("--language", "-l", help="What is spoken: a code, a name, or [b]auto[/b].")
    ] = languages.AUTO,
    hotwords: Annotated[
        list[str] | None, option("--hotwords", help="Names and terms that may be said, with commas.")
    ] = None,
    prompt: Annotated[str, option("--prompt", help="What else the model is told of the recording.")] = "",
    word_timestamps: Annotated[
        bool,
        option(
            "--word-timestamps/--no-word-timestamps",
            help="Write each word's times into JSON and VTT.",
            show_default=False,
        ),
    ] = False,
) -> None:
    """Turn recordings into text, JSON and captions."""
    code = languages.audio_code(language)
    terms = tuple(term.strip() for part in hotwords or () for term in part.split(",") if term.strip())

    def prepare(profile: Profile, _: CountTokens) -> Callable[[Source], Flow[Body]]:
        hearing.require_language(code, profile)
        options = Options(code, terms, prompt.strip(), hearing.listening(listening, sampling, profile))
        return lambda source: flow(source, options)

    hints = {"hotwords": ", ".join(terms), "prompt": prompt.strip()}
    recorded = {"language": code, WORD_TIMES: word_timestamps, **listening.recorded(), **sampling.recorded()}
    recorded |= {name: value for name, value in hints.items() if value}
    task = Task(
        "transcribe",
        AUDIO_SUFFIXES | VIDEO_SUFFIXES,
        partial(hearing.probe, asked=listening),
        prepare,
        recorded,
        segments=hearing.finished,
        spans=listening.spans(),
        writing={WORD_TIMES: word_timestamps},
    )
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log))
