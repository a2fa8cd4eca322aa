"""An answer that holds a transcript and its translation: told apart, and matched sentence by sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from phi4mm_cli.language_check import UNKNOWN, judge

_SEPARATOR = re.compile(r"<\s*/?\s*sep\s*/?\s*>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Twofold:
    """What was said, and what that is in the language asked for; "" where the answer does not tell."""

    transcript: str
    translation: str
    in_order: bool = True  # the answer had one separator, with words on both sides


def told_apart(answer: str, language: str) -> Twofold:
    """The two sides of an answer to a request for both, the translation in `language`, a code.

    Where there is no one separator, each part goes to the side that its language tells, else its place. Nothing that
    the model wrote is left out but what it wrote twice.
    """
    parts = [part.strip() for part in _SEPARATOR.split(answer)]
    if len(parts) == 2 and all(parts):
        return Twofold(parts[0], parts[1])
    sides: tuple[dict[str, None], dict[str, None]] = ({}, {})  # as sets in order
    for number, part in enumerate(parts):
        if part:
            judged = judge(part)
            translated = number > 0 if judged == UNKNOWN else judged == language
            sides[translated][part] = None
    if len(sides[True]) > 1 and not sides[False]:  # spoken in the language that was asked for
        first = next(iter(sides[True]))
        del sides[True][first]
        sides[False][first] = None
    return Twofold(" ".join(sides[False]), " ".join(sides[True]), in_order=not any(parts))


def matched(source: Sequence[str], translation: Sequence[str]) -> list[tuple[Sequence[str], Sequence[str]]]:
    """The sentences of a text beside those of its translation, which follow it in order.

    Equal numbers are pairs. Else neighbours in the longer list stay together, so that each pair ends as nearly as can
    be at the same share of both texts.
    """
    pairs = min(len(source), len(translation))
    if not pairs:
        return [(source, translation)] if source or translation else []
    return list(zip(_runs(source, translation, pairs), _runs(translation, source, pairs), strict=True))


def _runs(texts: Sequence[str], others: Sequence[str], runs: int) -> list[Sequence[str]]:
    """`texts` in so many runs, whose shares of the whole are like those of the `others`."""
    reached, borders = _shares(texts), [0]
    wanted = _shares(others) if len(texts) > runs else reached
    for i, share in enumerate(wanted[: runs - 1], 1):
        distances = [abs(after - share) for after in reached[:-1]]
        nearest = 1 + distances.index(min(distances))
        borders.append(min(max(nearest, borders[-1] + 1), len(texts) - (runs - i)))
    return [texts[start:end] for start, end in pairwise([*borders, len(texts)])]


def _shares(texts: Sequence[str]) -> list[float]:
    """The share of the whole that has been said after each text."""
    reached = list(accumulate(len(text) for text in texts))
    return [at / reached[-1] for at in reached]
