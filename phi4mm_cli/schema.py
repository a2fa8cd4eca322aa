"""The records that flows and engines exchange: frozen, hashable and JSON-safe. What commands write is in `outputs.py`.

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
from typing import Any, Literal, Self

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


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the model, as it gave it: it goes into the next prompt token for token, and nothing is retokenised.

    An engine whose vocabulary is another, so that the tokens do not spell the text, reads the text.
    """

    text: str
    tokens: tuple[int, ...]  # the Result's; () where only the text is known


Part = str | Clip | Picture | Reply
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
        return hashlib.sha256(canonical_json(self).encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def clips(self) -> tuple[Clip, ...]:
        """The stretches of sound in the request, in order."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Clip))

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures in the request, in order."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, Picture))

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files that the request is about, each once."""
        return tuple(dict.fromkeys([part.source for part in self.clips] + [part.source for part in self.pictures]))


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
class Remark:
    """Where an engine did something else than was asked, or than the model's own implementation does."""

    code: Literal["other_computation", "ignored_setting"]
    message: str
    advice: str  # what avoids it


@dataclass(frozen=True, slots=True)
class Result:
    """The model's answer to one request."""

    text: str
    tokens: tuple[int, ...]  # without the end-of-text token; -1 each where a server tells only how many
    finish: Finish
    prompt_tokens: int
    words: tuple[Word, ...] | None = None  # of a transcript, timed from the clip's start; None: not asked, or not known
    quoted: tuple[int, ...] | None = (
        None  # where the text has the letters of <|tool_call|>, and no such token was given
    )
    remarks: tuple[Remark, ...] = ()

    @property
    def reply(self) -> Reply:
        """The answer as a part of the conversation that goes on."""
        return Reply(self.text, () if -1 in self.tokens else self.tokens)


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
    server: str | None = None  # host and port of whom was asked


@dataclass(frozen=True, slots=True)
class Profile:
    """What a checkpoint says of itself, known before its weights are loaded."""

    max_chunk_seconds: float = 30.0  # the longest clip that it transcribes well
    languages: tuple[str, ...] | None = None  # codes of the languages it hears; None: all of the model's
    notice: str | None = None  # what every user of it should be told
    context: int = 131072  # tokens: the longest prompt together with its answer
    longest_clip: float = 1800.0  # seconds: the model card, of recordings that it is to summarize
    adapters: tuple[str, ...] = ("speech", "vision")  # that it has


class Piece(str):
    """What is new of an answer that is being written: text like any other to whoever shows it, but with its tokens."""

    __slots__ = ("tokens",)
    tokens: tuple[int, ...]  # those before it that had no text of their own are among them

    def __new__(cls, text: str, tokens: tuple[int, ...] = ()) -> Self:
        """`text`, which these tokens have become."""
        piece = super().__new__(cls, text)
        piece.tokens = tokens
        return piece


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for."""

    name: str
    arguments: Mapping[str, Any]  # JSON values


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
