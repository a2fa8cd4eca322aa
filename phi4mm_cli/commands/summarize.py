"""`phi4mm summarize`: what recordings and texts come down to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import hearing, languages, media, texts
from phi4mm_cli.batch import run_files
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import describe
from phi4mm_cli.flows.summarize import Options, flow
from phi4mm_cli.looking import Looking, probe_video
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.options import (
    BatchOptions,
    ListeningOptions,
    LogOptions,
    SamplingOptions,
    named_inputs,
    option,
    require_ranges,
    require_words,
    with_shared,
)
from phi4mm_cli.output_options import PageOutputOptions
from phi4mm_cli.outputs import Body, Unit
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.schema import Profile
from phi4mm_cli.summaries import LENGTHS, Style, Wording, plan
from phi4mm_cli.task import Task
from phi4mm_cli.video_options import VideoOptions

LONGEST_PART = 30.0  # minutes of sound; the model card: up to 30 minutes where it is to summarize
SHORTEST_PART, FEWEST_TOKENS = 0.5, 200  # of a recording, in minutes, and of a text
MOST_WORDS = 5000
TAG = "summary"  # talk.summary.md: beside talk.json and talk.txt, which are other results

EXAMPLES = """
[b]Examples[/b]

phi4mm summarize meeting.flac

phi4mm summarize board-call.mp3 --style minutes --grounded --md

phi4mm summarize lecture.mp4 --style chapters

phi4mm summarize clip.mp4 --frames 16 --sound

phi4mm summarize mon.json tue.json wed.json --together --prompt "What was decided this week?"

cat notes.txt | phi4mm summarize - --length short
"""


@dataclass(frozen=True, slots=True)
class SummaryOptions:
    """What is to be written, and how much is read at once. Raises UsageError where a value makes no sense."""

    style: Annotated[
        Style | None, option("--style", help="What it looks like.", show_default="paragraph; with --grounded, bullets")
    ] = None
    length: Annotated[str, option("--length", metavar="LENGTH", help="short, medium, long, or most words.")] = "medium"
    prompt: Annotated[str | None, option("--prompt", help="Ask in your own words, in place of a style.")] = None
    language: Annotated[
        str, option("--language", "-l", help="What to write in: a code, a name, or [b]auto[/b], that of the source.")
    ] = languages.AUTO
    grounded: Annotated[
        bool,
        option("--grounded/--no-grounded", help="With each point its time and the words that support it, checked."),
    ] = False
    together: Annotated[bool, option("--together/--each", help="One summary of all inputs, or one of each.")] = False
    part_minutes: Annotated[
        float, option("--part-minutes", help="Most of a recording that goes to the model at once, up to 30.")
    ] = LONGEST_PART
    part_tokens: Annotated[
        int | None,
        option("--part-tokens", help="Most of a text that does, from 200.", show_default="what the model takes"),
    ] = None

    def __post_init__(self) -> None:
        require_words(self.prompt)
        if self.style is not None and self.prompt is not None:
            raise UsageError("--prompt takes the place of --style", "Leave one out")
        if self.style in (Style.PARAGRAPH, Style.CHAPTERS) and self.grounded:
            raise UsageError("a grounded summary is made of points", "Leave --style out, or take bullets or minutes")
        in_words = self.length.isdecimal() and len(self.length) < 10 and 1 <= int(self.length) <= MOST_WORDS
        if self.length not in LENGTHS and not in_words:
            known = f"{', '.join(LENGTHS)} or a number of words up to {MOST_WORDS}"
            raise UsageError(f"--length is {known}, not '{self.length}'")
        require_ranges(self, {"part_minutes": (SHORTEST_PART, LONGEST_PART)})
        if self.part_tokens is not None and self.part_tokens < FEWEST_TOKENS:
            raise UsageError(f"--part-tokens is at least {FEWEST_TOKENS}, not {self.part_tokens}")
        if self.wording().by_times and (self.together or in_words):
            raise UsageError("--style chapters goes with neither --together nor a number of words")

    def wording(self) -> Wording:
        """What the model is asked for. Raises UsageError."""
        style = self.style or (Style.BULLETS if self.grounded else Style.PARAGRAPH)
        return Wording(style, self.length, languages.text_code(self.language), self.grounded, self.prompt)

    def require_seeable(self, video: VideoOptions) -> None:
        """Raise UsageError where videos cannot be looked at as `video` says."""
        if video.sound and not video.given:
            raise UsageError("--sound is for videos that are looked at", "Say how, with --frames, --every or --scenes")
        if video.given and (self.together or self.grounded or self.wording().by_times):
            raise UsageError("what is seen has no words that can be quoted, and one video is looked at at a time")

    def recorded(self) -> dict[str, str | bool | float | None]:
        """What shapes the result."""
        return {**self.wording().recorded(), "part_minutes": self.part_minutes, "part_tokens": self.part_tokens}


@with_shared
def command(
    inputs: Annotated[
        list[Path], named_inputs("Recordings, videos, texts, subtitles, JSON of phi4mm, folders; [b]-[/b] is stdin.")
    ],
    asked: SummaryOptions,
    listening: ListeningOptions,
    video: VideoOptions,
    batch: BatchOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: PageOutputOptions,
    log: LogOptions,
) -> None:
    """Sum up recordings and texts."""
    asked.require_seeable(video)
    wording = asked.wording()
    looking = Looking(spans=listening.spans(), video=video, channel=listening.channel, vad=listening.vad)

    def prepare(profile: Profile, count: CountTokens) -> Callable[..., Flow[Body]]:
        fitting = plan(wording, profile, count, sampling, 60 * asked.part_minutes, asked.part_tokens)
        chosen = replace(sampling, max_new_tokens=fitting.answer)
        seeing = describe.Options(profile.context, count, looking=looking, sampling=chosen) if video.given else None
        hearing_all = replace(sampling, max_new_tokens=None)  # the number is for the summary
        options = Options(fitting, wording, hearing.listening(listening, hearing_all, profile), seeing)
        return lambda *sources: flow(sources, options)

    recorded = {**asked.recorded(), **listening.recorded(), **video.recorded(), **sampling.recorded()}
    suffixes = VIDEO_SUFFIXES if video.given else AUDIO_SUFFIXES | VIDEO_SUFFIXES | texts.SUFFIXES
    probe: Callable[[Path], float | None] = partial(_probe, wording.by_times, listening)
    if video.given:
        probe = partial(probe_video, how=looking)
    unit: Unit = "pages" if video.given else "seconds"
    task = Task("summarize", suffixes, probe, prepare, recorded, unit, spans=listening.spans(), tag=TAG)
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log, asked.together))


def _probe(by_times: bool, listening: ListeningOptions, path: Path) -> float | None:
    """The length of a recording in seconds, where its header tells. Raises InputError for what cannot be read."""
    media.source(path)
    if not texts.is_text(path):
        return hearing.probe(path, listening)
    passages = texts.read(path)
    listening.require_recording()
    if by_times and any(passage.start is None for passage in passages):
        message = "chapters need times, and this text has none"
        raise InputError(message, "Give the recording, its subtitles, or its transcript in JSON")
    return None
