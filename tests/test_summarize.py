"""Summaries: how much goes into a request, how parts are cut and merged, and that nothing is left unread or unsaid."""

from __future__ import annotations

import json
import math
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Phi4mm
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from phi4mm_cli import prompt
from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.errors import UsageError
from phi4mm_cli.flow import Flow, Gather
from phi4mm_cli.flows import summarize
from phi4mm_cli.hearing import Listening
from phi4mm_cli.media import audio
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Summary
from phi4mm_cli.schema import Clip, Profile, Request, Result, Source
from phi4mm_cli.summaries import Style, Wording, plan

RATE = 8000
CONTEXT = Profile().context
Rounds = list[list[Request]]


def count(text: str) -> int:
    """A word is a token."""
    return len(text.split())


def options(
    wording: Wording = Wording(),  # noqa: B008 - it is frozen
    part_seconds: float = 1800.0,
    part_tokens: int | None = None,
    context: int = CONTEXT,
    vad: bool = False,
    longest_clip: float = 1800.0,
) -> summarize.Options:
    profile = Profile(context=context, longest_clip=longest_clip)
    fitting = plan(wording, profile, count, SamplingOptions(), part_seconds, part_tokens)
    return summarize.Options(fitting, wording, Listening(vad=vad))


def fed(flow: Flow[Summary], answer: Callable[[Request], str]) -> tuple[Summary, Rounds]:
    """What the flow returns where the model says `answer`, and what it asked, by round."""
    rounds: Rounds = []
    try:
        asked = next(flow)
        while True:
            rounds.append(list(asked))
            results = [Result(answer(request), (1,), "stop", 1) for request in rounds[-1]]
            if isinstance(asked, Gather):
                for request, result in zip(rounds[-1], results, strict=True):
                    asked.take(request.key, result)
            asked = flow.send(results)
    except StopIteration as end:
        return end.value, rounds


def text_of(request: Request) -> str:
    return " ".join(part for message in request.messages for part in message.parts if isinstance(part, str))


def echo(request: Request) -> str:
    return text_of(request)


def saved(path: Path, text: str) -> Source:
    path.write_text(text, encoding="utf-8")
    return audio.source(path)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], Source]:
    """Noise of so many minutes, with a second of silence after every nine."""

    def write(minutes: float) -> Source:
        path = tmp_path_factory.mktemp("recordings") / "meeting.wav"
        ten = np.random.default_rng(1).normal(0, 0.1, 10 * RATE)
        ten[9 * RATE :] = 0.0
        with soundfile.SoundFile(path, "w", RATE, 1, "ULAW", format="WAV") as file:
            for _ in range(round(minutes * 6)):
                file.write(ten)
        return audio.source(path)

    return write


NOTES = "Oscar forgot the letter on Monday. The price is forty dollars."
FRENCH = "Oscar a oublié la lettre lundi. Le prix est de quarante dollars."


@pytest.mark.parametrize(
    ("wording", "answer", "expected"),
    [
        (Wording(language="fr"), NOTES, ["wrong_language"]),
        (Wording(language="fr"), FRENCH, []),
        (Wording(), FRENCH, []),
        (
            Wording(style=Style.BULLETS, language="fr", grounded=True),
            f'- {FRENCH} "The price is forty dollars."\n- Personne ne sait où elle est. "Oscar forgot the letter"',
            [],
        ),
        (Wording(), f"They met again on Friday. {NOTES} They met again on Friday.", ["looping"]),
        (Wording(), f"They met again on Friday. {NOTES} {FRENCH} They met again on Friday.", []),
    ],
)
def test_what_is_wrong_with_a_summary_is_told(
    tmp_path: Path, wording: Wording, answer: str, expected: list[str]
) -> None:
    source = saved(tmp_path / "a.txt", NOTES)
    found, _ = fed(summarize.flow([source], options(wording)), lambda request: answer)
    assert [warning.code for warning in found.warnings] == expected


# ------------------------------------------------------------------------------------------------- recordings


def test_a_recording_of_25_minutes_is_one_request(recording: Callable[[float], Source]) -> None:
    source = recording(25)
    found, rounds = fed(summarize.flow([source], options()), lambda request: "They met.")
    [[request]] = rounds
    assert request.clips == (Clip(source, 0.0, 1500.0),)
    assert request.messages[0].parts[1] == "Summarize the audio clip in one paragraph of about 120 words."
    # 12.5 tokens a second, ten words, and the markers <|user|>, <|end|> and <|assistant|>.
    assert prompt.size(request.messages, count) == 18750 + 11 + 3
    assert found.text == "They met."
    assert [(part.tokens, part.start, part.end, part.text) for part in found.parts] == [(18750, 0.0, 1500.0, None)]
    assert (found.coverage.unit, found.coverage.total, found.coverage.read) == ("seconds", 1500.0, 1500.0)
    assert found.warnings == ()


def test_a_recording_of_70_minutes_is_three_parts_cut_in_silence(recording: Callable[[float], Source]) -> None:
    source = recording(70)
    facts = ["Oscar forgot the letter.", "The price is 40 dollars.", "Nina leaves on Friday."]

    def model(request: Request) -> str:
        """Hears one of the facts in each part; of texts, it says what is in them."""
        if not request.clips:
            return echo(request)
        return facts[int(request.clips[0].start // 1200)]

    found, rounds = fed(summarize.flow([source], options()), model)
    assert [len(asked) for asked in rounds] == [3, 1]
    clips = [request.clips[0] for request in rounds[0]]
    assert all(clip.end - clip.start <= 1800 for clip in clips)
    assert clips[0].start == 0.0
    assert clips[-1].end == 4200.0
    for before, after in pairwise(clips):
        assert before.end == after.start  # nothing is left out
        assert 9.0 <= before.end % 10 <= 10.0  # in the second of silence
    assert max(clip.end - clip.start for clip in clips) - min(clip.end - clip.start for clip in clips) < 60
    assert [f"part {i} of 3 of a recording" in text_of(rounds[0][i - 1]) for i in (1, 2, 3)] == [True] * 3
    merged = text_of(rounds[1][0])
    assert all(fact in merged and fact in found.text for fact in facts)
    assert [part.text for part in found.parts] == facts
    assert found.coverage.read == 4200.0


def test_parts_of_speech_are_cut_between_words(tmp_path: Path) -> None:
    from phi4mm_cli.demo.voice import speak

    said = speak("The meeting starts at six o'clock on Friday.", sample_rate=RATE).samples
    pause = np.zeros(RATE, np.float32)
    soundfile.write(tmp_path / "a.wav", np.concatenate([pause, said] * 20), RATE)
    duration = 20 * (len(said) + len(pause)) / RATE
    found, rounds = fed(summarize.flow([audio.source(tmp_path / "a.wav")], options(part_seconds=30, vad=True)), echo)
    clips = [request.clips[0] for request in rounds[0]]
    assert len(clips) == int(duration // 30) + 1
    length = (len(said) + len(pause)) / RATE
    for clip in clips:
        assert clip.end - clip.start <= 30
        assert clip.start % length < 1.1  # in the pause before a sentence
    assert found.coverage.speech == pytest.approx(20 * len(said) / RATE, rel=0.2)


def test_silence_is_not_given_to_the_model(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(30 * RATE), RATE)
    found, rounds = fed(summarize.flow([audio.source(tmp_path / "a.wav")], options(vad=True)), echo)
    assert rounds == []
    assert (found.text, found.coverage.speech) == ("", 0.0)
    assert [warning.code for warning in found.warnings] == ["nothing_to_summarize"]


def test_a_part_of_a_recording(recording: Callable[[float], Source]) -> None:
    source, chosen = recording(5), options(part_seconds=60)
    listening = Listening(vad=False, spans=((30.0, 50.0), (120.0, math.inf)))
    found, rounds = fed(summarize.flow([source], replace(chosen, listening=listening)), lambda request: "They met.")
    clips = [request.clips[0] for request in rounds[0]]
    assert clips[0] == Clip(source, 30.0, 50.0)
    assert (clips[1].start, clips[-1].end, len(clips)) == (120.0, 300.0, 5)
    assert (found.coverage.total, found.coverage.read) == (200.0, 200.0)


def test_a_small_context_takes_shorter_parts(recording: Callable[[float], Source]) -> None:
    found, rounds = fed(summarize.flow([recording(25)], options(context=4096)), lambda request: "They met.")
    assert 7 <= len(rounds[0]) <= 9
    for request in (request for asked in rounds for request in asked):
        assert prompt.size(request.messages, count) + request.sampling.max_new_tokens <= 4096
    assert found.parts[-1].end == 1500.0


def test_a_server_that_takes_no_long_clips_gets_shorter_parts(recording: Callable[[float], Source]) -> None:
    found, rounds = fed(summarize.flow([recording(25)], options(longest_clip=599.0)), lambda request: "They met.")
    lengths = [clip.end - clip.start for request in rounds[0] for clip in request.clips]
    assert len(lengths) == 3
    assert max(lengths) <= 599
    assert found.parts[-1].end == 1500.0


# ------------------------------------------------------------------------------------------------- texts


def test_a_text_of_200_000_words_is_split_and_all_of_it_is_read(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(200_000)]
    text = "\n\n".join(" ".join(words[i : i + 90]) + "." for i in range(0, len(words), 90))
    found, rounds = fed(summarize.flow([saved(tmp_path / "book.txt", text)], options()), lambda request: "A story.")
    assert [len(asked) for asked in rounds] == [2, 1]
    for request in (request for asked in rounds for request in asked):
        assert prompt.size(request.messages, count) + request.sampling.max_new_tokens <= CONTEXT
    given = " ".join(text_of(request).split("\n", 1)[1] for request in rounds[0])
    assert given.replace(".", "").split() == words
    assert (found.coverage.unit, found.coverage.total, found.coverage.read) == ("tokens", 200_000, 200_000)
    assert len(found.parts) == 2
    assert sum(part.tokens for part in found.parts) >= 200_000


def test_a_text_that_fits_goes_as_it_is(tmp_path: Path) -> None:
    text = "# Title\n\nA line\n  and another, <|end|> of it."
    found, rounds = fed(summarize.flow([saved(tmp_path / "a.md", text)], options()), lambda request: "Short.")
    assert [text_of(request) for request in rounds[0]] == [
        f"Summarize the text in one paragraph of about 120 words.\n{text}"
    ]
    assert found.text == "Short."


def test_many_parts_are_merged_in_rounds(tmp_path: Path) -> None:
    text = "\n\n".join(f"Paragraph {i} tells of w{i}." for i in range(1000))

    def model(request: Request) -> str:
        """As many of the subjects as a note may have words."""
        return " ".join(re.findall(r"\bw\d+\b", text_of(request))[: request.sampling.max_new_tokens])

    found, rounds = fed(summarize.flow([saved(tmp_path / "a.txt", text)], options(part_tokens=400)), model)
    assert len(rounds) >= 3
    assert len(rounds[-1]) == 1
    sizes = [len(asked) for asked in rounds]
    assert sizes == sorted(sizes, reverse=True)
    given = " ".join(text_of(request) for request in rounds[0])
    assert [f"w{i}." in given for i in range(1000)] == [True] * 1000
    for request in (request for asked in rounds[1:] for request in asked):
        assert count(text_of(request).split("\n", 1)[1]) <= 400
    assert found.text.startswith("w0 ")


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=60), part=st.integers(200, 2000))
def test_prompts_fit_and_hold_everything_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], part: int
) -> None:
    words = iter(range(sum(sizes)))
    text = "\n\n".join(" ".join(f"w{next(words)}" for _ in range(size)) for size in sizes)
    source = saved(tmp_path_factory.mktemp("texts") / "a.txt", text)
    _, rounds = fed(summarize.flow([source], options(context=4096, part_tokens=part)), lambda request: "Notes.")
    given = " ".join(text_of(request).split("\n", 1)[1] for request in rounds[0])
    assert given.split() == text.split()
    for request in (request for asked in rounds for request in asked):
        assert prompt.size(request.messages, count) + request.sampling.max_new_tokens <= 4096


def test_an_empty_text(tmp_path: Path) -> None:
    found, rounds = fed(summarize.flow([saved(tmp_path / "a.txt", " \n\n")], options()), echo)
    assert (found.text, rounds) == ("", [])
    assert [warning.code for warning in found.warnings] == ["nothing_to_summarize"]


def test_answers_that_are_cut_off_or_empty_are_told(tmp_path: Path) -> None:
    flow = summarize.flow([saved(tmp_path / "a.txt", "Some words.")], options())
    next(flow)
    with pytest.raises(StopIteration) as end:
        flow.send([Result("Some", (1,), "length", 1)])
    assert [warning.code for warning in end.value.value.warnings] == ["token_limit"]
    found, _ = fed(summarize.flow([saved(tmp_path / "a.txt", "Some words.")], options()), lambda request: " ")
    assert [warning.code for warning in found.warnings] == ["empty_answer"]


# ------------------------------------------------------------------------------------------------- several together


def transcript(path: Path, *said: tuple[float, str]) -> Source:
    segments = [{"id": i, "start": at, "end": at + 2, "text": text} for i, (at, text) in enumerate(said)]
    text = " ".join(text for _, text in said)
    return saved(path, json.dumps({"task": "transcript", "text": text, "segments": segments}))


def test_texts_together_are_one_request_under_their_names(tmp_path: Path) -> None:
    sources = [transcript(tmp_path / "monday.json", (0.0, "Hello.")), saved(tmp_path / "tuesday.txt", "Bye.")]
    found, rounds = fed(summarize.flow(sources, options()), lambda request: "A week.")
    assert [[text_of(request).split("\n", 1)[1] for request in asked] for asked in rounds] == [
        ["# monday\n\nHello.\n\n# tuesday\n\nBye."]
    ]
    assert found.text == "A week."
    assert found.coverage.unit == "tokens"


def test_names_tell_the_sources_apart(tmp_path: Path) -> None:
    for folder in ("mon", "tue"):
        (tmp_path / folder).mkdir()
    for names, told in (
        (("call.txt", "call.md"), ["call.txt", "call.md"]),
        (("mon/call.txt", "tue/call.txt"), ["mon/call.txt", "tue/call.txt"]),
        (("mon/call.txt", "mon/call.txt"), ["call"]),
    ):
        sources = [saved(tmp_path / name, name) for name in names]
        _, rounds = fed(summarize.flow(sources, options()), lambda request: "A week.")
        headings = [line[2:] for line in text_of(rounds[0][0]).split("\n") if line.startswith("# ")]
        assert headings == told


def test_parts_of_several_name_their_source(tmp_path: Path, recording: Callable[[float], Source]) -> None:
    words = " ".join(f"w{i}." for i in range(300))
    sources = [saved(tmp_path / "a.txt", words), saved(tmp_path / "b.txt", words), recording(1)]
    found, rounds = fed(summarize.flow(sources, options(part_tokens=250)), lambda request: "Notes.")
    assert [part.source for part in found.parts] == ["a", None, "b", "meeting"]
    assert all("# " in text_of(request) for request in rounds[0][:3])
    assert "Part 4, of meeting, 0:00 to 1:00:\nNotes." in text_of(rounds[-1][0])
    assert found.coverage.total == 600 + 750


# ------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("style", Style)
@pytest.mark.parametrize("length", ["short", "medium", "long", "70"])
def test_every_style_and_length_is_another_prompt(style: Style, length: str) -> None:
    asked = Wording(style, length).whole("the text", timed=True)
    assert "{" not in asked
    assert "the text" in asked
    others = [Wording(s, n).whole("the text", True) for s in Style for n in ("short", "medium", "long", "70")]
    assert others.count(asked) == 1
    assert ("70 words" in asked) == (length == "70" and style is not Style.CHAPTERS)


def test_minutes_ask_for_decisions_actions_and_owners() -> None:
    asked = Wording(Style.MINUTES).whole("the audio clip", timed=False)
    assert all(word in asked for word in ("## Decisions", "## Actions", "owner", "date", "the audio clip"))


def test_the_language_and_the_users_own_words(tmp_path: Path) -> None:
    wording = Wording(language="fr", prompt="What of {money}?")
    _, rounds = fed(summarize.flow([saved(tmp_path / "a.txt", "Some words.")], options(wording)), echo)
    assert text_of(rounds[0][0]) == "What of {money}? Write in French.\nSome words."
    long = saved(tmp_path / "b.txt", "Some words. " * 400)
    _, rounds = fed(summarize.flow([long], options(wording, part_tokens=300)), lambda request: "Notes.")
    assert all("needed for this: What of {money}?" in text_of(request) for request in rounds[0])
    assert "What of {money}? Write in French.\n" in text_of(rounds[-1][0])


def test_budgets_follow_the_length() -> None:
    def budget(**settings: object) -> int:
        wording = Wording(**settings)  # type: ignore[arg-type]
        return options(wording).plan.answer

    assert budget(length="short") < budget(length="medium") < budget(length="long")
    assert 70 < budget(length="70") < budget(length="700")
    assert budget(grounded=True) > budget()


def test_an_answer_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(UsageError, match="leaves no room"):
        options(Wording(length="1000"), context=4096)


# ------------------------------------------------------------------------------------------------- grounded


MEETING = (
    (0.0, "Good morning, let us begin."),
    (65.0, "The budget for the new camera is 40,000 dollars."),
    (130.5, "Oscar will send the letter before Friday."),
    (200.0, "Nina asked about the bicycle near the house."),
)


def test_an_unsupported_point_is_marked(tmp_path: Path) -> None:
    answer = (
        '- The camera may cost 40,000 dollars. [1:05] "budget for the new camera is 40,000 dollars"\n'
        '- The company was sold to a rival. [2:10] "we have sold the company"\n'
        '- Oscar sends the letter. [0:00] "will send the letter before Friday"'
    )
    source = transcript(tmp_path / "a.json", *MEETING)
    found, rounds = fed(summarize.flow([source], options(Wording(Style.BULLETS, grounded=True))), lambda _: answer)
    assert "[1:05] The budget for the new camera is 40,000 dollars.\n[2:10] Oscar" in text_of(rounds[0][0])
    assert [point.unsupported for point in found.points] == [False, True, False]
    assert [(point.start, point.quote) for point in found.points] == [
        (65.0, "budget for the new camera is 40,000 dollars"),
        (None, None),
        (130.5, "will send the letter before Friday"),  # the time is that of the words, not the model's
    ]
    assert found.text.splitlines() == [
        '- The camera may cost 40,000 dollars. [1:05] "budget for the new camera is 40,000 dollars"',
        "- The company was sold to a rival. [unsupported]",
        '- Oscar sends the letter. [2:10] "will send the letter before Friday"',
    ]
    assert [warning.code for warning in found.warnings] == ["unsupported_point"]


def test_a_grounded_recording_is_transcribed_first(recording: Callable[[float], Source]) -> None:
    def model(request: Request) -> str:
        if request.clips:
            return "Oscar will send the letter before Friday."
        return '- Oscar sends it. [0:00] "Oscar will send the letter"'

    found, rounds = fed(summarize.flow([recording(1)], options(Wording(Style.BULLETS, grounded=True))), model)
    assert all(request.clips for request in rounds[0])
    assert len(rounds) == 2
    assert text_of(rounds[1][0]).count("Oscar will send the letter before Friday.") == len(rounds[0])
    assert [(point.start, point.unsupported) for point in found.points] == [(0.0, False)]
    assert (found.coverage.unit, found.coverage.read) == ("seconds", 60.0)


def test_chapters_begin_where_something_is_said(tmp_path: Path) -> None:
    answer = "[0:00] Welcome\n[1:07] The budget\n[2:10] Letters\n[1:00] Out of order\n[9:59] Beyond the end"
    source = transcript(tmp_path / "a.json", *MEETING)
    found, rounds = fed(summarize.flow([source], options(Wording(Style.CHAPTERS))), lambda _: answer)
    assert "[1:05] The budget" in text_of(rounds[0][0])
    assert [(point.text, point.start, point.end) for point in found.points] == [
        ("Welcome", 0.0, 65.0),
        ("The budget", 65.0, 130.5),
        ("Letters", 130.5, 202.0),
        ("Out of order", None, None),
        ("Beyond the end", None, None),
    ]
    assert found.text.splitlines()[:3] == ["0:00 Welcome", "1:05 The budget", "2:10 Letters"]
    assert found.text.splitlines()[3:] == ["Out of order [unsupported]", "Beyond the end [unsupported]"]


def test_the_last_chapter_ends_with_what_was_heard(recording: Callable[[float], Source]) -> None:
    wanted = options(Wording(Style.CHAPTERS))
    listening = replace(wanted.listening, spans=((10.0, 40.0),))

    def model(request: Request) -> str:
        return "Bob likes coffee." if request.clips else "[0:10] Coffee"

    found, _ = fed(summarize.flow([recording(1)], replace(wanted, listening=listening)), model)
    assert [(point.start, point.end) for point in found.points] == [(10.0, 40.0)]


def test_chapters_of_a_long_recording_are_those_of_its_parts(tmp_path: Path) -> None:
    said = [(10.0 * i, f"We speak of w{i} now.") for i in range(200)]

    def model(request: Request) -> str:
        label, subject = re.findall(r"\[(\d+:\d\d)\] We speak of (w\d+)", text_of(request))[0]
        return f"{label} About {subject}"

    source = transcript(tmp_path / "a.json", *said)
    found, rounds = fed(summarize.flow([source], options(Wording(Style.CHAPTERS), part_tokens=400)), model)
    assert len(rounds) == 1
    assert len(rounds[0]) == len(found.points) >= 3
    for point in found.points:
        assert point.start == 10.0 * int(point.text.removeprefix("About w"))
    assert found.points[-1].end == 1992.0


# ------------------------------------------------------------------------------------------------- the program

ECHO = ("--engine", "echo", "--no-vad")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    noise = np.random.default_rng(1).normal(0, 0.1, 16000).astype("float32")
    soundfile.write(tmp_path / "talk.wav", noise, 16000)
    saved(tmp_path / "notes.md", "# Notes\n\nOscar forgot the letter.")
    transcript(tmp_path / "monday.json", *MEETING)
    saved(tmp_path / "film.srt", "1\n00:00:01,000 --> 00:00:02,500\nHello there.\n")
    return tmp_path


def lines(run_output: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in run_output.splitlines()]
    for line in found:
        Draft202012Validator(json_schema()).validate(line)
    return found


def test_one_input_goes_to_stdout(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "notes.md", *ECHO, "--length", "short")
    assert run.returncode == 0, run.stderr
    assert run.stdout == "Summarize the text in one sentence.\n# Notes\n\nOscar forgot the letter.\n"
    assert run.stderr == ""
    assert phi4mm("summarize", "talk.wav", *ECHO).stdout.startswith("[0.000-1.000] Summarize the audio clip")


def test_every_kind_of_input_and_what_it_cost(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", ".", "--jsonl", *ECHO)
    assert run.returncode == 0, run.stderr
    found = {str(line["source"]): line for line in lines(run.stdout)}
    assert set(found) == {"talk.wav", "notes.md", "monday.json", "film.srt"}
    assert all(line["task"] == "summary" for line in found.values())
    assert {name: line["usage"]["calls"] for name, line in found.items()} == dict.fromkeys(found, 1)  # type: ignore[index]
    # 13 tokens of sound, 11 of words, 3 markers.
    assert found["talk.wav"]["usage"]["prompt_tokens"] == 13 + 11 + 3  # type: ignore[index]
    assert found["film.srt"]["coverage"] == {"unit": "tokens", "total": 2, "read": 2}


def test_files_have_names_of_their_own(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "talk.wav", "notes.md", "--md", "--json", *ECHO)
    assert run.returncode == 0, run.stderr
    written = {path.name for path in folder.glob("*.summary.*")}
    assert written == {"talk.summary.md", "talk.summary.json", "notes.summary.md", "notes.summary.json"}
    page = (folder / "talk.summary.md").read_text(encoding="utf-8")
    assert page.startswith("# talk.wav\n\n[0.000-1.000] Summarize")
    assert page.endswith("*0:01 of 0:01 read*\n")
    again = phi4mm("summarize", ".", "--jsonl", *ECHO)
    assert len(again.stdout.splitlines()) == 4  # not the summaries


def test_together(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "monday.json", "notes.md", "--together", "--name", "week", "--json", "--md", *ECHO)
    assert run.returncode == 0, run.stderr
    [result] = lines(json.dumps(json.loads((folder / "week.summary.json").read_text(encoding="utf-8"))))
    assert (result["source"], result["sources"]) == ("week", ["monday.json", "notes.md"])
    assert "# monday" in str(result["text"])
    assert "Oscar forgot the letter." in str(result["text"])
    assert "- monday.json\n- notes.md\n" in (folder / "week.summary.md").read_text(encoding="utf-8")
    alone = phi4mm("summarize", "monday.json", "notes.md", "--together", *ECHO)
    assert (alone.returncode, alone.stdout.strip()) == (0, str(result["text"]))


def test_nothing_may_lack_of_what_belongs_together(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "monday.json", "missing.json", "--together", *ECHO)
    assert (run.returncode, run.stdout) == (4, "")
    assert "missing.json: there is no such file" in run.stderr


def test_stdin_is_text_or_sound(phi4mm: Phi4mm, folder: Path) -> None:
    for name, said in (("notes.md", "Oscar forgot"), ("monday.json", "new camera"), ("talk.wav", "[0.000-1.000]")):
        with (folder / name).open("rb") as file:
            run = phi4mm("summarize", "-", *ECHO, stdin=file)
        assert run.returncode == 0, run.stderr
        assert said in run.stdout


def test_unsupported_points_are_a_matter_of_quality(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "monday.json", "--grounded", "--jsonl", "--strict", *ECHO)
    assert run.returncode == 7
    [result] = lines(run.stdout)
    assert result["points"]
    assert {warning["code"] for warning in result["warnings"]} == {"unsupported_point"}  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["notes.md", "-f", "srt"], 2, "does not write 'srt'"),
        (["notes.md", "--style", "minutes", "--prompt", "Why?"], 2, "--prompt takes the place of --style"),
        (["notes.md", "--prompt", " "], 2, "--prompt is empty"),
        (["notes.md", "--style", "paragraph", "--grounded"], 2, "made of points"),
        (["talk.wav", "--style", "chapters", "--grounded"], 2, "made of points"),
        (["notes.md", "--length", "enormous"], 2, "--length"),
        (["notes.md", "--language", "klingon"], 2, "does not write the language 'klingon'"),
        (["talk.wav", "--part-minutes", "31"], 2, "--part-minutes"),
        (["notes.md", "--part-tokens", "3"], 2, "--part-tokens"),
        (["talk.wav", "notes.md", "--together", "--style", "chapters"], 2, "--style chapters"),
        (["notes.md", "--style", "chapters"], 4, "this text has none"),
        (["notes.md", "--range", "0:10-"], 4, "--range is for recordings"),
        (["notes.md", "--channel", "2"], 4, "--channel is for recordings"),
        (["broken.json"], 4, "not JSON"),
        (["missing.txt"], 4, "no such file"),
        (["empty.txt"], 4, "empty"),
    ],
)
def test_refusals_come_before_the_model(
    phi4mm: Phi4mm, folder: Path, arguments: Sequence[str], code: int, message: str
) -> None:
    (folder / "empty.txt").touch()
    (folder / "broken.json").write_text("{", encoding="utf-8")
    run = phi4mm("summarize", *arguments)  # with the default engine and model: they must not be reached
    assert run.returncode == code
    assert run.stdout == ""
    assert run.stderr.startswith("phi4mm: error: ")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


def test_an_option_that_a_command_has_no_format_for(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "notes.md", "--srt")
    assert run.returncode == 2
    assert "--srt" in run.stderr


def test_the_demo_reads_what_was_counted(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("summarize", "notes.md", "talk.wav", "--model", "demo", "--jsonl", "--max-new-tokens", "4", "--no-vad")
    assert run.returncode == 0, run.stderr
    text, sound = sorted(lines(run.stdout), key=lambda line: str(line["source"]))
    [part] = text["parts"]  # type: ignore[misc]
    assert part["tokens"] == text["coverage"]["read"] + 2  # type: ignore[index]
    assert text["usage"]["prompt_tokens"] > part["tokens"]  # type: ignore[index]
    assert sound["parts"] == [{"tokens": 13, "start": 0.0, "end": 1.0}]


def test_on_a_terminal_markdown_is_drawn_and_the_bar_is_gone(folder: Path) -> None:
    saved(folder / "plan.md", "## Decisions\n\n- buy **milk**\n- sell the cows\n")
    command = [sys.executable, "-m", "phi4mm_cli", "summarize", "plan.md", *ECHO, "--prompt", "# Plan"]
    terminal, other = pty.openpty()
    variables = os.environ | {"TERM": "xterm", "COLUMNS": "60", "PHI4MM_CONFIG": ""}
    run = subprocess.Popen(command, cwd=folder, stdout=other, stderr=other, stdin=subprocess.DEVNULL, env=variables)
    os.close(other)
    shown = b""
    with suppress(OSError):  # the terminal ends with the program
        while block := os.read(terminal, 4096):
            shown += block
    assert run.wait() == 0
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    first = lines.index("Plan")
    assert lines[first : first + 4] == ["Plan", "Decisions", "• buy milk", "• sell the cows"]
    assert b"\x1b[1mmilk" in shown
