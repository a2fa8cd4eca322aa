"""SRT and VTT are read as people have them, and written back whole."""

import html
import io
from dataclasses import replace
from pathlib import Path

import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from phi4mm_cli.errors import InputError
from phi4mm_cli.subtitles import Cue, Kind, Subtitles, directed, escaped, plain, read, write

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i>
there.

2
00:00:03,000 --> 00:00:04,000 X1:40 X2:600 Y1:20 Y2:50
{\\an8}5 < 6

"""
VTT = """WEBVTT - A title
Kind: captions

STYLE
::cue { color: lime }

NOTE
made by hand

intro
00:00:01.000 --> 00:00:02.500 line:0 align:start
<v Roger>R&amp;D

NOTE in between

00:00:03.000 --> 00:00:04.000
Bye.

NOTE the end

"""


def text_of(subtitles: Subtitles) -> str:
    file = io.StringIO()
    write(subtitles, file)
    return file.getvalue()


def cues(text: str) -> list[tuple[int, int, str]]:
    return [(cue.start, cue.end, cue.text) for cue in read(text.encode()).cues]


def faults(text: str) -> list[tuple[int, str]]:
    return [(fault.line, fault.detail) for fault in read(text.encode()).faults]


@pytest.mark.parametrize("text", [SRT, VTT, "", "WEBVTT\n\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_file_that_is_in_order_is_written_as_it_was(text: str, newline: str, mark: str) -> None:
    data = (mark + text.replace("\n", newline)).encode()
    found = read(data)
    assert found.faults == ()
    if text:
        assert text_of(found).encode() == data


def test_srt_keeps_tags_and_positions() -> None:
    first, second = read(SRT.encode()).cues
    assert first == Cue(1000, 2500, "<i>Hello</i>\nthere.", line=2)
    assert second == Cue(3000, 4000, "{\\an8}5 < 6", settings="X1:40 X2:600 Y1:20 Y2:50", line=7)
    assert [plain(cue.text, "srt") for cue in (first, second)] == ["Hello\nthere.", "5 < 6"]


def test_vtt_keeps_blocks_names_and_settings() -> None:
    found = read(VTT.encode())
    first, second = found.cues
    assert found.head == "WEBVTT - A title\nKind: captions"
    assert first.before == "STYLE\n::cue { color: lime }\n\nNOTE\nmade by hand"
    assert (first.name, first.settings, first.line) == ("intro", "line:0 align:start", 11)
    assert plain(first.text, "vtt") == "R&D"
    assert (second.before, found.tail) == ("NOTE in between", "NOTE the end")


BARE = "00:00:01,000 --> 00:00:02,000\nOne.\n\n00:00:03,000 --> 00:00:04,000\nTwo.\n"


@pytest.mark.parametrize(
    ("text", "expected", "faulty"),
    [
        (BARE, ["One.", "Two."], [(1, "number missing where 1 is due"), (4, "number missing where 2 is due")]),
        (
            "1\n00:00:01,000 --> 00:00:02,000\nA\n2\n00:00:03,000 --> 00:00:04,000\nB\n",
            ["A", "B"],
            [(4, "no blank line")],
        ),
        ("1\n00:00:01,000 --> 00:00:02,000\n\n2\n00:00:03,000 --> 00:00:04,000\nB\n", ["", "B"], []),
        ("1\n00:00:01,000 --> 00:00:02,000\nA\n\nB\n", ["A\nB"], [(2, "a blank line within")]),
        ("1\n00:00:01,000 --> 00:00:02,000\nIn\n5\n", ["In\n5"], []),
        ("1\n00:00:01,000 --> 00:00:02,000\n5\n\n2\n00:00:03,000 --> 00:00:04,000\n6", ["5", "6"], []),
        ("7\n00:00:01,000 --> 00:00:02,000\nA\n\n8\n00:00:03,000 --> 00:00:04,000\nB\n", ["A", "B"], [(2, "number 7")]),
        ("1\n00:00:01,000 --> 00:00:02,000\nA --> B\n", ["A --> B"], []),
        ("1\n00:00:01.0 -->  0:00:02\nA\u2028b\x85c\n", ["A\u2028b\x85c"], [(2, "times that")]),
        ("Made by X\n\n1\n00:00:01,000 --> 00:00:02,000\nA\n", ["A"], [(1, "text that belongs to no cue")]),
        ("WEBVTT\n00:01.000 --> 00:02.000\nA\n00:03.000 --> 00:04.000\nB", ["A", "B"], [(2, "no bl"), (4, "no blank")]),
        ("WEBVTT\n\n1\n00:01.000 --> 00:02.000\n\n2\n00:03.000 --> 00:04.000\nB", ["", "B"], []),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nA\n\nlost\n", ["A"], [(6, "text that belongs to no cue")]),
        ("WEBVTT\n\nNOTE\n00:00 --> 00:01 is cut\n\n00:01.000 --> 00:02.000\nA", ["A"], []),
    ],
)
def test_files_that_are_not_in_order_lose_no_word(
    text: str, expected: list[str], faulty: list[tuple[int, str]]
) -> None:
    assert [cue[2] for cue in cues(text)] == expected
    assert len(faults(text)) == len(faulty)
    for (line, detail), (line_, start) in zip(faults(text), faulty, strict=True):
        assert (line, detail[: len(start)]) == (line_, start)
    written = text_of(read(text.encode()))
    assert [cue[2] for cue in cues(written)] == expected
    assert "lost" not in text or "lost" in written


@pytest.mark.parametrize("clock", ["01:02:03.004", "1:2:3,004", "62:03.004"])
def test_clocks(clock: str) -> None:
    assert cues(f"1\n{clock} --> 99:59:59,999\nA")[0][:2] == (3_723_004, 359_999_999)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Just a text.\n", "neither SRT nor VTT"),
        (b"1\n00:00:01,00O --> 00:00:02,000\nA\n", "line 2: these times cannot be read"),
        (b"1\n00:00:01,000 --> 00:00:0x,000\nA\n", "line 2: these times cannot be read"),
        (b"WEBVTT\n\n00:00:01.000 --> 00:0O:02.000\nA\n", "line 3: these times cannot be read"),
        (b"\x81\xff\x8d", "neither UTF-8 nor Windows-1252"),
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(data)


def test_encodings() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nGr\u00f6\u00dfe\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        found = read(text.encode(encoding))
        assert found.cues[0].text == "Gr\u00f6\u00dfe"
        assert found.faults == ()
    found = read(text.encode("cp1252"))
    assert found.cues[0].text == "Gr\u00f6\u00dfe"
    assert found.faults[0].detail == "not UTF-8; read as Windows-1252"
    japanese = "1\n00:00:01,000 --> 00:00:02,000\n\u65e5\u672c\n".encode("shift_jis")
    assert read(japanese, "shift_jis").cues[0].text == "\u65e5\u672c"
    with pytest.raises(InputError, match="this is not shift_jis"):
        read(b"1\n00:00:01,000 --> 00:00:02,000\n\x81\xff", "shift_jis")
    with pytest.raises(InputError, match="no encoding 'klingon'"):
        read(b"", "klingon")


words = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("<>&{}\\/-bi "), max_size=60
)


@given(st.sampled_from(["srt", "vtt"]), st.lists(words, min_size=1, max_size=4))
def test_no_text_can_break_a_file(kind: Kind, texts: list[str]) -> None:
    texts = [" ".join(text.split()).replace("\u2060", "") for text in texts]
    made = [Cue(1000 * i, 1000 * i + 500, escaped(text, kind)) for i, text in enumerate(texts)]
    found = read(text_of(Subtitles(kind, tuple(made))).encode())
    assert found.faults == ()
    assert [replace(cue, line=0) for cue in found.cues] == made
    shown = [plain(cue.text, kind) for cue in found.cues]
    assert shown == [text.replace("-->", "->") if kind == "srt" else text for text in texts]


def test_lines_of_scripts_from_right_to_left_keep_their_full_stop_at_the_left() -> None:
    mark = "\u200f"
    assert directed("لا أحد يعرف.") == directed(f"{mark}لا أحد يعرف.") == f"{mark}لا أحد يعرف.{mark}"
    assert directed("12 שקל.") == f"{mark}12 שקל.{mark}"
    assert directed("Shalom is שלום.") == "Shalom is שלום."
    assert directed("...") == "..."


AWKWARD = ["R&D <i>says</i> a --> b", "{\\an8}up", "if a<b then", "<3 &amp; you", "x > y &lt;"]


def test_public_parsers_read_the_same(tmp_path: Path) -> None:
    made = [Cue(1000 * i, 1000 * i + 500, escaped(text, "vtt")) for i, text in enumerate(AWKWARD)]
    path = tmp_path / "x.vtt"
    path.write_text(text_of(Subtitles("vtt", tuple(made))), encoding="utf-8")
    assert [html.unescape(cue.text) for cue in webvtt.read(str(path)).captions] == AWKWARD
    made = [replace(cue, text=escaped(text, "srt")) for cue, text in zip(made, AWKWARD, strict=True)]
    found = pysubs2.SSAFile.from_string(text_of(Subtitles("srt", tuple(made))), "srt")
    assert [event.text.replace("\u2060", "").replace("->", "-->") for event in found] == AWKWARD
    assert [(event.start, event.end) for event in found] == [(cue.start, cue.end) for cue in made]
