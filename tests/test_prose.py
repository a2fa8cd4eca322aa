"""What is prose in plain text and Markdown is found; what is not comes through a translation as it was."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from phi4mm_cli import prose

MARKDOWN = """---
title: not prose
---
# Heading *one* #

A paragraph with `code`, a [link](https://a.example/b "title") and <https://c.example>
that goes on.\x20\x20
After a break.\\
After another.

Setext heading
==============

> Quoted **text**
> goes on.

- item one
  goes on
- [ ] to do
  1. nested

| Name | What   |
|------|:------:|
| One  | `x` it |
| Same | Same   |

```python
print("hello")
```

    indented code

<div>HTML</div>

![alt](picture.png)

[reference]: https://d.example
See [this][reference].
"""


def shouted(template: prose.Template) -> str:
    """The template with its words in capitals, but for what must be kept."""

    def loud(text: str) -> str:
        inner = prose.around_kept(text)
        return prose.filled(inner, [place.text.upper() for place in prose.places(inner)])

    return prose.filled(template, [loud(place.text) for place in prose.places(template)])


def test_markdown_keeps_its_structure() -> None:
    assert shouted(prose.of_markdown(MARKDOWN)) == (
        MARKDOWN.replace("# Heading *one* #", "# HEADING *ONE* #")
        .replace("A paragraph with `code`, a [link]", "A PARAGRAPH WITH `code`, A [LINK]")
        .replace(" and <https://c.example>\nthat goes on.", " AND <https://c.example> THAT GOES ON.")
        .replace("After a break", "AFTER A BREAK")
        .replace("After another", "AFTER ANOTHER")
        .replace("Setext heading", "SETEXT HEADING")
        .replace("> Quoted **text**\n> goes on.", "> QUOTED **TEXT** GOES ON.")
        .replace("item one\n  goes on", "ITEM ONE GOES ON")
        .replace("to do", "TO DO")
        .replace("nested", "NESTED")
        .replace("| Name | What   |", "| NAME | WHAT   |")
        .replace("| One  | `x` it |", "| ONE  | `x` IT |")
        .replace("| Same | Same   |", "| SAME | SAME   |")
        .replace("![alt]", "![ALT]")
        .replace("See [this]", "SEE [THIS]")
    )


@given(st.text(alphabet="ab#*->`[]()1. |\n", max_size=120))
def test_any_markdown_comes_back_as_the_same_document(text: str) -> None:
    template = prose.of_markdown(text)
    back = prose.filled(template, [place.text for place in prose.places(template)])
    read = MarkdownIt("commonmark").enable("table").render
    assert "".join(read(back).split()) == "".join(read(text).split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# One\n\nHello\fworld\u2028today\n\nThird.\n", ["One", "Hello\fworld\u2028today", "Third."]),
        ("| a | b |\n|---|---|\n| `tool` | tool |\n", ["a", "b", "tool"]),
        ("---\r\ntitle: A\r\n---\r\nText.\r\n", ["Text."]),
        ("One.  \r\nTwo.\\\r\nThree\r\nand on.\r\n", ["One.", "Two.", "Three and on."]),
        ("| a |\n|---|\n| One \\| two |\n| after |\n", ["a", "One | two", "after"]),
        ("A \ufffd here.\n", ["A \ufffd here."]),
    ],
)
def test_every_place_is_found_where_it_stands(text: str, expected: list[str]) -> None:
    template = prose.of_markdown(text)
    assert [place.text for place in prose.places(template)] == expected
    assert prose.filled(template, expected) == text.replace("Three\r\nand", "Three and")
    assert [*prose.places(prose.of_markdown(text.replace("\ufffd", "\0")))] == prose.places(template)


def test_wrapped_lines_are_one_place_and_wrapped_again() -> None:
    text = (
        "Title\n\nThis line of prose was wrapped by hand at some sixty\ncolumns, and it ends here.\nA new line.\n"
        "  - an item that is long enough to have been wrapped by hand,\n    as this one was\n  - another\n"
        "1. first\n12:30\n\n♪"
    )
    template = prose.of_plain(text)
    assert [place.text for place in prose.places(template)] == [
        "Title",
        "This line of prose was wrapped by hand at some sixty columns, and it ends here.",
        "A new line.",
        "an item that is long enough to have been wrapped by hand, as this one was",
        "another",
        "first",
    ]
    assert shouted(template) == text.upper()


@given(st.text(max_size=200))
def test_plain_text_loses_nothing(text: str) -> None:
    template = prose.of_plain(text)
    back = prose.filled(template, [place.text for place in prose.places(template)])
    assert "".join(back.split()) == "".join(text.split())
    unwrapped = [place for place in prose.places(template) if not place.width]
    assert unwrapped != prose.places(template) or len(back.split("\n")) <= len(text.split("\n")) + text.count("\r")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Use `a b` or ``c`d``.", ["`a b`", "``c`d``"]),
        ('See [it](x.md) and ![it](y.png "T") and [that][ref].', ["(x.md)", '(y.png "T")', "[ref]"]),
        ("Go to https://a.example/b?c=d, or <b>not</b>.", ["</b>", "<b>", "https://a.example/b?c=d"]),
        ("Nothing (of that) [here].", []),
    ],
)
def test_what_must_come_back(text: str, kept: list[str]) -> None:
    assert prose.kept(text) == sorted(kept)
    template = prose.around_kept(text)
    assert prose.filled(template, [place.text for place in prose.places(template)]) == text
    assert not any(part in place.text for place in prose.places(template) for part in kept)
