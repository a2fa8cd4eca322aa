"""Sentences and their times inside a chunk."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mm_cli.schema import Word
from phi4mm_cli.timing import sentences, settle, spread, spread_words, words


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
        ("He left. Dr. Smith came in.", ["He left.", "Dr. Smith came in."]),
        ("Wir kommen am 3. Mai. Bis dann.", ["Wir kommen am 3. Mai.", "Bis dann."]),
        ("She is 12. He is 3. The cat is old.", ["She is 12.", "He is 3.", "The cat is old."]),
        ("今日は晴れ。明日は雨。", ["今日は晴れ。", "明日は雨。"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("なに！？はい。", ["なに！？", "はい。"]),
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


# ------------------------------------------------------------------------------------------ times that were found


def found(*starts: float) -> list[Word]:
    return [Word(start, start, f"w{place}") for place, start in enumerate(starts)]


def times(settled: list[Word]) -> list[tuple[float, float]]:
    return [(word.start, word.end) for word in settled]


def test_a_stretch_of_voice_begins_with_its_first_word() -> None:
    voiced = [(10.3, 11.0), (12.0, 13.0)]
    settled = settle(found(10.1, 10.5, 10.97, 12.4, 12.6), voiced, (10.0, 13.5))
    # The third was found just before the pause, in which it is looked for: it is the first behind it.
    assert times(settled)[:2] == [(10.3, 10.5), (10.5, 11.0)]
    assert times(settled)[2:] == [(12.0, 12.4), (12.4, 12.6), (12.6, 13.0)]


def test_a_voice_that_says_nothing_known_is_left_out() -> None:
    voiced = [(0.2, 0.4), (1.0, 3.0), (5.0, 6.0)]
    assert times(settle(found(1.2, 1.9), voiced, (0.0, 7.0))) == [(1.0, 1.9), (1.9, 3.0)]
    assert times(settle(found(1.8), voiced, (0.0, 7.0))) == [(1.8, 3.0)]  # too late to begin with the voice


def test_without_voices_times_stay_as_they_were_found() -> None:
    assert times(settle(found(0.0, 0.5, 1.5), [], (0.0, 2.0))) == [(0.0, 0.5), (0.5, 1.5), (1.5, 2.0)]


def test_words_found_at_one_place_are_told_apart() -> None:
    settled = times(settle(found(1.0, 1.0, 1.0, 1.98, 1.99), [], (0.0, 2.0)))
    assert [start for start, _ in settled] == pytest.approx([1.0, 1.02, 1.04, 1.96, 1.98])
    assert settled[-1][1] == 2.0


@given(
    st.lists(st.floats(-1, 30), max_size=40),
    st.lists(st.tuples(st.floats(0.05, 5), st.floats(0.01, 3)), max_size=8),
    st.floats(0.05, 30),
)
def test_settled_words_rise_and_stay_within(starts: list[float], plan: list[tuple[float, float]], size: float) -> None:
    at, voiced = 5.0, []
    for length, pause in plan:
        if at + length > 5.0 + size:
            break
        voiced.append((at, at + length))
        at += length + pause
    said = found(*sorted(5.0 + start for start in starts))
    settled = settle(said, voiced, (5.0, 5.0 + size))
    assert [word.word for word in settled] == [word.word for word in said]
    assert all(5.0 - 1e-9 <= word.start < word.end <= 5.0 + size + 1e-9 for word in settled)
    assert all(one.end <= other.start for one, other in pairwise(settled))


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
