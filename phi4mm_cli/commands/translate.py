"""`phi4mm translate`: recordings and texts in another language."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import hearing, languages, media, texts
from phi4mm_cli.batch import run_files
from phi4mm_cli.editions import Translations
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows.translate import Options, finished, flow
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
from phi4mm_cli.output_options import TranslationOutputOptions
from phi4mm_cli.outputs import Body
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.schema import Profile
from phi4mm_cli.task import Task
from phi4mm_cli.written import read

EXAMPLES = """
[b]Examples[/b]

phi4mm translate talk.mp4 --to fr --srt

phi4mm translate talk.mp4 --to French --cot --srt

phi4mm translate talk.en.srt README.md --to de -o german/

phi4mm translate interview.wav --from es --to en --bilingual --vtt
"""


@with_shared
def command(
    inputs: Annotated[list[Path], named_inputs("Recordings, texts, subtitles, folders; [b]-[/b] is stdin.")],
    listening: ListeningOptions,
    batch: BatchOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: TranslationOutputOptions,
    log: LogOptions,
    to: Annotated[str, option("--to", help="The language to translate into: a code or a name.", show_default=False)],
    from_: Annotated[
        str, option("--from", help="What is spoken or written: a code, a name, or [b]auto[/b].")
    ] = languages.AUTO,
    cot: Annotated[
        bool, option("--cot/--no-cot", help="Of speech, the transcript and then the translation, in one pass.")
    ] = False,
    bilingual: Annotated[
        bool, option("--bilingual/--no-bilingual", help="Both languages in one file; of speech, by --cot.")
    ] = False,
) -> None:
    """Translate recordings, texts and subtitles."""
    target, spoken = languages.target_code(to), languages.text_code(from_)
    if target == spoken:
        raise UsageError(f"--from and --to are both {languages.TEXT[target]}", "Leave --from out, or change --to")
    transcript = cot or bilingual

    def prepare(profile: Profile, count: CountTokens) -> Callable[..., Flow[Body]]:
        for code in (spoken, target):
            hearing.require_language(code, profile)
        heard = hearing.listening(listening, sampling, profile)
        return partial(flow, options=Options(target, count, spoken, transcript, heard))

    recorded = {"to": target, "from": spoken, "cot": transcript, **listening.recorded(), **sampling.recorded()}
    task = Task(
        "translate",
        suffixes=AUDIO_SUFFIXES | VIDEO_SUFFIXES | texts.SUFFIXES,
        probe=partial(_probe, codes=(target, spoken), formats=output.formats(), listening=listening),
        prepare=prepare,
        options=recorded,
        spans=listening.spans(),
        segments=partial(finished, to=target, source_language=spoken),
        writing={"bilingual": bilingual},
        tag=target,
        replaced_tags=languages.TEXT,
        editions=Translations(target, spoken, transcript, bilingual),
    )
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log))


def _probe(
    path: Path, codes: Sequence[str | None], formats: Sequence[str], listening: ListeningOptions
) -> float | None:
    """The length of a recording in seconds, where its header tells.

    Raises InputError for what cannot be read, or not be written so, and UsageError where speech is not translated
    between these languages.
    """
    media.source(path)
    if not texts.is_text(path):
        length = hearing.probe(path, listening)
        if strange := [code for code in codes if code and code not in languages.AUDIO]:
            known = ", ".join(f"{code} ({name})" for code, name in languages.AUDIO.items())
            message = f"speech is not translated from or into {languages.TEXT[strange[0]]}, only text is"
            raise UsageError(message, f"Speech goes between {known}")
        return length
    listening.require_recording()
    untimed = all(passage.start is None for passage in read(path).passages)
    if untimed and (timed := [format for format in formats if format in ("srt", "vtt", "tsv")]):
        raise InputError(f"it has no times, and so does not become {timed[0]}", "Its formats are txt, md and json")
    return None
