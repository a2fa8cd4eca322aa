"""Reads what is already text: plain text and Markdown, subtitles, and the JSON that this program writes."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi4mm_cli import subtitles
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.splitting import paragraphs

PLAIN_SUFFIXES = frozenset({".txt", ".text", ".md", ".markdown"})
JSON_SUFFIXES = frozenset({".json"})
SUFFIXES = PLAIN_SUFFIXES | JSON_SUFFIXES | subtitles.SUFFIXES

HEAD = 4096  # bytes that tell what a file is
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SUBTITLES = re.compile(rb"(\xef\xbb\xbf)?\s*(WEBVTT\b|\d+\s*\n\s*[\d:,.]+ *-->)")
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*\{")


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph of a text, or what was said in a stretch of a recording."""

    text: str
    start: float | None = None  # seconds; None in what has no times
    end: float | None = None


def is_text(path: Path) -> bool:
    """Whether a file is text: by its name, or where that is no known one, such as stdin's, by its first bytes."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in AUDIO_SUFFIXES | VIDEO_SUFFIXES:
        return suffix in SUFFIXES
    with path.open("rb") as file:
        head = file.read(HEAD)
    return head.startswith(_UTF16) or all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head)


def read(path: Path) -> tuple[Passage, ...]:
    """What a file says, in order. Raises InputError where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}", "Check its permissions and its disk") from error
    suffix = path.suffix.lower()
    if suffix in subtitles.SUFFIXES or (suffix not in SUFFIXES and _SUBTITLES.match(data)):
        found = subtitles.read(data)
        lines = ((cue, " ".join(subtitles.plain(cue.text, found.kind).split())) for cue in found.cues)
        return tuple(Passage(text, cue.start / 1000, cue.end / 1000) for cue, text in lines if text)
    text = _decoded(data)
    if suffix in JSON_SUFFIXES or (suffix not in SUFFIXES and _JSON.match(data)):
        return tuple(_of_json(text))
    return tuple(map(Passage, paragraphs(text)))


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"it is not UTF-8 text: {error.reason} at byte {error.start}"
        raise InputError(message, "Convert it, as with `iconv -f WINDOWS-1252 -t UTF-8`") from error


def _of_json(text: str) -> Iterator[Passage]:
    """The segments of a transcript, else the text of another result."""
    try:
        result: Any = json.loads(text)
    except ValueError as error:
        raise InputError(f"it is not JSON: {error}", "Give a result that was written with --json") from error
    content = result if isinstance(result, dict) else {}
    segments = content.get("segments")
    try:
        if segments:
            said = (
                (" ".join(str(part["text"]).split()), float(part["start"]), float(part["end"])) for part in segments
            )
            yield from (Passage(*passage) for passage in said if passage[0])
            return
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("its segments are not those of a transcript", "Each has start, end and text") from error
    if not isinstance(content.get("text"), str):
        raise InputError("it is JSON, but no result with a text", "Give a result that was written with --json")
    yield from map(Passage, paragraphs(content["text"]))
