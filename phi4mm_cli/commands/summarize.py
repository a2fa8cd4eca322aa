"""`phi4mm summarize`: what recordings and texts come down to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import hearing, language_check, languages, material, texts
from phi4mm_cli.batch import run_files
from phi4mm_cli.commands import describe, transcribe
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.grounding import Evidence
from phi4mm_cli.hearing import Listening
from phi4mm_cli.looking import Looking, probe_video
from phi4mm_cli.material import Material
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.options import (
    BatchOptions,
    ListeningOptions,
    LogOptions,
    SamplingOptions,
    option,
    require_ranges,
    with_shared,
)
from phi4mm_cli.output_options import PageOutputOptions
from phi4mm_cli.outputs import Body, Point, Summary, SummaryPart, Warning
from phi4mm_cli.schema import Profile, Source
from phi4mm_cli.summaries import LENGTHS, NOTHING, Condensed, Plan, Style, Wording, condense, plan
from phi4mm_cli.task import CountTokens, Task
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
class Options:
    """What shapes a summary."""

    plan: Plan
    wording: Wording = field(default_factory=Wording)
    listening: Listening = field(default_factory=Listening)  # of what is to be transcribed first
    seeing: describe.Options | None = None  # of videos, in place of hearing them alone


def flow(sources: Sequence[Source], options: Options) -> Flow[Summary]:
    """The summary of `sources`, recordings or texts: in one request where they fit into it, else in parts.

    Raises InputError.
    """
    if options.seeing is not None:
        [source] = sources
        return (yield from _seen(source, options.wording, options.seeing))
    wording, limits = options.wording, options.plan.limits
    with ExitStack() as files:
        materials: list[Material] = []
        for source in sources:
            one = yield from _material(source, len(sources) > 1, options, files)
            materials.append(one)
        evidence = Evidence([line for one in materials for line in one.lines])
        parts = material.parts(materials, limits, evidence.timed and (wording.grounded or wording.by_times))
        if not parts:
            return _summary("", NOTHING, (), materials, wording)
        condensed = yield from condense(parts, wording, options.plan, _kind(sources, materials), evidence.timed)
    text, points = condensed.text, tuple[Point, ...]()
    if wording.by_times:
        text, points = evidence.chapters(text, _end(materials))
    elif wording.grounded:
        text, points = evidence.check(text)
    return _summary(text, condensed, points, materials, wording)


def _seen(source: Source, wording: Wording, seeing: describe.Options) -> Flow[Summary]:
    """What is seen in a video, and heard where that is asked for, in one request."""
    found = yield from describe.flow([source], replace(seeing, prompt=wording.whole("the video", False)))
    part = SummaryPart(sum(picture.tokens for picture in found.pictures), 0.0, found.coverage.total)
    language = wording.language or language_check.judge(found.text)
    warnings = (*found.warnings, *_foreign(found.text, wording))
    return Summary(found.text, wording.name, language, (), (part,), found.coverage, warnings)


def _material(source: Source, together: bool, options: Options, files: ExitStack) -> Flow[Material]:
    """One input: a text, the sound of a recording, or where times are to be named what was said in it."""
    if texts.is_text(Path(source.path)):
        return material.read(source, together, options.plan.limits.count)
    if options.wording.grounded or options.wording.by_times:
        transcript = yield from transcribe.flow(source, transcribe.Options(listening=options.listening))
        return material.transcribed(source, transcript, together)
    return material.heard(source, options.plan.limits, options.listening, files)


def _kind(sources: Sequence[Source], materials: Sequence[Material]) -> str:
    if len(sources) > 1:
        return "several recordings and texts"
    return "a recording" if materials[0].coverage.unit == "seconds" else "a text"


def _end(materials: Sequence[Material]) -> float:
    """Where the last chapter ends, in seconds: with the recording, or with the last that was said in a text."""
    [only] = materials
    last = only.lines[-1].passage.end or 0.0
    return max(only.coverage.read, last) if only.coverage.unit == "seconds" else last


def _summary(
    text: str, condensed: Condensed, points: tuple[Point, ...], materials: Sequence[Material], wording: Wording
) -> Summary:
    warnings = [warning for one in materials for warning in one.warnings]
    warnings += condensed.warnings
    warnings += _foreign(" ".join(point.text for point in points) or text, wording)
    warnings += (_unsupported(point) for point in points if point.unsupported)
    return Summary(
        text=text,
        style=wording.name,
        language=wording.language or language_check.judge(text),
        points=points,
        parts=condensed.parts,
        coverage=material.coverage(materials),
        warnings=tuple(warnings),
    )


def _foreign(written: str, wording: Wording) -> Iterator[Warning]:
    """Whether what the model wrote, without what it quotes, is in another language than was asked for."""
    if wording.language and language_check.is_other(written, wording.language):
        message = f"the summary is not in {languages.TEXT[wording.language]}"
        yield Warning("wrong_language", message, "kept as it is")


def _unsupported(point: Point) -> Warning:
    return Warning("unsupported_point", f"nothing was found that supports '{point.text}'", "marked in the summary")


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
        if self.style is not None and self.prompt is not None:
            raise UsageError("--prompt takes the place of --style", "Leave one out")
        if self.style is Style.PARAGRAPH and self.grounded:
            raise UsageError("a grounded summary is made of points", "Leave --style out, or take bullets or minutes")
        in_words = self.length.isdecimal() and 1 <= int(self.length) <= MOST_WORDS
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
        list[Path],
        typer.Argument(
            default_factory=list,
            metavar="INPUT",
            help="Recordings, videos, texts, subtitles, JSON of phi4mm, folders; [b]-[/b] is stdin.",
            show_default=False,
        ),
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
    looking = Looking(spans=listening.spans(), video=video)

    def prepare(profile: Profile, count: CountTokens) -> Callable[..., Flow[Body]]:
        fitting = plan(wording, profile, count, sampling, 60 * asked.part_minutes, asked.part_tokens)
        chosen = replace(sampling, max_new_tokens=fitting.answer)
        seeing = describe.Options(profile.context, count, looking=looking, sampling=chosen) if video.given else None
        options = Options(fitting, wording, hearing.listening(listening, sampling, profile), seeing)
        return lambda *sources: flow(sources, options)

    recorded = {**asked.recorded(), **listening.recorded(), **video.recorded(), **sampling.recorded()}
    suffixes = VIDEO_SUFFIXES if video.given else AUDIO_SUFFIXES | VIDEO_SUFFIXES | texts.SUFFIXES
    probe: Callable[[Path], float | None] = partial(_probe, wording.by_times, listening.range)
    if video.given:
        probe = partial(probe_video, how=looking)
    task = Task("summarize", suffixes, probe, hearing.source, prepare, recorded, tag=TAG)
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log, asked.together))


def _probe(by_times: bool, part: str | None, path: Path) -> float | None:
    """The length of a recording in seconds, where its header tells. Raises InputError for what cannot be read."""
    hearing.source(path)
    if not texts.is_text(path):
        return hearing.probe(path)
    passages = texts.read(path)
    if part is not None:
        raise InputError("--range is for recordings, and this is a text", "Leave it out, or cut the text first")
    if by_times and any(passage.start is None for passage in passages):
        message = "chapters need times, and this text has none"
        raise InputError(message, "Give the recording, its subtitles, or its transcript in JSON")
    return None
