"""Recordings to text with its times."""

from __future__ import annotations

from dataclasses import dataclass, field

from phi4mm_cli import hearing, language_check, languages
from phi4mm_cli.flow import Flow
from phi4mm_cli.hearing import Listening, Question
from phi4mm_cli.outputs import Transcript
from phi4mm_cli.schema import Source

PROMPT = "Transcribe the audio clip into text."  # the model card's
LANGUAGE_PROMPT = "Transcribe the {language} audio clip into text."  # the Open ASR leaderboard's, multilingual
# The model's authors tell of no way to give it names and terms: this sentence is ours.
TERMS = " Names and terms: {}."


@dataclass(frozen=True, slots=True)
class Options:
    """What shapes a transcript."""

    language: str | None = None  # code; None lets the model judge
    terms: tuple[str, ...] = ()  # names and terms that may be said
    prompt: str = ""  # more that the model is told
    listening: Listening = field(default_factory=Listening)


def flow(source: Source, options: Options) -> Flow[Transcript]:
    """The transcript of `source`: cut into chunks in silence, each transcribed on its own. Raises InputError."""
    heard = yield from hearing.hear(source, _question(options), options.listening)
    segments = hearing.segments(heard.answers)
    spoken = options.language or language_check.judge(" ".join(segment.text for segment in segments))
    return Transcript(
        text=languages.joined((segment.text for segment in segments), spoken),
        language=spoken,
        duration=heard.duration,
        segments=segments,
        coverage=heard.coverage,
        warnings=heard.warnings,
    )


def _question(options: Options) -> Question:
    hints = TERMS.format(", ".join(options.terms)) if options.terms else ""
    hints += f" {options.prompt}" if options.prompt else ""
    return Question(instruction(options.language), word_times=True, hints=hints, terms=options.terms)


def instruction(language: str | None) -> str:
    """What the model is asked for, where `language`, a code, is spoken; None lets it judge."""
    name = languages.AUDIO.get(language or "")
    return LANGUAGE_PROMPT.format(language=name) if name else PROMPT
