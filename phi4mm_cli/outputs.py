"""What commands write: the envelope of every result, and a body for each task, all frozen and JSON-safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from phi4mm_cli.errors import Phi4Error
from phi4mm_cli.schema import ModelInfo, Remark, Word, to_json

SCHEMA_VERSION = 1

WarningCode = Literal[
    "truncated_input",  # the file ends before its header says, or is damaged; what could be read was used
    "prompt_echo",  # the answer repeats the question, or only names that the question gave
    "empty_with_speech",  # speech was heard, but the model wrote nothing
    "looping",  # the answer says one thing over and over
    "token_limit",  # the answer was cut off by its token budget
    "missing_words",  # a stretch of speech has none
    "speech_rate",  # the answer is too short or too long to be what was said
    "separator",  # an answer with a transcript and its translation did not divide them by one <sep>
    "wrong_language",  # a translation or a summary is in another language than the one asked for
    "untranslated",  # a text was not translated, and stands there as it was
    "nothing_to_summarize",  # nobody speaks in the recording, or the text is empty
    "empty_answer",  # the model wrote nothing about what it was given
    "unsupported_point",  # a summary says what cannot be found in its source
    "unreadable_page",  # the page is damaged in its document
    "no_text",  # the page carries no text, and no other was asked for
    "unjoined_bands",  # a page was shown in overlapping bands, in which no common lines were found
    "other_computation",  # the engine computes something else there than the model's own implementation
    "ignored_setting",  # the engine does not know a setting that was asked for
    "failed_page",  # the engine could not read the page
    "blank_page",  # nothing is on the page
    "scaled_pictures",  # pictures were shown smaller than alone, or far smaller than they are
    "fewer_frames",  # of a video, fewer frames were shown than were asked for
    "one_track",  # the file has several sound tracks, of which one was heard
    "no_sound",  # the sound of a video was to be heard, and it has none
]


@dataclass(frozen=True, slots=True)
class Warning:
    """Why a result may not be trusted, and what was done about it."""

    code: WarningCode
    message: str
    action: str
    start: float | None = None  # seconds
    end: float | None = None  # seconds
    page: int | None = None  # counted from 1
    healed: bool = False  # what stands in the result can be trusted: another answer, or the nothing of a blank page

    @property
    def is_of_the_engine(self) -> bool:
        """Whether it holds for all results alike; the engine itself says so once."""
        return self.code in ("other_computation", "ignored_setting")

    @property
    def counts(self) -> bool:
        """Whether it stands against this very result."""
        return not (self.healed or self.is_of_the_engine or self.code == "one_track")


Unit = Literal["seconds", "tokens", "pages"]


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the source is behind the result."""

    unit: Unit
    total: float  # what the source holds, as far as is known
    read: float  # what could be read
    speech: float | None = None  # what was judged to be speech
    transcribed: float | None = None  # of the speech, what has a text without warnings


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a transcript."""

    id: int  # from 0
    start: float  # seconds
    end: float  # seconds
    text: str
    words: tuple[Word, ...] | None = None  # those of `text`, in order


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a recording."""

    text: str
    language: str  # ISO 639-1 code: the one given, else judged by the text; "und" where that is unsure
    duration: float  # seconds
    segments: tuple[Segment, ...]
    coverage: Coverage
    warnings: tuple[Warning, ...] = ()
    task: Literal["transcript"] = "transcript"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A sentence, caption or paragraph in another language."""

    id: int  # from 0
    start: float | None  # seconds; None in texts without times
    end: float | None  # seconds
    text: str
    source_text: str | None = None  # what it says in its own language; None where only the translation was asked for


@dataclass(frozen=True, slots=True)
class Translation:
    """What was said in a recording, or what a text says, in another language."""

    text: str
    language: str  # of `text`: the one asked for
    source_language: str  # the one given, else judged by the words; "und" where that is unsure
    segments: tuple[Rendering, ...]
    coverage: Coverage
    source_text: str | None = None  # None where only the translation was asked for
    duration: float | None = None  # seconds; None in texts without times
    warnings: tuple[Warning, ...] = ()
    task: Literal["translation"] = "translation"


@dataclass(frozen=True, slots=True)
class Point:
    """A statement of a summary, with what supports it; or a chapter, from its start to its end."""

    text: str
    start: float | None = None  # seconds
    end: float | None = None  # seconds
    source: str | None = None  # the name of the input it is from, where there are several
    quote: str | None = None  # the source's own words
    unsupported: bool = False  # nothing in the source was found to support it


@dataclass(frozen=True, slots=True)
class SummaryPart:
    """As much of the source as the model read in one request."""

    tokens: int  # of the sound or text in it, without the instruction
    start: float | None = None  # seconds; None in what has no times
    end: float | None = None  # seconds
    source: str | None = None  # the name of the input it is from, where there are several
    text: str | None = None  # its own summary, where there are several to be merged


SummaryStyle = Literal["paragraph", "bullets", "minutes", "chapters", "prompt"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a recording or a text comes down to."""

    text: str  # Markdown, but for chapters: a time and a title a line
    style: SummaryStyle
    language: str  # ISO 639-1 code; "und" where it was not given
    points: tuple[Point, ...]  # of chapters, and of what was to be grounded
    parts: tuple[SummaryPart, ...]
    coverage: Coverage
    warnings: tuple[Warning, ...] = ()
    task: Literal["summary"] = "summary"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a page, row by row, all of one length; a merged cell's text stands in each place that it takes."""

    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Page:
    """What a page of a document says."""

    page: int  # counted from 1
    text: str  # Markdown; plain where the document itself carries it
    tables: tuple[Table, ...]
    read_by: Literal["model", "text_layer"]
    image_tokens: int  # that the page takes in the prompts; 0 where the model was not asked
    bands: int = 1  # that it was shown in, one below the other


@dataclass(frozen=True, slots=True)
class Pages:
    """What the pages of a document say."""

    text: str  # all pages, in Markdown
    pages: tuple[Page, ...]
    coverage: Coverage
    warnings: tuple[Warning, ...] = ()
    task: Literal["pages"] = "pages"


DescriptionStyle = Literal["short", "detailed", "alt", "chart", "table", "prompt", "voice"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture, a page or a frame as the model was shown it."""

    size: tuple[int, int]  # width and height in pixels
    shown: tuple[int, int]  # ... at which it was shown
    tokens: int  # that it takes in the prompt
    page: int | None = None  # counted from 1
    time: float | None = None  # seconds, in a video
    source: str | None = None  # the name of the input it is from, where there are several


@dataclass(frozen=True, slots=True)
class Description:
    """What the model says about pictures, pages or frames."""

    text: str  # Markdown; with a schema, JSON
    style: DescriptionStyle
    pictures: tuple[Seen, ...]  # in the order in which they were shown
    coverage: Coverage  # of a video in seconds, else in pages, and a picture is one
    answer: Any = None  # with a schema, what the text says in JSON
    warnings: tuple[Warning, ...] = ()
    task: Literal["description"] = "description"


Body = Transcript | Translation | Summary | Pages | Description

T = TypeVar("T", bound=Any)


def remarked(body: T, remarks: Iterable[Remark]) -> T:
    """`body` with what the engine had to say of its answers among the warnings."""
    told = tuple(Warning(remark.code, remark.message, remark.advice) for remark in remarks)
    return replace(body, warnings=(*body.warnings, *told)) if told else body


WORD_TIMES = "word_timestamps"  # the option that has the words' own times written
FORM = "schema"  # the option with the form that an answer is to have


@dataclass(frozen=True, slots=True)
class Timings:
    """Wall-clock seconds spent on one input, from its opening to its result."""

    total: float


@dataclass(frozen=True, slots=True)
class Usage:
    """What one input cost the model."""

    calls: int  # requests that were answered
    prompt_tokens: int  # of all prompts together, sound and pictures included
    completion_tokens: int  # of all answers together

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True, slots=True)
class Document:
    """A result with where it came from: what `--json` writes, with the fields of the body beside the others."""

    source: str
    model: ModelInfo
    options: Mapping[str, str | int | float | bool | None]
    timings: Timings
    usage: Usage
    body: Body
    sources: tuple[str, ...] | None = None  # the inputs, where the result is of several

    @property
    def has_answer(self) -> bool:
        """Whether it is JSON by a schema of the user's, be it null."""
        given = isinstance(self.body, Description) and self.body.answer is not None
        return given or (self.body.task == "description" and self.options.get(FORM) is not None)

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object: the envelope, then the body of the task."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "body"}
        envelope = {name: to_json(part) for name, part in parts.items() if part is not None}
        body = to_json(self.body)
        if not self.options.get(WORD_TIMES):
            for segment in body.get("segments", ()):
                segment.pop("words", None)
        if self.has_answer and isinstance(self.body, Description):
            body["answer"] = self.body.answer  # as it is: its numbers are no times
        return {"schema_version": SCHEMA_VERSION, "task": body.pop("task"), **envelope, **body}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is no result."""

    type: str  # of the error: InputError, RequestError, MemoryExhaustedError; any other name is a bug's
    message: str
    advice: str = ""


def reason_of(error: Exception) -> Reason:
    """What is said of an error."""
    message, advice = (error.message, error.advice) if isinstance(error, Phi4Error) else (str(error), "")
    return Reason(type(error).__name__, message, advice)


@dataclass(frozen=True, slots=True)
class Failure:
    """What `--jsonl` writes of an input that has no result."""

    source: str
    error: Reason
    task: Literal["failure"] = "failure"

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object, told from results by its task."""
        body = to_json(self)
        return {"schema_version": SCHEMA_VERSION, "task": body.pop("task"), **body}
