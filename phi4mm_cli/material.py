"""What there is to summarize, in parts: each as much of a recording or of texts as one request can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from pathlib import Path

from phi4mm_cli import hearing, texts
from phi4mm_cli.grounding import Line
from phi4mm_cli.hearing import Listening
from phi4mm_cli.outputs import Coverage, Transcript, Warning
from phi4mm_cli.prompt import audio_tokens
from phi4mm_cli.schema import Clip, Source
from phi4mm_cli.splitting import packed, pieces
from phi4mm_cli.texts import Passage

LONGEST_CUT = 30.0  # seconds of speech without a pause to cut in
SMALLEST_PIECES = 8  # a paragraph that is longer than this share of a part may be cut


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes into one part."""

    seconds: float  # of a recording
    tokens: int  # of a text, by `count`
    count: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Material:
    """One input: sound that the model is to hear itself, or lines of text."""

    name: str | None  # where there are several
    coverage: Coverage
    end: float | None = None  # seconds, of a recording by what was said in it
    clips: tuple[Clip, ...] = ()
    lines: tuple[Line, ...] = ()
    warnings: tuple[Warning, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """What goes into one request."""

    content: Clip | str
    tokens: int  # of the content
    start: float | None  # seconds; None in what has no times
    end: float | None
    source: str | None  # the name of the input it is from, where there are several and it is from one of them


def heard(source: Source, limits: Limits, how: Listening, files: ExitStack, name: str | None = None) -> Material:
    """A recording whose sound goes to the model: whole, or where it is too long cut in silence; nothing of silence.

    It stays open as long as `files`. Raises InputError.
    """
    from phi4mm_cli.media import audio, speech

    clips: list[Clip] = []
    warnings: list[Warning] = []
    total = read = voiced = 0.0
    for number, span in enumerate(how.spans):
        recording = files.enter_context(audio.open_recording(source, how.channel, span))
        found = speech.chunks(recording, min(LONGEST_CUT, limits.seconds), how.vad)
        chunks = [chunk.later(recording.start) for chunk in found]
        whole = [(recording.start, recording.end)] if chunks else []
        if recording.seconds > limits.seconds:
            runs = packed([(chunk.start, chunk.end) for chunk in chunks], limits.seconds)
            whole = [(chunks[run][0].start, chunks[run][-1].end) for run in runs]
        clips += (Clip(source, start, end, how.channel) for start, end in whole)
        total, read = total + hearing.wanted(recording, span[1]), read + recording.seconds
        voiced += sum(region.end - region.start for chunk in chunks for region in chunk.speech)
        warnings += hearing.track_warnings(recording) if number == 0 else ()
        warnings += hearing.input_warnings(recording)
    coverage = Coverage("seconds", total, read, voiced if how.vad else None)
    return Material(name, coverage, None, tuple(clips), (), tuple(warnings))


def transcribed(transcript: Transcript, name: str | None, end: float) -> Material:
    """A recording by what was said in it, heard up to `end` seconds."""
    passages = tuple(Passage(segment.text, segment.start, segment.end) for segment in transcript.segments)
    return Material(name, transcript.coverage, end, (), _lines(passages, name), transcript.warnings)


def read(source: Source, name: str | None, count: Callable[[str], int]) -> Material:
    """A file of text. Raises InputError."""
    passages = texts.read(Path(source.path))
    tokens = sum(count(passage.text) for passage in passages)
    return Material(name, Coverage("tokens", tokens, tokens), lines=_lines(passages, name))


def _lines(passages: Sequence[Passage], name: str | None) -> tuple[Line, ...]:
    return tuple(Line(passage, name) for passage in passages)


def parts(materials: Sequence[Material], limits: Limits, labelled: bool) -> list[Part]:
    """All of `materials` in order, in as few parts as they fit into; `labelled` texts show the times of their lines.

    A clip is a part; texts that follow each other share parts, under their names.
    """
    found: list[Part] = []
    for is_text, group in groupby(materials, key=lambda material: not material.clips):
        if is_text:
            found += _text_parts([line for material in group for line in material.lines], limits, labelled)
        else:
            for material in group:
                found += (
                    Part(clip, audio_tokens(clip.end - clip.start), clip.start, clip.end, material.name)
                    for clip in material.clips
                )
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """A line, or where that is long a piece of it."""

    line: Line
    text: str


def _text_parts(lines: Sequence[Line], limits: Limits, labelled: bool) -> Iterator[Part]:
    most = max(1, limits.tokens // SMALLEST_PIECES)
    found = [
        _Piece(line, text)
        for line in lines
        for text in pieces(str(line) if labelled else line.passage.text, limits.count, most)
    ]
    # One more for what joins a piece to the next; names stand above the first piece of each input, and of each part.
    headings = {line.source: limits.count(_heading(line.source)) for line in lines}
    sizes = [limits.count(piece.text) + 1 for piece in found]
    for i, (before, piece) in enumerate(pairwise([None, *found])):
        assert piece is not None
        if before is None or before.line.source != piece.line.source:
            sizes[i] += headings[piece.line.source]
    ends = [*accumulate(sizes, initial=0)]
    room = max(1, limits.tokens - max(headings.values(), default=0))
    for run in packed([*pairwise(ends)], room):
        yield _part(found[run], ends[run.stop] - ends[run.start])


def _part(found: Sequence[_Piece], tokens: int) -> Part:
    blocks: list[str] = []
    for source, own in groupby(found, key=lambda piece: piece.line.source):
        lines = [[*pieces] for _, pieces in groupby(own, key=lambda piece: id(piece.line))]
        timed = lines[0][0].line.label is not None
        texts = (" ".join(piece.text for piece in line) for line in lines)
        blocks += [*filter(None, [_heading(source)]), ("\n" if timed else "\n\n").join(texts)]
    sources = {piece.line.source for piece in found}
    if len(sources) > 1:  # times of several inputs say nothing
        return Part("\n\n".join(blocks), tokens, None, None, None)
    first, last = found[0].line, found[-1].line
    return Part("\n\n".join(blocks), tokens, first.passage.start, last.passage.end, first.source)


def _heading(source: str | None) -> str:
    return f"# {source}" if source else ""


def coverage(materials: Sequence[Material]) -> Coverage:
    """How much of all of them is read: in seconds where all are recordings, else in tokens."""
    each = [material.coverage for material in materials]
    if len(each) == 1:
        return each[0]
    if {one.unit for one in each} == {"seconds"}:
        return Coverage(
            "seconds",
            total=sum(one.total for one in each),
            read=sum(one.read for one in each),
            speech=_sum(one.speech for one in each),
            transcribed=_sum(one.transcribed for one in each),
        )
    texts_and_sounds = [(one.total, one.read) if one.unit == "tokens" else _in_tokens(one) for one in each]
    return Coverage("tokens", sum(total for total, _ in texts_and_sounds), sum(read for _, read in texts_and_sounds))


def _sum(amounts: Iterable[float | None]) -> float | None:
    """The sum of what is known of all of them."""
    known = [*amounts]
    return None if None in known else sum(amount or 0.0 for amount in known)


def _in_tokens(coverage: Coverage) -> tuple[float, float]:
    return audio_tokens(coverage.total), audio_tokens(coverage.read)
