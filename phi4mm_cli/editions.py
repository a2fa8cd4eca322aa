"""The files that a translation is written to: in its language, in the source's beside it, or both in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from phi4mm_cli import captions, languages, subtitles, texts, writers, written
from phi4mm_cli.captions import PRESETS, Pair, PresetName
from phi4mm_cli.errors import InputError
from phi4mm_cli.language_check import UNKNOWN
from phi4mm_cli.outputs import Document, Rendering, Segment, Transcript, Translation
from phi4mm_cli.subtitles import Cue, Kind, Subtitles
from phi4mm_cli.task import Edition
from phi4mm_cli.writers import Writer

SOURCE = "source"  # stands for the code of a language that nobody knows, or that is the one asked for
_WHOLE = ("json", "jsonl")  # hold both languages anyway
_KINDS: dict[str | None, Kind] = {"srt": "srt", "vtt": "vtt"}
_FORMATS: dict[texts.Kind, str] = {"plain": "txt", "markdown": "md", "json": "json"}


@dataclass(frozen=True, slots=True)
class Translations:
    """Which files the translations of a run are written to: clip.fr.srt, and with the transcripts clip.en.srt."""

    to: str  # code
    source: str | None  # code; None where it is judged by the words
    transcripts: bool  # of speech, a file of its own for what was said
    bilingual: bool  # both languages in one file instead

    def names(self, path: Path, asked: tuple[str, ...]) -> Sequence[str]:
        """Every name that may be written: which one a transcript gets, its language tells."""
        own = format_of(path)
        formats = asked or (_usual(own),)
        names = [f"{self.to}.{format}" for format in formats]
        if self.transcripts and not self.bilingual and own is None:
            codes = ({self.source} if self.source else {*languages.TEXT}) - {self.to} | {SOURCE}
            names += [f"{code}.{format}" for code in sorted(codes) for format in formats if format not in _WHOLE]
        return names

    def of(
        self, path: Path, document: Document, asked: tuple[str, ...], rules: PresetName, together: bool
    ) -> Iterator[Edition]:
        """The translation; then, of speech, the transcript."""
        own = format_of(path)
        beside = self.transcripts and own is None
        both = self.bilingual or (beside and together)
        formats = asked or (_usual(own),)
        for format in formats:
            write = writers.writer(format, rules) if format in _WHOLE else self._writer(path, own, format, rules, both)
            yield Edition(format, f"{self.to}.{format}", write)
        if beside and not both:
            spoken = _translation(document).source_language
            code = SOURCE if spoken in (self.to, UNKNOWN) else spoken
            for format in formats:
                if format not in _WHOLE:
                    yield Edition(format, f"{code}.{format}", _as_transcript(_plain(format, rules), _of_source))

    def _writer(self, path: Path, own: str | None, format: str, rules: PresetName, both: bool) -> Writer:
        kind = _KINDS.get(format)
        if own in _KINDS and kind:
            return partial(_rewrite, path=path, kind=kind, both=both, rules=rules)
        if both and own == format == "md":
            return partial(_write_markdown, path=path)
        if both:
            return partial(_write_bilingual, kind=kind, rules=rules) if kind else _PAIRS[format]
        if own in ("txt", "md", "json") and not kind and format != "tsv":
            return _write_whole
        return _as_transcript(_plain(format, rules), _of_translation)


def format_of(path: Path) -> str | None:
    """The format that a text is in; None of a recording, and of what cannot be read."""
    try:
        if not texts.is_text(path):
            return None
        kind, data = texts.load(path)
        return subtitles.read(data).kind if kind == "subtitles" else _FORMATS[kind]
    except InputError:
        return None


def _usual(own: str | None) -> str:
    """What is written where no format is asked for: that of the input where it is a text for people."""
    return own if own and own not in _WHOLE else "txt"


def _plain(format: str, rules: PresetName) -> Writer:
    return writers.write_text if format == "md" else writers.writer(format, rules)


# ---------------------------------------------------------------------------------------------- one language


def _translation(document: Document) -> Translation:
    assert isinstance(document.body, Translation)
    return document.body


def _of_translation(part: Rendering) -> str:
    return part.text


def _of_source(part: Rendering) -> str:
    return part.source_text or ""


def _as_transcript(write: Writer, side: Callable[[Rendering], str]) -> Writer:
    """What writes one side of a translation as `write` does a transcript."""

    def written_so(document: Document, file: TextIO) -> None:
        body = _translation(document)
        said = [(part, side(part)) for part in body.segments]
        segments = tuple(Segment(part.id, part.start or 0.0, part.end or 0.0, text) for part, text in said if text)
        language = body.language if side is _of_translation else body.source_language
        transcript = Transcript("", language, body.duration or 0.0, segments, body.coverage)
        write(replace(document, body=transcript), file)

    return written_so


def _write_whole(document: Document, file: TextIO) -> None:
    """A text as it is, in the other language."""
    text = _translation(document).text
    file.write(text if text.endswith("\n") or not text else text + "\n")


# ---------------------------------------------------------------------------------------------- two


def _write_pairs(document: Document, file: TextIO) -> None:
    """Each sentence or paragraph above its translation."""
    blocks = ([part.source_text or "", part.text] for part in _translation(document).segments)
    file.write("\n".join("".join(f"{line}\n" for line in block if line) for block in blocks))


def _write_paragraphs(document: Document, file: TextIO) -> None:
    """The same in Markdown, where a blank line divides paragraphs."""
    lines = (line for part in _translation(document).segments for line in (part.source_text, part.text) if line)
    file.write("\n".join(f"{line}\n" for line in lines))


def _write_markdown(document: Document, file: TextIO, path: Path) -> None:
    """The Markdown that was translated, with both languages where one stood."""
    file.write(written.read(path).bilingual([part.text for part in _translation(document).segments]))


def _write_table(document: Document, file: TextIO) -> None:
    """Start and end in milliseconds, the translation and its source, under a header."""
    file.write("start\tend\ttext\tsource_text\n")
    for part in _translation(document).segments:
        times = f"{round((part.start or 0.0) * 1000)}\t{round((part.end or 0.0) * 1000)}"
        texts = (" ".join(text.split()) for text in (part.text, part.source_text or ""))
        file.write("\t".join((times, *texts)) + "\n")


_PAIRS: dict[str, Writer] = {"txt": _write_pairs, "md": _write_paragraphs, "tsv": _write_table}


def _write_bilingual(document: Document, file: TextIO, kind: Kind, rules: PresetName) -> None:
    """Captions with a line of each language."""
    body = _translation(document)
    pairs = [Pair(part.start or 0.0, part.end or 0.0, part.source_text or "", part.text) for part in body.segments]
    spoken = None if body.source_language == UNKNOWN else body.source_language
    shown = captions.of_pairs(pairs, PRESETS[rules], spoken, body.language)
    lines = (map(subtitles.directed, subtitles.escaped("\n".join(c.lines), kind).split("\n")) for c in shown)
    cues = (Cue(c.start, c.end, "\n".join(rows)) for c, rows in zip(shown, lines, strict=True))
    subtitles.write(Subtitles(kind, tuple(cues)), file)


def _rewrite(document: Document, file: TextIO, path: Path, kind: Kind, both: bool, rules: PresetName) -> None:
    """The subtitles that were translated, with all that is not text in them."""
    body = _translation(document)
    translations = [part.text for part in body.segments]
    subtitles.write(written.subtitled(path, kind, translations, both, PRESETS[rules], body.language), file)
