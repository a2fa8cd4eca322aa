"""`phi4mm captions`: what breaks a rule is told with its line, and mended without losing a word."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Phi4mm
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mm_cli.captions import PRESETS, PresetName
from phi4mm_cli.captions.check import check
from phi4mm_cli.captions.fix import fix
from phi4mm_cli.subtitles import Cue, Kind, Subtitles, markup, plain, read

NETFLIX = PRESETS[PresetName.NETFLIX]
GOOD = "1\r\n00:00:01,000 --> 00:00:03,000\r\nThis breaks no rule.\r\n"
BAD = """1
00:00:01,000 --> 00:00:01,300
Yes.

2
00:00:01,400 --> 00:00:03,000
That is what I said to them <i>yesterday</i>.

4
00:00:03,500 --> 00:00:13,500
This is a very long line of text that was written by a machine, and it has \
<font color="#ff0000">never been broken by anybody who would read it</font> on a screen.

5
00:00:13,400 --> 00:00:15,000
{\\an8}On the top.

6
00:00:13,600 --> 00:00:15,000
- Where are you going?
- Home.

7
00:00:15,010 --> 00:00:15,500
Supercalifragilistic words are too fast here

8
00:00:30,000 --> 00:00:31,000
Three
short
lines
"""


def srt(*cues: tuple[int, int, str]) -> Subtitles:
    return Subtitles("srt", tuple(Cue(start, end, text) for start, end, text in cues))


def mended(*cues: tuple[int, int, str]) -> list[tuple[int, int, str]]:
    return [(cue.start, cue.end, cue.text) for cue in fix(srt(*cues), NETFLIX).cues]


@pytest.mark.parametrize(
    ("cues", "rules"),
    [
        ([(0, 2000, "Fine.")], []),
        ([(0, 2000, " ")], ["empty"]),
        ([(0, 2000, "x" * 43)], ["speed", "width"]),
        ([(0, 2000, "x" * 34)], []),
        ([(0, 2000, "x" * 35)], ["speed"]),
        ([(0, 2000, "あ" * 17)], ["width"]),
        ([(0, 2000, "あ" * 16)], []),
        ([(0, 2000, "a\nb\nc")], ["lines"]),
        ([(0, 832, "Yes.")], ["short"]),
        ([(0, 7001, "Yes.")], ["long"]),
        ([(5, 5, "Yes.")], ["times"]),
        ([(0, 2000, "A."), (2082, 4000, "B.")], ["gap"]),
        ([(0, 2000, "A."), (2083, 4000, "B.")], []),
        ([(0, 2000, "A."), (1900, 4000, "B.")], ["overlap"]),
        ([(0, 2000, "A."), (1900, 4000, "{\\an8}B.")], []),
        ([(3000, 5000, "A."), (0, 2000, "B.")], ["order"]),
        ([(0, 5000, "No one knew that she had seen the\nhouse.")], ["torn"]),
        ([(0, 5000, "All of us have seen that green house\nthere.")], ["orphan"]),
        ([(0, 5000, "- Nobody has seen the red house with the\n- Fine.")], []),
        ([(0, 5000, "<font color='a colour that is long'>Short</font>")], []),
    ],
)
def test_rules(cues: list[tuple[int, int, str]], rules: list[str]) -> None:
    assert sorted(violation.rule for violation in check(srt(*cues), NETFLIX)) == rules


def test_check_prints_a_line_for_each(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "good.srt").write_bytes(GOOD.encode())
    (tmp_path / "bad.srt").write_text(BAD, encoding="utf-8")
    clean = phi4mm("captions", "check", "good.srt")
    assert (clean.returncode, clean.stdout, clean.stderr) == (0, "", "")
    run = phi4mm("captions", "check", "good.srt", "bad.srt")
    assert run.returncode == 7
    assert run.stdout.splitlines()[:3] == [
        "bad.srt:2: short: 0.30 s, at least 0.83 s (cue 1)",
        "bad.srt:6: speed: 23.8 characters a second, at most 17 (cue 2)",
        "bad.srt:10: format: number 4 where 3 is due",
    ]
    assert run.stderr == "phi4mm: 2 inputs: 2 done, 11 warnings\n"
    report = json.loads(phi4mm("captions", "check", "good.srt", "bad.srt", "--json").stdout)
    assert [(file["source"], file["cues"], len(file["violations"])) for file in report] == [
        ("good.srt", 1, 0),
        ("bad.srt", 7, 11),
    ]
    assert report[1]["violations"][0] == {"line": 2, "cue": 1, "rule": "short", "detail": "0.30 s, at least 0.83 s"}


def test_other_rules_and_files_that_cannot_be_read(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:01,000 --> 00:00:04,000\n" + "x" * 40 + "\n", encoding="utf-8")
    assert phi4mm("captions", "check", "a.srt").returncode == 0
    assert "a.srt:2: width: 40 columns, at most 37" in phi4mm("captions", "check", "a.srt", "--captions", "bbc").stdout
    assert phi4mm("captions", "check", "a.srt", "--captions", "plain").returncode == 0
    (tmp_path / "b.vtt").write_text("WEBVTT\n\n00:0x.000 --> 00:02.000\nA\n", encoding="utf-8")
    run = phi4mm("captions", "check", "b.vtt", "none.srt")
    assert run.returncode == 4
    assert "b.vtt: line 3: these times cannot be read" in run.stderr
    assert "none.srt: no such file" in run.stderr
    assert phi4mm("captions", "check", "a.srt", "b.vtt").returncode == 3
    assert phi4mm("captions", "check", "a.srt", "--fps", "0").returncode == 2
    run = phi4mm("captions", "check", "a.srt", "--language", "klingon")
    assert run.returncode == 2
    assert "phi4mm does not know the language 'klingon'. It knows en (English)" in run.stderr  # no model is at work


def test_frames_of_another_rate(phi4mm: Phi4mm, tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nA\n\n2\n00:00:02,067 --> 00:00:04,000\nB\n"
    (tmp_path / "a.srt").write_text(text, encoding="utf-8")
    assert "gap: 67 ms" in phi4mm("captions", "check", "a.srt").stdout
    assert phi4mm("captions", "check", "a.srt", "--fps", "30").returncode == 0


def test_fix_mends_what_it_can_and_tells_the_rest(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "bad.srt").write_text(BAD, encoding="utf-8")
    run = phi4mm("captions", "fix", "bad.srt")
    assert run.returncode == 0
    assert run.stderr.splitlines() == [
        "phi4mm: warning: could not mend bad.srt:21: speed: 20.9 characters a second, at most 17 (cue 5)",
        "phi4mm: bad.srt: 11 violations, 1 left",
    ]
    texts = [cue.text for cue in read(run.stdout.encode()).cues]
    assert texts == [
        "Yes. That is what I said\nto them <i>yesterday</i>.",
        "This is a very long line\nof text that was written by a machine,",
        'and it has <font color="#ff0000">never been broken by anybody\nwho would read it</font> on a screen.',
        "{\\an8}On the top.",
        "- Where are you going?\n- Home.",
        "Supercalifragilistic\nwords are too fast here",
        "Three short lines",
    ]
    assert phi4mm("captions", "fix", "bad.srt", "--strict").returncode == 7
    assert (tmp_path / "bad.srt").read_text(encoding="utf-8") == BAD


def test_where_mended_files_go(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "good.srt").write_bytes(GOOD.encode())
    (tmp_path / "bad.srt").write_text(BAD, encoding="utf-8")
    assert phi4mm("captions", "fix", "good.srt", "bad.srt").returncode == 2
    assert phi4mm("captions", "fix", "good.srt", "bad.srt", "-o", ".").returncode == 2
    assert phi4mm("captions", "fix", "good.srt", "bad.srt", "-o", "out").returncode == 0
    assert (tmp_path / "out" / "good.srt").read_bytes() == GOOD.encode()
    assert phi4mm("captions", "fix", "good.srt", "bad.srt", "--in-place").returncode == 0
    assert (tmp_path / "bad.srt").read_bytes() == (tmp_path / "out" / "bad.srt").read_bytes()
    assert (tmp_path / "good.srt").read_bytes() == GOOD.encode()
    with (tmp_path / "good.srt").open("rb") as file:
        assert phi4mm("captions", "fix", "-", stdin=file).stdout == GOOD.replace("\r\n", "\n")  # read as text here
    with (tmp_path / "good.srt").open("rb") as file:
        assert phi4mm("captions", "fix", "-", "--in-place", stdin=file).returncode == 2


# ---------------------------------------------------------------------------------------------- what fix does


def test_stdout_takes_one_file_that_is_found(phi4mm: Phi4mm, tmp_path: Path) -> None:
    for name in ("a.srt", "b.srt"):
        (tmp_path / name).write_text(GOOD, encoding="utf-8")
    refused = phi4mm("captions", "fix", "*.srt")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "several files" in refused.stderr
    assert phi4mm("captions", "fix", "a.srt", "a.srt").stdout == GOOD.replace("\r\n", "\n")


def test_what_may_not_be_replaced_is_not(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text(BAD, encoding="utf-8")
    assert phi4mm("captions", "fix", "a.srt", "--in-place", "--no-overwrite").returncode == 2
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stdin.vtt").write_text("mine", encoding="utf-8")
    (tmp_path / "in").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nHello.\n", encoding="utf-8")
    with (tmp_path / "in").open() as stdin:
        run = phi4mm("captions", "fix", "-", "-o", "out", "--no-overwrite", stdin=stdin)
    assert (run.returncode, "exists" in run.stderr) == (4, True)
    assert (tmp_path / "out" / "stdin.vtt").read_text(encoding="utf-8") == "mine"


def test_a_file_that_is_replaced_keeps_its_rights_and_links_to_it_stay(phi4mm: Phi4mm, tmp_path: Path) -> None:
    path, link = tmp_path / "a.srt", tmp_path / "link.srt"
    path.write_text(BAD, encoding="utf-8")
    path.chmod(0o600)
    link.symlink_to("a.srt")
    assert phi4mm("captions", "fix", "link.srt", "--in-place").returncode == 0
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text(encoding="utf-8") != BAD


@pytest.mark.parametrize("preset", PresetName)
def test_a_line_that_ends_badly_is_no_fault_where_lines_may_be_as_they_are(preset: PresetName) -> None:
    torn = srt((6000, 9000, "It is the\ncat"))
    found = fix(torn, PRESETS[preset])
    assert bool(check(torn, PRESETS[preset])) == (preset is not PresetName.PLAIN)
    assert " ".join(found.cues[0].text.split()) == "It is the cat"


def test_headers_and_times_that_are_not_as_the_format_has_them(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("00:01.000 --> 00:03.000\nHello there.\n", encoding="utf-8")
    (tmp_path / "b.srt").write_text("1\n0:00:01.5 --> 0:00:03\nHello there.\n", encoding="utf-8")
    run = phi4mm("captions", "check", "a.vtt", "b.srt")
    assert run.returncode == 7
    assert [line.split(": ")[0] for line in run.stdout.splitlines()] == ["a.vtt:1", "b.srt:2"]
    assert phi4mm("captions", "fix", ".", "-o", "out").returncode == 0
    assert (tmp_path / "out" / "a.vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n00:00:01.000 --> ")
    assert "\n00:00:01,500 --> 00:00:03,000\n" in (tmp_path / "out" / "b.srt").read_text(encoding="utf-8")


def test_another_encoding_becomes_utf_8(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_bytes("1\r\n00:00:01,000 --> 00:00:03,000\r\nCafé is good.\r\n".encode("cp1252"))
    assert phi4mm("captions", "fix", "a.srt", "--in-place", "--encoding", "cp1252").returncode == 0
    assert "Café" in (tmp_path / "a.srt").read_bytes().decode()


def test_damaged_times_below_a_head_that_is_missing_are_told_with_their_line(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "a.vtt").write_text("00:01.000 --> 00:02.000\nA\n\n0:x5 --> 00:08\nB\n", encoding="utf-8")
    assert "a.vtt: line 4: these times" in phi4mm("captions", "check", "a.vtt").stderr


def test_a_note_before_a_cue_without_text_stays() -> None:
    found = read(b"WEBVTT\n\n00:01.000 --> 00:03.000\nHello.\n\nNOTE by Anna\n\n00:04.000 --> 00:05.000\n\nNOTE end\n")
    assert fix(found, NETFLIX).tail == "NOTE by Anna\n\nNOTE end"


def test_what_is_markup_in_the_other_format_is_text() -> None:
    long = (
        "so that this caption is far too long to stand on the screen in one piece, and is divided into several of them"
    )
    cues = fix(read(f"WEBVTT\n\n00:01.000 --> 00:09.000\n{{\\an8}}{long}\n".encode()), NETFLIX).cues
    assert len(cues) > 1
    assert "".join(cue.text for cue in cues).count("an8") == 1
    [heart] = fix(srt((0, 6000, "I love you <3 so very much my dear, that I must break this line")), NETFLIX).cues
    assert heart.text.count("\n") == 1


def test_a_file_of_overlapping_cues_out_of_order() -> None:
    assert mended((5000, 8000, "Second one."), (1000, 5500, "First one."), (9000, 8000, "Backwards.")) == [
        (1000, 4917, "First one."),
        (5000, 8000, "Second one."),
        (9000, 9833, "Backwards."),
    ]


def test_a_caption_that_stands_too_long_goes_early_or_is_split() -> None:
    assert mended((0, 12000, "A sign.")) == [(0, 7000, "A sign.")]
    made = mended((0, 12000, "A slow sentence, which is said in twelve\nseconds by somebody who thinks."))
    assert len(made) == 2
    assert made[0][2] == "A slow sentence, which is said"
    assert all(end - start <= 7000 for start, end, _ in made)


def test_no_caption_moves_by_more_than_is_told() -> None:
    said = [(1000, 1400, "- This was said far too fast for anybody."), (1450, 6000, "- But this was slow.")]
    made = mended(*said)
    assert [text for *_, text in made] == [text for *_, text in said]
    assert [start for start, *_ in made] == [700, 1750]


def test_vtt_keeps_what_it_has() -> None:
    text = "word " * 20
    source = (
        "WEBVTT\n\nSTYLE\n::cue { color: red }\n\nNOTE one\n\nname\n00:01.000 --> 00:09.000 line:0\n"
        f"<v Fred>{text}&amp; <b>more {text}</b>\n\nNOTE two\n\n00:10.000 --> 00:10.200\n<00:10.100>timed\n"
    )
    found = fix(read(source.encode()), NETFLIX)
    *first, last = found.cues
    assert len(first) > 2
    assert [cue.name for cue in first] == ["name"] + [""] * (len(first) - 1)
    assert first[0].before == "STYLE\n::cue { color: red }\n\nNOTE one"
    assert {cue.settings for cue in first} == {"line:0"}
    assert all(cue.text.startswith("<v Fred>") and cue.text.endswith("</v>") for cue in first)
    assert all(cue.text.count("<b>") == cue.text.count("</b>") for cue in first)
    assert (last.text, last.before) == ("<00:10.100>timed", "NOTE two")


@pytest.mark.parametrize(
    "text", ["한국어 자막은 낱말 사이를 띄어 쓰며 한 줄은\n짧게 끊어야 읽기 좋고 길면 나누어야 합니다"]
)
def test_korean_keeps_its_spaces_and_japanese_has_none(text: str) -> None:
    made = mended((0, 12000, text))
    assert " ".join(t.replace("\n", " ") for *_, t in made) == text.replace("\n", " ")
    made = mended((0, 6000, "今日は\n天気が\n良い"))
    assert [t for *_, t in made] == ["今日は天気が良い"]


word = st.text("abcdefgh", min_size=1, max_size=12) | st.sampled_from(["the", "and", "end.", "日本語の", "x" * 60])
tagged = word | word.map("<i>{}</i>".format) | st.sampled_from(["<b>", "</b>", "a\nb", '<font color="red">c', "&amp;"])
cue = st.tuples(
    st.integers(-500, 3000), st.integers(-100, 9000), st.lists(tagged, min_size=1, max_size=25).map(" ".join)
)


@settings(deadline=None)
@given(st.lists(cue, min_size=1, max_size=6), st.sampled_from(["srt", "vtt"]))
def test_fix_loses_no_word_and_leaves_fewer_faults(plan: list[tuple[int, int, str]], kind: Kind) -> None:
    cues, at = [], 1000
    for pause, length, text in plan:
        at = max(0, at + pause)
        cues.append(Cue(at, max(0, at + length), text))
        at = max(at, at + length)
    source = Subtitles(kind, tuple(cues))
    found = fix(source, NETFLIX)

    def letters(of: Subtitles) -> str:
        ordered = sorted(of.cues, key=lambda one: one.start)
        return re.sub(r"\s", "", "".join(plain(one.text, kind) for one in ordered))

    assert letters(found) == letters(source)
    starts = [one.start for one in found.cues]
    assert starts == sorted(starts)
    assert all(one.start < one.end for one in found.cues)
    left = [violation.rule for violation in check(found, NETFLIX)]
    assert not set(left) & {"width", "lines", "long", "order", "times", "empty"}
    assert len(left) <= max(len(check(source, NETFLIX)), left.count("speed") + left.count("short"))
    assert fix(found, NETFLIX) == found or left


@settings(deadline=None)
@given(st.lists(word, min_size=2, max_size=30), st.integers(1000, 6000))
def test_markup_goes_where_its_words_go(words: list[str], length: int) -> None:
    marked = [f"<i>{one}</i>" if n % 3 == 0 else one for n, one in enumerate(words)]
    made = fix(srt((0, length, " ".join(marked))), NETFLIX)
    italic = "".join(re.findall(r"<i>(.*?)</i>", "".join(one.text for one in made.cues), flags=re.S))
    expected = "".join(one for n, one in enumerate(words) if n % 3 == 0)
    assert re.sub(r"\s", "", italic) == expected
    for one in made.cues:
        assert sum(tag[0] == "<i>" for tag in markup(one.text, "srt")) == one.text.count("</i>")
    assert replace(made, cues=()) == replace(srt(), cues=())
