"""Finds the prose in plain text and Markdown, and puts other prose into its places; all else stays as it is.

Markdown is read by markdown-it-py: prose is what paragraphs, headings, list items and the cells of tables say. Code,
HTML, front matter, link definitions and every marker of the structure stay.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.token import Token

WRAPPED = 50  # columns: a line that is this long, and ends within a sentence, goes on in the next
_FRONT_MATTER = re.compile(r"---\r?\n.*?\r?\n(---|\.\.\.)\r?\n", re.DOTALL)
_LINE_BREAK = re.compile(r"( {2,}|\\)$")  # in Markdown
_TASK = re.compile(r"\[[ xX]\]\s+")  # a box to tick, at the beginning of a list item
_SENTENCE_END = re.compile(r"[.!?…:;。！？：；][\"')\]»”’」』）]*$")
_ITEM = re.compile(r"\s*([-*+•–—]|\(?\w{1,3}[.)])\s+|\s*$")  # with which a line begins anew
_EDGES = re.compile(r"(\s*(?:(?:[-*+•–—>]|\(?\d{1,3}[.)])\s+)*)(.*?)(\s*)", re.DOTALL)

# What must come back from a translation as it was: code, the targets of links and pictures, tags, addresses.
_KEPT = re.compile(
    r"(`+)(?!`).+?(?<!`)\1(?!`)"
    r"|(?<=\])(?:\([^()\s]*(?:\s+\"[^\"]*\")?\)|\[[^\[\]]*\])"
    r"|<[^<>\s][^<>]*>"
    r"|https?://[^\s)\]>]*[^\s)\]>.,;:!?]"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where prose stands."""

    text: str  # on one line
    width: int = 0  # columns that its lines were wrapped at; 0: it is one line
    indent: str = ""  # of its second line and those that follow
    has_bars: bool = False  # in the cell of a table, where they are escaped
    is_alone: bool = False  # a paragraph that may have others beside it

    def wrapped(self, text: str) -> str:
        """`text` in lines like those that stood here."""
        if self.has_bars:
            text = text.replace("|", "\\|")
        if not self.width:
            return text
        room = max(self.width - len(self.indent), 20)
        lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
        return f"\n{self.indent}".join(lines)


Template = list[str | Place]  # what stays, and what does not, in order


def places(template: Template) -> list[Place]:
    """The places of a template."""
    return [part for part in template if isinstance(part, Place)]


def filled(template: Template, texts: Sequence[str]) -> str:
    """The template with a text in each of its places."""
    rest = iter(texts)
    return "".join(part.wrapped(next(rest)) if isinstance(part, Place) else part for part in template)


def says_something(text: str) -> bool:
    """Whether there is a word in `text` beside what is kept."""
    return any(character.isalpha() for character in _KEPT.sub("", text))


# ---------------------------------------------------------------------------------------------- what is kept


def kept(text: str) -> list[str]:
    """What of a text in Markdown must be in its translation too, in the order of the alphabet."""
    return sorted(match[0] for match in _KEPT.finditer(text))


def around_kept(text: str) -> Template:
    """`text` as a template in which what is kept stays, and the words between are places."""
    template: Template = []
    last = 0
    for match in _KEPT.finditer(text):
        template += [*_between(text[last : match.start()]), match[0]]
        last = match.end()
    return [*template, *_between(text[last:])]


def _between(text: str) -> Template:
    """The words of a text as places, and what brackets and divides them."""
    template: Template = []
    for part in re.split(r"(!?\[|\]|\s+(?=!?\[)|(?<=\])\s+|^\s+|\s+$)", text):
        template.append(Place(part) if says_something(part) else part)
    return template


# ---------------------------------------------------------------------------------------------- plain text


def of_plain(text: str) -> Template:
    """The lines of a plain text; those that were wrapped are one place, and its lines are wrapped again."""
    template: Template = []
    run: list[str] = []
    for line in text.splitlines(keepends=True):
        if run and (_ITEM.match(line) or not _goes_on(run[-1])):
            template += _plain_place(run)
            run = []
        run.append(line)
    return [*template, *_plain_place(run)]


def _goes_on(line: str) -> bool:
    line = line.rstrip()
    return len(line) >= WRAPPED and not _SENTENCE_END.search(line)


def _plain_place(run: Sequence[str]) -> Template:
    text = "".join(run)
    if not says_something(text):
        return [text] if text else []
    match = _EDGES.fullmatch(text)
    assert match is not None
    before, words, after = match.groups()
    width = max(len(line.rstrip()) for line in run) if len(run) > 1 else 0
    indent = re.match(r"\s*", run[1])[0] if len(run) > 1 else ""  # type: ignore[index]
    return [before, Place(" ".join(words.split()), width, indent), after]


# ---------------------------------------------------------------------------------------------- Markdown


def of_markdown(text: str) -> Template:
    """The blocks of a text in Markdown. A paragraph becomes one line, but where a line break is asked for."""
    from markdown_it import MarkdownIt

    text = text.replace("\0", "\ufffd")  # as the parser does
    front = _FRONT_MATTER.match(text)
    head = front[0] if front else ""
    lines = [*io.StringIO(text[len(head) :], newline="")]  # as the parser has them: a form feed ends none
    template: Template = [head] if head else []
    at = seen = (0, 0)  # the line and the column up to which the template goes, and the tokens have been found
    tokens = MarkdownIt("commonmark").enable("table").parse("".join(lines))
    for before, token in pairwise(tokens):
        found = [*_stretches(token, lines, seen)]
        is_alone = before.type == "paragraph_open" and before.level == 0 and len(found) == 1
        for first, last, place in found:
            if says_something(place.text):
                template += [_text(lines, at, first), replace(place, is_alone=is_alone)]
                at = last
            seen = last
    return [*template, _text(lines, at, (len(lines), 0))]


Position = tuple[int, int]  # line and column


def _stretches(token: Token, lines: Sequence[str], at: Position) -> Iterator[tuple[Position, Position, Place]]:
    """The stretches of prose in an inline token: where each begins and ends, and its words on one line."""
    if token.type != "inline" or token.map is None:
        return
    start: Position | None = None
    words: list[str] = []
    has_bars = False
    for number, content in enumerate(token.content.split("\n"), token.map[0]):
        said = _LINE_BREAK.sub("", content).strip()
        if number == token.map[0]:
            said = _TASK.sub("", said)
        written, begin = said, at[1] if number == at[0] else 0
        if lines[number].find(written, begin) < 0:  # in a cell
            written, has_bars = said.replace("|", "\\|"), True
        column = lines[number].find(written, begin)
        if column < 0:
            return  # its characters are not those of the file: it stays
        start = start or (number, column)
        words.append(said)
        at = (number, column + len(written))
        if _LINE_BREAK.search(lines[number].rstrip("\r\n")) and start:
            yield start, at, Place(" ".join(words), has_bars=has_bars)
            start, words = None, []
    if start:
        yield start, at, Place(" ".join(words), has_bars=has_bars)


def _text(lines: Sequence[str], start: Position, end: Position) -> str:
    """What stands between two positions."""
    if start[0] == end[0]:
        return lines[start[0]][start[1] : end[1]] if start[0] < len(lines) else ""
    last = lines[end[0]][: end[1]] if end[0] < len(lines) else ""
    return lines[start[0]][start[1] :] + "".join(lines[start[0] + 1 : end[0]]) + last
