"""Long recordings: no word is lost or heard twice where they are cut, and memory does not grow with their length."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import long_meeting
import numpy as np
import pytest
from long_meeting import Sentence
from scripted import ScriptedEngine, clip_of, run_alone, said

from phi4mm_cli import hearing, media
from phi4mm_cli.hearing import Listening, Question
from phi4mm_cli.schema import Request, Result

MEGABYTE = 1 << 20
MOST_MISSED = 0.005  # share of words whose first sound is so soft behind noise that it is not judged to be speech
LEAST_HEARD = 0.8  # of a word: eSpeak's ends are in part its decay


def heard_words(path: Path, sentences: list[Sentence], longest: float) -> tuple[Counter[int], str]:
    """How often each word, by its number, lies in a chunk of the result; and the text of a perfect ear."""
    words = [word for sentence in sentences for word in sentence.words]

    def inside(first: float, last: float) -> list[int]:
        return [
            number
            for number, (_, start, end) in enumerate(words)
            if min(end, last) - max(start, first) >= LEAST_HEARD * (end - start)
        ]

    def hears(request: Request) -> Result:
        clip = clip_of(request)
        return said(" ".join(words[number][0] for number in inside(clip.start, clip.end)))

    engine, how = ScriptedEngine(hears), Listening(longest)
    heard = run_alone(lambda: hearing.hear(media.source(path), Question("Transcribe."), how), engine)
    left = [warning for warning in heard.warnings if not warning.healed]
    assert {warning.code for warning in left} <= {"empty_with_speech"}, "music that was taken for speech"
    times = Counter(number for answer in heard.answers for number in inside(answer.chunk.start, answer.chunk.end))
    return times, " ".join(answer.text for answer in heard.answers if answer.text)


@pytest.mark.parametrize(("minutes", "longest"), [(3, 30.0), (3, 6.0), pytest.param(30, 15.0, marks=pytest.mark.slow)])
def test_every_word_lies_in_one_chunk(tmp_path: Path, minutes: int, longest: float) -> None:
    sentences = long_meeting.make(tmp_path / "meeting.flac", 60 * minutes, seed=minutes, world=True)
    times, text = heard_words(tmp_path / "meeting.flac", sentences, longest)
    count = sum(len(sentence.words) for sentence in sentences)
    assert max(times.values()) == 1
    assert count - len(times) <= MOST_MISSED * count
    counts = long_meeting.compare(sentences, text)
    assert (counts.lost, counts.doubled) == (0, 0)


@pytest.mark.slow
def test_half_an_hour_and_three_hours(tmp_path: Path) -> None:
    peaks = []
    for minutes in (30, 180):
        path = tmp_path / f"meeting-{minutes}.flac"
        sentences = long_meeting.make(path, 60 * minutes, seed=minutes, world=True)
        result, peak = long_meeting.transcribe(path, "--model", "demo")
        peaks.append(peak)
        counts = long_meeting.compare(sentences, result["text"])
        assert counts.word_errors <= 0.03
        assert counts.lost <= 0.01 * counts.sentences
        told = {w["code"] for w in result["warnings"] if not w["healed"]}
        assert told <= {"empty_with_speech", "missing_words", "speech_rate"}  # music, and what the demo left out
        late = np.abs(long_meeting.start_errors(sentences, result))
        assert np.median(late) <= 0.12
        assert np.quantile(late, 0.95) <= 0.4
    assert peaks[1] - peaks[0] <= 300 * MEGABYTE
