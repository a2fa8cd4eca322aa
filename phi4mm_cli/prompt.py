"""The model's own text format: which markers stand around messages and media.

A prompt is a sequence of markers, plain text and media, and not one string: text is tokenised with the special tokens
switched off, so that a document which contains `<|end|>` stays text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from phi4mm_cli.schema import Clip, Message

END = "<|end|>"


@dataclass(frozen=True, slots=True)
class Marker:
    """A control token, by the name it has in the model's vocabulary."""

    token: str


Piece = Marker | str | Clip


def render(messages: tuple[Message, ...]) -> Iterator[Piece]:
    """The prompt for an answer to `messages`: each as `<|role|>…<|end|>`, then `<|assistant|>`.

    The format is the model card's. The model's tokenizer swallows white space after a role or end marker; so does this.
    """
    for message in messages:
        yield Marker(f"<|{message.role}|>")
        after_marker = True
        for part in message.parts:
            piece = part.lstrip() if after_marker and isinstance(part, str) else part
            if piece != "":
                yield piece
                after_marker = False
        yield Marker(END)
    yield Marker("<|assistant|>")
