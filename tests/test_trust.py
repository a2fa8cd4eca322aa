"""What can be what was said, and what cannot: the checks of answers, as a table."""

from __future__ import annotations

import pytest

from phi4mm_cli import trust
from phi4mm_cli.schema import Word
from phi4mm_cli.trust import Fault, Said

ASKED = "Transcribe the audio clip into text."
HINTED = ASKED + " Names and terms: Alice Kowalski, Zoltan, Kubernetes."
MEETING = (
    "Good morning everybody, thank you for coming. Before we talk about the budget, I would like to hear from Martin "
    "how the negotiations with the supplier went, and whether we can still deliver in September as we promised."
)
CHINESE = "大家早上好，感謝各位的到來。在我們討論預算之前，我想先聽聽馬丁和供應商的談判進行得怎麼樣了。"
JAPANESE = "皆さん、おはようございます。予算の話をする前に、マーティンさんから交渉の結果を聞きたいと思います。"
GERMAN = "Das Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz wurde gestern im Landtag besprochen."


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Said(MEETING, "stop", 14.0), ()),
        (Said(CHINESE, "stop", 9.0), ()),
        (Said(JAPANESE, "stop", 8.0), ()),
        (Said(GERMAN, "stop", 6.0), ()),
        (Said("Yes.", "stop", 0.4), ()),
        (Said("No, no, no, no, no.", "stop", 1.5), ()),
        (Said("Four two, four two, call me at 4 1 5 5 5 5 5 5 2 6 7 1.", "stop", 6.0), ()),
        (Said("We will be back. We will be back.", "stop", 2.0), ()),
        (Said("", "stop", 0.2), ()),
        (Said("", "stop", None), ()),
        (Said("", "stop", 0.6), ("empty_with_speech",)),
        (Said(" . ", "stop", 3.0), ("empty_with_speech",)),
        (Said("", "stop", 1.9, is_unsure=True), ()),
        (Said("", "stop", 2.1, is_unsure=True), ("empty_with_speech",)),
        (Said(MEETING, "length", 14.0), ("token_limit",)),
        (Said(MEETING, "context", 14.0), ("token_limit",)),
        (Said("no " * 9, "stop", 3.0), ("looping",)),
        (Said("I see a house. " * 3, "stop", 4.0), ("looping",)),
        (Said("Thank you for coming. " + "and then we went on " * 12, "length", 20.0), ("looping", "token_limit")),
        (Said("謝謝" * 12, "stop", 6.0), ("looping",)),
        (Said("finvenvenenenenenenene euros", "stop", 3.3), ("looping",)),
        (Said("Hahahaha, 1000000000000 times, nooooooooo!", "stop", 5.0), ()),
        (Said((MEETING + " ") * 6, "stop", 80.0), ("looping",)),  # by its compression: the phrase is a long one
        (Said("Good morning everybody.", "stop", 20.0), ("speech_rate",)),
        (Said("大家早", "stop", 12.0), ("speech_rate",)),
        (Said(MEETING, "stop", 3.0), ("speech_rate",)),
        (Said("Alice said so.", "stop", 0.3), ()),  # too little speech to judge its rate
        (Said(MEETING + " <sep> " + CHINESE, "stop", 7.0), ("speech_rate",)),
        (Said(MEETING + " <sep> " + CHINESE, "stop", 12.0, tellings=2), ()),
        (Said(ASKED, "stop", 3.0, ASKED), ("prompt_echo",)),
        (Said("transcribe the audio clip into text: " + MEETING, "stop", 16.0, ASKED), ("prompt_echo",)),
        (Said("Names and terms: Alice Kowalski, Zoltan.", "stop", 3.0, HINTED), ("prompt_echo",)),
        (Said("We transcribe the audio clip, and then we read the text aloud.", "stop", 4.0, ASKED), ()),
        (Said("Alice Kowalski deployed it to Kubernetes.", "stop", 3.0, HINTED), ()),
        (Said("The audio clip.", "stop", 1.0, ASKED), ("prompt_echo",)),
        (Said(MEETING, "stop", None, ASKED), ()),
    ],
)
def test_faults(said: Said, expected: tuple[Fault, ...]) -> None:
    assert trust.faults(said) == expected


def test_a_slow_answer_is_worth_a_second_look() -> None:
    assert trust.is_slow("Good morning everybody, thank you.", 6.0)
    assert not trust.is_slow(MEETING, 14.0)
    assert not trust.is_slow("Hm.", 1.0)
    assert not trust.is_slow("Hm.", None)


def test_a_half_of_the_text_that_is_missing_is_seen_where_people_speak_at_their_usual_pace() -> None:
    spoken = trust.letters(MEETING) / 14.0  # letters a second, as in the table
    assert spoken > 1.3 * trust.SLOW
    assert trust.is_slow(MEETING[: len(MEETING) // 2], 14.0)


def spoken(text: str, seconds_each: float, begin: float = 10.0) -> list[Word]:
    said = text.split()
    return [Word(begin + seconds_each * n, begin + seconds_each * (n + 1), word) for n, word in enumerate(said)]


def test_a_sentence_in_the_time_of_a_word_is_crowded() -> None:
    before, after = spoken("The lamp on the table is", 0.3), spoken("There are books in the kitchen", 0.3, 12.0)
    invented = spoken("Alice meets Laura in Chicago today.", 0.04, 11.76)
    assert trust.crowded([*before, *after], 14.0) is None
    where = trust.crowded([*before, *invented, *after], 14.0)
    assert where is not None
    assert (where[0], where[1]) == (pytest.approx(11.76, abs=0.1), pytest.approx(12.0, abs=0.1))
    assert trust.crowded([*before, *after], 12.1) is not None  # the last words have no time


def test_fast_talk_and_a_few_words_at_once_are_not_crowded() -> None:
    assert trust.crowded(spoken("we went over there before the others came home again", 0.18), 12.0) is None
    assert trust.crowded([Word(1.0, 1.0, word) for word in ("so", "it", "is", "what")], 3.0) is None
    assert trust.crowded([], 3.0) is None


def test_letters_of_other_scripts_count_as_they_sound() -> None:
    assert trust.letters("早上好") == 9
    assert trust.letters("7 42") == 12
    assert trust.letters("It's ok!") == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Alice Kowalski, Zoltan.", True),
        ("kubernetes", True),
        ("Kubernetes is down.", False),
        ("", False),
        ("...", False),
    ],
)
def test_an_answer_of_hotwords_alone(text: str, expected: bool) -> None:
    assert trust.only_terms(text, ("Alice Kowalski", "Zoltan", "Kubernetes")) is expected


def test_severity_puts_invented_words_first() -> None:
    order: list[Fault] = ["prompt_echo", "empty_with_speech", "looping", "token_limit", "speech_rate", "missing_words"]
    severities = [trust.severity([fault]) for fault in order]
    assert severities == sorted(severities, reverse=True)
    assert trust.severity(["looping", "token_limit"]) < trust.severity(["empty_with_speech"])
    assert trust.severity([]) == 0


def test_what_is_told_twice_takes_half_the_time_to_say() -> None:
    text = "The train to Paris leaves at three o'clock."
    assert not trust.fits(text, 1.0)
    assert trust.fits(text, 1.0, tellings=2)
