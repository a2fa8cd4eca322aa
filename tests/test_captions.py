"""Captions keep to the rules of the house wherever the speech lets them, and never lose a word."""

import re
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phi4mm_cli.captions import PRESETS, Caption, Preset, PresetName, from_segments
from phi4mm_cli.captions.arrange import units
from phi4mm_cli.captions.check import Rule, check
from phi4mm_cli.captions.grammar import GRAMMARS, grammar_of
from phi4mm_cli.captions.pieces import columns, pieces
from phi4mm_cli.captions.schedule import LAG, LEAD, scheduled
from phi4mm_cli.outputs import Segment
from phi4mm_cli.schema import Word
from phi4mm_cli.subtitles import Cue, Subtitles

NETFLIX = PRESETS[PresetName.NETFLIX]
LONG = "The quarterly budget of the northern office was discussed at length, and nobody agreed with anybody else."


def spoken(*texts: str, pace: float = 13.0, pause: float = 0.3) -> list[Segment]:
    """Segments said one after the other, at so many columns a second."""
    segments, at = [], 1.0
    for text in texts:
        end = at + columns(text) / pace
        segments.append(Segment(len(segments), at, end, text))
        at = end + pause
    return segments


def lines(*texts: str, pace: float = 13.0, preset: Preset = NETFLIX) -> list[tuple[str, ...]]:
    return [caption.lines for caption in from_segments(spoken(*texts, pace=pace), preset)]


def broken(captions: list[Caption], preset: Preset = NETFLIX) -> list[Rule]:
    cues = tuple(Cue(c.start, c.end, "\n".join(c.lines)) for c in captions)
    return [violation.rule for violation in check(Subtitles("srt", cues), preset)]


def letters(captions: list[Caption]) -> str:
    return re.sub(r"\s", "", "".join(line for caption in captions for line in caption.lines))


# ---------------------------------------------------------------------------------------------- where lines end


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Nobody agreed.", [("Nobody agreed.",)]),
        (
            LONG,
            [
                ("The quarterly budget of the northern", "office was discussed at length,"),
                ("and nobody agreed with anybody else.",),
            ],
        ),
        (
            "I would like to thank everybody, and I hope that we meet again.",
            [("I would like to thank everybody,", "and I hope that we meet again.")],
        ),
        (
            "She put the letters from the office on the table in the kitchen.",
            [("She put the letters from the office", "on the table in the kitchen.")],
        ),
        (
            "Wir haben gestern lange mit dem Kapitän der Mannschaft gesprochen.",
            [("Wir haben gestern lange", "mit dem Kapitän der Mannschaft gesprochen.")],
        ),
        (
            "Je voudrais parler de la réunion avec le directeur de la société.",
            [("Je voudrais parler de la réunion", "avec le directeur de la société.")],
        ),
    ],
)
def test_lines_end_where_the_language_lets_them(text: str, expected: list[tuple[str, ...]]) -> None:
    assert lines(text) == expected


@pytest.mark.parametrize("language", GRAMMARS)
def test_no_line_ends_after_an_article(language: str) -> None:
    grammar = GRAMMARS[language]
    articles = sorted(grammar.articles)
    text = " ".join(f"{article} manzana{n % 7}" for n, article in enumerate(articles * 3))
    shown = from_segments(spoken(text), NETFLIX, language)
    assert len(shown) > 3
    for caption in shown:
        for line in caption.lines:
            assert line.split()[-1] not in grammar.articles
    assert grammar_of([text]) is grammar


def test_no_line_ends_after_an_article_where_a_chunk_of_speech_does() -> None:
    segments = spoken("find the", "Alice meets Henry in Berlin on Tuesday.", pace=16, pause=0.02)
    shown = from_segments(segments, language="en")
    assert broken(shown) == []
    assert letters(shown) == "findtheAlicemeetsHenryinBerlinonTuesday."


def test_titles_names_and_numbers_stay_with_what_follows() -> None:
    grammar = GRAMMARS["en"]
    assert grammar.cost("Mr.", "Smith") > grammar.cost("Anna", "Smith") > grammar.cost("green", "tree")
    assert grammar.cost("40", "dollars") > grammar.cost("forty", "dollars")
    assert grammar.cost("done.", "We") == 0 < grammar.cost("done,", "we") < grammar.cost("done", "and")
    assert GRAMMARS["de"].cost("3.", "Mai") > GRAMMARS["de"].cost("dritten", "Mai")
    assert GRAMMARS["en"].cost("3.", "We") == 0


def test_a_short_sentence_is_one_line_and_no_word_is_alone() -> None:
    assert lines("x" * 20 + " " + "y" * 21) == [("x" * 20 + " " + "y" * 21,)]
    (shown,) = lines("Everybody in the office agreed with her today.")
    assert min(len(line.split()) for line in shown) > 1


# ---------------------------------------------------------------------------------------------- scripts


def test_japanese_breaks_between_phrases_and_keeps_the_rules_of_lines() -> None:
    text = "今日はとても天気が良いので、明日の会議の前に公園まで散歩に行きたいと思っています。「はい」と彼は言った。"
    shown = from_segments(spoken(text, pace=12))
    assert letters(shown) == text
    assert broken(shown) == []
    assert {line for caption in shown for line in caption.lines} >= {"今日はとても天気が良いので、"}
    for caption in shown:
        for line in caption.lines:
            assert columns(line) <= 32
            assert line[0] not in "、。」ゃゅょっー"
            assert line[-1] not in "「"


def test_chinese_breaks_between_words() -> None:
    text = "今天的会议讨论了北方办公室的季度预算，但是没有人同意其他人的意见。"
    assert lines(text, pace=12) == [("今天的会议讨论了", "北方办公室的季度预算，"), ("但是没有人同意其他人的意见。",)]


def test_text_without_any_place_to_break() -> None:
    shown = from_segments([Segment(0, 0.0, 12.0, "あ" * 60)])
    assert letters(shown) == "あ" * 60
    assert all(columns(line) <= 32 for caption in shown for line in caption.lines)


def test_a_url_is_cut_at_its_joints_and_only_if_it_must_be() -> None:
    short = "https://example.org/a/b-c"
    assert short in lines(f"See {short} now, it is the page with all of the figures.")[0][0]
    url = "https://example.org/reports/2024/northern-office/budget/quarterly?page=12"
    shown = from_segments(spoken(f"Have a look at {url} today.", pace=10))
    assert url in letters(shown)
    assert broken(shown) == []
    cut = [line for caption in shown for line in caption.lines if "example" in line or "page" in line]
    assert all(line.endswith(("/", "-", "?", "=", "today.")) for line in cut)


def test_a_compound_and_a_word_of_sixty_characters_lose_nothing() -> None:
    compound = "Rindfleischetikettierungsüberwachungsaufgabe"
    shown = from_segments(spoken(f"Die {compound} ist neu, und {'x' * 60} auch.", pace=9))
    assert compound in letters(shown)
    assert "x" * 60 in letters(shown)
    assert all(columns(line) <= 42 for caption in shown for line in caption.lines)
    assert columns(compound) > 42
    assert ("Die Geschwindigkeitsbegrenzungen", "der Bundesregierung gelten.") in lines(
        "Die Geschwindigkeitsbegrenzungen der Bundesregierung gelten."
    )


def test_marks_and_joined_emoji_take_no_columns_and_are_not_torn() -> None:
    assert columns("\u200fשלום\u200e") == 4
    assert columns("e\u0301") == columns("é") == 1
    family = "👩‍👩‍👧"
    shown = from_segments([Segment(0, 0.0, 9.0, family * 30)])
    assert letters(shown) == family * 30
    assert all(line.replace(family, "") == "" for caption in shown for line in caption.lines)
    arabic = "ذهبت إلى السوق في الصباح، ثم عدت إلى البيت\u200f لأن المطر كان شديدا جدا في ذلك اليوم."
    shown = from_segments(spoken(arabic))
    assert letters(shown) == re.sub(" ", "", arabic)
    assert broken(shown) == []


@pytest.mark.parametrize(
    "text", ["。" * 200, "." * 200, "a" + "\u0301" * 300, "\u200f" * 90 + "x", "-" * 99, "（" * 99]
)
def test_rows_of_one_character_are_cut(text: str) -> None:
    shown = from_segments([Segment(0, 0.0, 60.0, text)])
    assert letters(shown) == text
    assert all(columns(line) <= 42 for caption in shown for line in caption.lines)


def test_no_break_spaces_hold() -> None:
    text = "On a vendu 1\u202f000\u202f000 d'exemplaires en un an\u00a0; c'est assez !"
    for caption in from_segments(spoken(text)):
        assert caption.lines[-1][0] not in "!;"
    assert [piece.cost > 50 for piece in pieces("assez !", GRAMMARS["fr"], NETFLIX)] == [False, True]


# ---------------------------------------------------------------------------------------------- times


def test_short_captions_are_merged_or_stretched_and_do_not_flash() -> None:
    shown = from_segments(
        [Segment(0, 1.0, 1.3, "Yes."), Segment(1, 1.4, 3.5, "That is what I said."), Segment(2, 9.0, 9.2, "Right?")]
    )
    assert [caption.lines for caption in shown] == [("Yes. That is what I said.",), ("Right?",)]
    assert shown[1] == Caption(9000, 9833, ("Right?",))
    assert broken(shown) == []


def test_a_caption_stays_until_it_can_be_read_where_there_is_time() -> None:
    (first, _) = from_segments([Segment(0, 0.0, 1.0, "That was very quickly said."), Segment(1, 5.0, 7.0, "Was it?")])
    assert first.end == 1589  # 27 characters at 17 a second
    first, second = from_segments(
        [Segment(0, 0.0, 2.0, "That was said."), Segment(1, 2.3, 4.0, "And that too, it was.")]
    )
    assert second.start == 2300
    assert first.end == 2300 - 83  # a shorter gap looks jerky, so that it is closed to two frames


def test_what_is_said_too_fast_is_shown_all_the_same_and_told() -> None:
    shown = from_segments(spoken(LONG, LONG, pace=40, pause=0.0))
    assert letters(shown) == re.sub(" ", "", LONG + LONG)
    assert set(broken(shown)) == {"speed"}


def test_one_that_lacks_time_comes_early_and_pushes_the_next_by_a_little() -> None:
    first, hurried, pushed = scheduled([(1000, 2000, 10), (4000, 5000, 40), (5100, 7000, 20)], NETFLIX)
    assert first == (1000, 2000)
    assert hurried == (4000 - LEAD, 5100 - NETFLIX.gap + LAG)
    assert pushed[0] == hurried[1] + NETFLIX.gap
    calm = scheduled([(1000, 3900, 10), (4000, 6400, 40), (8000, 9000, 20)], NETFLIX)
    assert [start for start, _ in calm] == [1000, 4000, 8000]


def test_a_pause_is_not_spanned() -> None:
    words = "We waited and then we went on."
    shown = from_segments([Segment(0, 0.0, 1.5, words[:13]), Segment(1, 4.0, 5.5, words[14:])])
    assert [caption.lines for caption in shown] == [("We waited and",), ("then we went on.",)]
    assert shown[1].start == 4000


def test_words_with_times_time_the_captions() -> None:
    said = [
        (word, 1000 + 400 * n + 3000 * (n > 11), 1350 + 400 * n + 3000 * (n > 11))
        for n, word in enumerate(LONG.split())
    ]
    found = units(LONG, 1000, said[-1][2], GRAMMARS["en"], NETFLIX, said)
    assert [(unit.text, unit.start, unit.end) for unit in found] == said
    guessed = units(LONG, 1000, 9000, GRAMMARS["en"], NETFLIX, [("nobody", 8000, 8400)])
    assert (guessed[12].text, guessed[12].start, guessed[12].end) == ("nobody", 8000, 8400)
    assert guessed[11].end <= 8000 < guessed[13].start


def test_a_sentence_with_a_pause_is_two_captions_where_its_words_have_times() -> None:
    before, after = "We waited for the bus,", "which never came."
    words = [Word(1.0 + 0.3 * n, 1.25 + 0.3 * n, word) for n, word in enumerate(before.split())]
    words += [Word(6.0 + 0.3 * n, 6.25 + 0.3 * n, word) for n, word in enumerate(after.split())]
    shown = from_segments([Segment(0, 1.0, 6.85, f"{before} {after}", tuple(words))])
    assert [(caption.start, caption.lines) for caption in shown] == [(1000, (before,)), (6000, (after,))]


def test_other_houses() -> None:
    bbc = PRESETS[PresetName.BBC]
    shown = from_segments(spoken(LONG, LONG, pace=12), bbc)
    assert max(columns(line) for caption in shown for line in caption.lines) <= 37
    assert broken(shown, bbc) == []
    plain = from_segments(spoken(LONG, "Yes."), PRESETS[PresetName.PLAIN])
    assert [caption.lines for caption in plain] == [(LONG,), ("Yes.",)]


# ---------------------------------------------------------------------------------------------- always

word = st.text("abcdefghij", min_size=1, max_size=14) | st.sampled_from(
    ["the", "and", "of", "end.", "so,", "日本語の", "です。"]
)
said = st.lists(
    st.tuples(st.lists(word, min_size=1, max_size=40).map(" ".join), st.floats(0, 4), st.floats(2, 60)),
    min_size=1,
    max_size=6,
)


MIXED = "a a aa aa aaa aaaa aaaa the the 日本語の 日本語の 日本語の です。 です。"


@settings(deadline=None)
@example([("a a a a a a", 0.0, 2.0), (MIXED, 0.0, 18.0)], PresetName.NETFLIX)
@given(said, st.sampled_from([PresetName.NETFLIX, PresetName.BBC]))
def test_no_word_is_lost_and_the_rules_hold_where_they_can(
    plan: list[tuple[str, float, float]], name: PresetName
) -> None:
    segments, at = [], 0.0
    for text, pause, pace in plan:
        segments.append(Segment(len(segments), at, at + columns(text) / pace, text))
        at = segments[-1].end + pause
    preset = PRESETS[name]
    shown = from_segments(segments, preset)
    assert letters(shown) == "".join(text for text, *_ in plan).replace(" ", "")
    for first, second in pairwise(shown):
        assert first.end + preset.gap <= second.start
    assert all(caption.start < caption.end for caption in shown)
    slow = all(pace < 0.8 * preset.speed for _, _, pace in plan)
    allowed: set[Rule] = {"short", "torn", "orphan"} if slow else {"speed", "short", "torn", "orphan"}
    assert set(broken(shown, preset)) <= allowed
