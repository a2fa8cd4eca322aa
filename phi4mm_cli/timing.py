"""When words were said: spreads the text of a chunk over the stretches in which a voice was heard.

The model gives no times. What is known is where the recording was cut and where its voices begin and pause; inside a
stretch of speech, characters are taken to be spoken at an even pace.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise

Span = tuple[float, float]  # seconds

SNAP_SECONDS = 1.0  # how far the end of a sentence is moved to meet a pause
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]»”]*\s+(?=\S)|(?<=[。！？])")


def sentences(text: str) -> list[str]:
    """`text` cut after its sentence ends, white space collapsed; [] where there is none."""
    found = [" ".join(piece.split()) for piece in _cut(text)]
    return [piece for piece in found if piece]


def _cut(text: str) -> list[str]:
    pieces, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        pieces.append(text[start : match.end()])
        start = match.end()
    return [*pieces, text[start:]]


def spread(pieces: Sequence[str], voiced: Sequence[Span]) -> list[Span]:
    """One span of time for each piece of text, in order, within `voiced` (rising, not empty).

    A border between two pieces is moved to a pause of the voice where one lies within SNAP_SECONDS of speech; then the
    pause belongs to neither piece. Spans never overlap and are never empty.
    """
    weights = [1 + sum(character.isalnum() for character in piece) for piece in pieces]
    lengths = [end - start for start, end in voiced]
    total = sum(lengths)
    pauses = list(accumulate(lengths))[:-1]  # where the pauses lie, in seconds of speech
    borders = [0.0]
    for said in list(accumulate(weights))[:-1]:
        even = total * said / sum(weights)
        near = [pause for pause in pauses if abs(pause - even) <= SNAP_SECONDS and pause > borders[-1]]
        borders.append(min(near, key=lambda pause: abs(pause - even)) if near else max(even, borders[-1]))
    borders.append(total)
    if any(end <= start for start, end in pairwise(borders)):  # pieces met at one pause: the even pace is the best left
        borders = [total * said / sum(weights) for said in accumulate(weights, initial=0)]
    return [(_at(start, voiced, opens=True), _at(end, voiced, opens=False)) for start, end in pairwise(borders)]


def _at(spoken: float, voiced: Sequence[Span], opens: bool) -> float:
    """The time at which `spoken` seconds of speech have passed: after a pause for a start, before it for an end."""
    for start, end in voiced[:-1]:
        length = end - start
        if spoken < length - 1e-6 or (spoken <= length + 1e-6 and not opens):
            return min(start + spoken, end)
        spoken -= length
    start, end = voiced[-1]
    return min(start + max(spoken, 0.0), end)
