"""The output formats: each a function of (document, open text file)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TextIO

from phi4mm_cli import captions, subtitles
from phi4mm_cli.schema import Document
from phi4mm_cli.subtitles import Cue, Subtitles, escaped


def write_text(document: Document, file: TextIO) -> None:
    """One segment a line."""
    file.writelines(segment.text + "\n" for segment in document.body.segments)


def write_json(document: Document, file: TextIO) -> None:
    """The envelope that `phi4mm schema` describes, indented."""
    file.write(json.dumps(document.to_json(), ensure_ascii=False, indent=2) + "\n")


def write_jsonl(document: Document, file: TextIO) -> None:
    """The same envelope on one line."""
    file.write(json.dumps(document.to_json(), ensure_ascii=False) + "\n")


def write_srt(document: Document, file: TextIO) -> None:
    """SubRip captions, numbered from 1."""
    subtitles.write(_subtitles("srt", document), file)


def write_vtt(document: Document, file: TextIO) -> None:
    """WebVTT captions, with the characters escaped that have a meaning there."""
    subtitles.write(_subtitles("vtt", document), file)


def _subtitles(kind: subtitles.Kind, document: Document) -> Subtitles:
    shown = captions.from_segments(document.body.segments)
    return Subtitles(kind, tuple(Cue(c.start, c.end, escaped("\n".join(c.lines), kind)) for c in shown))


def write_tsv(document: Document, file: TextIO) -> None:
    """Start and end in milliseconds and text, tab-separated under a header (the layout of whisper's)."""
    file.write("start\tend\ttext\n")
    for segment in document.body.segments:
        text = " ".join(segment.text.split())
        file.write(f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}\n")


WRITERS: dict[str, Callable[[Document, TextIO], None]] = {
    "txt": write_text,
    "json": write_json,
    "srt": write_srt,
    "vtt": write_vtt,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
}
