"""Markdown on a terminal: what the model writes can be read, whatever it would mean in a document."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from phi4mm_cli import markdown


def shown(text: str) -> str:
    """The lines that a terminal of 40 columns shows, without empty ones and their margins."""
    file = io.StringIO()
    Console(file=file, width=40).print(markdown.drawn(text))
    return "\n".join(line.strip() for line in file.getvalue().splitlines() if line.strip())


@pytest.mark.parametrize(
    "text", ["5.", "12)", "-", "*", "#", "##", "Hola. <sep> Hello.", "<div>a</div>", "a < b", "One\nTwo", ""]
)
def test_nothing_is_lost(text: str) -> None:
    assert shown(text) == text


def test_what_is_drawn() -> None:
    assert shown("# A\n\nIt **is**\nso:\n\n* red\n* blue") == "A\nIt is\nso:\n• red\n• blue"
    assert shown("3. a\n4.\n5. c") == "3 a\n5 c"
    assert shown("```\n5.\n-\n<b>\n```") == "5.\n-\n<b>"
    assert shown("| a | b |\n|---|---|\n| 1 | 2 |") == "a  b\n────\n1  2"
    assert shown("> 5.") == "▌ 5."
    assert shown("[here](http://a.b/c)") == "here (http://a.b/c)"


@pytest.mark.parametrize("text", ["One.\n\nTwo", "* a\n* b\n\nc", "One.\n\n<div>\n\nTwo"])
def test_blocks_that_are_finished(text: str) -> None:
    place = markdown.last_block(text)
    assert text[place:] in ("Two", "c")
    assert markdown.last_block(text[:place].rstrip()) < place
