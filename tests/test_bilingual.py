"""Transcript and translation in one answer are told apart, whatever became of the separator, and matched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi4mm_cli.bilingual import Twofold, matched, told_apart

EN = "The meeting starts at nine o'clock on Monday."
FR = "La réunion commence à neuf heures lundi."


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (f"{EN} <sep> {FR}", Twofold(EN, FR)),
        (f"{EN}<SEP>{FR}", Twofold(EN, FR)),
        ("Nina.\n<sep>\nNina.", Twofold("Nina.", "Nina.")),
        (EN, Twofold(EN, "", False)),
        (FR, Twofold("", FR, False)),
        (f"{EN} <sep>", Twofold(EN, "", False)),
        (f"<sep> {FR}", Twofold("", FR, False)),
        ("Nina <sep>", Twofold("Nina", "", False)),
        ("<sep> Nina", Twofold("", "Nina", False)),
        (f"{EN} <sep> <sep> {FR}", Twofold(EN, FR, False)),
        (f"{EN} <sep> {FR} <sep>", Twofold(EN, FR, False)),
        (f"{EN} <sep> {FR} <sep> {EN} <sep> {FR}", Twofold(EN, FR, False)),
        (f"{EN} <sep> {FR} <sep> Oui.", Twofold(EN, f"{FR} Oui.", False)),
        (f"{FR} <sep> {EN}  <sep> {FR}", Twofold(EN, FR, False)),
        (f"{FR} <sep> {FR[:-1]} ! <sep> Nina", Twofold(FR, f"{FR[:-1]} ! Nina", False)),
        ("", Twofold("", "")),
        (" <sep> ", Twofold("", "")),
    ],
)
def test_each_part_finds_its_side(answer: str, wanted: Twofold) -> None:
    assert told_apart(answer, "fr") == wanted


def test_equal_numbers_are_pairs() -> None:
    assert matched(["A.", "Bbb bbb."], ["Aaa aaa aaa.", "B."]) == [(["A."], ["Aaa aaa aaa."]), (["Bbb bbb."], ["B."])]


def test_unequal_numbers_end_at_like_shares() -> None:
    assert matched(["One two.", "Three.", "Four five six."], ["Un deux, trois.", "Quatre cinq six."]) == [
        (["One two.", "Three."], ["Un deux, trois."]),
        (["Four five six."], ["Quatre cinq six."]),
    ]
    assert matched(["One."], ["A.", "B."]) == [(["One."], ["A.", "B."])]
    assert matched([], ["A.", "B."]) == [([], ["A.", "B."])]
    assert matched(["A."], []) == [(["A."], [])]
    assert matched([], []) == []


@given(st.lists(st.text("abc", min_size=1), max_size=12), st.lists(st.text("xyz", min_size=1), max_size=12))
def test_nothing_is_lost_or_moved(source: list[str], translation: list[str]) -> None:
    pairs = matched(source, translation)
    assert [text for said, _ in pairs for text in said] == source
    assert [text for _, meant in pairs for text in meant] == translation
    if source and translation:
        assert len(pairs) == min(len(source), len(translation))
        assert all(said and meant for said, meant in pairs)
