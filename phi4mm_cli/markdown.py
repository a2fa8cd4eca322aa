"""Markdown as a terminal shows it: drawn where that is safe, and never less than what was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown


def drawn(text: str) -> Markdown:
    """A text for rich to print. Its lines stay lines, its tags are text, and where a link leads can be seen."""
    from rich.markdown import Markdown

    shown = Markdown("", code_theme="ansi_dark", hyperlinks=False)
    shown.parsed = _parser().parse(_with_lone_marks(text))
    for block in shown.parsed:
        for token in block.children or ():
            if token.type == "softbreak":
                token.type = "hardbreak"
    return shown


def last_block(text: str) -> int:
    """Where the last block of a text begins: nothing that follows changes what is before it."""
    tops = [token.map for token in _parser().parse(text) if token.level == 0 and token.map]
    if len(tops) < 2:
        return 0
    return sum(map(len, text.splitlines(keepends=True)[: tops[-1][0]]))


def _with_lone_marks(text: str) -> str:
    """The text with the marks of lists and headings in which there is nothing as plain letters.

    "5." is the answer to a question, and would be an empty list.
    """
    tokens, lines = _parser().parse(text), text.split("\n")
    kinds = [token.type for token in tokens]
    for number, token in enumerate(tokens):
        if kinds[number + 1 : number + 3] == ["list_item_open", "list_item_close"]:
            is_empty = kinds[number] == kinds[number + 3].replace("_close", "_open")  # of the list, which has one item
        else:
            is_empty = kinds[number] == "heading_open" and not tokens[number + 1].content
        if is_empty and token.map:
            line = lines[token.map[0]].rstrip()
            lines[token.map[0]] = f"{line[:-1]}\\{line[-1]}"
    return "\n".join(lines)


def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt(options_update={"html": False}).enable(["table", "strikethrough"])
