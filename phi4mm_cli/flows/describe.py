"""What is to be seen in pictures, pages and videos, or answers to questions about them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from phi4mm_cli import judging, looking, prompt, reading, showing, structured
from phi4mm_cli.flow import Flow
from phi4mm_cli.looking import Look, Looking
from phi4mm_cli.model.grid import MOST_CROPS
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Description, DescriptionStyle, Warning
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.schema import Clip, Message, Request, Result, Sampling, Source

RESERVE = 64  # tokens: a second question about an answer that was not of the schema's form, and markers


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
    text = reading.unfenced(result.text).strip() if options.schema is None else _written(answer)
    warnings = [warning for one in looks for warning in one.warnings]
    return Description(
        text=text,
        style=options.name,
        pictures=looking.seen(shown, sources),
        coverage=looking.coverage(looks),
        answer=answer,
        warnings=(*warnings, *looking.scaled(shown), *_judged(result, options)),
    )


def _answer(messages: tuple[Message, ...], options: Options, sampling: Sampling) -> Flow[tuple[Any, Result]]:
    if options.schema is None:
        (result,) = yield [Request(messages, sampling)]
        return None, result
    answer = yield from structured.ask(messages, options.schema, sampling)
    return answer.value, answer.result


def _written(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False, indent=2)


def _judged(result: Result, options: Options) -> list[Warning]:
    return [] if options.schema is not None else [*judging.warnings(result, "the description")]
