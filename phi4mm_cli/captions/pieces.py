"""A text cut into pieces between which a line may end, and how bad an end each place would be.

Pieces are words where there are spaces; phrases, found by BudouX, in Japanese, Chinese and Thai; and parts of what is
too long for any line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from phi4mm_cli.captions.grammar import ANYWHERE, LEANING, TORN, Grammar
from phi4mm_cli.captions.presets import Preset

FORCED = 3 * TORN  # inside a word

# What divides words. No-break spaces do not; the full-width space does, and stays.
_SPACE = re.compile(r"(?:[^\S\u00a0\u202f\u2007])+")
_KANA = re.compile("[\u3040-\u30ff\uff66-\uff9f]")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]")
_THAI = re.compile("[\u0e00-\u0e7f]")

# Japanese line breaking (kinsoku, JIS X 4051): what may not begin a line, and what may not end one.
_CLOSING = frozenset(
    "、。，．・：；？！）］｝〕〉》」』】〙〗〟’”»ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶ…‥～〜)]},.!?;:%"
)
_OPENING = frozenset("（［｛〔〈《「『【〘〖〝‘“«([{")
_CHINESE_PARTICLES = frozenset("的地得了着过吗呢吧啊们")  # lean on what is before them
_LONGEST_CLUSTER = 4  # characters with closing punctuation; rows of dots are cut
_BREAKABLE = re.compile(r"(?<=[/\-_.?&=#~\u00ad\u200b])(?=\w)")  # inside URLs and long compounds


@dataclass(frozen=True, slots=True)
class Piece:
    """What no line divides."""

    begin: int  # character of the text
    end: int
    columns: int
    wide: int  # those of `columns` that full-width characters take
    space: str  # between this piece and the one before it
    cost: float  # of ending a line before this piece: 0 after a sentence


def columns(text: str) -> int:
    """Columns that `text` takes: 2 for full-width characters, 0 for combining and invisible ones."""
    return sum(map(_columns, text))


@cache
def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf", "Cc"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wide_columns(text: str) -> int:
    """Those of the columns that full-width characters take."""
    return sum(2 for character in text if _columns(character) == 2)


def limit(preset: Preset, taken: int, wide: int) -> float:
    """The columns of a line in a caption whose words take so many, `wide` of them for full-width characters."""
    return preset.wide_columns if 2 * wide > taken else preset.columns


def limit_of(text: str, preset: Preset) -> float:
    """The columns of a line in a caption of this text."""
    words = _SPACE.sub("", text)
    return limit(preset, columns(words), wide_columns(words))


def pieces(text: str, grammar: Grammar, preset: Preset) -> list[Piece]:
    """The pieces of `text`, none wider than a line may be."""
    found: list[Piece] = []
    for begin, end, cost, space in _places(text, grammar):
        at = begin
        for part in _parts(text[begin:end], preset):
            first = at == begin
            piece = text[at : at + len(part)]
            found.append(
                Piece(
                    at,
                    at + len(part),
                    columns(piece),
                    wide_columns(piece),
                    space if first else "",
                    cost if first else FORCED,
                )
            )
            at += len(part)
    return found


def _places(text: str, grammar: Grammar) -> Iterator[tuple[int, int, float, str]]:
    """Begin and end of each word or phrase, the cost of a line's end before it, and the space there."""
    spaces = [(match.start(), match.end()) for match in _SPACE.finditer(text)]
    before, last = "", 0
    for left, right in [*spaces, (len(text), len(text))]:
        at = last
        for phrase in _phrases(text[last:left]):
            space = _joint(text, at) if before and at == last else ""
            yield at, at + len(phrase), _cost(before, phrase, bool(space), grammar), space
            before, at = phrase, at + len(phrase)
        last = right


def _joint(text: str, at: int) -> str:
    """What stands between the word that begins at `at` and the one before it when they share a line."""
    space = text[len(text[:at].rstrip()) : at]
    if "\n" in space and unspaced(text[at - len(space) - 1], text[at]):
        return ""
    return "\u3000" if "\u3000" in space else " "


def unspaced(before: str, after: str) -> bool:
    """Whether these characters are of scripts that set no space between words."""
    return all(_columns(character) == 2 and not _HANGUL.match(character) for character in (before, after))


def _cost(before: str, after: str, spaced: bool, grammar: Grammar) -> float:
    if not before:
        return 0.0
    if after[0] in _CLOSING or before[-1] in _OPENING:  # French sets spaces there
        return FORCED
    cost = grammar.cost(before, after)
    if spaced or cost < ANYWHERE:
        return cost
    return LEANING if before[-1] in "のな的" else ANYWHERE  # ties to the noun that follows


def _phrases(word: str) -> list[str]:
    """`word` as it is, or its phrases where its script has no spaces."""
    parse = _parser(word)
    if parse is None:
        return [word] if word else []
    particles = frozenset() if _KANA.search(word) else _CHINESE_PARTICLES
    joined: list[str] = []
    for phrase in parse(word):
        if joined and (
            phrase[0] in _CLOSING
            or phrase[0] in particles
            or joined[-1][-1] in _OPENING
            or (_columns(phrase[0]) == 1 == _columns(joined[-1][-1]) and not _THAI.match(phrase))
        ):
            joined[-1] += phrase
        else:
            joined.append(phrase)
    return joined


def _parser(word: str) -> Callable[[str], list[str]] | None:
    for script, name in ((_KANA, "japanese"), (_HAN, "simplified_chinese"), (_THAI, "thai")):
        if script.search(word):
            return _load(name)
    return None


@cache
def _load(name: str) -> Callable[[str], list[str]]:
    import budoux

    parser: budoux.Parser = getattr(budoux, f"load_default_{name}_parser")()
    return parser.parse


def _parts(word: str, preset: Preset) -> list[str]:
    """`word`, in as few parts as its columns need: cut where URLs and compounds have joints, else anywhere."""
    room = limit_of(word, preset)
    if columns(word) <= room:
        return [word]
    parts = [""]
    for joint in _BREAKABLE.split(word):
        if columns(parts[-1] + joint) <= room:
            parts[-1] += joint
            continue
        if columns(joint) <= room:
            parts.append(joint)
            continue
        for cluster in _clusters(joint):
            if columns(parts[-1] + cluster) > room:
                parts.append("")
            parts[-1] += cluster
    return [part for part in parts if part]


def _clusters(text: str) -> Iterator[str]:
    """Characters with the marks and joiners that belong to them."""
    cluster = ""
    for character in text:
        belongs = unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf", "Sk")
        belongs = belongs or (character in _CLOSING and len(cluster) < _LONGEST_CLUSTER)
        if cluster and not belongs and not cluster.endswith("\u200d"):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster
