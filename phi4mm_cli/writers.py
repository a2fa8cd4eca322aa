"""The output formats: each a function of (document, open text file)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TextIO

from phi4mm_cli import captions
from phi4mm_cli.schema import Document


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
    for number, caption in enumerate(captions.from_segments(document.body.segments), 1):
        text = "\n".join(caption.lines).replace("-->", "->")
        file.write(f"{number}\n{_clock(caption.start, ',')} --> {_clock(caption.end, ',')}\n{text}\n\n")


def write_vtt(document: Document, file: TextIO) -> None:
    """WebVTT captions, with the characters escaped that have a meaning there."""
    file.write("WEBVTT\n\n")
    for caption in captions.from_segments(document.body.segments):
        text = "\n".join(caption.lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        file.write(f"{_clock(caption.start, '.')} --> {_clock(caption.end, '.')}\n{text}\n\n")


def write_tsv(document: Document, file: TextIO) -> None:
    """Start and end in milliseconds and text, tab-separated under a header (the layout of whisper's)."""
    file.write("start\tend\ttext\n")
    for segment in document.body.segments:
        text = " ".join(segment.text.split())
        file.write(f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}\n")


def _clock(milliseconds: int, mark: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"


WRITERS: dict[str, Callable[[Document, TextIO], None]] = {
    "txt": write_text,
    "json": write_json,
    "srt": write_srt,
    "vtt": write_vtt,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
}
