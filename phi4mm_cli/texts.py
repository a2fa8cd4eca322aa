"""Reads what is already text: plain text and Markdown, subtitles, and the JSON that this program writes."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from phi4mm_cli import subtitles
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.prompt import written
from phi4mm_cli.splitting import paragraphs

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
PLAIN_SUFFIXES = frozenset({".txt", ".text"}) | MARKDOWN_SUFFIXES
JSON_SUFFIXES = frozenset({".json"})
SUFFIXES = PLAIN_SUFFIXES | JSON_SUFFIXES | subtitles.SUFFIXES

Kind = Literal["plain", "markdown", "subtitles", "json"]

HEAD = 4096  # bytes that tell what a file is
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SUBTITLES = re.compile(rb"(\xef\xbb\xbf)?\s*(WEBVTT\b|\d+\s*\n\s*[\d:,.]+ *-->)")
_MARKDOWN = re.compile(rb"^(#{1,6} \S|```)|\]\(https?:", re.MULTILINE)
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*\{")


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph of a text, or what was said in a stretch of a recording."""

    text: str
    start: float | None = None  # seconds; None in what has no times
    end: float | None = None


def is_text(path: Path) -> bool:
    """Whether a file is text: by its name, or where that is no known one, such as stdin's, by its first bytes.

    Raises InputError where these cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
        return suffix in SUFFIXES
    return begins_as_text(path)


def begins_as_text(path: Path) -> bool:
    """Whether the first bytes of a file are those of a text, whatever it is called. Raises InputError likewise."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise _unreadable(error) from error
    return head.startswith(_UTF16) or all(byte >= 0x20 or byte in b"\t\n\r\f\b\x1b" for byte in head)


def load(path: Path) -> tuple[Kind, bytes]:
    """What kind of text a file holds, by its name where that tells, else by its content. Raises InputError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(error) from error
    suffix = path.suffix.lower()
    told = data.decode("utf-16", "replace").encode() if data.startswith(_UTF16) else data
    if suffix in subtitles.SUFFIXES or (suffix not in SUFFIXES and _SUBTITLES.match(told)):
        return "subtitles", data
    if suffix in JSON_SUFFIXES or (suffix not in SUFFIXES and _JSON.match(told)):
        return "json", data
    if suffix in MARKDOWN_SUFFIXES or (suffix not in SUFFIXES and _MARKDOWN.search(told)):
        return "markdown", data
    return "plain", data


def read(path: Path) -> tuple[Passage, ...]:
    """What a file says, in order. Raises InputError where it cannot be read."""
    kind, data = load(path)
    if kind == "subtitles":
        found = subtitles_in(data)
        lines = ((cue, " ".join(subtitles.plain(cue.text, found.kind).split())) for cue in found.cues)
        return tuple(Passage(text, cue.start / 1000, cue.end / 1000) for cue, text in lines if text)
    if kind == "json":
        return tuple(of_json(decoded(data)))
    return tuple(map(Passage, paragraphs(decoded(data))))


def subtitles_in(data: bytes) -> subtitles.Subtitles:
    """The subtitles, whose encoding must be known: a guess would have the model read words that nobody wrote.

    Raises InputError.
    """
    found = subtitles.read(data)
    if any(fault.detail == subtitles.GUESSED for fault in found.faults):
        advice = "Name its encoding: `phi4mm captions fix FILE --encoding cp1252 -o DIR` writes it in UTF-8"
        raise InputError("it is not UTF-8 text", advice)
    return found


def _unreadable(error: OSError) -> InputError:
    return InputError(f"it cannot be read: {error.strerror}", "Check its name, its permissions and its disk")


def decoded(data: bytes) -> str:
    """The text in UTF-8, or in UTF-16 with its mark. Raises InputError."""
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"it is not UTF-8 text: {error.reason} at byte {error.start}"
        raise InputError(message, "Convert it, as with `iconv -f WINDOWS-1252 -t UTF-8`") from error


def of_json(text: str) -> Iterator[Passage]:
    """The segments of a transcript, else the text of another result."""
    try:
        result: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"it is not JSON: {error}", "Give a result that was written with --json") from error
    content = result if isinstance(result, dict) else {}
    segments = content.get("segments")
    try:
        if segments:
            said = [(_words(part["text"]), float(part["start"]), float(part["end"])) for part in segments]
            if not all(0 <= start <= end < math.inf for _, start, end in said):
                raise ValueError
            yield from (Passage(*passage) for passage in said if passage[0])
            return
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError("its segments are not those of a transcript", "Each has start, end and text") from error
    if not isinstance(content.get("text"), str):
        raise InputError("it is JSON, but no result with a text", "Give a result that was written with --json")
    yield from map(Passage, paragraphs(written(content["text"])))


def _words(text: Any) -> str:
    """A text on one line. Raises TypeError where it is none."""
    if not isinstance(text, str):
        raise TypeError
    return " ".join(written(text).split())
