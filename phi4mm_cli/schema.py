"""The records that flows, engines and writers exchange: frozen, hashable and JSON-safe.

Media are referred to, never held: a `Clip` names a stretch of a `Source`, a `Picture` a page or a frame of one, and
whoever needs samples or pixels reads them where the model is. Two equal requests are the same work, so the hash of a
request is the key of its result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, Literal

SCHEMA_VERSION = 1


# ---------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True, slots=True)
class Source:
    """A media file as it was when the run began."""

    path: str
    size: int  # bytes
    fingerprint: str  # of the size, the head and the tail: tells whether the file has changed


@dataclass(frozen=True, slots=True)
class Clip:
    """A stretch of a recording."""

    source: Source
    start: float  # seconds
    end: float  # seconds
    channel: int | None = None  # counted from 1; None mixes all channels down


@dataclass(frozen=True, slots=True)
class Picture:
    """An image: a file, a page of one that has several, or a frame of a video."""

    source: Source
    page: int | None = None  # counted from 1, in PDF and TIFF; None is the first
    time: float | None = None  # seconds, in a video
    most_crops: int | None = None  # at least 1: detail against tokens; None is what the model was trained with, 36
    size: tuple[int, int] | None = None  # width and height in pixels that it is drawn at or brought to; None: its own
    band: tuple[int, int] | None = None  # rows of those pixels, from and to; None is all


Part = str | Clip | Picture
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation; media come before the words about them, as the model was trained."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. The defaults are greedy, as the model's authors decode.

    Every field means what it means in transformers' `generate`, which reads the prompt too where it looks for
    repetitions: its end marker is penalised with the rest, so that a penalty makes answers longer.
    """

    max_new_tokens: int  # from 1; the end token is one of them
    temperature: float = 0.0  # 0 takes the best token, and so leaves top_p and seed without effect
    top_p: float = 1.0  # draws from the fewest best tokens whose probabilities make this up
    seed: int = 0  # of the request's own random numbers
    repetition_penalty: float = 1.0  # above 1, tokens that were there before become less likely
    no_repeat_ngram_size: int = 0  # so many tokens never come twice in the same order; 0 lets them
    num_beams: int = 1  # more searches for the answer that is most likely as a whole; at temperature 0 only


@dataclass(frozen=True)  # without slots: the key is computed once and kept
class Request:
    """One call of the model. Small, comparable, and independent of the engine that answers it."""

    messages: tuple[Message, ...]
    sampling: Sampling
    tools: str | None = None  # JSON text of the tools on offer, in the model's own flat format
    word_times: bool = False  # asks when each word of a transcript is said, in the one clip, of at most 40 s

    @cached_property
    def key(self) -> str:
        """Hex SHA-256 of the request's canonical JSON: equal requests have equal keys, on every machine."""
        return hashlib.sha256(canonical_json(self).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The stretches of sound in the request, in order."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Clip))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures in the request, in order."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Picture))


# ---------------------------------------------------------------------------------------------- what is answered

Finish = Literal[
    "stop",  # the model ended its answer
    "length",  # the token budget ended it
    "context",  # the model can read no longer text
]


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it is written, with its punctuation, and when it is said."""

    start: float  # seconds
    end: float  # seconds
    word: str


@dataclass(frozen=True, slots=True)
class Result:
    """The model's answer to one request."""

    text: str
    tokens: tuple[int, ...]  # without the end-of-text token
    finish: Finish
    prompt_tokens: int
    words: tuple[Word, ...] | None = None  # of a transcript, timed from the clip's start; None: not asked, or not known


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answered, and how it was run."""

    id: str
    revision: str | None
    engine: str
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None  # the kernel: flash, sdpa or eager
    quantize: str | None = None  # int8 or int4, of the decoder's linear layers
    adapters: Mapping[str, str] | None = None  # folders, by name, of those that are not the model's own


@dataclass(frozen=True, slots=True)
class Profile:
    """What a checkpoint says of itself, known before its weights are loaded."""

    max_chunk_seconds: float = 30.0  # the longest clip that it transcribes well
    languages: tuple[str, ...] | None = None  # codes of the languages it hears; None: all of the model's
    notice: str | None = None  # what every user of it should be told
    context: int = 131072  # tokens: the longest prompt together with its answer


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for."""

    name: str
    arguments: Mapping[str, Any]  # JSON values


# ---------------------------------------------------------------------------------------------- what is written

WarningCode = Literal[
    "truncated_input",  # the file ends before its header says, or is damaged; what could be read was used
    "prompt_echo",  # the answer repeats the question, or only names that the question gave
    "empty_with_speech",  # speech was heard, but the model wrote nothing
    "looping",  # the answer says one thing over and over
    "token_limit",  # the answer was cut off by its token budget
    "speech_rate",  # the answer is too short or too long to be what was said
    "separator",  # an answer with a transcript and its translation did not divide them by one <sep>
    "wrong_language",  # a translation is in another language than the one asked for
    "untranslated",  # a text was not translated, and stands there as it was
    "nothing_to_summarize",  # nobody speaks in the recording, or the text is empty
    "empty_answer",  # the model wrote nothing about what it was given
    "unsupported_point",  # a summary says what cannot be found in its source
    "unreadable_page",  # the page is damaged in its document
    "no_text",  # the page carries no text, and no other was asked for
    "unjoined_bands",  # a page was shown in overlapping bands, in which no common lines were found
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
    healed: bool = False  # it was so once; what stands in the result is another answer, which can be trusted


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


Body = Transcript | Translation | Summary | Pages

WORD_TIMES = "word_timestamps"  # the option that has the words' own times written


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

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object: the envelope, then the body of the task."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "body"}
        envelope = {name: to_json(part) for name, part in parts.items() if part is not None}
        body = to_json(self.body)
        if not self.options.get(WORD_TIMES):
            for segment in body.get("segments", ()):
                segment.pop("words", None)
        return {"schema_version": SCHEMA_VERSION, "task": body.pop("task"), **envelope, **body}


# ---------------------------------------------------------------------------------------------- JSON


def to_json(value: Any) -> Any:
    """`value` as JSON types; times are rounded to milliseconds, absent optional fields are left out."""
    if isinstance(value, ToolCall):
        return {"name": value.name, "arguments": value.arguments}  # as they are: their numbers are no times
    if is_dataclass(value) and not isinstance(value, type):
        items = {f.name: getattr(value, f.name) for f in fields(value)}
        return {name: to_json(item) for name, item in items.items() if item is not None}
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


def canonical_json(value: Any) -> str:
    """JSON text that is equal exactly where two records are: sorted keys, exact numbers, the records' type names.

    Fields at their default are left out, so that a field which is added later changes no old record's text.
    """

    def plain(item: Any) -> Any:
        if is_dataclass(item) and not isinstance(item, type):
            values = {f.name: getattr(item, f.name) for f in fields(item) if getattr(item, f.name) != f.default}
            return {"type": type(item).__name__} | {name: plain(value) for name, value in values.items()}
        if isinstance(item, float) and item.is_integer():
            return int(item)  # 1.0 and 1 are equal
        return [plain(part) for part in item] if isinstance(item, (tuple, list)) else item

    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
