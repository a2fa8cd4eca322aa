"""Subtitles and our JSON are read for translation, and subtitles written with a translation in their places."""

from __future__ import annotations

import io
import json
import math
from itertools import pairwise
from pathlib import Path

import pysubs2
import pytest

from phi4mm_cli import captions, subtitles
from phi4mm_cli.captions import PRESETS, Pair, PresetName, of_pairs
from phi4mm_cli.texts import Passage
from phi4mm_cli.written import read, subtitled

SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>Hello
there.</i>

2
00:00:03,000 --> 00:00:05,000
- Who is it?
- It is <b>me</b>.

3
00:00:06,000 --> 00:00:07,000
♪

4
00:00:08,000 --> 00:00:12,000
Say <|end|>.
"""
VTT = """WEBVTT - talk

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 line:0
<v Anna>Fish &amp; chips.

NOTE a note

00:03.000 --> 00:04.000
12:30
"""


def saved(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rewritten(path: Path, kind: subtitles.Kind, translations: list[str], both: bool = False) -> str:
    file = io.StringIO()
    subtitles.write(subtitled(path, kind, translations, both), file)
    return file.getvalue()


def test_srt(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.srt", SRT)
    assert read(path).passages == (
        Passage("Hello there.", 1.0, 2.5),
        Passage("Who is it?", 3.0, 5.0),
        Passage("It is me.", 3.0, 5.0),
        Passage("♪", 6.0, 7.0),
        Passage("Say <|end|>.", 8.0, 12.0),
    )
    long = "Bonjour à tous ceux qui sont venus jusqu'ici ce matin."
    wanted = SRT.replace("Hello\nthere.", "Bonjour à tous ceux qui sont\nvenus jusqu'ici ce matin.")
    wanted = wanted.replace("Who is it?", "Qui est-ce ?").replace("It is <b>me</b>", "C'est moi")
    wanted = wanted.replace("Say <|end|>", "Dis <|end|>") + "\n"
    assert rewritten(path, "srt", [long, "Qui est-ce ?", "C'est moi.", "♪", "Dis <|end|>."]) == wanted


def test_vtt_keeps_what_only_vtt_has(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.vtt", VTT)
    assert [passage.text for passage in read(path).passages] == ["Fish & chips.", "12:30"]
    wanted = VTT.replace("00:0", "00:00:0").replace("Fish &amp; chips", "Poisson &amp; frites") + "\n"
    assert rewritten(path, "vtt", ["Poisson & frites.", "12:30"]) == wanted


def test_from_one_kind_to_the_other(tmp_path: Path) -> None:
    text = rewritten(saved(tmp_path / "a.vtt", VTT), "srt", ["Poisson <& frites>.", "12:30"])
    assert text.startswith("1\n00:00:01,000 --> 00:00:02,500\nPoisson <& frites>.\n\n2\n00:00:03,000")
    assert [event.end for event in pysubs2.SSAFile.from_string(text)] == [2500, 4000]
    text = rewritten(saved(tmp_path / "a.srt", SRT), "vtt", ["Bonjour.", "Qui ?", "Moi.", "♪", "Dis <b>."])
    assert "00:00:03.000 --> 00:00:05.000\n- Qui ?\n- Moi.\n" in text
    assert "Dis &lt;b&gt;." in text
    assert "an8" not in text


TAGGED = """1
00:00:01,000 --> 00:00:02,000
1984

2
00:00:03,000 --> 00:00:04,000
-Hello
-Hi

3
00:00:05,000 --> 00:00:06,000
<i>Titanic</i> sank

4
00:00:07,000 --> 00:00:08,000
I saw <i>Titanic</i>
"""


def test_captions_without_letters_stay_and_no_tag_is_torn(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.srt", TAGGED)
    said = [passage.text.upper() for passage in read(path).passages]
    assert said == ["1984", "HELLO", "HI", "TITANIC SANK", "I SAW TITANIC"]
    in_vtt, in_srt = rewritten(path, "vtt", said), rewritten(path, "srt", said)
    assert "\n1984\n" in in_vtt and "\n-HELLO\n-HI\n" in in_vtt
    assert "\n1984\n" in in_srt and "\n-HELLO\n-HI\n" in in_srt
    assert "\nTITANIC SANK\n" in in_srt and "\nI SAW TITANIC\n" in in_srt


def test_translations_are_broken_by_the_rules_that_are_asked_for(tmp_path: Path) -> None:
    path, said = saved(tmp_path / "a.srt", TAGGED), ["1984", "word " * 15, "Hi.", "Sank.", "Saw."]
    found = subtitled(path, "srt", said, beside=False, rules=PRESETS[PresetName.PLAIN])
    assert found.cues[1].text.split("\n")[0].count("word") == 15


def test_both_languages_in_a_caption(tmp_path: Path) -> None:
    text = rewritten(saved(tmp_path / "a.vtt", VTT), "vtt", ["Poisson & frites.", "12:30"], both=True)
    assert "<v Anna>Fish &amp; chips.\n<v Anna>Poisson &amp; frites.\n" in text
    assert text.count("12:30") == 1


def test_our_json(tmp_path: Path) -> None:
    segments = [{"start": 1.0, "end": 2.0, "text": "A."}, {"start": 2.0, "end": 3.0, "text": "B."}]
    found = read(saved(tmp_path / "a.json", json.dumps({"language": "en", "segments": segments})))
    assert found.passages == (Passage("A.", 1.0, 2.0), Passage("B.", 2.0, 3.0))
    assert found.language == "en"
    assert found.rewritten(["C.", "D."]) == "C.\nD."
    assert found.duration == 3.0
    found = read(saved(tmp_path / "a.json", json.dumps({"language": "und", "text": "A.\n\nB."})))
    assert (found.language, found.rewritten(["C.", "D."])) == (None, "C.\n\nD.")


@pytest.mark.parametrize(("told", "expected"), [(9.5, 9.5), (2.0, 3.0), ("long", 3.0), (math.inf, 3.0)])
def test_a_recording_is_as_long_as_its_transcript_says(told: object, expected: float, tmp_path: Path) -> None:
    content = {"segments": [{"start": 2.0, "end": 3.0, "text": "B."}], "duration": told}
    assert read(saved(tmp_path / "a.json", json.dumps(content))).duration == expected


PAIRS = [
    Pair(0.0, 6.0, "The meeting that everybody was waiting for starts at nine o'clock tomorrow morning.",
         "La réunion que tout le monde attendait commence demain matin à neuf heures."),
    Pair(6.5, 8.0, "Yes.", "Oui."),
    Pair(9.0, 11.0, "I sent it.", "火曜日までに予算をニーナに送りましたが、まだ返事がありません。"),
    Pair(12.0, 12.0, "", "Fin."),
]  # fmt: skip


@pytest.mark.parametrize("rules", [PresetName.NETFLIX, PresetName.BBC])
def test_bilingual_captions_keep_to_the_lines(rules: PresetName) -> None:
    found = of_pairs(PAIRS, PRESETS[rules], "en")
    assert all(len(caption.lines) <= 2 for caption in found)
    assert all(captions.pieces.columns(line) <= PRESETS[rules].columns for caption in found for line in caption.lines)
    assert all(a.start < a.end <= b.start for a, b in pairwise(found))
    assert found[0].lines[0].startswith("The meeting")
    assert found[0].lines[1].startswith("La réunion")
    for side in (0, 1):
        of_first = [caption.lines[side] for caption in found if caption.end <= 6600]
        assert " ".join(of_first) == (PAIRS[0].source, PAIRS[0].translation)[side]
    assert found[-1].lines == ("Fin.",)


def test_plain_bilingual_captions_are_one_a_pair() -> None:
    found = of_pairs(PAIRS, PRESETS[PresetName.PLAIN])
    assert [caption.lines for caption in found][:2] == [(PAIRS[0].source, PAIRS[0].translation), ("Yes.", "Oui.")]
    assert len(found) == len(PAIRS)


def test_lines_of_nearly_equal_width() -> None:
    text = "This is a text that needs two lines of a caption or so."
    assert captions.broken(text) == ["This is a text that needs", "two lines of a caption or so."]
    assert captions.broken("Short.") == ["Short."]
    assert captions.broken("") == []
