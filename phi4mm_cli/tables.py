"""Tables in a Markdown text, with pipes or as HTML: found, taken apart into cells, written as lines or as CSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import TextIO

Table = tuple[tuple[str, ...], ...]  # rows of cells, all rows of one length

MOST_COLUMNS = 1000  # that a cell may span: HTML's own limit

BLOCKS = frozenset(("br", "div", "li", "ol", "p", "ul"))  # before and behind which words end

_HTML = re.compile(r"<table\b.*?(?:</table\s*>|\Z)", re.DOTALL | re.IGNORECASE)
_RULE = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?\s*)?\s*")  # between the head of a table and its rows
_CELL = re.compile(r"(?<!\\)\|")
_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$", re.MULTILINE)
_BOLD = re.compile(r"\*\*(?=\S)(.+?)(?<=\S)\*\*")


def blocks(text: str) -> Iterator[str | Table]:
    """The text in pieces: its tables, and what is between them as it stands."""
    place = 0
    for found in _HTML.finditer(text):
        yield from _piped(text[place : found.start()])
        html = _Html(found[0])
        table, beside = html.table(), html.beside()
        if beside:
            yield from _piped(beside if table else found[0])  # the caption; or a text about the tags of tables
        if table:
            yield table
        place = found.end() + text.startswith("\n", found.end())
    yield from _piped(text[place:])


def tables(text: str) -> tuple[Table, ...]:
    """The tables of a text, in order."""
    return tuple(block for block in blocks(text) if not isinstance(block, str))


def plain(text: str) -> str:
    """The text without the marks of Markdown: the cells of tables between tabs, a row a line."""
    return "".join(
        _BOLD.sub(r"\1", _HEADING.sub(r"\1", block))
        if isinstance(block, str)
        else "".join("\t".join(row) + "\n" for row in block)
        for block in blocks(text)
    )


def write_csv(table: Table, file: TextIO) -> None:
    """The table as CSV: RFC 4180, but for lines that end as in all other outputs."""
    csv.writer(file, lineterminator="\n").writerows(table)


def _piped(text: str) -> Iterator[str | Table]:
    """Tables with pipes: a line of heads, a rule, and the rows up to a line without a pipe."""
    lines = text.splitlines(keepends=True)
    kept: list[str] = []
    place = 0
    while place < len(lines):
        rule = lines[place + 1] if place + 1 < len(lines) else ""
        if "|" not in lines[place] or "|" not in rule or not _RULE.fullmatch(rule):
            kept.append(lines[place])
            place += 1
            continue
        rows = [_cells(lines[place])]
        place += 2
        while place < len(lines) and "|" in lines[place]:
            rows.append(_cells(lines[place]))
            place += 1
        if kept:
            yield "".join(kept)
            kept = []
        yield _even(rows)
    if kept:
        yield "".join(kept)


def _cells(line: str) -> list[str]:
    inner = line.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.replace("\\|", "|").strip() for cell in _CELL.split(inner)]


def _even(rows: list[list[str]]) -> Table:
    width = max(map(len, rows))
    return tuple(tuple(row + [""] * (width - len(row))) for row in rows)


class _Html(HTMLParser):
    """One HTML table; what a merged cell says stands in each of the cells that it takes the place of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self._rows: list[dict[int, str]] = []  # by column
        self._row: dict[int, str] | None = None  # the open one
        self._below: dict[int, tuple[int, str]] = {}  # by column: how many more rows a cell reaches down, and its text
        self._cell: tuple[int, int] | None = None  # columns and rows that the open one spans
        self._said: list[str] = []
        self._beside: list[str] = []
        self.feed(text)
        self.close()
        self._end_row()

    def table(self) -> Table:
        """The rows."""
        rows = [[row.get(column, "") for column in range(max(row) + 1)] for row in self._rows if row]
        return _even(rows) if rows else ()

    def beside(self) -> str:
        """What is said in none of the cells, as in a caption: lines, or "" where there is nothing."""
        lines = (line.strip() for line in "".join(self._beside).splitlines())
        return "".join(f"{line}\n" for line in lines if line)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A row or a cell begins."""
        if tag == "tr":
            self._end_row()
            self._begin_row()
        elif tag in ("td", "th"):
            self._end_cell()
            if self._row is None:
                self._begin_row()
            values = dict(attrs)
            self._cell = _span(values.get("colspan")), _span(values.get("rowspan"))
        elif tag in BLOCKS and self._cell:
            self._said.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """A row or a cell ends."""
        if tag in ("td", "th"):
            self._end_cell()
        elif tag in ("tr", "table"):
            self._end_row()
        elif tag in BLOCKS and self._cell:
            self._said.append(" ")

    def handle_data(self, data: str) -> None:
        """Something in a cell, or beside them."""
        (self._said if self._cell else self._beside).append(data)

    def _begin_row(self) -> None:
        self._row = {column: text for column, (_, text) in self._below.items()}
        self._below = {column: (rows - 1, text) for column, (rows, text) in self._below.items() if rows > 1}
        self._rows.append(self._row)

    def _end_cell(self) -> None:
        if self._cell is None or self._row is None:
            return
        (columns, rows), text = self._cell, " ".join("".join(self._said).split())
        first = next(column for column in range(len(self._row) + 1) if column not in self._row)
        for column in range(first, first + columns):
            self._row[column] = text
            if rows > 1:
                self._below[column] = rows - 1, text
        self._cell, self._said = None, []

    def _end_row(self) -> None:
        self._end_cell()
        self._row = None


def _span(asked: str | None) -> int:
    digits = (asked or "").strip().lstrip("0")
    if not digits.isdecimal():
        return 1
    return min(int(digits), MOST_COLUMNS) if len(digits) <= len(str(MOST_COLUMNS)) else MOST_COLUMNS
