"""`phi4mm describe`: what is to be seen in pictures, pages and videos, or answers to questions about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from phi4mm_cli import judging, looking, paging, prompt, ranges, reading, showing, structured
from phi4mm_cli.batch import run_files
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.looking import Look, Looking
from phi4mm_cli.media import DOCUMENT_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.model.grid import MOST_CROPS
from phi4mm_cli.options import BatchOptions, LogOptions, SamplingOptions, option, require_ranges, with_shared
from phi4mm_cli.output_options import PageOutputOptions
from phi4mm_cli.outputs import Body, Description, DescriptionStyle, Warning
from phi4mm_cli.schema import Clip, Message, Profile, Request, Result, Sampling, Source
from phi4mm_cli.task import CountTokens, Task
from phi4mm_cli.video_options import VideoOptions

TAG = "description"  # photo.description.txt: beside photo.txt, which is what ocr has read in it
RESERVE = 64  # tokens: a second question about an answer that was not of the schema's form, and markers

EXAMPLES = """
[b]Examples[/b]

phi4mm describe photo.jpg

phi4mm describe before.png after.png --prompt "What has changed?"

phi4mm describe photos/ --style alt --jsonl

phi4mm describe receipt.jpg --schema receipt.schema.json

phi4mm describe clip.mp4 --scenes --sound --prompt "When does the door open?"
"""


class Style(StrEnum):
    """What a description looks like."""

    SHORT = "short"
    DETAILED = "detailed"
    ALT = "alt"
    CHART = "chart"
    TABLE = "table"


# By style: what is asked, with {this} for what is shown, and most tokens of the answer.
PROMPTS: dict[Style, tuple[str, int]] = {
    Style.SHORT: ("What is shown in {this}?", 512),  # the model card's
    Style.DETAILED: ("Describe {this} in detail.", 1000),  # the model card's, of one image
    Style.ALT: (
        "Write an alternative text for {this}, for people who cannot see it: one sentence of at most 125 characters.",
        128,
    ),
    Style.CHART: (
        "Describe the chart in {this}: its kind, what its axes and parts stand for, the values, and what they show.",
        1000,
    ),
    Style.TABLE: ("Convert the table or the chart in {this} to a Markdown table.", 2048),
}
COMPARE = {
    Style.SHORT: "What is shown in each of these images, and how do they differ?",
    Style.DETAILED: "Describe each of these images in detail, and how they differ.",
}
BUDGET = 1000  # tokens of the answer to a question of the user's, as in the model's sample code


@dataclass(frozen=True, slots=True)
class Options:
    """What is looked at, and what is asked."""

    context: int  # tokens of prompt and answer together
    count: CountTokens
    style: Style = Style.SHORT
    prompt: str | None = None  # in place of a style
    voice: Clip | None = None  # ... as a recording
    schema: structured.Schema | None = None  # of the answer
    looking: Looking = field(default_factory=Looking)
    times: bool = True  # the model is told those of frames
    most_crops: int = MOST_CROPS
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    @property
    def budget(self) -> int:
        """Most tokens of the answer."""
        return BUDGET if self.prompt is not None or self.voice is not None or self.schema else PROMPTS[self.style][1]

    @property
    def name(self) -> DescriptionStyle:
        """What the style is called in a result."""
        return "voice" if self.voice is not None else "prompt" if self.prompt is not None else self.style.value

    def words(self, looks: Sequence[Look]) -> str:
        """What is asked in writing: with a spoken question, nothing, as the model was trained."""
        if self.voice is not None:
            return ""
        times = looking.frame_times(looks) if self.times else ""
        return " ".join(filter(None, (times, self.prompt if self.prompt is not None else self._asked(looks))))

    def _asked(self, looks: Sequence[Look]) -> str:
        if len(looks) > 1 and self.style in COMPARE:
            return COMPARE[self.style]
        many = sum(len(one.pictures) for one in looks) > 1
        this = "this video" if len(looks) == 1 and looks[0].is_video else "these images" if many else "this image"
        return PROMPTS[self.style][0].format(this=this)


def flow(sources: Sequence[Source], options: Options) -> Flow[Description]:
    """What the model says about all of `sources` together. Raises InputError, and AnswerError about a schema."""
    with ExitStack() as files:
        looks = [looking.look(source, options.looking, files) for source in sources]
        pictures = [picture for one in looks for picture in one.pictures]
        clips = [clip for one in looks for clip in one.clips] + [clip for clip in [options.voice] if clip is not None]
        words, sampling = options.words(looks), options.sampling.sampling(options.budget)
        asked = (Message("user", (*clips, words) if words else tuple(clips)),)
        size = prompt.size(asked, options.count) + RESERVE
        if options.schema is not None:  # and what was wrong with an answer is said beside it
            size += options.count(json.dumps(options.schema)) + sampling.max_new_tokens
        shown = showing.shown(pictures, options.context - size - sampling.max_new_tokens, options.most_crops)
        messages = (Message("user", (*(one.picture for one in shown), *asked[0].parts)),)
        answer, result = yield from _answer(messages, options, sampling)
    text = reading.unfenced(result.text).strip() if answer is None else _written(answer)
    warnings = [warning for one in looks for warning in one.warnings]
    return Description(
        text=text,
        style=options.name,
        pictures=looking.seen(shown, len(sources) > 1),
        coverage=looking.coverage(looks),
        answer=answer,
        warnings=(*warnings, *looking.scaled(shown), *_judged(result, answer)),
    )


def _answer(messages: tuple[Message, ...], options: Options, sampling: Sampling) -> Flow[tuple[Any, Result]]:
    if options.schema is None:
        (result,) = yield [Request(messages, sampling)]
        return None, result
    answer = yield from structured.ask(messages, options.schema, sampling)
    return answer.value, answer.result


def _written(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False, indent=2)


def _judged(result: Result, answer: Any) -> list[Warning]:
    return [] if answer is not None else [*judging.warnings(result, "the description")]


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What is asked, and about which pages and seconds. Raises UsageError where a value makes no sense."""

    style: Annotated[Style, option("--style", help="What the description is like.")] = Style.SHORT
    prompt: Annotated[str | None, option("--prompt", help="A question of your own, in place of a style.")] = None
    voice: Annotated[
        Path | None, option("--voice", help="A recording of the question, in place of one in writing.")
    ] = None
    schema: Annotated[Path | None, option("--schema", help="A JSON Schema; the answer is JSON that it describes.")] = (
        None
    )
    together: Annotated[
        bool | None,
        option(
            "--together/--each",
            help="Show all inputs at once, or describe each.",
            show_default="together where files are named, each of a folder",
        ),
    ] = None
    pages: Annotated[
        str | None, option("--pages", metavar="1-3,7,10-", help="Only these pages of PDF and TIFF.", show_default="all")
    ] = None
    range: Annotated[
        str | None,
        option("--range", panel="Video", help="Only this part: 0:10-0:40, 90s-, -5:00; several with commas."),
    ] = None
    times: Annotated[
        bool, option("--times/--no-times", panel="Video", help="Tell the model when each frame is seen.")
    ] = True
    crops: Annotated[
        int, option("--crops", help="Most crops of 448 x 448 pixels that a picture is shown in: detail against tokens.")
    ] = MOST_CROPS

    def __post_init__(self) -> None:
        if self.prompt is not None and self.voice is not None:
            raise UsageError("--voice takes the place of --prompt", "Leave one out")
        require_ranges(self, {"crops": (1, MOST_CROPS)})
        self.looking(VideoOptions())

    def looking(self, video: VideoOptions) -> Looking:
        """What of an input is looked at. Raises UsageError."""
        pages = paging.ALL_PAGES if self.pages is None else paging.selection(self.pages)
        return Looking(pages, ranges.WHOLE if self.range is None else ranges.parse(self.range), video)

    def shows_together(self, inputs: Sequence[Path], batch: BatchOptions) -> bool:
        """Whether all inputs are one question's: unless told, where each of several is named."""
        if self.together is not None:
            return self.together
        return len(inputs) > 1 and batch.files_from is None and all(path.is_file() for path in inputs)

    def recorded(self, voice: Clip | None, schema: structured.Schema | None) -> dict[str, Any]:
        """What shapes the result, with what was read from the files that are named."""
        chosen = {
            "style": self.style.value,
            "prompt": self.prompt,
            "voice": None if voice is None else f"{self.voice} {voice.source.fingerprint}",
            "schema": None if schema is None else json.dumps(schema, ensure_ascii=False),
            "pages": self.pages,
            "range": self.range,
            "times": self.times,
            "crops": self.crops,
        }
        return {name: value for name, value in chosen.items() if value is not None}


@with_shared
def command(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            default_factory=list,
            metavar="INPUT",
            help="Pictures, PDF, TIFF, videos, folders of them; [b]-[/b] is stdin.",
            show_default=False,
        ),
    ],
    asked: QuestionOptions,
    video: VideoOptions,
    batch: BatchOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: PageOutputOptions,
    log: LogOptions,
) -> None:
    """Describe pictures, pages and videos, or answer questions about them."""
    how = asked.looking(video)
    schema = None if asked.schema is None else structured.read_schema(asked.schema)
    voice = None if asked.voice is None else _spoken(asked.voice)

    def prepare(profile: Profile, count: CountTokens) -> Callable[..., Flow[Body]]:
        options = Options(
            profile.context, count, asked.style, asked.prompt, voice, schema, how, asked.times, asked.crops, sampling
        )
        return lambda *sources: flow(sources, options)

    task = Task(
        "describe",
        DOCUMENT_SUFFIXES | VIDEO_SUFFIXES,
        partial(looking.probe, how=how),
        _source,
        prepare,
        {**asked.recorded(voice, schema), **video.recorded(), **sampling.recorded()},
        tag=TAG,
    )
    together = asked.shows_together(inputs, batch)
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log, together))


def _spoken(path: Path) -> Clip:
    from phi4mm_cli import attaching

    [clip] = attaching.recording(path).parts
    assert isinstance(clip, Clip)
    return clip


def _source(path: Path) -> Source:
    from phi4mm_cli.media import audio

    return audio.source(path)
