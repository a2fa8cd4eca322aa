"""Long texts are cut at their own borders and nothing of them is lost; parts are few and of like size."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mm_cli.splitting import packed, paragraphs, pieces


def words(text: str) -> int:
    return len(text.split())


def letters(text: str) -> int:
    return len(re.sub(r"\s", "", text))


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_paragraphs_stay_as_they_are() -> None:
    text = "\n\n# Title\n \nFirst line\n  second line.\n\n\n\n- a\n- b\n"
    assert paragraphs(text) == ["# Title", "First line\n  second line.", "- a\n- b"]
    assert paragraphs(" \n\n ") == []


def test_a_long_text_is_cut_at_sentence_ends_first() -> None:
    text = "One two three. Four five six seven! Eight? " + "nine " * 20 + "ten."
    found = list(pieces(text, words, 10))
    assert found[:2] == ["One two three.", "Four five six seven! Eight?"]
    assert all(words(piece) <= 10 for piece in found)
    assert squeezed("".join(found)) == squeezed(text)
    assert list(pieces(text, words, 1000)) == [text]


def test_a_text_without_spaces_is_cut_too() -> None:
    text = "会議は六時に始まります" * 50
    found = list(pieces(text, letters, 40))
    assert "".join(found) == text
    assert max(map(len, found)) <= 40


@given(st.text(alphabet="ab. \n！。é\u3000", max_size=300), st.integers(1, 30))
def test_nothing_is_lost_and_nothing_is_too_long(text: str, most: int) -> None:
    found = list(pieces(text, letters, most))
    assert squeezed("".join(found)) == squeezed(text)
    assert all(letters(piece) <= most for piece in found)


def lengths(spans: list[tuple[float, float]], runs: list[slice]) -> list[float]:
    return [spans[run][-1][1] - spans[run][0][0] for run in runs]


def test_few_parts_of_like_size() -> None:
    spans = [(float(i), i + 0.9) for i in range(70)]
    runs = packed(spans, 30.0)
    assert len(runs) == 3
    assert max(lengths(spans, runs)) - min(lengths(spans, runs)) <= 2
    assert len(packed(spans, 70.0)) == 1
    assert packed([], 30.0) == []


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 10)), min_size=1, max_size=60),
    st.floats(10, 200),
)
def test_runs_cover_all_in_order_and_are_as_few_as_can_be(steps: list[tuple[float, float]], most: float) -> None:
    spans, at = [], 0.0
    for gap, length in steps:
        spans.append((at + gap, at + gap + length))
        at = spans[-1][1]
    runs = packed(spans, most)
    assert [i for run in runs for i in range(run.start, run.stop)] == list(range(len(spans)))
    assert max(lengths(spans, runs)) <= most + 1e-6
    # No run could have taken in the first span of the next: then fewer would do.
    greedy, first = 1, 0
    for i, (_, end) in enumerate(spans):
        if end - spans[first][0] > most:
            greedy, first = greedy + 1, i
    assert len(runs) == greedy


@pytest.mark.parametrize("most", [1.0, 5.0])
def test_a_span_that_is_too_long_is_a_run_of_its_own(most: float) -> None:
    assert packed([(0.0, 10.0), (10.0, 20.0)], most) == [slice(0, 1), slice(1, 2)]
