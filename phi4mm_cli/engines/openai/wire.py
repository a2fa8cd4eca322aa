"""Requests as the protocol has them, in the dialects of the servers that are known."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from phi4mm_cli.engines.media import read_each
from phi4mm_cli.prompt import END, Marker, render
from phi4mm_cli.schema import Clip, Picture, Profile, Reply, Request

Json = dict[str, Any]
Skill = Literal["text", "speech", "vision"]

_CONTROL = re.compile(r"<(?=\|[^|<>\s]{1,40}\|>)")
_NO_CALL = re.compile(r"<(?=\|(?!/?tool_call\|>)[^|<>\s]{1,40}\|>)")
_JOINER = "\u2060"  # of no width
_ROLES = {"<|system|>": "system", "<|user|>": "user", "<|assistant|>": "assistant", "<|tool_response|>": "tool"}


class Family(StrEnum):
    """Servers whose ways are known."""

    PHI4MM = "phi4mm"
    VLLM = "vllm"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Served:
    """What a server has: the names by which it is asked."""

    family: Family
    base: str
    speech: str | None = None  # None: not served
    vision: str | None = None
    context: int | None = None  # tokens
    profile: Profile = field(default_factory=Profile)

    def name_for(self, skill: Skill) -> str | None:
        """The model that requests of this kind go to."""
        return {"text": self.base, "speech": self.speech, "vision": self.vision}[skill]


@dataclass(frozen=True, slots=True)
class Medium:
    """A clip or a picture as it goes to a server, with what it is known by."""

    kind: Literal["audio", "image"]
    data: str  # base64 of WAV or PNG
    narrow: bool = False  # telephone sound, at 8 kHz
    padded: bool = False  # a picture that does not fill the grid of its crops

    def part(self) -> Json:
        """The part of a message."""
        if self.kind == "audio":
            return {"type": "input_audio", "input_audio": {"data": self.data, "format": "wav"}}
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{self.data}"}}


def skill_of(request: Request) -> Skill:
    """The adapter that the model was trained with on such requests: vision also where there is sound beside."""
    return "vision" if request.pictures else "speech" if request.clips else "text"


def media_of(request: Request) -> list[Medium]:
    """The sounds and pictures of a request, read and encoded. Raises InputError like those who read them."""
    return read_each(request, lambda part: _sound(part) if isinstance(part, Clip) else _picture(part))


def _sound(clip: Clip) -> Medium:
    from phi4mm_cli.media import audio
    from phi4mm_cli.media.encode import wav

    samples, rate = audio.read(clip)
    return Medium("audio", b64encode(wav(samples, rate)).decode(), narrow=rate == audio.NARROW)


def _picture(picture: Picture) -> Medium:
    """What the model is to see; where fewer crops are asked for, scaled to those, as a server takes as many as fit."""
    from PIL import Image

    from phi4mm_cli.media import document
    from phi4mm_cli.media.encode import png
    from phi4mm_cli.model.grid import CROP, MOST_CROPS, layout_of

    image = document.read(picture)
    layout = layout_of(image.width, image.height, picture.most_crops or MOST_CROPS)
    if layout != layout_of(image.width, image.height, MOST_CROPS):
        image = image.resize((layout.width, layout.height), Image.Resampling.BILINEAR)
    padded = (layout.width, layout.height) != (layout.columns * CROP, layout.rows * CROP)
    return Medium("image", b64encode(png(image)).decode(), padded=padded)


# ---------------------------------------------------------------------------------------------------- what is sent


def body(request: Request, media: Sequence[Medium], served: Served, *, stream: bool, budget: bool = True) -> Json:
    """The JSON of a chat completion. Without a `budget` the answer may fill the context."""
    sampling = request.sampling
    sent: Json = {"model": served.name_for(skill_of(request)), "messages": _messages(request, media, served.family)}
    if budget:
        sent["max_tokens"] = sampling.max_new_tokens
    sent["temperature"] = sampling.temperature
    if sampling.temperature > 0:
        sent |= {"top_p": sampling.top_p, "seed": sampling.seed}
    for name in settings(served.family):
        if getattr(sampling, name) != _DEFAULTS[name]:
            sent[name] = getattr(sampling, name)
    if served.family is not Family.OTHER:
        sent |= {"skip_special_tokens": False, "return_token_ids": True}
    if served.family is Family.PHI4MM:
        sent["placeholders"] = False  # what a text says of media is text
    if request.tools is not None and served.family is Family.PHI4MM:  # elsewhere they are in the first message's text
        sent["tools"] = json.loads(request.tools)
    return sent | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


_DEFAULTS = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1}


def settings(family: Family) -> tuple[str, ...]:
    """Those of Sampling, beyond the protocol's own, that servers of a family know."""
    known = {Family.PHI4MM: tuple(_DEFAULTS), Family.VLLM: ("repetition_penalty",)}
    return known.get(family, ())


def ignored_settings(request: Request, family: Family) -> Iterator[str]:
    """Names of the request's settings that a server of this family has no word for."""
    for name, default in _DEFAULTS.items():
        if getattr(request.sampling, name) != default and name not in settings(family):
            yield name


def _messages(request: Request, media: Sequence[Medium], family: Family) -> list[Json]:
    """The card's prompt in parts: what stands between a role's marker and its end is one message."""
    if family is Family.PHI4MM:
        return _own_messages(request, media)
    messages: list[Json] = []
    waiting, counts = iter(media), {"audio": 0, "image": 0}
    for piece in render(request.messages, request.tools):
        if isinstance(piece, Marker) and piece.token in _ROLES:
            messages.append({"role": _role(piece.token, family), "content": []})
        elif isinstance(piece, (Marker, str, Reply)):
            if piece != Marker(END):
                _write(messages[-1]["content"], _written(piece, family))
        else:
            content, medium = messages[-1]["content"], next(waiting)
            if family is Family.VLLM:  # where a text names its media, nothing is put in; else a line end comes too
                counts[medium.kind] += 1
                _write(content, f"<|{medium.kind}_{counts[medium.kind]}|>")
                content.insert(len(content) - 1, medium.part())
            else:
                content.append(medium.part())
    del messages[-1]  # the answer's, which has only begun
    return [_settled(message, number) for number, message in enumerate(messages)]


def _own_messages(request: Request, media: Sequence[Medium]) -> list[Json]:
    """For phi4mm itself, which writes the prompt: parts as they are."""
    messages: list[Json] = []
    waiting = iter(media)
    for message in request.messages:
        content: list[Json] = []
        told: Json = {}
        for part in message.parts:
            if isinstance(part, Reply):
                _write(content, part.text)
                told["token_ids"] = [*part.tokens]
            elif isinstance(part, str):
                _write(content, part)
            else:
                content.append(next(waiting).part())
        messages.append(_settled({"role": message.role, "content": content} | told, len(messages)))
    return messages


def _written(piece: str | Marker | Reply, family: Family) -> str:
    """A piece of the prompt, for a server that takes names of control tokens for these."""
    if isinstance(piece, Reply):
        return answered(piece, family)
    return piece.token if isinstance(piece, Marker) else neutral(piece)


def answered(reply: Reply, family: Family) -> str:
    """The text of an earlier answer, whose calls are what they were where its tokens are known, or no server tells."""
    if family is Family.VLLM and not reply.tokens:
        return neutral(reply.text)
    return _NO_CALL.sub(f"<{_JOINER}", reply.text)


def _role(marker: str, family: Family) -> str:
    """vLLM passes any role on to the model's template, which writes it between the bars of a marker."""
    return marker[2:-2] if family is Family.VLLM else _ROLES[marker]


def _write(content: list[Json], text: str) -> None:
    """Add to the text at the end: servers put line ends between several."""
    if content and content[-1]["type"] == "text":
        content[-1]["text"] += text
    else:
        content.append({"type": "text", "text": text})


def _settled(message: Json, number: int) -> Json:
    """A message of text alone has that as its content; the answer of a tool says which call it is for."""
    parts = message["content"]
    if all(part["type"] == "text" for part in parts):
        message["content"] = "".join(part["text"] for part in parts)
    return message | ({"tool_call_id": f"call_{number}"} if message["role"] == "tool" else {})


def neutral(text: str) -> str:
    """`text` with a mark of no width in what a server would take for control tokens of the model."""
    return _CONTROL.sub(f"<{_JOINER}", text)
