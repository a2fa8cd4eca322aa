"""What a chat request asks for, as a request of the engine: its conversation, its media, its tools, its sampling."""

from __future__ import annotations

import binascii
import json
import re
import secrets
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.media import audio, image
from phi4mm_cli.options import COLDEST, RANGES
from phi4mm_cli.paging import LOW_CROPS
from phi4mm_cli.prompt import TOOL_CALL, TOOL_CALL_END, written
from phi4mm_cli.schema import Clip, Message, Part, Picture, Reply, Request, Sampling
from phi4mm_cli.serving.body import AudioUrl, Call, Chat, Content, ImageUrl, InputAudio, Text, Turn, Url
from phi4mm_cli.serving.refusal import Refusal
from phi4mm_cli.serving.uploads import Uploads
from phi4mm_cli.tools import by_name
from phi4mm_cli.tools.formats import flat, read_tool
from phi4mm_cli.tools.loop import BUDGET

LONGEST_CLIP = 1800.0  # seconds; the model card: up to 30 minutes

_PLACEHOLDER = re.compile(r"<\|(audio|image)_([1-9][0-9]{0,3})\|>")
_DATA = re.compile(r"data:[^,;]*(?:;[^,;]*)*;base64,", re.IGNORECASE)

Place = tuple[str, int]  # of a medium: "audio" or "image", and its number in the conversation, from 1


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat request, its media in place."""

    request: Request
    tools: tuple[str, ...]  # names of those on offer


def read(chat: Chat, uploads: Uploads, held: ExitStack) -> Asked:
    """What `chat` asks for. Its media are there as long as `held`. Raises Refusal."""
    offered, names = _tools(chat)
    messages = tuple(_messages(chat, uploads, held))
    return Asked(Request(messages, _sampling(chat), offered), names)


# ---------------------------------------------------------------------------------------------- conversation


def _messages(chat: Chat, uploads: Uploads, held: ExitStack) -> Iterator[Message]:
    numbers = {"audio": 0, "image": 0}
    for i, turn in enumerate(chat.messages):
        parts: list[Part | Place] = []
        media: dict[Place, Part] = {}
        for j, content in enumerate(turn.content):
            if isinstance(content, Text):
                joint = "\n" if parts and isinstance(parts[-1], str) else ""
                parts.append(joint + content.text)
                continue
            where = f"messages.{i}.content.{j}"
            if turn.role != "user":
                raise Refusal(400, f"{where}: media stand in messages of the user", where)
            kind = "image" if isinstance(content, ImageUrl) else "audio"
            numbers[kind] += 1
            place = (kind, numbers[kind])
            media[place] = _medium(content, where, uploads, held)
            parts.append(place)
        if turn.tool_calls:
            parts.append(_calls(turn.tool_calls, f"messages.{i}.tool_calls"))
        if turn.token_ids is not None:
            yield Message("assistant", (_reply(turn, parts, f"messages.{i}.token_ids"),))
            continue
        placed = _placed(parts, media, chat.placeholders is not False)
        yield Message("system" if turn.role == "developer" else turn.role, tuple(placed))


def _reply(turn: Turn, parts: Sequence[Part | Place], where: str) -> Reply:
    """An answer that comes back with the tokens that it was made of; where these do not spell it, its text counts."""
    if turn.role != "assistant" or turn.tool_calls:
        raise Refusal(400, f"{where}: only an answer's text has them", where)
    return Reply("".join(map(str, parts)), tuple(turn.token_ids or ()))


def _placed(parts: Sequence[Part | Place], media: Mapping[Place, Part], by_name: bool) -> Iterator[Part]:
    """The parts with the media in place: where a text names one as the model card does, there, else where it is."""
    texts = [part for part in parts if isinstance(part, str)] if by_name else []
    named = {(found[1], int(found[2])) for text in texts for found in _PLACEHOLDER.finditer(text)}
    waiting = {place: medium for place, medium in media.items() if place in named}
    for part in parts:
        if isinstance(part, tuple):
            if part not in named:
                yield media[part]
        elif isinstance(part, str):
            yield from _filled(part, waiting)


def _filled(text: str, waiting: dict[Place, Part]) -> Iterator[Part]:
    """`text` with the media that wait in their places; the name of anything else is text."""
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        medium = waiting.pop((found[1], int(found[2])), None)
        if medium is not None:
            yield from filter(None, [text[end : found.start()]])
            yield medium
            end = found.end()
    yield from filter(None, [text[end:]])


def _calls(calls: Sequence[Call], where: str) -> str:
    """Calls as the model writes them."""
    try:
        told = [
            {"name": call.function.name, "arguments": json.loads(call.function.arguments or "{}")} for call in calls
        ]
    except (ValueError, RecursionError):
        raise Refusal(400, f"{where}: the arguments of a call are not JSON", where) from None
    return written(f"{TOOL_CALL}{json.dumps(told, ensure_ascii=False)}{TOOL_CALL_END}")


# ---------------------------------------------------------------------------------------------------- media


def _medium(content: Content, where: str, uploads: Uploads, held: ExitStack) -> Clip | Picture:
    try:
        if isinstance(content, InputAudio):
            return _clip(held.enter_context(uploads.kept(_decoded(content.input_audio.data))), held)
        if isinstance(content, AudioUrl):
            return _clip(held.enter_context(uploads.kept(_fetched(content.audio_url))), held)
        assert isinstance(content, ImageUrl)
        return _picture(held.enter_context(uploads.kept(_fetched(content.image_url))), content.image_url)
    except InputError as error:
        raise Refusal(400, f"{where}: {error}", where, "invalid_media") from None


def _decoded(data: str) -> bytes:
    try:
        return b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError("it is not base64", "Send the file's bytes, encoded, and nothing else") from None


def _fetched(url: Url) -> bytes:
    if (data := _DATA.match(url.url)) is not None:
        return _decoded(url.url[data.end() :])
    scheme = url.url.partition(":")[0].lower()
    known = f"{scheme}: URLs are not fetched" if scheme in ("http", "https", "file", "ftp") else "it is no data: URL"
    raise InputError(known, "Send the file itself, as data:TYPE;base64,...")


def _clip(path: Path, held: ExitStack) -> Clip:
    """All of a recording, which stays open, so that it is decoded once."""
    recording = held.enter_context(audio.open_recording(audio.source(path)))
    for _ in recording.blocks():
        if recording.seconds > LONGEST_CLIP:
            advice = "Shorten it, or have it transcribed at /v1/audio/transcriptions, which takes any length"
            raise InputError(f"it is longer than {LONGEST_CLIP / 60:.0f} minutes", advice)
    return Clip(recording.source, 0.0, recording.seconds)


def _picture(path: Path, url: Url) -> Picture:
    image.image_size(path)
    return Picture(audio.source(path), most_crops=LOW_CROPS if url.detail == "low" else None)


# ------------------------------------------------------------------------------------------ tools and sampling


def _tools(chat: Chat) -> tuple[str | None, tuple[str, ...]]:
    """The tools on offer in the model's own format, in which they may come, and their names."""
    if not chat.tools or chat.tool_choice == "none":
        return None, ()
    try:
        tools = [read_tool(entry) for entry in chat.tools]
        names = tuple(by_name(tools))
    except UsageError as error:
        raise Refusal(400, f"tools: {error}", "tools") from None
    told = [flat(tool) if "function" in entry else entry for tool, entry in zip(tools, chat.tools, strict=True)]
    return json.dumps(told, ensure_ascii=False), names


def _sampling(chat: Chat) -> Sampling:
    """What is not given is as everywhere in phi4mm; where tokens are drawn by chance, each request has its own."""
    if chat.max_tokens is not None and chat.max_completion_tokens is not None:
        raise Refusal(400, "give max_completion_tokens or max_tokens, not both", "max_tokens")
    budget = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    values = {"max_new_tokens": BUDGET if budget is None else budget}
    for name in ("temperature", "top_p", "seed", "repetition_penalty", "no_repeat_ngram_size", "num_beams"):
        if (value := getattr(chat, name)) is not None:
            values[name] = value
    for name, value in values.items():
        require_in_range(name, value)
    if values.get("temperature"):
        if values.get("num_beams", 1) > 1:
            raise Refusal(400, "num_beams is for answers without chance: leave it or temperature out", "num_beams")
        values.setdefault("seed", secrets.randbelow(2**32))
    return Sampling(**values)


def require_in_range(name: str, value: float) -> None:
    """Raise Refusal where a setting of sampling may not be so."""
    low, high = RANGES[name]
    name = "max_tokens" if name == "max_new_tokens" else name
    if not low <= value <= high:  # so that no NaN passes
        raise Refusal(400, f"{name} is {low} to {high}, not {value}", name)
    if name == "temperature" and 0 < value < COLDEST:
        raise Refusal(400, f"temperature is 0, or {COLDEST} to 2, not {value}", name)
