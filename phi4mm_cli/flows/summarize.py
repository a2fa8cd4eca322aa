"""What recordings and texts come down to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from phi4mm_cli import language_check, languages, material, texts
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import describe, transcribe
from phi4mm_cli.grounding import Evidence
from phi4mm_cli.hearing import Listening
from phi4mm_cli.material import Material
from phi4mm_cli.outputs import Point, Summary, SummaryPart, Warning
from phi4mm_cli.paths import telling_names
from phi4mm_cli.schema import Source
from phi4mm_cli.summaries import NOTHING, Condensed, Plan, Wording, condense


@dataclass(frozen=True, slots=True)
class Options:
    """What shapes a summary."""

    plan: Plan
    wording: Wording = field(default_factory=Wording)
    listening: Listening = field(default_factory=Listening)  # of what is to be transcribed first
    seeing: describe.Options | None = None  # of videos, in place of hearing them alone


def flow(sources: Sequence[Source], options: Options) -> Flow[Summary]:
    """The summary of `sources`, recordings or texts: in one request where they fit into it, else in parts.

    Raises InputError.
    """
    if options.seeing is not None:
        [source] = sources
        return (yield from _seen(source, options.wording, options.seeing))
    wording, limits = options.wording, options.plan.limits
    with ExitStack() as files:
        materials: list[Material] = []
        names = telling_names([source.path for source in sources]) if len(sources) > 1 else [None]
        for source, name in zip(sources, names, strict=True):
            one = yield from _material(source, name, options, files)
            materials.append(one)
        evidence = Evidence([line for one in materials for line in one.lines])
        parts = material.parts(materials, limits, evidence.timed and (wording.grounded or wording.by_times))
        if not parts:
            return _summary("", NOTHING, (), materials, wording)
        condensed = yield from condense(parts, wording, options.plan, _kind(sources, materials), evidence.timed)
    text, points = condensed.text, tuple[Point, ...]()
    if wording.by_times:
        text, points = evidence.chapters(text, options.listening.spans[0][0], _end(materials))
    elif wording.grounded:
        text, points = evidence.check(text)
    return _summary(text, condensed, points, materials, wording)


def _seen(source: Source, wording: Wording, seeing: describe.Options) -> Flow[Summary]:
    """What is seen in a video, and heard where that is asked for, in one request."""
    found = yield from describe.flow([source], replace(seeing, prompt=wording.whole("the video", False)))
    length = found.coverage.total
    spans = [span for span in seeing.looking.spans if span[0] < length]
    start, end = spans[0][0], min(spans[-1][1], length)
    part = SummaryPart(sum(picture.tokens for picture in found.pictures), start, end)
    language = wording.language or language_check.judge(found.text)
    warnings = (*found.warnings, *_foreign(found.text, wording))
    return Summary(found.text, wording.name, language, (), (part,), found.coverage, warnings)


def _material(source: Source, name: str | None, options: Options, files: ExitStack) -> Flow[Material]:
    """One input: a text, the sound of a recording, or where times are to be named what was said in it."""
    if texts.is_text(Path(source.path)):
        return material.read(source, name, options.plan.limits.count)
    if options.wording.grounded or options.wording.by_times:
        transcript = yield from transcribe.flow(source, transcribe.Options(listening=options.listening))
        return material.transcribed(transcript, name, min(transcript.duration, options.listening.spans[-1][1]))
    return material.heard(source, options.plan.limits, options.listening, files, name)


def _kind(sources: Sequence[Source], materials: Sequence[Material]) -> str:
    if len(sources) > 1:
        return "several recordings and texts"
    return "a recording" if materials[0].coverage.unit == "seconds" else "a text"


def _end(materials: Sequence[Material]) -> float:
    """Where the last chapter ends, in seconds: with the recording, or with the last that was said in a text."""
    [only] = materials
    return max(only.end or 0.0, only.lines[-1].passage.end or 0.0)


def _summary(
    text: str, condensed: Condensed, points: tuple[Point, ...], materials: Sequence[Material], wording: Wording
) -> Summary:
    warnings = [warning for one in materials for warning in one.warnings]
    warnings += condensed.warnings
    warnings += _foreign(" ".join(point.text for point in points) or text, wording)
    warnings += (_unsupported(point) for point in points if point.unsupported)
    return Summary(
        text=text,
        style=wording.name,
        language=wording.language or language_check.judge(text),
        points=points,
        parts=condensed.parts,
        coverage=material.coverage(materials),
        warnings=tuple(warnings),
    )


def _foreign(written: str, wording: Wording) -> Iterator[Warning]:
    """Whether what the model wrote, without what it quotes, is in another language than was asked for."""
    if wording.language and language_check.is_other(written, wording.language):
        message = f"the summary is not in {languages.TEXT[wording.language]}"
        yield Warning("wrong_language", message, "kept as it is")


def _unsupported(point: Point) -> Warning:
    return Warning("unsupported_point", f"nothing was found that supports '{point.text}'", "marked in the summary")
