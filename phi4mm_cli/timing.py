"""When words were said: puts the times that an engine found right by where voices begin and pause.

Where an engine finds none, text is spread over the stretches in which a voice is heard, at an even pace.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise

from phi4mm_cli.schema import Word

Span = tuple[float, float]  # seconds

TAIL = 0.1  # seconds before a pause in which no word begins: one that seems to belongs behind the pause
LATE = 0.5  # seconds after a voice begins up to which the first word was found, and still begins with the voice
SHORTEST_WORD = 0.02  # seconds
SHORTEST = 0.001  # seconds of speech that every piece is given
SNAP_SECONDS = 1.0  # how far the end of a sentence is moved to meet a pause
_IDEOGRAPH = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"  # and kana
_WORD = re.compile(rf"[^\s\w]*[{_IDEOGRAPH}][^\s\w「『（【《〈“‘(]*|[^\s{_IDEOGRAPH}]+")
_TITLE = re.compile(r"(?:^|[\s(\"'“„«])(?:Mr|Mrs|Ms|Dr|Prof|St|Hr|Fr|Sr|Sra|Dra|Mme|Mlle)\.$")  # no end, though a point
# German and its neighbours write ordinals with a point: am 3. Mai, im 19. Jahrhundert.
_ORDINAL = re.compile(r"\b(?:am|vom|zum|im|ins|beim|den|dem|der|die|das|des|ab|bis|seit)\s+\d{1,3}\.$", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"')\]»”]*\s+(?=\S)|[。！？][。！？…]*[」』”’）】》〉]*")


def sentences(text: str) -> list[str]:
    """`text` cut after its sentence ends, white space collapsed; [] where there is none."""
    found = [" ".join(piece.split()) for piece in _cut(text)]
    return [piece for piece in found if piece]


def _cut(text: str) -> list[str]:
    pieces, start = [], 0
    for match in _SENTENCE_END.finditer(text):
        before = text[start : match.start()]
        if _TITLE.search(before) or _ORDINAL.search(before):
            continue
        pieces.append(text[start : match.end()])
        start = match.end()
    return [*pieces, text[start:]]


def clock(seconds: float) -> str:
    """A time as people write it: 1:05, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def words(text: str) -> list[str]:
    """The words of `text` with their punctuation; where a script has no spaces, each of its characters is one."""
    return [word for sentence in sentences(text) for word in _WORD.findall(sentence)]


def overlap(voiced: Sequence[Span], within: Span) -> float:
    """Seconds of `voiced` that lie `within`."""
    return sum(max(0.0, min(end, within[1]) - max(start, within[0])) for start, end in voiced)


def settle(found: Sequence[Word], voiced: Sequence[Span], within: Span) -> list[Word]:
    """`found`, whose starts rise and are true to a tenth of a second or so, with starts and ends as they are heard.

    The first word of a stretch of `voiced` begins where the stretch does, and a word ends where the next begins or the
    voice pauses. Times never overlap, are never empty, and stay `within`.
    """
    starts, ends = [], []
    stretch = 0
    for place, word in enumerate(found):
        before = stretch
        while stretch + 1 < len(voiced) and word.start >= voiced[stretch][1] - TAIL:
            stretch += 1
        begin, end = voiced[stretch] if voiced else within
        is_first = bool(voiced) and (place == 0 or stretch != before)
        starts.append(begin if is_first and word.start - begin <= LATE else min(max(word.start, begin), end))
        ends.append(end)
    starts = _apart(starts, within)
    return [
        Word(start, max(min(end, following), min(start + SHORTEST_WORD, following)), word.word)
        for word, end, (start, following) in zip(found, ends, pairwise([*starts, within[1]]), strict=True)
    ]


def _apart(starts: Sequence[float], within: Span) -> list[float]:
    """`starts`, those moved that are not SHORTEST_WORD before the next or the end."""
    first, last = within
    gap = min(SHORTEST_WORD, (last - first) / max(1, len(starts)))
    at, moved = first - gap, []
    for start in starts:
        at = max(start, at + gap)
        moved.append(at)
    return [min(start, last - gap * (len(moved) - place)) for place, start in enumerate(moved)]


def spread_words(text: str, voiced: Sequence[Span]) -> list[Word]:
    """The words of `text` at an even pace within each sentence, and the sentences spread over `voiced`."""
    found: list[Word] = []
    pieces = sentences(text)
    for sentence, (start, end) in zip(pieces, spread(pieces, voiced) if pieces else (), strict=True):
        within = [(max(start, s), min(end, e)) for s, e in voiced if s < end and e > start]
        said = words(sentence)
        found += [Word(*span, word) for span, word in zip(spread(said, within, snap=0.0), said, strict=True)]
    return found


def spread(pieces: Sequence[str], voiced: Sequence[Span], snap: float = SNAP_SECONDS) -> list[Span]:
    """One span of time for each piece of text, in order, within `voiced` (rising, not empty).

    A border between two pieces is moved to a pause of the voice where one lies within `snap` seconds of speech; then
    the pause belongs to neither piece. Spans never overlap and are never empty.
    """
    weights = [1 + sum(character.isalnum() for character in piece) for piece in pieces]
    reached = list(accumulate((end - start for start, end in voiced), initial=0.0))  # seconds of speech at each pause
    total, pauses = reached[-1], reached[1:-1]
    even = [total * said / sum(weights) for said in accumulate(weights, initial=0)]
    borders = [_nearest(pauses, at, snap) for at in even]
    borders[0], borders[-1] = 0.0, total
    if any(end - start < SHORTEST for start, end in pairwise(borders)):
        borders = even  # pieces met at one pause: the even pace is the best that is left
        borders[-1] = total

    def at(spoken: float, stretch: int) -> float:
        start, end = voiced[stretch]
        return min(start + spoken - reached[stretch], end)

    # At a pause, a piece begins after it and ends before it.
    return [
        (at(start, bisect_right(reached, start) - 1), at(end, bisect_left(reached, end) - 1))
        for start, end in pairwise(borders)
    ]


def _nearest(pauses: Sequence[float], at: float, within: float) -> float:
    """The pause nearest to `at`, where one is near; else `at`."""
    near = [pause for pause in pauses if abs(pause - at) <= within]
    return min(near, key=lambda pause: abs(pause - at), default=at)
