"""Sentences and their times inside a chunk."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mm_cli.timing import sentences, spread


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("No end", ["No end"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "Stop." Then  he left.', ['He said "Stop."', "Then he left."]),
        ("It cost 3.50 euros. Really.", ["It cost 3.50 euros.", "Really."]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_one_piece_takes_the_voice_from_its_start_to_its_end() -> None:
    assert spread(["Hello there."], [(1.5, 2.0), (3.0, 4.25)]) == [pytest.approx((1.5, 4.25))]


def test_border_moves_to_the_pause() -> None:
    # Two sentences of like length, and a voice that pauses a little after the middle.
    voiced = [(10.0, 12.4), (13.5, 15.5)]
    spans = spread(["One two three.", "Four five six."], voiced)
    assert [time for span in spans for time in span] == pytest.approx([10.0, 12.4, 13.5, 15.5])


def test_without_a_pause_the_border_follows_the_letters() -> None:
    (_, first), (second, _) = spread(["a" * 30, "b" * 10], [(0.0, 8.0)])
    assert first == second == pytest.approx(8 * 31 / 42)


def test_more_sentences_than_pauses() -> None:
    spans = spread(["Aaaa.", "Bbbb.", "Cccc."], [(0.0, 1.0), (2.0, 3.0)])
    assert spans[0][0] == 0.0
    assert spans[-1][1] == 3.0


texts = st.lists(st.text("abc 1.", min_size=1), min_size=1, max_size=12)
lengths = st.lists(st.tuples(st.floats(0.05, 10), st.floats(0.01, 5)), min_size=1, max_size=8)


@given(texts, lengths, st.floats(0, 80_000))
def test_spans_rise_and_stay_within_the_voice(pieces: list[str], plan: list[tuple[float, float]], at: float) -> None:
    voiced = []
    for length, pause in plan:
        voiced.append((at, at + length))
        at += length + pause
    spans = spread(pieces, voiced)
    assert len(spans) == len(pieces)
    assert spans[0][0] == voiced[0][0]
    assert spans[-1][1] == pytest.approx(voiced[-1][1])
    for start, end in spans:
        assert start < end
    for (_, end), (start, _) in pairwise(spans):
        assert end <= start
