"""How pages are shown: sizes that suit the crop grid, bands that cover and overlap, their price; texts joined."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from phi4mm_cli.errors import UsageError
from phi4mm_cli.media.pdf import Sheet
from phi4mm_cli.model.grid import CROP, MOST_CROPS, image_tokens, layout_of
from phi4mm_cli.paging import OVERLAP, Detail, Selection, View, crops_within, joined, listed, selection, views

A4 = Sheet(595.276, 841.89, drawn=True)


def sizes(view: View, sheet: Sheet) -> tuple[int, int]:
    """Of what the model is shown."""
    width, height = view.size or (round(sheet.width), round(sheet.height))
    return (width, height) if view.band is None else (width, view.band[1] - view.band[0])


# ----------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize("detail", Detail)
def test_any_page_is_covered_within_the_crops(detail: Detail) -> None:
    rng = random.Random(3)
    banded = 0
    for _ in range(400):
        sheet = Sheet(10 ** rng.uniform(1.8, 4), 10 ** rng.uniform(1.8, 4), rng.random() < 0.5)
        if not sheet.drawn:
            sheet = Sheet(round(sheet.width), round(sheet.height))
        most = rng.choice((36, 36, 12, 5, 1))
        if max(sheet.width, sheet.height) > 20 * min(sheet.width, sheet.height):
            continue  # of those too narrow for few crops, the grid's tests tell
        shown = views(sheet, detail, most)
        for view in shown:
            width, height = sizes(view, sheet)
            layout = layout_of(width, height, MOST_CROPS)
            assert layout.columns * layout.rows <= most
            assert min(layout.width - width, layout.height - height) >= -1  # it is not reduced any more
            assert view.tokens == image_tokens(width, height)
        if len(shown) > 1:
            banded += 1
            bands = [view.band for view in shown if view.band]
            assert len({view.size for view in shown}) == 1
            assert len({bottom - top for top, bottom in bands}) == 1
            assert (bands[0][0], bands[-1][1]) == (0, shown[0].size[1])  # type: ignore[index]
            for (_, bottom), (top, _) in pairwise(bands):
                assert bottom - top >= OVERLAP - 1
    assert (banded > 30) == (detail is not Detail.LOW)


def test_what_fits_is_shown_as_it_is() -> None:
    """So a picture goes to the model as its authors give it."""
    for width, height in ((1, 1), (640, 480), (1700, 2200), (2688, 2688)):
        assert views(Sheet(width, height)) == (View(None, None, image_tokens(width, height)),)


def test_prices_of_a_page_of_a4() -> None:
    """Letters are drawn so that they fill a grid of crops, from edge to edge one way."""
    price = {}
    for detail in Detail:
        shown = views(A4, detail)
        price[detail] = sum(view.tokens for view in shown)
        for view in shown:
            width, height = sizes(view, A4)
            layout = layout_of(width, height, MOST_CROPS)
            if view.band is None:
                assert (layout.width, layout.height) == (width, height)
    assert price[Detail.LOW] < 3400 < 6000 < price[Detail.AUTO] < 6300 < price[Detail.HIGH] < 15000


def test_a_telephone_picture_keeps_what_36_crops_can_hold() -> None:
    """The processor itself would reduce it to 4 x 3 crops, the grid that is nearest in form."""
    (view,) = views(Sheet(4032, 3024))
    assert view.size == (2987, 2240)
    assert image_tokens(4032, 3024) < 3400 < 8000 < view.tokens


@pytest.mark.parametrize(
    ("sheet", "detail", "bands"),
    [
        (Sheet(4960, 7016), Detail.AUTO, 1),  # A4 at 600 dpi: more than anybody needs
        (Sheet(4960, 7016), Detail.HIGH, 4),
        (Sheet(2480, 3508), Detail.AUTO, 1),
        (Sheet(2480, 3508), Detail.HIGH, 2),
        (Sheet(1280, 12000), Detail.AUTO, 3),  # a long page of the web
        (Sheet(1280, 12000), Detail.LOW, 1),
        (Sheet(800, 5000), Detail.AUTO, 1),  # a receipt
        (Sheet(20000, 30), Detail.AUTO, 1),
        (Sheet(14400, 14400, True), Detail.AUTO, 1),
    ],
)
def test_bands_of_common_pages(sheet: Sheet, detail: Detail, bands: int) -> None:
    assert len(views(sheet, detail)) == bands


def test_crops_that_tokens_pay_for() -> None:
    assert crops_within(131072) == 36
    for tokens in (600, 2000, 9000):
        most = crops_within(tokens)
        assert max(image_tokens(w * CROP, math.floor(most / w) * CROP, most) for w in range(1, most + 1)) <= tokens


# ------------------------------------------------------------------------------------------------------- which pages


def test_pages_asked_for() -> None:
    assert selection("1-3,7,10-").of(12) == [1, 2, 3, 7, 10, 11, 12]
    assert selection("7, 1-3,2").of(5) == [1, 2, 3]
    assert selection(" 1 - 2 , 4 - ").of(5) == [1, 2, 4, 5]
    assert selection("-2").of(5) == [1, 2]
    assert selection("9-").of(5) == []
    assert selection("4") == Selection(((4, 4),))
    for asked in ("1-3,7,10-12", "4", "2,4,6-7"):
        assert listed(selection(asked).of(12)) == asked


@pytest.mark.parametrize("asked", ["", "0", "3-1", "a", "1,,2", "1-2-3", "-", "1.5", "-0", "1 3", "1-2 3"])
def test_pages_that_cannot_be(asked: str) -> None:
    with pytest.raises(UsageError, match="1-3,7,10-"):
        selection(asked)


# ------------------------------------------------------------------------------------------------------------- joining


def page(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = ["tea", "milk", "bread", "apples", "total", "of", "the", "and", "2.50", "14", "Monday", "|"]
    lines = [" ".join(rng.choice(words) for _ in range(rng.randint(1, 9))) for _ in range(count)]
    return [line if rng.random() < 0.8 else "" for line in lines]


@pytest.mark.parametrize("seed", range(20))
def test_lines_of_the_overlap_are_there_once(seed: int) -> None:
    """Two windows on numbered lines; the edges of both cut through one, and leave rubbish of it."""
    lines = [f"{number} {line}".strip() for number, line in enumerate(page(40, seed))]
    upper = "\n".join([*lines[:24], lines[24][: len(lines[24]) // 2] + "~"])
    lower = "\n".join(["*" + lines[19][len(lines[19]) // 2 :], *lines[20:]])
    assert joined([upper, lower], 5 / 24) == ("\n".join(lines), 0)


def test_paragraphs_are_joined_in_the_middle() -> None:
    words = [f"word{number}" for number in range(120)]
    upper, lower = "# Title\n\n" + " ".join(words[:70]) + " wor", "ord54 " + " ".join(words[55:])
    assert joined([upper, lower], 0.25) == ("# Title\n\n" + " ".join(words), 0)


def test_one_word_that_is_read_differently_does_no_harm() -> None:
    upper = "a b\nTea with milk 2.50\nBread and butter 3.00\nAppIes"
    lower = "milk 2,50\nBread and butter 3.00\nApples from Kent 4.10\nend"
    whole = "a b\nTea with milk 2.50\nBread and butter 3.00\nApples from Kent 4.10\nend"
    assert joined([upper, lower], 0.5) == (whole, 0)


def test_nothing_is_dropped_where_nothing_is_shared() -> None:
    for upper, lower in (
        ("one two three four", "five six seven eight"),
        ("| a | b |\n| - | - |", "| c | d |\n| - | - |"),  # marks are no words
    ):
        assert joined([upper, lower], 0.3) == (f"{upper}\n{lower}", 1)
    assert joined(["", "five", "", ""], 0.3) == ("five", 0)


def test_a_few_words_that_come_again_are_no_overlap() -> None:
    """Heads of two tables: what stands between them is not cut away."""
    rows = "\n".join(f"Row {n} apples {7 * n}" for n in range(50))
    upper = f"{rows}\nInvoice 17\nDescription Quantity\nscrews 5\nnails 6\nTotal 11"
    lower = f"Invoice 18\nDescription Quantity\nhammers 3\nTotal 3\n{rows.replace('apples', 'pears')}"
    assert joined([upper, lower], 0.08) == (f"{upper}\n{lower}", 1)


def test_words_that_are_read_differently_do_not_double_what_is_shared() -> None:
    shared = ["Tea with milk 2.50", "Bread and butter 3.00", "Apples from Kent 4.10", "Plum cake of the house 5.20"]
    upper = "\n".join(["first line", *shared, "rubb~ish of half a line"])
    lower = (
        "\n".join(["half of the f~st line", *shared, "last line"]).replace("butter", "butler").replace("milk", "mi1k")
    )
    found, apart = joined([upper, lower], 0.6)
    assert apart == 0
    assert found.splitlines() == ["first line", *shared, "last line"]


def test_what_comes_back_far_below_is_no_overlap() -> None:
    """A heading of every page of a strip."""
    heading = "Acme and Sons Limited of London"
    upper = f"{heading}\n" + "\n".join(f"upper line {n} is here" for n in range(100))
    lower = "\n".join(f"lower row {n} stands there" for n in range(100)) + f"\n{heading}"
    assert joined([upper, lower], 0.1) == (f"{upper}\n{lower}", 1)


def test_many_bands() -> None:
    lines = [f"{number} {line}".strip() for number, line in enumerate(page(200, 7))]
    bands = ["\n".join(lines[start : start + 30]) for start in range(0, 175, 25)]
    assert joined(bands, 5 / 30) == ("\n".join(lines[:180]), 0)


@pytest.mark.parametrize(
    "row", ["| Total | 0.00 | 0.00 |", "| | 0.00 |", "Signed on Monday, as always, by the same hand."]
)
def test_rows_that_repeat_themselves_all_stay(row: str) -> None:
    rows = [row] * 60
    assert joined(["\n".join(rows[:40]), "\n".join(rows[35:])], 5 / 40) == ("\n".join(rows), 0)
