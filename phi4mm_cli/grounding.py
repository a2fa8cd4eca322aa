"""Holds what a model says about a transcript against the transcript itself.

The model is shown lines that begin with their time, and gives with each point a time and the words that support it.
Neither is taken on trust: the words are looked up, and the result carries the transcript's own words and their own
time. What is checked is that they were said, and that the point speaks of the same things and numbers; whether it
follows from them, no look-up can tell.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from itertools import accumulate

from phi4mm_cli import language_check
from phi4mm_cli.outputs import Point
from phi4mm_cli.texts import Passage
from phi4mm_cli.timing import clock

CLOSE = 0.8  # share of a quotation's words that must stand in the transcript, in their order, near the time it gives
STRETCHED = 1.5  # times as many words of the transcript as the quotation has, at most, may hold them
NEARBY = 2  # passages to each side of that time
FEWEST_WORDS = 3  # of a quotation that is not all of a passage: one or two words are found anywhere
STEM, TELLING = 5, 4  # letters by which words of one stem are known, and of the shortest that tell what is spoken of
MARK = "[unsupported]"

_WIDE = r"\u3040-\u30ff\u3400-\u9fff"  # kana and Chinese characters, which are written without spaces
_CLOCK = r"((?:\d+:)?\d{1,2}:\d\d)"
_LABEL = re.compile(rf"[\[(](?:([^\[\]()]*?)\s+)?{_CLOCK}[\])]")
_QUOTE = re.compile(r"[\"“”„«「]([^\"“”„«»「」]+)[\"“”»」]")
_BULLET = re.compile(r"\s*(?:[-*•]|\d+[.)])\s+(?:\[[ xX]\]\s+)?")
_CHAPTER = re.compile(rf"\W*{_CLOCK}\W*(.+?)\s*")


@cache
def _word() -> re.Pattern[str]:
    """A word, with the vowel signs and accents that stand behind its letters; made when one is looked for first."""
    marks = "".join(chr(code) for code in range(0x300, 0x1F000) if unicodedata.category(chr(code)) in ("Mn", "Mc"))
    letters = rf"(?:[^\W_{_WIDE}]|[{marks}])+"
    return re.compile(rf"[{_WIDE}]|{letters}(?:['’]{letters})*")


@dataclass(frozen=True, slots=True)
class Line:
    """A passage as the model is shown it."""

    passage: Passage
    source: str | None = None  # its name, where there are several

    @property
    def label(self) -> str | None:
        """Its time, as the model is to repeat it, after the name of its source; None in what has no times."""
        if self.passage.start is None:
            return None
        return place(self.passage.start, self.source)

    def __str__(self) -> str:
        return f"[{self.label}] {self.passage.text}" if self.label else self.passage.text


def place(seconds: float, source: str | None) -> str:
    """A time after the name of its source, where that is given: 1:05, monday 1:05."""
    return f"{_plain(source)} {clock(seconds)}" if source else clock(seconds)


def _plain(source: str) -> str:
    """A name without what would end a label."""
    return " ".join(re.sub(r"[\[\]()]", " ", source).split())


def _seconds(time: str) -> int:
    total = 0
    for part in time.split(":"):
        total = total * 60 + int(part)
    return total


@dataclass(frozen=True, slots=True)
class _Claim:
    """A line of the model's answer, taken apart."""

    bullet: str
    text: str
    near: int | None  # the line whose time it gives
    quotes: tuple[str, ...]


class Evidence:
    """A transcript in which words can be looked up."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._lines = lines
        found = [(number, word) for number, line in enumerate(lines) for word in _word().finditer(line.passage.text)]
        self._owners = [number for number, _ in found]  # the line of each word
        self._places = [word.span() for _, word in found]  # ... and where it stands in it
        self._words = [_same(word[0]) for _, word in found]
        self._all = "".join(f" {word}" for word in self._words) + " "
        self._starts = [
            0,
            *accumulate(len(word) + 1 for word in self._words),
        ]  # where each stands in that, its space first

    def check(self, answer: str) -> tuple[str, tuple[Point, ...]]:
        """The answer with the support of each of its points, or a mark where there is none; and the points.

        A point has to share words with its support, unless the two are known to be in different languages.
        """
        own = language_check.judge(" ".join(line.passage.text for line in self._lines))
        compare = own == language_check.UNKNOWN or not language_check.is_other(_QUOTE.sub("", answer), own)
        shown: list[str] = []
        points: list[Point] = []
        for line in answer.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                shown.append(line.rstrip())
                continue
            claim = self._claim(line)
            point = self._checked(claim, compare)
            points.append(point)
            support = MARK
            if not point.unsupported:
                where = "" if point.start is None else f" [{place(point.start, point.source)}]"
                support = f'{where} "{point.quote}"'.strip()
            shown.append(f"{claim.bullet}{point.text} {support}")
        return "\n".join(shown).strip(), tuple(points)

    @property
    def timed(self) -> bool:
        """Whether there are times in it."""
        return any(line.label for line in self._lines)

    def chapters(self, answer: str, begin: float, end: float) -> tuple[str, tuple[Point, ...]]:
        """The chapters that `answer` lists, from `begin` to `end` seconds, and a line for each: its time and its title.

        Those that begin nowhere in the transcript, or before the one before them, are marked. A chapter begins where
        the passage does in which its time lies; the first one, where the recording does.
        """
        begun: list[Point] = []
        for line in answer.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            found = _CHAPTER.fullmatch(line)
            near = self._at(None, _seconds(found[1])) if found else None
            start = None if near is None else self._lines[near].passage.start
            last = next((point.start for point in reversed(begun) if point.start is not None), None)
            title = found[2] if found else line.strip()
            if start is None or (last is not None and start <= last):
                begun.append(Point(title, unsupported=True))
            else:
                begun.append(Point(title, begin if last is None else start))
        chapters: list[Point] = []
        for point in reversed(begun):
            chapters.append(point if point.start is None else Point(point.text, point.start, end))
            end = end if point.start is None else point.start
        chapters.reverse()
        lines = (
            f"{point.text} {MARK}" if point.start is None else f"{clock(point.start)} {point.text}"
            for point in chapters
        )
        return "\n".join(lines), tuple(chapters)

    # ---------------------------------------------------------------------------------------- one point

    def _claim(self, line: str) -> _Claim:
        bullet = _BULLET.match(line)
        rest = line[bullet.end() :] if bullet else line.strip()
        labels, quotes = [*_LABEL.finditer(rest)], [*_QUOTE.finditer(rest)]
        before = (label for label in labels if _QUOTE.match(rest[label.end() :].lstrip(" \t:,–—-")))
        found = next(before, labels[0] if labels else None)  # "by noon (12:00)" is the point's own
        cited = [quote for quote in quotes if found and quote.start() > found.start()] or quotes[-1:]
        near = self._at(found[1], _seconds(found[2])) if found else None
        end = cited[-1].start() if cited else len(rest)
        gone = [label for label in labels if found and label.start() >= found.start()] + cited
        text = "".join(rest[at] for at in range(end) if not any(match.start() <= at < match.end() for match in gone))
        text = " ".join(text.split()) or _QUOTE.sub("", _LABEL.sub("", rest))
        return _Claim(bullet[0] if bullet else "", text.strip(" \t-–—:"), near, tuple(quote[1] for quote in cited))

    def _checked(self, claim: _Claim, compare: bool) -> Point:
        found = [self._find(quote, claim.near) for quote in claim.quotes]
        places = [place for place in found if place is not None]
        if not places or len(places) < len(found):
            return Point(claim.text, unsupported=True)
        owners = [self._owners[word] for place in places for word in place]
        if compare and not self._speaks_of(claim.text, min(owners), max(owners)):
            return Point(claim.text, unsupported=True)
        first, last = self._lines[self._owners[places[0][0]]], self._lines[self._owners[places[0][1]]]
        quote = " … ".join(self._quote(*place) for place in places)
        return Point(claim.text, first.passage.start, last.passage.end, first.source, quote)

    def _find(self, quote: str, near: int | None) -> tuple[int, int] | None:
        """The first and the last word of the transcript that are `quote`, nearest to the line `near`."""
        wanted = [_same(word) for word in _word().findall(quote)]
        if not wanted:
            return None
        close = 0 if near is None else self._first_word(near)
        exact = sorted(self._occurrences(wanted), key=lambda at: abs(at - close))
        for at in exact:
            last = at + len(wanted) - 1
            if len(wanted) >= FEWEST_WORDS or self._is_passage(at, last):
                return at, last
        return None if near is None or exact else self._find_close(wanted, near)

    def _occurrences(self, wanted: Sequence[str]) -> Iterator[int]:
        sought = f" {' '.join(wanted)} "
        at = self._all.find(sought)
        while at >= 0:
            yield bisect_right(self._starts, at) - 1
            at = self._all.find(sought, at + 1)

    def _find_close(self, wanted: Sequence[str], near: int) -> tuple[int, int] | None:
        """Where nearly all of the words stand; the numbers among them have to be there."""
        first, end = self._first_word(near - NEARBY), self._first_word(near + NEARBY + 1)
        window = self._words[first:end]
        blocks = SequenceMatcher(None, wanted, window, autojunk=False).get_matching_blocks()[:-1]
        met = {i for block in blocks for i in range(block.a, block.a + block.size)}
        if len(wanted) < FEWEST_WORDS or len(met) < CLOSE * len(wanted):
            return None
        if any(word.isdecimal() and i not in met for i, word in enumerate(wanted)):
            return None
        last = blocks[-1].b + blocks[-1].size
        if last - blocks[0].b > STRETCHED * len(wanted):
            return None
        return first + blocks[0].b, first + last - 1

    def _speaks_of(self, text: str, first: int, last: int) -> bool:
        """Whether `text` shares words with the lines from `first` to `last` and beside them, and its numbers."""
        beside = self._words[self._first_word(first - 1) : self._first_word(last + 2)]
        said, claimed = set(beside), {_same(word) for word in _word().findall(text)}
        numbers = {word for word in said if word.isdecimal()}
        if numbers and any(word.isdecimal() and word not in numbers for word in claimed):
            return False
        terms = _terms(claimed)
        return not terms or bool(terms & _terms(said))

    # ---------------------------------------------------------------------------------------- places

    def _at(self, source: str | None, seconds: int) -> int | None:
        """The line in which a time lies, or after which; None behind the last one and where the source is not known."""
        names = {_plain(line.source) for line in self._lines if line.source}
        found: int | None = None
        for number, line in enumerate(self._lines):
            start = line.passage.start
            if start is None or (line.source and len(names) > 1 and _plain(line.source) != source):
                continue
            if found is None or int(start) <= seconds:
                found = number
        if found is None:
            return None
        end = self._lines[found].passage.end
        later = found + 1 < len(self._lines) and self._lines[found + 1].source == self._lines[found].source
        return None if not later and end is not None and seconds > end else found

    def _first_word(self, line: int) -> int:
        """The first word of a line; the number of words where it lies behind the last."""
        return bisect_right(self._owners, line - 1)

    def _is_passage(self, first: int, last: int) -> bool:
        owner = self._owners[first]
        return first == self._first_word(owner) and last + 1 == self._first_word(owner + 1)

    def _quote(self, first: int, last: int) -> str:
        """The transcript's own words."""
        parts = []
        for number in range(self._owners[first], self._owners[last] + 1):
            text = self._lines[number].passage.text
            end = self._places[last][1] if number == self._owners[last] else len(text)
            start = self._places[first][0] if number == self._owners[first] else 0
            parts.append(text[start:end])
        return " ".join(parts)


def _same(word: str) -> str:
    return unicodedata.normalize("NFC", word).casefold().replace("’", "'")


def _terms(words: set[str]) -> set[str]:
    """The stems of the words that tell what is spoken of."""
    wide = re.compile(rf"[{_WIDE}]")
    return {word[:STEM] for word in words if len(word) >= TELLING or word.isdecimal() or wide.match(word)}
