"""`phi4mm describe`: what is to be seen in pictures, pages and videos, or answers to questions about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from phi4mm_cli import console, looking, paging, ranges, structured
from phi4mm_cli.batch import run_files
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows.describe import Options, Style, flow
from phi4mm_cli.looking import Looking
from phi4mm_cli.media import DOCUMENT_SUFFIXES, PAGED_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.model.grid import MOST_CROPS
from phi4mm_cli.options import (
    BatchOptions,
    LogOptions,
    SamplingOptions,
    named_inputs,
    option,
    require_ranges,
    require_words,
    with_shared,
)
from phi4mm_cli.output_options import PageOutputOptions
from phi4mm_cli.outputs import FORM, Body
from phi4mm_cli.paths import is_file
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.schema import Clip, Profile
from phi4mm_cli.task import Task
from phi4mm_cli.video_options import VideoOptions

TAG = "description"  # photo.description.txt: beside photo.txt, which is what ocr has read in it

EXAMPLES = """
[b]Examples[/b]

phi4mm describe photo.jpg

phi4mm describe before.png after.png --prompt "What has changed?"

phi4mm describe photos/ --style alt --jsonl

phi4mm describe receipt.jpg --schema receipt.schema.json

phi4mm describe clip.mp4 --scenes --sound --prompt "When does the door open?"
"""


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What is asked, and about which pages and seconds. Raises UsageError where a value makes no sense."""

    style: Annotated[
        Style | None, option("--style", help="What the description is like.", show_default=Style.SHORT.value)
    ] = None
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
        require_words(self.prompt)
        if self.prompt is not None and self.voice is not None:
            raise UsageError("--voice takes the place of --prompt", "Leave one out")
        if self.style is not None and (self.prompt is not None or self.voice is not None):
            name = "--prompt" if self.voice is None else "--voice"
            raise UsageError(f"{name} takes the place of --style", "Leave one out")
        require_ranges(self, {"crops": (1, MOST_CROPS)})
        self.looking(VideoOptions())

    def require_any(self, inputs: Sequence[Path]) -> None:
        """Raise UsageError where no input that is named can have the part that is asked for: folders may hold all."""
        suffixes = {path.suffix.lower() for path in inputs}
        if self.range is not None and suffixes <= DOCUMENT_SUFFIXES:
            raise UsageError("--range is for videos, and none is named", "Leave it out")
        if self.pages is not None and suffixes <= (DOCUMENT_SUFFIXES | VIDEO_SUFFIXES) - PAGED_SUFFIXES:
            raise UsageError("--pages is for PDF and TIFF, and none is named", "Of a video, choose a --range")

    def looking(self, video: VideoOptions) -> Looking:
        """What of an input is looked at. Raises UsageError."""
        pages = paging.ALL_PAGES if self.pages is None else paging.selection(self.pages)
        return Looking(pages, ranges.WHOLE if self.range is None else ranges.parse(self.range), video)

    def shows_together(self, inputs: Sequence[Path], batch: BatchOptions) -> bool:
        """Whether all inputs are one question's: unless told, where each of several is named."""
        if self.together is not None:
            return self.together
        return len(inputs) > 1 and batch.files_from is None and all(map(is_file, inputs))

    def recorded(self, voice: Clip | None, schema: structured.Schema | None) -> dict[str, Any]:
        """What shapes the result, with what was read from the files that are named."""
        chosen = {
            "style": (self.style or Style.SHORT).value,
            "prompt": self.prompt,
            "voice": None if voice is None else f"{self.voice} {voice.source.fingerprint}",
            FORM: None if schema is None else json.dumps(schema, ensure_ascii=False),
            "pages": self.pages,
            "range": self.range,
            "times": self.times,
            "crops": self.crops,
        }
        return {name: value for name, value in chosen.items() if value is not None}


@with_shared
def command(
    inputs: Annotated[list[Path], named_inputs("Pictures, PDF, TIFF, videos, folders of them; [b]-[/b] is stdin.")],
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
    if batch.files_from is None:
        asked.require_any(inputs)
    schema = None if asked.schema is None else structured.read_schema(asked.schema)
    voice = None if asked.voice is None else _spoken(asked.voice)

    def prepare(profile: Profile, count: CountTokens) -> Callable[..., Flow[Body]]:
        options = Options(
            profile.context,
            count,
            asked.style or Style.SHORT,
            asked.prompt,
            voice,
            schema,
            how,
            asked.times,
            asked.crops,
            sampling,
        )
        return lambda *sources: flow(sources, options)

    task = Task(
        "describe",
        DOCUMENT_SUFFIXES | VIDEO_SUFFIXES,
        partial(looking.probe, how=how),
        prepare,
        {**asked.recorded(voice, schema), **video.recorded(), **sampling.recorded()},
        unit="pages",
        tag=TAG,
    )
    together = asked.shows_together(inputs, batch)
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log, together))


def _spoken(path: Path) -> Clip:
    from phi4mm_cli import attaching

    recording = attaching.recording(path)
    if recording.damage:
        console.say(f"{recording.damage}; what could be read is used", "warning")
    [clip] = recording.parts
    assert isinstance(clip, Clip)
    return clip
