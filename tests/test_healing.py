"""Answers that cannot be trusted are asked for again, the best is kept, and what was done is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scripted import MEETING, WORDS, ScriptedEngine, clip_of, hears, run_alone, said, seconds_of, words_in

from phi4mm_cli import hearing, media
from phi4mm_cli.errors import RequestError
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import transcribe, translate
from phi4mm_cli.healing import TEMPERATURES
from phi4mm_cli.hearing import Hearing, Listening, Question
from phi4mm_cli.outputs import Body, Transcript, Translation
from phi4mm_cli.schema import Request, Result, Word

ASKED = Question("Transcribe the audio clip into text.")
HINTED = Question(ASKED.instruction, hints=" Names and terms: Zoltan, Kubernetes.", terms=("Zoltan", "Kubernetes"))
TIMED = replace(ASKED, word_times=True)
SHORT = 3.6  # seconds
LOOP = Result("no " * 40, tuple(range(40)), "length", 1)
FRENCH = "La réunion commence à neuf heures lundi, et il faut envoyer le budget à Nina avant mardi."
SPOKEN = " ".join(word["word"] for word in WORDS)


def hear(
    engine: ScriptedEngine, path: Path = MEETING, question: Question = ASKED, how: Listening | None = None
) -> Hearing:
    return run_alone(lambda: hearing.hear(media.source(path), question, how or Listening()), engine)


def text_of(heard: Hearing) -> str:
    return " ".join(answer.text for answer in heard.answers if answer.text)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first sentence of the meeting: one chunk that is too short to be split."""
    samples, rate = soundfile.read(MEETING, frames=round(SHORT * 16000))
    path = tmp_path_factory.mktemp("short") / "short.wav"
    soundfile.write(path, samples, rate)
    return path


def test_what_can_be_trusted_is_asked_for_once() -> None:
    engine = ScriptedEngine(hears)
    heard = hear(engine)
    assert text_of(heard) == SPOKEN
    assert heard.warnings == ()
    assert heard.coverage.transcribed == heard.coverage.speech
    assert len(engine.asked) == len(heard.answers) == len({request.key for request in engine.asked})


@pytest.mark.parametrize("finish", ["length", "stop"])
def test_a_chunk_that_is_too_long_is_heard_in_parts_with_no_word_lost_or_doubled(finish: str) -> None:
    def deaf_beyond_16_seconds(request: Request) -> Result:
        if seconds_of(request) <= 16:
            return hears(request)
        return Result("I see a house. " * 20, (1,), finish, 1)  # type: ignore[arg-type]

    heard = hear(ScriptedEngine(deaf_beyond_16_seconds))
    assert text_of(heard) == SPOKEN
    assert {warning.code for warning in heard.warnings} == {"looping"}
    assert all(warning.healed for warning in heard.warnings)
    assert "in 2 parts" in heard.warnings[-1].action
    assert heard.coverage.transcribed == pytest.approx(heard.coverage.speech)
    assert [answer.chunk.start for answer in heard.answers] == sorted(answer.chunk.start for answer in heard.answers)


def test_an_answer_that_stops_early_is_looked_at_twice() -> None:
    def stops_in_the_middle(request: Request) -> Result:
        clip = clip_of(request)
        return (
            said(words_in(clip.start, clip.start + 0.5 * seconds_of(request)))
            if seconds_of(request) > 12
            else hears(request)
        )

    heard = hear(ScriptedEngine(stops_in_the_middle))
    assert text_of(heard) == SPOKEN
    assert {warning.code for warning in heard.warnings} == {"speech_rate"}


def test_slow_speech_is_left_as_it_is() -> None:
    def half_of_the_words(request: Request) -> Result:
        return said(" ".join(hears(request).text.split()[::2]))

    engine = ScriptedEngine(half_of_the_words)
    heard = hear(engine)
    assert heard.warnings == ()
    assert len(engine.asked) > len(heard.answers)


def test_a_sentence_told_twice_is_looked_at_twice() -> None:
    def tells_again(request: Request) -> Result:
        heard = hears(request).text
        first = heard.split(". ")[0].rstrip(".") + "."
        return said(f"{first} {heard}" if seconds_of(request) > 12 else heard)

    heard = hear(ScriptedEngine(tells_again))
    assert text_of(heard) == SPOKEN
    assert {(warning.code, warning.healed) for warning in heard.warnings} == {("looping", True)}


def test_a_sentence_said_twice_is_left_as_it_is() -> None:
    engine = ScriptedEngine(lambda _: said("Please send the budget before Tuesday. " * 2))
    heard = hear(engine)
    assert all(answer.text.count("budget") == 2 for answer in heard.answers if not answer.chunk.is_unsure)
    assert not any(warning.code == "looping" for warning in heard.warnings)
    assert len(engine.asked) > len(heard.answers)


def without(start: float, end: float, request: Request) -> Result:
    """What a perfect ear hears but for the words between two times, and when."""
    clip = clip_of(request)
    heard = [word for word in WORDS if clip.start <= (word["start"] + word["end"]) / 2 < clip.end]
    heard = [word for word in heard if not start <= (word["start"] + word["end"]) / 2 < end]
    words = tuple(Word(word["start"] - clip.start, word["end"] - clip.start, word["word"]) for word in heard)
    return replace(said(" ".join(word.word for word in words)), words=words)


def test_words_missing_amid_a_chunk_are_found_in_its_parts() -> None:
    def skips(request: Request) -> Result:
        clip, seconds = clip_of(request), seconds_of(request)
        return without(clip.start + 0.4 * seconds, clip.start + (0.6 if seconds > 12 else 0.4) * seconds, request)

    heard = hear(ScriptedEngine(skips), question=TIMED)
    assert text_of(heard) == SPOKEN
    assert {(warning.code, warning.healed) for warning in heard.warnings} == {("missing_words", True)}
    assert heard.coverage.transcribed == pytest.approx(heard.coverage.speech)


@pytest.mark.parametrize(
    ("flow", "behind"),
    [
        (partial(transcribe.flow, options=transcribe.Options()), ""),
        (partial(translate.flow, options=translate.Options("fr", len, transcript=True)), f"<sep>{FRENCH}"),
    ],
)
def test_words_are_missed_whatever_is_written_of_the_answers(flow: Callable[..., Flow[Body]], behind: str) -> None:
    start, end = WORDS[20]["start"], WORDS[26]["start"]

    def skips(request: Request) -> Result:
        heard = without(start, end, request)
        return replace(heard, text=heard.text + behind)

    body = run_alone(lambda: flow(media.source(MEETING)), ScriptedEngine(skips))
    assert isinstance(body, (Transcript, Translation))
    assert ("missing_words", False) in {(warning.code, warning.healed) for warning in body.warnings}


def test_words_that_stay_missing_are_told_with_their_place() -> None:
    start, end = WORDS[20]["start"], WORDS[26]["start"]
    engine = ScriptedEngine(lambda request: without(start, end, request))
    heard = hear(engine, question=TIMED)
    [warning] = heard.warnings
    assert (warning.code, warning.healed) == ("missing_words", False)
    assert (warning.start, warning.end) == (pytest.approx(WORDS[19]["start"]), pytest.approx(WORDS[26]["start"]))
    lost = heard.coverage.speech - heard.coverage.transcribed
    assert 1.0 < lost <= warning.end - warning.start
    assert not hear(ScriptedEngine(lambda request: without(0, 0, request)), question=TIMED).warnings


def crowding(longest: float, request: Request) -> Result:
    """What a perfect ear hears, and in clips of more than `longest` seconds six words more, all at one time."""
    heard = without(0, 0, request)
    if seconds_of(request) <= longest or not heard.words:
        return heard
    at = heard.words[0].end
    more = [Word(at, at, word) for word in ("We", "need", "seven", "hundred", "yellow", "umbrellas.")]
    words = (heard.words[0], *more, *heard.words[1:])
    return replace(heard, text=" ".join(word.word for word in words), words=words)


def test_words_that_nobody_can_say_in_their_time_are_not_taken() -> None:
    heard = hear(ScriptedEngine(partial(crowding, 12.0)), question=TIMED)
    assert text_of(heard) == SPOKEN
    assert {(warning.code, warning.healed) for warning in heard.warnings} == {("speech_rate", True)}
    assert heard.coverage.transcribed == pytest.approx(heard.coverage.speech)


def test_words_that_nobody_can_say_in_their_time_are_told_with_their_place() -> None:
    heard = hear(ScriptedEngine(partial(crowding, 0.0)), question=TIMED)
    faulty = [answer for answer in heard.answers if "umbrellas" in answer.text]
    assert [(one.code, one.healed) for one in heard.warnings] == [("speech_rate", False)] * len(faulty)
    for answer, warning in zip(faulty, heard.warnings, strict=True):
        first, second = (answer.chunk.start + word.start for word in (answer.words[0], answer.words[-1]))
        assert first <= warning.start < warning.end <= second + 1
        assert warning.end - warning.start < 1.5
    assert 0 < heard.coverage.transcribed < heard.coverage.speech


def test_words_for_a_sound_that_is_too_short_for_them_are_left_out() -> None:
    words = "The train to Paris leaves at three o'clock."

    def invents(request: Request) -> Result:
        return said(words) if clip_of(request).start > 53.2 else hears(request)

    heard = hear(ScriptedEngine(invents), how=Listening(longest_chunk=15.0))
    assert heard.answers[-1].chunk.is_unsure  # the noise after the last sentence
    assert text_of(heard) == SPOKEN
    [warning] = heard.warnings
    assert (warning.code, warning.healed) == ("speech_rate", True)
    assert words in warning.action


def test_a_loop_in_a_short_chunk_is_broken_without_repeats(short: Path) -> None:
    def loops_unless_forbidden(request: Request) -> Result:
        return hears(request) if request.sampling.no_repeat_ngram_size else LOOP

    engine = ScriptedEngine(loops_unless_forbidden)
    heard = hear(engine, short)
    assert text_of(heard) == words_in(0, SHORT)
    [warning] = heard.warnings
    assert (warning.code, warning.healed) == ("looping", True)
    assert "without repeats" in warning.action
    assert len(engine.asked) == 2


def test_what_repeats_itself_at_the_pace_of_speech_is_believed_where_it_cannot_be_split(short: Path) -> None:
    drill = "seven five three four " * 3

    engine = ScriptedEngine(lambda _: said(drill))
    heard = hear(engine, short)
    assert (text_of(heard), heard.warnings, len(engine.asked)) == (drill, (), 1)


def test_temperature_rises_until_an_answer_is_good(short: Path) -> None:
    def good_when_warm(request: Request) -> Result:
        return hears(request) if request.sampling.temperature >= 0.4 else LOOP

    engine = ScriptedEngine(good_when_warm)
    heard = hear(engine, short)
    assert text_of(heard) == words_in(0, SHORT)
    assert "at temperature 0.4" in heard.warnings[0].action
    assert [request.sampling.temperature for request in engine.asked] == [0, 0, 0.2, 0.4]


def test_the_best_of_bad_answers_is_kept_and_reported(short: Path) -> None:
    def never_good(request: Request) -> Result:
        if request.sampling.temperature == 0.6:
            return Result(hears(request).text, (1,), "length", 1)
        return LOOP

    engine = ScriptedEngine(never_good)
    heard = hear(engine, short)
    assert text_of(heard) == words_in(0, SHORT)
    [warning] = heard.warnings
    assert (warning.code, warning.healed) == ("token_limit", False)
    assert (warning.start, warning.end) == (heard.answers[0].chunk.start, heard.answers[0].chunk.end)
    assert len(engine.asked) == 2 + len(TEMPERATURES)
    assert heard.coverage.transcribed == 0


def test_speech_without_words_is_reported_and_nothing_is_invented() -> None:
    engine = ScriptedEngine(lambda _: said(""))
    heard = hear(engine)
    assert text_of(heard) == ""
    assert {(warning.code, warning.healed) for warning in heard.warnings} == {("empty_with_speech", False)}
    assert all(request.sampling.temperature == 0 for request in engine.asked)
    assert len(engine.asked) <= 3 * len(heard.answers)


def test_an_echo_of_the_hints_is_asked_for_without_them(short: Path) -> None:
    def echoes(request: Request) -> Result:
        asked = str(request.messages[0].parts[1])
        return said(HINTED.hints) if "Zoltan" in asked else hears(request)

    heard = hear(ScriptedEngine(echoes), short, HINTED)
    assert text_of(heard) == words_in(0, SHORT)
    assert [(warning.code, warning.healed) for warning in heard.warnings] == [("prompt_echo", True)]


@pytest.mark.parametrize("leak", ["Zoltan, Kubernetes.", HINTED.hints])
def test_hotwords_do_not_leak_into_silence(tmp_path: Path, leak: str) -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 16000 * 20)
    soundfile.write(tmp_path / "noise.wav", noise, 16000)

    def leaks(request: Request) -> Result:
        return said(leak if "Zoltan" in str(request.messages[0].parts[1]) else "")

    heard = hear(ScriptedEngine(leaks), tmp_path / "noise.wav", HINTED, Listening(vad=False))
    assert text_of(heard) == ""
    assert {warning.code for warning in heard.warnings} == {"prompt_echo"}
    assert all("Zoltan" in warning.action for warning in heard.warnings), "what was left out is told"


def test_a_hotword_that_was_said_stays(short: Path) -> None:
    def hears_a_name(request: Request) -> Result:
        return said(
            "Zoltan! Kubernetes!" if "Zoltan" in str(request.messages[0].parts[1]) else "Sultan, cube and Etis."
        )

    heard = hear(ScriptedEngine(hears_a_name), short, HINTED)
    assert "Zoltan! Kubernetes!" in text_of(heard)


def test_the_same_answers_in_any_order_make_the_same_requests_and_text() -> None:
    def fickle(request: Request) -> Result:
        kind = int(request.key[:2], 16) % 4
        texts = [hears(request).text, "", LOOP.text, ASKED.instruction]
        return Result(texts[kind], (1,), "stop" if int(request.key[2], 16) % 4 else "length", 1)

    engines = [ScriptedEngine(fickle, seed) for seed in range(3)]
    results = [hear(engine, how=Listening(longest_chunk=12.0)) for engine in engines]
    assert results[0] == results[1] == results[2]
    assert len({frozenset(request.key for request in engine.asked) for engine in engines}) == 1
    assert not all(warning.healed for warning in results[0].warnings)


def test_a_request_that_fails_fails_its_recording() -> None:
    class Failing(ScriptedEngine):
        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            answered: list[tuple[str, Result | RequestError]] = super().poll(timeout)
            return [(key, RequestError("refused")) for key, _ in answered]

    with pytest.raises(RequestError):
        hear(Failing(hears))
