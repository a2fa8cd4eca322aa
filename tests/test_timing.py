"""Sentences and their times inside a chunk."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mm_cli.timing import sentences, spread, spread_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("   ", []),
        ("No end", ["No end"]),
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "Stop." Then  he left.', ['He said "Stop."', "Then he left."]),
        ("It cost 3.50 euros. Really.", ["It cost 3.50 euros.", "Really."]),
        ("Ask Dr. Weber. He and (Mrs. Ito) know.", ["Ask Dr. Weber.", "He and (Mrs. Ito) know."]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello,  wörld! It's (a) test.", ["Hello,", "wörld!", "It's", "(a)", "test."]),
        ("3.50 € — “yes”", ["3.50", "€", "—", "“yes”"]),
        ("今日は「雨」です。OK了吗？", ["今", "日", "は", "「雨」", "で", "す。", "OK", "了", "吗？"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_words_of_a_sentence_go_on_through_its_pauses() -> None:
    found = spread_words("One two. Three.", [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)])
    assert [word.word for word in found] == ["One", "two.", "Three."]
    times = [time for word in found for time in (word.start, word.end)]
    assert times == pytest.approx([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])


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


@given(st.text("aé 1.。!今「", max_size=60), st.floats(0.1, 100))
def test_words_are_the_text_without_its_spaces_and_lie_in_the_voice(text: str, length: float) -> None:
    found = spread_words(text, [(2.0, 2.0 + length)])
    assert "".join(word.word for word in found) == "".join(text.split())
    assert [word.word for word in found] == words(text)
    times = [time for word in found for time in (word.start, word.end)]
    assert times == sorted(times)
    assert all(2.0 <= time <= 2.0 + length for time in times)


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
