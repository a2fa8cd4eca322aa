"""Tables in what the model writes: with pipes or as HTML, merged cells, and text that only looks like one."""

from __future__ import annotations

import csv
import io

import pytest

from phi4mm_cli.tables import plain, tables, write_csv

PIPED = "| Name | Price |\n|---|---:|\n| Tea | 2.50 |\n| A \\| B | |"
HTML = """<table>
<thead><tr><th rowspan="2">Name</th><th colspan="2">Price</th></tr>
<tr><th>net</th><th>gross</th></tr></thead>
<tr><td>Tea &amp; milk</td><td>2.50</td><td>2<br>98</td></tr>
</table>"""


def test_pipes() -> None:
    (found,) = tables(f"# Menu\n\n{PIPED}\n\nThank you | good bye\n")
    assert found == (("Name", "Price"), ("Tea", "2.50"), ("A | B", ""))


@pytest.mark.parametrize("text", ["Name | Price\n--- | ---\nTea | 2.50", "|Name|Price|\n|:-:|-|\n|Tea|2.50", ""])
def test_pipes_as_people_write_them(text: str) -> None:
    assert tables(text) == (((("Name", "Price"), ("Tea", "2.50")),) if text else ())


def test_merged_cells_say_their_text_in_each_place() -> None:
    (found,) = tables(f"before\n{HTML}\nafter")
    assert found == (("Name", "Price", "Price"), ("Name", "net", "gross"), ("Tea & milk", "2.50", "2 98"))


def test_merged_cells_in_the_middle_and_at_the_edge() -> None:
    text = "<table><tr><td>a<td rowspan=3>b<td>c<tr><td>d<td>e<tr><td colspan=1>f<td rowspan=9>g<tr><td>h</table>"
    assert tables(text) == ((("a", "b", "c"), ("d", "b", "e"), ("f", "b", "g"), ("h", "", "g")),)


@pytest.mark.parametrize(
    "cell", ["<p>b</p><p>c</p>", "b<div>c</div>", "<div>b</div>c", "<ul><li>b<li>c</ul>", "<b>b</b><br/>c", "b<p>c"]
)
def test_blocks_in_a_cell_stay_apart(cell: str) -> None:
    assert tables(f"<table><tr><td>a<i>a</i></td><td>{cell}</td></tr></table>") == ((("aa", "b c"),),)


def test_html_that_is_cut_off_or_mad() -> None:
    assert tables("<table><tr><td>1</td><td>2") == ((("1", "2"),),)
    assert tables("<table></table><table><tr></tr></table>") == ()
    for span, columns in (
        ("999999999", 1000),
        ("9" * 5000, 1000),
        ("0" * 5000 + "2", 2),
        ("0", 1),
        (" 3 ", 3),
        ("", 1),
    ):
        ((row,),) = tables(f'<table><tr><td colspan="{span}">x</td></tr></table>')
        assert len(row) == columns


def test_what_is_no_table() -> None:
    assert tables("a | b\nc | d\n") == ()
    assert tables("| a | b |\n\n|---|---|\n") == ()
    assert tables("one\n---\ntwo") == ()


def test_plain_text_keeps_the_words() -> None:
    text = f"# Menu #1\n\n**Open** 9-17, 2 * 3 * 4\n{PIPED}\n{HTML}\n- `x`\n"
    assert plain(text).splitlines() == [
        "Menu #1",
        "",
        "Open 9-17, 2 * 3 * 4",
        "Name\tPrice",
        "Tea\t2.50",
        "A | B\t",
        "Name\tPrice\tPrice",
        "Name\tnet\tgross",
        "Tea & milk\t2.50\t2 98",
        "- `x`",
    ]


def test_what_stands_beside_the_cells_is_kept() -> None:
    assert plain("<table><caption>Sales</caption><tr><td>a</td></tr></table>") == "Sales\na\n"
    about = f"The `<table>` tag begins one.\n\n{PIPED}\nThank you\n"
    assert plain(about).splitlines() == [
        "The `<table>` tag begins one.",
        "",
        "Name\tPrice",
        "Tea\t2.50",
        "A | B\t",
        "Thank you",
    ]
    assert len(tables(about)) == 1


@pytest.mark.parametrize("text", ["# C#", "## C# ##", "# C#  "])
def test_a_heading_keeps_the_marks_of_its_words(text: str) -> None:
    assert plain(text) == "C#"


def test_csv_is_read_back_as_it_was() -> None:
    table = (("a", 'say "b"', "c,d"), ("", "line\nbreak", " x "))
    file = io.StringIO()
    write_csv(table, file)
    assert tuple(map(tuple, csv.reader(io.StringIO(file.getvalue(), newline="")))) == table
