"""The model's own text format: which markers stand around messages and media.

A prompt is a sequence of markers, plain text and media, and not one string: text is tokenised with the special tokens
switched off, so that a document which contains `<|end|>` stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from phi4mm_cli.schema import Clip, Message, Picture, Reply

END = "<|end|>"
TOOLS, TOOLS_END = "<|tool|>", "<|/tool|>"
TOOL_CALL, TOOL_CALL_END = "<|tool_call|>", "<|/tool_call|>"  # around the calls in an answer, and kept in its text
SEPARATOR = "<sep>"  # between the transcript and the translation, in an answer that has both


@dataclass(frozen=True, slots=True)
class Marker:
    """A control token, by the name it has in the model's vocabulary."""

    token: str


AUDIO_TOKENS_PER_SECOND = 12.5

CountTokens = Callable[[str], int]  # of a text; safe in any thread
Piece = Marker | str | Clip | Picture | Reply

_CALL_MARKERS = re.compile(f"({re.escape(TOOL_CALL)}|{re.escape(TOOL_CALL_END)})")


def render(messages: tuple[Message, ...], tools: str | None = None) -> Iterator[Piece]:
    """The prompt for an answer to `messages`: each as `<|role|>…<|end|>`, then `<|assistant|>`.

    `tools` stands in the first system message, behind its text; where there is none, in an empty one of its own. The
    format is the model card's. The model's tokenizer swallows white space after its markers; so does this.
    """
    if tools is not None and not any(message.role == "system" for message in messages):
        messages = (Message("system", ()), *messages)
    for message in messages:
        yield Marker("<|tool_response|>" if message.role == "tool" else f"<|{message.role}|>")
        after_marker = True
        for part in _parts(message):
            piece = written(part.lstrip() if after_marker else part) if isinstance(part, str) else part
            if piece != "":
                yield piece
                after_marker = isinstance(piece, Marker)
        if message.role == "system" and tools is not None:
            yield from (Marker(TOOLS), written(tools.strip()), Marker(TOOLS_END))
            tools = None
        yield Marker(END)
    yield Marker("<|assistant|>")


def written(text: str) -> str:
    """The text without what no tokenizer takes: bytes of names that are not UTF-8, halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode()


def size(messages: tuple[Message, ...], count: CountTokens, tools: str | None = None) -> int:
    """How many tokens the prompt of `messages` is; `count` tells those of a text.

    A picture counts as one: how many it is, only its file tells.
    """
    tokens = 0
    for kind, group in groupby(render(messages, tools), key=type):
        pieces = [*group]
        if kind is str:  # neighbours are one text, for tokens do not end where pieces do
            tokens += count("".join(str(piece) for piece in pieces))
        else:
            tokens += sum(_size(piece, count) for piece in pieces)
    return tokens


def _size(piece: Piece, count: CountTokens) -> int:
    if isinstance(piece, Reply):
        return len(piece.tokens) or count(piece.text)
    return audio_tokens(piece.end - piece.start) if isinstance(piece, Clip) else 1


def audio_tokens(seconds: float) -> int:
    """How many tokens a clip is: one for every 8 frames begun, windows of 25 ms every 10 ms."""
    frames = max(1, (round(seconds * 16000) - 400) // 160 + 1)
    return math.ceil(frames / 8)


def _parts(message: Message) -> Iterator[Piece]:
    """The parts of a message; in an earlier answer that came as text the markers of tool calls are what they were."""
    for part in message.parts:
        if message.role != "assistant" or not isinstance(part, str):
            yield part
            continue
        for piece in _CALL_MARKERS.split(part):
            yield Marker(piece) if _CALL_MARKERS.fullmatch(piece) else piece
