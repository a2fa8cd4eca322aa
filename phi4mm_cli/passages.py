"""Has many short texts translated in order: neighbours go to the model together, numbered, and are told apart again.

What comes back in another number, cut off, empty or in another language is asked for again in smaller parts: each text
on its own, then each of its sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from phi4mm_cli import language_check, languages, prose, splitting, timing
from phi4mm_cli.flow import Flow
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import WarningCode
from phi4mm_cli.schema import Message, Request, Result

TOGETHER, TOGETHER_TOKENS = 12, 300  # texts, and tokens of them, that go into one request for the sake of context
LONGEST = 600  # tokens: a longer text is translated in parts, for of longer ones models leave things out
# The token budget of an answer. A translation may have twice the tokens of its source in another script.
BASE_TOKENS, TOKENS_PER_TOKEN = 32, 3

_NUMBERED = re.compile(r"\s*(\d+)\s*[.):：]\s*(.*)")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A text in the language asked for."""

    text: str
    fault: WarningCode | None = None  # why it cannot be trusted


@dataclass(frozen=True, slots=True)
class Asking:
    """How texts are asked for."""

    instruction: str  # stands above a text
    numbered: str  # stands above numbered texts
    language: str  # code of the language asked for
    count: Callable[[str], int]  # tokens of a text
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


Unit = tuple[str, ...]  # texts that go to the model together


def translated(texts: Sequence[str], asking: Asking) -> Flow[list[Rendered]]:
    """`texts`, each translated. One without a word in it stays as it is, and is not asked about."""
    asked = [" ".join(text.split()) for text in texts if prose.says_something(text)]
    found = yield from _resolved(list(_together(asked, asking)), asking)
    renderings = (rendering for unit in found for rendering in unit)
    return [next(renderings) if prose.says_something(text) else Rendered(text) for text in texts]


def _together(texts: Iterable[str], asking: Asking) -> Iterator[Unit]:
    """`texts` in runs of neighbours that are not too long."""
    run: list[str] = []
    tokens = 0
    for text in texts:
        size = asking.count(text)
        if run and (len(run) == TOGETHER or tokens + size > TOGETHER_TOKENS):
            yield tuple(run)
            run, tokens = [], 0
        run.append(text)
        tokens += size
    if run:
        yield tuple(run)


def _resolved(units: Sequence[Unit], asking: Asking) -> Flow[list[list[Rendered]]]:
    """The renderings of each unit; those that cannot be trusted are replaced by those of smaller units."""
    found = yield from _asked(units, asking)
    again = [
        (i, smaller)
        for i, unit in enumerate(units)
        if any(rendering.fault for rendering in found[i]) and (smaller := _divided(unit))
    ]
    if again:
        answers = iter((yield from _resolved([unit for _, smaller in again for unit in smaller], asking)))
        for i, smaller in again:
            parts = [rendering for _ in smaller for rendering in next(answers)]
            found[i] = parts if len(units[i]) > 1 else [_better(found[i][0], _joined(parts, asking.language))]
    return found


def _divided(unit: Unit) -> list[Unit]:
    """A unit in smaller ones; [] where it is a sentence."""
    parts = unit if len(unit) > 1 else timing.sentences(unit[0])
    return [(part,) for part in parts] if len(parts) > 1 else []


def _joined(parts: Sequence[Rendered], language: str) -> Rendered:
    """The renderings of parts of a text as one, with the first fault among them."""
    text = languages.joined((part.text for part in parts), language)
    return Rendered(text, next((part.fault for part in parts if part.fault), None))


def _better(whole: Rendered, parts: Rendered) -> Rendered:
    return whole if parts.fault and whole.text and whole.fault != "token_limit" else parts


def _asked(units: Sequence[Unit], asking: Asking) -> Flow[list[list[Rendered]]]:
    """What the model answers to each unit; a text that is too long for one request is asked for in parts."""
    parts = [list(splitting.pieces(unit[0], asking.count, LONGEST)) if len(unit) == 1 else [unit] for unit in units]
    results = iter((yield (_request(part, asking) for pieces in parts for part in pieces)))
    found: list[list[Rendered]] = []
    for unit, pieces in zip(units, parts, strict=True):
        if len(unit) > 1:
            found.append(_told_apart(unit, next(results), asking.language))
        else:
            renderings = [_checked(piece, next(results), asking.language) for piece in pieces if isinstance(piece, str)]
            found.append([_joined(renderings, asking.language)])
    return found


def _request(part: str | Unit, asking: Asking) -> Request:
    if isinstance(part, str):
        asked = f"{asking.instruction}\n{part}"
    else:
        lines = "\n".join(f"{number}. {text}" for number, text in enumerate(part, 1))
        asked = f"{asking.numbered}\n{lines}"
    budget = BASE_TOKENS + TOKENS_PER_TOKEN * asking.count(asked)
    return Request((Message("user", (asked,)),), asking.sampling.sampling(budget))


def _told_apart(unit: Unit, result: Result, language: str) -> list[Rendered]:
    """The lines of a numbered answer; all at fault where they are not those that were asked for."""
    matches = [_NUMBERED.fullmatch(line) for line in result.text.splitlines() if line.strip()]
    lines = [(int(match[1]), match[2].strip()) for match in matches if match]
    whole = len(matches) == len(lines) and [number for number, _ in lines] == list(range(1, len(unit) + 1))
    if not whole or result.finish != "stop" or not all(text for _, text in lines):
        return [Rendered(text, "untranslated") for text in unit]
    fault: WarningCode | None = (
        "wrong_language" if language_check.is_other(" ".join(text for _, text in lines), language) else None
    )
    return [Rendered(text, fault) for _, text in lines]


def _checked(source: str, result: Result, language: str) -> Rendered:
    text = " ".join(result.text.split())
    if not text:
        return Rendered(source, "untranslated")
    if result.finish != "stop":
        return Rendered(text, "token_limit")
    return Rendered(text, "wrong_language" if language_check.is_other(text, language) else None)
