"""What a model says of a transcript is held against it: found where it was said, or marked."""

from __future__ import annotations

import unicodedata

import pytest

from phi4mm_cli.grounding import MARK, Evidence, Line
from phi4mm_cli.outputs import Point
from phi4mm_cli.texts import Passage

SAID = (
    "Good morning, let us begin.",
    "The budget for the new camera is 40,000 dollars, not more.",
    "Oscar doesn’t send the letter before Friday.",
    "Yes.",
    "Nina asked about the bicycle near the house.",
    "The budget for travel was cut in half last year.",
)


def evidence(*said: str, source: str | None = None) -> Evidence:
    """Each passage ten seconds after the one before it."""
    return Evidence([Line(Passage(text, 10.0 * i, 10.0 * i + 9), source) for i, text in enumerate(said or SAID)])


def point(answer: str, where: Evidence | None = None) -> Point:
    _, [found] = (where or evidence()).check(answer)
    return found


@pytest.mark.parametrize(
    "said",
    ["เราตกลงส่งของวันจันทร์", "वह कल पत्र लिखेगी", "ذهب إلى المدرسةِ", "une e\u0301tude de cas ici"],
)
def test_marks_stay_with_their_letters(said: str) -> None:
    found = point(f'- x [0:00] "{unicodedata.normalize("NFC", said)}"', evidence(said))
    assert (found.quote, found.unsupported) == (said, False)


@pytest.mark.parametrize(
    ("quote", "start", "own"),
    [
        ("the budget for the new camera is 40,000 dollars", 10.0, "The budget for the new camera is 40,000 dollars"),
        ("THE NEW CAMERA IS 40,000", 10.0, "new camera is 40,000"),
        ("Oscar doesn't send the letter", 20.0, "Oscar doesn’t send the letter"),
        ("not more. Oscar doesn't send", 10.0, "not more. Oscar doesn’t send"),
        ("Yes", 30.0, "Yes"),  # all of a passage
        ("Nina asked about that bicycle near the house", 40.0, "Nina asked about the bicycle near the house"),
    ],
)
def test_words_are_found_and_given_as_the_source_has_them(quote: str, start: float, own: str) -> None:
    if quote.startswith("THE"):
        quote = quote.removeprefix("THE ")
    # The time that the model gives only says where to look.
    found = point(f'- Budget, Oscar, Nina, camera. [0:{int(start):02}] "{quote}"')
    assert (found.unsupported, found.start, found.quote) == (False, start, own)


def test_times_amid_a_point_cut_nothing_off() -> None:
    found = point('- At [0:10] the budget was set. "The budget for the new camera"')
    assert (found.text, found.start, found.unsupported) == ("At the budget was set.", 10.0, False)
    found = point('- The budget (by 12:30) was set. [0:10] "the new camera is 40,000"')
    assert (found.text, found.unsupported) == ("The budget (by 12:30) was set.", True)  # nobody named that time


@pytest.mark.parametrize(
    "line",
    [
        '- The budget is 40,000 dollars. [0:10] "we agreed on the price"',
        '- The budget is 40,000 dollars. [0:10] "the budget for the new camera is 50,000 dollars"',
        "- The budget is 40,000 dollars. [0:10]",
        "- The budget is 40,000 dollars.",
        '- The budget is 50,000 dollars. [0:10] "The budget for the new camera is 40,000 dollars"',
        '- Everybody was dismissed. [0:10] "The budget for the new camera"',
        '- The budget. [0:10] "the"',
        '- The budget. [0:10] "the new camera" and "a word that nobody said"',
        '- The budget. [0:10] ""',
        '- The budget. [0:10] "..."',
    ],
)
def test_what_is_not_supported_is_marked(line: str) -> None:
    text, [found] = evidence().check(line)
    assert found.unsupported
    assert (found.start, found.quote) == (None, None)
    assert text.endswith(MARK)
    assert text.startswith("- ")


def test_the_nearest_of_two_places_is_taken_and_a_wrong_time_put_right() -> None:
    twice = evidence("We meet at the house.", "Something else.", "Other things.", "We meet at the house.")
    assert point('- They meet at the house. [0:30] "meet at the house"', twice).start == 30.0
    assert point('- They meet at the house. [0:02] "meet at the house"', twice).start == 0.0
    assert point('- They meet at the house. "meet at the house"', twice).start == 0.0
    assert point('- Nina speaks of a bicycle. [0:00] "asked about the bicycle"').start == 40.0


def test_headings_stay_and_every_other_line_is_a_point() -> None:
    answer = (
        "## Decisions\n\n"
        '- [ ] Oscar: letter [0:20] "doesn\'t send the letter"\n'
        "1. Everything is sold.\n"
        '* "near the house" said Nina [0:40] «asked about the bicycle»\n'
        '[0:10] The camera costs 40,000: "camera is 40,000 dollars"\n'
        "The end."
    )
    text, points = evidence().check(answer)
    assert text.splitlines() == [
        "## Decisions",
        "",
        '- [ ] Oscar: letter [0:20] "doesn’t send the letter"',
        f"1. Everything is sold. {MARK}",
        '* "near the house" said Nina [0:40] "asked about the bicycle"',
        '[0:10] The camera costs 40,000: "camera is 40,000 dollars"'.replace("[0:10] ", "").replace(': "', ' [0:10] "'),
        f"The end. {MARK}",
    ]
    assert [found.unsupported for found in points] == [False, True, False, False, True]


def test_a_summary_in_another_language_need_not_share_words() -> None:
    french = "- Le prix de l'appareil a été fixé par toute l'équipe. [0:10] \"camera is 40,000 dollars\""
    assert not point(french).unsupported
    english = '- Everybody was dismissed on the spot yesterday. [0:10] "camera is 40,000 dollars"'
    assert point(english).unsupported


def test_texts_without_times_and_without_spaces() -> None:
    plain = Evidence([Line(Passage("The price is forty dollars.")), Line(Passage("会議は六時に始まります。"))])
    text, points = plain.check('- The price is named. "price is forty dollars"\n- 会議は六時。「六時に始まります」')
    assert text.splitlines() == [
        '- The price is named. "price is forty dollars"',
        '- 会議は六時。 "六時に始まります"',
    ]
    assert not any(found.unsupported or found.start is not None for found in points)


def test_several_sources_have_their_names_in_the_times() -> None:
    lines = [Line(Passage("The house is sold.", 5.0, 9.0), "monday [1]"), Line(Passage("It is sold.", 5.0, 9.0), "b")]
    assert [str(line) for line in lines] == ["[monday 1 0:05] The house is sold.", "[b 0:05] It is sold."]
    text, [found] = Evidence(lines).check('- It is sold now. [b 0:05] "It is sold"')
    assert (found.source, found.start) == ("b", 5.0)
    assert text == '- It is sold now. [b 0:05] "It is sold"'


def test_chapters_are_those_of_the_transcript() -> None:
    text, points = evidence().chapters("0:03 Welcome\n- [0:12] The budget\n**0:41** - Bicycles\nnonsense", 0.0, 60.0)
    assert [(found.text, found.start, found.end) for found in points] == [
        ("Welcome", 0.0, 10.0),
        ("The budget", 10.0, 40.0),
        ("Bicycles", 40.0, 60.0),
        ("nonsense", None, None),
    ]
    assert text == f"0:00 Welcome\n0:10 The budget\n0:40 Bicycles\nnonsense {MARK}"


def test_the_first_chapter_begins_with_the_part_that_is_heard() -> None:
    _, points = evidence().chapters("0:11 Budget\n0:40 Bicycles", 8.0, 60.0)
    assert [(found.start, found.end) for found in points] == [(8.0, 40.0), (40.0, 60.0)]


def test_an_hour_has_hours_in_its_times() -> None:
    late = Evidence([Line(Passage("Good bye to all of you.", 3725.0, 3730.0))])
    text, [found] = late.check('- They say good bye. [1:02:05] "Good bye to all"')
    assert text == '- They say good bye. [1:02:05] "Good bye to all"'
    assert found.start == 3725.0


def test_an_answer_of_nothing_and_a_transcript_of_nothing() -> None:
    assert evidence().check("") == ("", ())
    text, [found] = Evidence([]).check('- Something. [0:00] "some words here"')
    assert found.unsupported
    assert text == f"- Something. {MARK}"
