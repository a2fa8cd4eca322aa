"""Texts go to the model with their neighbours and come back one by one, whatever it makes of their numbers."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from saying import Say, asked, done

from phi4mm_cli.passages import LONGEST, TOGETHER, Asking, Rendered, translated
from phi4mm_cli.schema import Request, Result

ASKING = Asking("To French.", "To French, by number.", "fr", lambda text: len(text.split()))
NUMBER = re.compile(r"(\d+)\. (.*)")


def answer(request: Request) -> str:
    """Each text in «», behind its number where it had one."""
    _, *lines = asked(request).splitlines()
    if asked(request).startswith(ASKING.numbered):
        return "\n".join(NUMBER.sub(r"\1. «\2»", line) for line in lines)
    return f"«{lines[0]}»"


def texts(texts: list[str], say: Say = answer) -> tuple[list[Rendered], list[Request]]:
    return done(translated(texts, ASKING), say)


def test_neighbours_go_together() -> None:
    found, requests = texts(["One", "Two\n two", "12:30", "♪", "Three"])
    assert found == [Rendered(text) for text in ("«One»", "«Two two»", "12:30", "♪", "«Three»")]
    assert [asked(request) for request in requests] == ["To French, by number.\n1. One\n2. Two two\n3. Three"]
    assert requests[0].clips == ()


def test_a_text_alone_has_no_number() -> None:
    assert texts(["One two."])[0] == [Rendered("«One two.»")]
    assert texts([]) == ([], [])
    assert texts(["12:30"]) == ([Rendered("12:30")], [])


@pytest.mark.parametrize(
    "wrong",
    [
        "1. «One»",
        "1. «One»\n3. «Two»",
        "1. «One»\n2. «Two»\n3. «Three»",
        "2. «Two»\n1. «One»",
        "1. «One»\n2.",
        "Here it is:\n1. «One»\n2. «Two»",
        "«One» «Two»",
        "",
    ],
)
def test_texts_whose_numbers_do_not_come_back_are_asked_for_one_by_one(wrong: str) -> None:
    found, requests = texts(["One", "Two"], lambda r: wrong if asked(r).startswith(ASKING.numbered) else answer(r))
    assert found == [Rendered("«One»"), Rendered("«Two»")]
    assert sorted(asked(request) for request in requests[1:]) == ["To French.\nOne", "To French.\nTwo"]


def test_other_ways_to_number() -> None:
    assert texts(["One", "Two"], lambda _: "1) Un\n\n2: Deux \n")[0] == [Rendered("Un"), Rendered("Deux")]


def test_an_answer_that_is_cut_off_is_asked_for_in_smaller_parts() -> None:
    def cut(request: Request) -> str | Result:
        long = len(asked(request).split()) > 5
        return Result("1. Un", (1,), "length", 1) if long else answer(request)

    assert texts(["One two. Three four.", "Five"], cut)[0] == [Rendered("«One two.» «Three four.»"), Rendered("«Five»")]


def test_what_stays_wrong_is_told() -> None:
    english = "The meeting starts at nine o'clock on Monday."
    assert texts([english], lambda _: english)[0] == [Rendered(english, "wrong_language")]
    assert texts([english], lambda _: "")[0] == [Rendered(english, "untranslated")]
    assert texts(["One"], lambda _: Result("Un", (1,), "length", 1))[0] == [Rendered("Un", "token_limit")]
    told = texts([f"{english} Yes."], lambda r: english if english in asked(r) else "Oui.")[0]
    assert told == [Rendered(english, "wrong_language")]


def test_a_long_text_is_asked_for_in_parts() -> None:
    sentences = [" ".join(["word"] * 99) + f" {i}." for i in range(20)]
    found, requests = texts([" ".join(sentences)])
    sizes = [len(asked(request).split()) - 2 for request in requests]
    assert sum(sizes) == 2000
    assert len(requests) > 3
    assert max(sizes) <= LONGEST
    assert re.sub("[«»]", "", found[0].text) == " ".join(sentences)
    assert all(r.sampling.max_new_tokens >= 3 * size for r, size in zip(requests, sizes, strict=True))


def test_no_request_holds_too_much() -> None:
    _, requests = texts([f"line {i}" for i in range(100)])
    assert max(len(asked(request).splitlines()) for request in requests) == TOGETHER + 1
    _, requests = texts(["word " * 199 + str(i) for i in range(10)])
    assert len(requests) == 10


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["One", "Two. Three.", "12", "", "Four five six."]), max_size=40), st.integers(0, 99))
def test_every_text_gets_its_own_answer(given_texts: list[str], seed: int) -> None:
    rng = random.Random(seed)

    def unreliable(request: Request) -> str:
        whole = answer(request)
        numbered = asked(request).startswith(ASKING.numbered)
        return "\n".join(whole.splitlines()[:-1]) if numbered and rng.random() < 0.5 else whole

    found = texts(given_texts, unreliable)[0]
    assert found == [Rendered(f"«{text}»" if any(map(str.isalpha, text)) else text) for text in given_texts]
