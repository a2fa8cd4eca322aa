"""Captions and the file formats, read back by public parsers."""

import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pysubs2
import pytest
import webvtt
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from phi4mm_cli import captions, writers
from phi4mm_cli.captions import PresetName
from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.outputs import Coverage, Document, Segment, Timings, Transcript, Usage, Warning, WarningCode
from phi4mm_cli.schema import ModelInfo, Word

LONG = "The quarterly budget of the northern office was discussed at length, and nobody agreed with anybody else."


def document(*segments: tuple[float, float, str], warnings: tuple[Warning, ...] = ()) -> Document:
    made = tuple(Segment(i, start, end, text) for i, (start, end, text) in enumerate(segments))
    body = Transcript(
        " ".join(s.text for s in made), "en", 10_000.0, made, Coverage("seconds", 10_000.0, 10_000.0, 12.0), warnings
    )
    model = ModelInfo("demo", None, "local", "cpu", "float32")
    return Document("talk.wav", model, {"vad": True}, Timings(1.0), Usage(1, 60, 20), body)


def written(name: str, what: Document) -> str:
    file = io.StringIO()
    writers.writer(name, PresetName.NETFLIX)(what, file)
    return file.getvalue()


def test_srt_clock_and_numbering() -> None:
    text = written("srt", document((0.0, 1.9996, "One."), (3661.5, 3662.0, "Two --> three.")))
    assert text == ("1\n00:00:00,000 --> 00:00:01,999\nOne.\n\n2\n01:01:01,500 --> 01:01:02,333\nTwo -> three.\n\n")


def test_vtt_escapes_what_has_a_meaning_there() -> None:
    text = written("vtt", document((1.0, 3.0, "R&D <i>says</i> a --> b")))
    assert text.startswith("WEBVTT\n\n00:00:01.000 --> 00:00:03.000\n")
    assert "R&amp;D &lt;i&gt;says&lt;/i&gt; a --&gt; b" in text


def test_lines_from_right_to_left_are_marked() -> None:
    assert "\n\u200fلا أحد يعرف.\u200f\n" in written("srt", document((1.0, 3.0, "لا أحد يعرف.")))


def test_vtt_tells_words_one_by_one_where_that_is_asked_for() -> None:
    said = (Word(1.0, 1.2, "R&D"), Word(1.4, 1.5, "says"), Word(1.5, 1.9, "no."))
    segment = Segment(0, 1.0, 2.0, "R&D says no.", said)
    body = replace(document().body, segments=(segment, Segment(1, 3.0, 4.0, "Untimed.")))
    plain = replace(document(), body=body)
    asked = replace(plain, options={"word_timestamps": True})
    assert "\nR&amp;D <00:00:01.400>says <00:00:01.500>no.\n" in written("vtt", asked)
    assert "\nR&amp;D says no.\n" in written("vtt", plain)
    shown = webvtt.from_string(written("vtt", asked)).captions  # this parser leaves escapes as they are
    assert [caption.text for caption in shown] == ["R&amp;D says no.", "Untimed."]
    late = replace(asked, body=replace(body, segments=(Segment(0, 0.0, 0.9, "Untimed."), segment)))
    assert "\nUntimed.\n\n00:00:01.000 --> 00:00:01.900\nR&amp;D <00:00:01.400>says" in written("vtt", late)
    words = json.loads(written("json", asked))["segments"][0]["words"]
    assert words[1] == {"start": 1.4, "end": 1.5, "word": "says"}
    assert "words" not in json.loads(written("json", plain))["segments"][0]
    Draft202012Validator(json_schema()).validate(json.loads(written("json", asked)))


segments = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0.0005, 30), st.text(min_size=1, max_size=400)), min_size=1, max_size=8
)


@given(segments)
def test_captions_rise_and_public_parsers_read_them(plan: list[tuple[float, float, str]]) -> None:
    at, made = 0.0, []
    for gap, length, text in plan:
        at += gap
        if text.split():
            made.append((at, at + length, " ".join(text.split()).replace("\x00", "")))
        at += length
    shown = captions.from_segments(document(*made).body.segments)
    for caption in shown:
        assert caption.start < caption.end
        assert 1 <= len(caption.lines) <= 2
    for first, second in pairwise(shown):
        assert first.end <= second.start
    assert len(pysubs2.SSAFile.from_string(written("srt", document(*made)), "srt")) == len(shown)


def test_webvtt_parser_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.vtt"
    path.write_text(written("vtt", document((0.5, 1.5, "One & two."), (3.0, 9.5, LONG))), encoding="utf-8")
    cues = webvtt.read(str(path)).captions
    assert [cue.start for cue in cues][:2] == ["00:00:00.500", "00:00:03.000"]
    assert len(cues) == 3


def test_tsv_is_one_row_a_segment() -> None:
    assert written("tsv", document((1.2345, 2.0, "A\tb."))) == "start\tend\ttext\n1234\t2000\tA b.\n"


def test_text_is_one_line_a_segment() -> None:
    assert written("txt", document((0, 1, "Eins."), (1, 2, "Zwei."))) == "Eins.\nZwei.\n"


def test_silence_is_written_as_nothing() -> None:
    assert [written(name, document()) for name in ("txt", "srt", "vtt")] == ["", "", "WEBVTT\n\n"]


def test_every_warning_code_is_in_the_schema_and_no_other() -> None:
    Draft202012Validator.check_schema(json_schema())
    validator = Draft202012Validator(json_schema())
    for code in get_args(WarningCode):
        warning = Warning(code, "why", "what was done", 1.0, 2.0)
        validator.validate(json.loads(written("json", document((0, 1, "Ünïcödé."), warnings=(warning,)))))
    bad = document((0, 1, "x"), warnings=(Warning("made_up", "why", "what"),))  # type: ignore[arg-type]
    assert not validator.is_valid(json.loads(written("json", bad)))


@pytest.mark.parametrize("change", [{"task": "poem"}, {"extra": 1}, {"segments": [{"id": 0}]}, {"duration": "long"}])
def test_schema_refuses_what_is_not_ours(change: dict[str, object]) -> None:
    result = json.loads(written("json", document((0, 1, "x"))))
    validator = Draft202012Validator(json_schema())
    validator.validate(result)
    assert not validator.is_valid(result | change)


def test_json_is_readable_unicode_and_jsonl_one_line() -> None:
    assert "Größe" in written("json", document((0, 1, "Größe")))
    assert written("jsonl", document((0, 1, "a"))).count("\n") == 1
