"""Recordings and texts in another language."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from phi4mm_cli import healing, hearing, language_check, languages, passages, texts, timing
from phi4mm_cli.bilingual import Twofold, matched, told_apart
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import transcribe
from phi4mm_cli.hearing import Answer, Healed, Listening, Question
from phi4mm_cli.outputs import Body, Rendering, Segment, Translation, Warning, WarningCode
from phi4mm_cli.passages import Asking
from phi4mm_cli.prompt import SEPARATOR, CountTokens
from phi4mm_cli.schema import Clip, Request, Source
from phi4mm_cli.text_translation import of_text

# The model card's.
PROMPT = "Translate the audio to {language}."
BOTH_PROMPT = (
    "Transcribe the audio to text, and then translate the audio to {language}. "
    f"Use {SEPARATOR} as a separator between the original transcript and the translation."
)
# Ours, in the words of the card's: it has none for texts.
TEXT_PROMPT = "Translate the text to {language}."
LINES_PROMPT = TEXT_PROMPT + " Keep the number of each line."


@dataclass(frozen=True, slots=True)
class Options:
    """What shapes a translation."""

    to: str  # code
    count: CountTokens
    source_language: str | None = None  # code of the one spoken or written; None lets the model judge
    transcript: bool = False  # of speech, the transcript as well, in the same pass
    listening: Listening = field(default_factory=Listening)

    @property
    def asking(self) -> Asking:
        """How texts are asked for."""
        name = languages.TEXT[self.to]
        lines = (TEXT_PROMPT.format(language=name), LINES_PROMPT.format(language=name))
        return Asking(*lines, self.to, self.count, self.listening.sampling)


def flow(source: Source, options: Options) -> Flow[Body]:
    """The translation of `source`, a recording or a text. Raises InputError."""
    if texts.is_text(Path(source.path)):
        return (yield from of_text(Path(source.path), options.asking, options.source_language))
    return (yield from of_speech(source, options))


# ---------------------------------------------------------------------------------------------- speech


@dataclass(frozen=True, slots=True)
class _Take:
    """A chunk of speech with what was said in it, in both languages."""

    answer: Answer
    said: Twofold

    def warning(self, code: WarningCode, message: str, action: str, healed: bool) -> Warning:
        return Warning(code, message, action, self.answer.chunk.start, self.answer.chunk.end, healed=healed)


@dataclass(frozen=True, slots=True)
class _Translated(Healed):
    """What came of a chunk, once it is in the other language."""

    takes: tuple[_Take, ...] = ()


def of_speech(source: Source, options: Options) -> Flow[Body]:
    """A recording, cut into chunks in silence, each translated on its own."""
    go_on = partial(_translated, source=source, options=options)
    heard = yield from hearing.hear_and(go_on, source, _question(options), options.listening)
    takes = [take for part in heard.parts for take in part.takes]
    spoken = options.source_language or _spoken(takes)
    segments = _segments(takes, spoken, options.to)
    return Translation(
        text=languages.joined((segment.text for segment in segments), options.to),
        language=options.to,
        source_language=spoken,
        segments=segments,
        coverage=heard.coverage,
        source_text=languages.joined((s.source_text or "" for s in segments), spoken) if options.transcript else None,
        duration=heard.duration,
        warnings=heard.warnings,
    )


def _translated(healed: Healed, source: Source, options: Options) -> Flow[_Translated]:
    takes = [_Take(answer, _said(answer.text, options)) for answer in healed.answers]
    takes, unfinished = yield from _completed(source, takes, options)
    takes, foreign = yield from _in_language(takes, options)
    return _Translated(healed.answers, (*healed.warnings, *unfinished, *foreign), tuple(takes))


def _spoken(takes: Sequence[_Take]) -> str:
    return language_check.judge(" ".join(take.said.transcript for take in takes))


def finished(part: _Translated, to: str, source_language: str | None) -> list[Segment]:
    """A chunk that is done, while others are not: as its text is written, with a transcript above each sentence."""
    renderings = _segments(part.takes, source_language or _spoken(part.takes), to)
    texts = (f"{one.source_text}\n{one.text}\n" if one.source_text else one.text for one in renderings)
    return [
        Segment(one.id, one.start or 0.0, one.end or 0.0, text) for one, text in zip(renderings, texts, strict=True)
    ]


def _question(options: Options) -> Question:
    name = languages.TEXT[options.to]
    if options.transcript:
        return Question(BOTH_PROMPT.format(language=name), tellings=2, word_times=True)
    return Question(PROMPT.format(language=name))


def _said(answer: str, options: Options) -> Twofold:
    return told_apart(answer, options.to) if options.transcript else Twofold("", answer)


def _completed(source: Source, takes: Sequence[_Take], options: Options) -> Flow[tuple[list[_Take], list[Warning]]]:
    """The takes, where a side of an answer was missing with what the model says when it is asked for that alone."""
    found, warnings = list(takes), []
    astray = [i for i, take in enumerate(takes) if not take.said.in_order]
    lacking = [i for i in astray if not (takes[i].said.transcript and takes[i].said.translation)]
    results = yield (_alone(source, takes[i], options) for i in lacking)
    alone = dict(zip(lacking, results, strict=True))
    for i in astray:
        said, action = takes[i].said, "each part went to the side of its language"
        if i in alone:
            text = alone[i].text
            side = "translation" if said.transcript else "transcript"
            action = f"the {side} was asked for alone" + ("" if text else ", to no avail")
            said = replace(said, translation=text) if said.transcript else replace(said, transcript=text)
        found[i] = replace(takes[i], said=said)
        message = f"the answer did not divide transcript and translation by one {SEPARATOR}"
        healed = i in alone and alone[i].finish == "stop" and bool(alone[i].text)
        warnings.append(takes[i].warning("separator", message, action, healed))
    return found, warnings


def _alone(source: Source, take: _Take, options: Options) -> Request:
    """Asks for the side that a take lacks."""
    chunk = take.answer.chunk
    language = languages.TEXT[options.to]
    asked = (
        PROMPT.format(language=language) if take.said.transcript else transcribe.instruction(options.source_language)
    )
    clip = Clip(source, chunk.start, chunk.end, options.listening.channel)
    return healing.request(clip, asked, Question(asked), options.listening.sampling)


def _in_language(takes: Sequence[_Take], options: Options) -> Flow[tuple[list[_Take], list[Warning]]]:
    """The takes; a translation that is in another language, or missing, is made from the text."""
    found, warnings = list(takes), []
    astray = [
        i
        for i, take in enumerate(takes)
        if language_check.is_other(take.said.translation, options.to)
        or (take.said.transcript and not take.said.translation)
    ]
    sources = [takes[i].said.transcript or takes[i].said.translation for i in astray]
    renderings = yield from passages.translated(sources, options.asking)
    for i, text, rendering in zip(astray, sources, renderings, strict=True):
        take, healed = takes[i], not rendering.fault
        action = "translated from the text, which healed it" if healed else "kept as it is"
        if take.said.translation:
            message = f"the translation is not in {languages.TEXT[options.to]}"
            warnings.append(take.warning("wrong_language", message, action, healed))
        else:
            warnings.append(take.warning("untranslated", "the translation is missing", action, healed))
        kept = rendering.text if healed else take.said.translation or text
        found[i] = replace(take, said=replace(take.said, translation=kept))
    return found, warnings


def _segments(takes: Sequence[_Take], spoken: str, to: str) -> tuple[Rendering, ...]:
    """A segment for each sentence, or for those that belong together, at the transcript's times where there is one."""
    found: list[Rendering] = []
    for take in takes:
        timed = iter(hearing.segments([_leading(take)]))
        source, translation = (timing.sentences(text) for text in (take.said.transcript, take.said.translation))
        for said, meant in matched(source, translation):
            times = list(islice(timed, len(said) if source else len(meant)))
            text = languages.joined(meant, to)
            words = languages.joined(said, spoken) or None
            if source:
                found.append(Rendering(len(found), times[0].start, times[-1].end, text, words))
            else:
                found += [Rendering(len(found) + n, s.start, s.end, s.text) for n, s in enumerate(times)]
    return tuple(found)


def _leading(take: _Take) -> Answer:
    """The side whose times count: the transcript, with the times of its words where the model has told them."""
    text = take.said.transcript or take.said.translation
    words = take.answer.words
    known = words is not None and [word.word for word in words] == timing.words(text)
    return replace(take.answer, text=text, words=words if known else None)
