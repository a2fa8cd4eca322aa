"""The output formats: each a function of (document, open text file)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import TextIO

from phi4mm_cli import captions, markdown, subtitles, tables, timing
from phi4mm_cli.captions import PRESETS, Caption, PresetName
from phi4mm_cli.outputs import WORD_TIMES, Body, Document, Failure, Pages, Segment, Summary, Transcript, reason_of
from phi4mm_cli.subtitles import Cue, Kind, Subtitles, clock, directed, escaped

Writer = Callable[[Document, TextIO], None]


def write_text(document: Document, file: TextIO) -> None:
    """What is said, a segment a line; a summary or description; pages, unmarked, with form feeds between."""
    body = document.body
    if isinstance(body, Pages):
        plain = (page.text if page.read_by == "text_layer" else tables.plain(page.text) for page in body.pages)
        file.write("\f".join(text + "\n" for text in plain))
    elif body.task == "summary" or body.task == "description":
        file.writelines(line + "\n" for line in body.text.splitlines())
    else:
        file.writelines(segment.text + "\n" for segment in _transcript(document).segments)


def write_markdown(document: Document, file: TextIO) -> None:
    """Pages as the model wrote them; others under the name of their source, and below how much was read of it."""
    body = document.body
    if isinstance(body, Pages):
        file.write(f"{body.text}\n")
        return
    assert body.task == "summary" or body.task == "description"
    text = "".join(f"- {line}\n" for line in body.text.splitlines()) if body.style == "chapters" else f"{body.text}\n"
    text = f"```json\n{text}```\n" if document.has_answer else text
    sources = "".join(f"- {source}\n" for source in document.sources or ())
    file.write("\n".join(part for part in (f"# {document.source}\n", sources, text, f"*{read_of(body)}*\n") if part))


def write_for_people(document: Document, file: TextIO) -> None:
    """A summary or description, its Markdown drawn as a terminal can; what is no Markdown as it is."""
    body = document.body
    assert body.task == "summary" or body.task == "description"
    if body.style == "chapters" or document.has_answer:
        write_text(document, file)
        return
    from rich.console import Console

    Console(file=file).print(markdown.drawn(body.text))


def write_json(document: Document, file: TextIO) -> None:
    """The envelope that `phi4mm schema` describes, indented."""
    file.write(json.dumps(document.to_json(), ensure_ascii=False, indent=2) + "\n")


def write_jsonl(document: Document, file: TextIO) -> None:
    """The same envelope on one line."""
    file.write(json.dumps(document.to_json(), ensure_ascii=False) + "\n")


def write_failure(source: str, error: Exception, file: TextIO) -> None:
    """The line of JSON that stands for an input without a result."""
    file.write(json.dumps(Failure(source, reason_of(error)).to_json(), ensure_ascii=False) + "\n")


def write_captions(document: Document, file: TextIO, kind: Kind, rules: PresetName) -> None:
    """SRT or VTT by the rules of a house, with what has a meaning there escaped; VTT word by word where asked for."""
    body = _transcript(document)
    shown = captions.from_segments(body.segments, PRESETS[rules], None if body.language == "und" else body.language)
    if kind == "vtt" and document.options.get(WORD_TIMES):
        starts = _word_starts(body.segments)
        texts = [_word_by_word(caption, starts) for caption in shown]
    else:
        texts = [escaped("\n".join(caption.lines), kind) for caption in shown]
    texts = ["\n".join(map(directed, text.split("\n"))) for text in texts]
    cues = tuple(Cue(c.start, c.end, text) for c, text in zip(shown, texts, strict=True))
    subtitles.write(Subtitles(kind, cues), file)


def _word_by_word(caption: Caption, starts: Iterator[int | None]) -> str:
    """The text of a cue with a time before each word that begins while it is shown, as WebVTT has them: rising."""
    text, latest = "", caption.start
    for character in "\n".join(caption.lines):
        start = None if character.isspace() else next(starts, None)
        if start is not None and latest < start < caption.end:
            text, latest = f"{text}<{clock(start)}>", start
        text += character if character.isspace() else escaped(character, "vtt")
    return text


def _word_starts(segments: Iterable[Segment]) -> Iterator[int | None]:
    """For each character of the words that is no space, the millisecond at which a word begins with it, if one does."""
    for segment in segments:
        if not segment.words:
            yield from repeat(None, sum(not character.isspace() for character in segment.text))
        for word in segment.words or ():
            yield round(word.start * 1000)
            yield from repeat(None, len(word.word) - 1)


def write_tsv(document: Document, file: TextIO) -> None:
    """Start and end in milliseconds and text, tab-separated under a header (the layout of whisper's)."""
    file.write("start\tend\ttext\n")
    for segment in _transcript(document).segments:
        text = " ".join(segment.text.split())
        file.write(f"{round(segment.start * 1000)}\t{round(segment.end * 1000)}\t{text}\n")


def _transcript(document: Document) -> Transcript:
    """What these writers write; other results are written as one."""
    assert isinstance(document.body, Transcript)
    return document.body


def read_of(body: Body) -> str:
    """How much of its source is behind a result, in words."""
    coverage = body.coverage
    if coverage.unit == "tokens":
        amount = f"{coverage.read:.0f} of {coverage.total:.0f} tokens"
    elif coverage.unit == "pages":
        amount = f"{coverage.read:.0f} of {coverage.total:.0f} pages"
    else:
        amount = f"{timing.clock(coverage.read)} of {timing.clock(coverage.total)}"
    parts = f" in {len(body.parts)} parts" if isinstance(body, Summary) and len(body.parts) > 1 else ""
    return f"{amount} read{parts}"


def writer(name: str, rules: PresetName) -> Writer:
    """What writes the format `name`, captions by these rules."""
    return partial(write_captions, kind=_CAPTIONS[name], rules=rules) if name in _CAPTIONS else _OTHERS[name]


_CAPTIONS: dict[str, Kind] = {"srt": "srt", "vtt": "vtt"}
_OTHERS: dict[str, Writer] = {
    "txt": write_text,
    "md": write_markdown,
    "json": write_json,
    "tsv": write_tsv,
    "jsonl": write_jsonl,
}
