"""Summaries by map and reduce: what the model is asked, of all the material or of its parts and then of their notes.

Only `Summarize {what} in one sentence.` is a prompt that some checkpoint was trained on; the model card has none for
summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate, pairwise

from phi4mm_cli import judging, languages
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.material import Limits, Part
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import SummaryPart, SummaryStyle, Warning
from phi4mm_cli.prompt import AUDIO_TOKENS_PER_SECOND
from phi4mm_cli.schema import Clip, Message, Profile, Request, Result
from phi4mm_cli.splitting import packed
from phi4mm_cli.timing import clock


class Style(StrEnum):
    """What a summary looks like."""

    PARAGRAPH = "paragraph"
    BULLETS = "bullets"
    MINUTES = "minutes"
    CHAPTERS = "chapters"


# By style: what is asked, and what stands for {size} at each length; the last is for a number of words.
LENGTHS = ("short", "medium", "long")
_WORDS = " in at most {words} words"
PROMPTS: dict[Style, tuple[str, tuple[str, str, str, str]]] = {
    Style.PARAGRAPH: (
        "Summarize {what}{size}.",
        (
            " in one sentence",
            " in one paragraph of about 120 words",
            " in several paragraphs, of about 400 words",
            _WORDS,
        ),
    ),
    Style.BULLETS: (
        'Summarize {what} as a list of points{size}, each on a line of its own that begins with "- ".',
        (", at most 3", ", at most 7", ", at most 15", _WORDS),
    ),
    Style.MINUTES: (
        'Write the minutes of the meeting in {what}{size}, in Markdown: under "## Summary" what it was about, under '
        '"## Decisions" what was decided, under "## Actions" what is to be done, each point on a line of its own that '
        'begins with "- ". Begin each action with the name of its owner, and end it with its date. Write only what is '
        "said there, and leave out what is not: a heading without points, an owner, a date.",
        (" in at most 100 words", " in at most 300 words", " in at most 800 words", _WORDS),
    ),
    Style.CHAPTERS: (
        "Divide {what} into{size} chapters, in order. Write a line for each: the time at which it begins, copied from "
        "the brackets before what is said there, and a short title. Like this: [0:00] Welcome",
        (" about 4", " about 8", " about 16", ""),
    ),
}
IN_LANGUAGE = " Write in {language}."
GROUND_TIMED = (
    " End each point with the time in the brackets before the line that shows it, and with some words of that line, "
    'copied exactly, in quotation marks. Like this: - The point. [0:00] "copied words"'
)
GROUND = " End each point with the words of the text that show it, copied exactly, in quotation marks."
NOTES = (
    "This is part {number} of {total} of {kind}. Summarize it in detail, with every subject, name, number, decision "
    "and task in it."
)
NOTES_FOR = " They are needed for this: {prompt}"
MERGED = "The text below holds the summaries of the {total} parts of {kind}, in order. "
MERGED_NOTES = (
    "The text below holds summaries of parts of {kind}, in order. Write one summary of them, in detail, with every "
    "subject, name, number, decision and task in them."
)

TOKENS = (256, 1024, 3072)  # of an answer, by length: several times what it should take, for other languages take more
TOKENS_PER_WORD, BASE_TOKENS = 4, 64
GROUNDED_TIMES = 3  # ... as much, with times and quotations
NOTES_TOKENS = 1024  # of the notes on a part
LEAST_NOTES = 4  # so many notes go into one request at least, or rounds of merging would not end
RESERVE = 64  # tokens for the prompt's markers, and for what joining texts may add
LEAST_ROOM = 256  # tokens


@dataclass(frozen=True, slots=True)
class Wording:
    """What is asked for, and how it is put to the model."""

    style: Style = Style.PARAGRAPH
    length: str = "medium"  # one of LENGTHS, or a number of words
    language: str | None = None  # code of the language to write in; None: that of the source
    grounded: bool = False
    prompt: str | None = None  # the user's own, in place of a style

    @property
    def by_times(self) -> bool:
        """Whether the model is to name times: then it is shown a transcript that has them."""
        return self.prompt is None and self.style is Style.CHAPTERS

    @property
    def name(self) -> SummaryStyle:
        """What it is called in a result."""
        return "prompt" if self.prompt is not None else self.style.value

    def recorded(self) -> dict[str, str | bool | None]:
        """What a result says of it."""
        own = {"length": self.length, "language": self.language, "prompt": self.prompt, "grounded": self.grounded}
        return {"style": self.name, **own}

    @property
    def answer_tokens(self) -> int:
        """The budget of the summary."""
        words = self.length.isdecimal()
        tokens = BASE_TOKENS + TOKENS_PER_WORD * int(self.length) if words else TOKENS[LENGTHS.index(self.length)]
        return tokens * GROUNDED_TIMES if self.grounded else tokens

    def whole(self, what: str, timed: bool) -> str:
        """The instruction for the summary of `what`."""
        if self.prompt is not None:
            asked = self.prompt
        else:
            asked, sizes = PROMPTS[self.style]
            words = self.length.isdecimal()
            size = sizes[-1].format(words=self.length) if words else sizes[LENGTHS.index(self.length)]
            asked = asked.format(what=what, size=size)
        return asked + self._grounding(timed) + self._in_language

    def notes(self, number: int, total: int, kind: str, timed: bool) -> str:
        """... for that of one part of a `kind` of thing, which is merged with the others."""
        return NOTES.format(number=number, total=total, kind=kind) + self._purpose + self._grounding(timed)

    def merged(self, total: int, kind: str, timed: bool) -> str:
        """... for the summary of all, out of those of its parts."""
        return MERGED.format(total=total, kind=kind) + self.whole("the text", timed)

    def merged_notes(self, kind: str, timed: bool) -> str:
        """... for one out of those of some parts, where all of them are too many."""
        return MERGED_NOTES.format(kind=kind) + self._purpose + self._grounding(timed)

    def _grounding(self, timed: bool) -> str:
        if not self.grounded or self.by_times:
            return ""
        return GROUND_TIMED if timed else GROUND

    @property
    def _purpose(self) -> str:
        return "" if self.prompt is None else NOTES_FOR.format(prompt=self.prompt)

    @property
    def _in_language(self) -> str:
        return "" if self.language is None else IN_LANGUAGE.format(language=languages.TEXT[self.language])


@dataclass(frozen=True, slots=True)
class Plan:
    """How much the model reads and writes at once."""

    limits: Limits
    answer: int  # most tokens of the summary
    notes: int  # ... and of the notes on a part
    sampling: SamplingOptions = field(default_factory=SamplingOptions)

    def request(self, instruction: str, content: Clip | str, notes: bool = False) -> Request:
        """The content and what is asked of it: media first, text last, as the model was trained."""
        parts = (content, instruction) if isinstance(content, Clip) else (f"{instruction}\n{content}",)
        chosen = self.sampling.sampling(self.answer)
        return Request((Message("user", parts),), replace(chosen, max_new_tokens=self.notes) if notes else chosen)


def plan(
    wording: Wording,
    profile: Profile,
    count: Callable[[str], int],
    sampling: SamplingOptions,
    part_seconds: float,
    part_tokens: int | None,
) -> Plan:
    """What fits into the context beside the longest instruction and answer. Raises UsageError where nothing does."""
    answer = sampling.max_new_tokens or wording.answer_tokens
    asked = [wording.merged(999, "a recording", True), wording.notes(999, 999, "a recording", True)]
    room = profile.context - max(answer, NOTES_TOKENS) - max(map(count, asked)) - RESERVE
    if room < LEAST_ROOM:
        message = f"a summary of {answer} tokens leaves no room for what is to be summarized"
        raise UsageError(message, f"The model takes {profile.context} tokens in all: ask for less")
    tokens = min(room, part_tokens or room)
    seconds = min(part_seconds, profile.longest_clip, room / AUDIO_TOKENS_PER_SECOND)
    return Plan(Limits(seconds, tokens, count), answer, min(NOTES_TOKENS, tokens // LEAST_NOTES), sampling)


@dataclass(frozen=True, slots=True)
class Condensed:
    """What the model wrote in the end, and of each part."""

    text: str
    parts: tuple[SummaryPart, ...]
    warnings: tuple[Warning, ...]


NOTHING = Condensed("", (), (Warning("nothing_to_summarize", "there is nothing to summarize", "the summary is empty"),))


def condense(parts: Sequence[Part], wording: Wording, plan: Plan, kind: str, timed: bool) -> Flow[Condensed]:
    """The summary of `parts`: of the only one at once; of several through notes on each, merged in as many rounds as
    it takes. Chapters of parts are those of the whole. `timed` parts show their times.
    """
    if len(parts) == 1 or wording.by_times:
        results = yield [plan.request(wording.whole(_what(part), timed), part.content) for part in parts]
        text = "\n".join(result.text.strip() for result in results)
        return Condensed(text, _read(parts, [None] * len(parts)), tuple(_judged(results, parts)))
    results = yield [
        plan.request(wording.notes(number, len(parts), kind, timed), part.content, notes=True)
        for number, part in enumerate(parts, 1)
    ]
    read, warnings = _read(parts, [result.text for result in results]), [*_judged(results, parts)]
    texts = [f"{_title(part, number)}:\n{part.text}" for number, part in enumerate(read, 1)]
    while len(groups := _grouped(texts, plan)) > 1:
        if len(groups) == len(texts):
            raise InputError("the summaries of its parts do not fit into one request", "Allow more with --part-tokens")
        results = yield [plan.request(wording.merged_notes(kind, timed), group, notes=True) for group in groups]
        warnings += _judged(results)
        texts = [result.text for result in results]
    results = yield [plan.request(wording.merged(len(parts), kind, timed), groups[0])]
    return Condensed(results[0].text.strip(), read, (*warnings, *_judged(results)))


def _what(part: Part) -> str:
    return "the audio clip" if isinstance(part.content, Clip) else "the text"


def _title(part: SummaryPart, number: int) -> str:
    times = "" if part.start is None or part.end is None else f", {clock(part.start)} to {clock(part.end)}"
    return f"Part {number}{times}" if part.source is None else f"Part {number}, of {part.source}{times}"


def _read(parts: Sequence[Part], texts: Sequence[str | None]) -> tuple[SummaryPart, ...]:
    return tuple(
        SummaryPart(part.tokens, part.start, part.end, part.source, text)
        for part, text in zip(parts, texts, strict=True)
    )


def _grouped(texts: Sequence[str], plan: Plan) -> list[str]:
    """Neighbouring texts joined to as few as go into one request each."""
    ends = [*accumulate((plan.limits.count(text) + 1 for text in texts), initial=0)]
    return ["\n\n".join(texts[run]) for run in packed([*pairwise(ends)], plan.limits.tokens)]


def _judged(results: Sequence[Result], parts: Sequence[Part] = ()) -> list[Warning]:
    """What is wrong with answers; those about a part say where it is."""
    warnings: list[Warning] = []
    for i, result in enumerate(results):
        start, end = (parts[i].start, parts[i].end) if parts else (None, None)
        warnings += judging.warnings(result, "the summary", start, end)
    return warnings
