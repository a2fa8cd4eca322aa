"""The synthesiser tells the truth about its own speech: words have their places, and between them is silence."""

from __future__ import annotations

import numpy as np
import pytest

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.errors import UsageError

TEXT = "Oscar forgot one of the letters on Monday. She said: it isn't 31, I'm sure of it - and café bars cost $5."


def test_words_cover_the_sound_and_the_text() -> None:
    speech = speak(TEXT)
    assert [word.text for word in speech.words] == [token for token in TEXT.split() if token != "-"]
    assert all(word.end - word.start > 0.03 for word in speech.words)
    assert all(before.end <= after.start for before, after in zip(speech.words, speech.words[1:], strict=False))
    spoken = np.zeros(len(speech.samples), bool)
    for word in speech.words:
        spoken[round(word.start * speech.rate) : round(word.end * speech.rate)] = True
    assert np.sqrt(np.mean(speech.samples[spoken] ** 2)) > 0.05
    assert np.sqrt(np.mean(speech.samples[~spoken] ** 2)) < 0.001
    assert 0.05 < np.mean(~spoken) < 0.3


def test_equal_calls_give_equal_samples() -> None:
    first = speak("Hello Nina.", "en+f4", rate_wpm=150)
    other = speak("The price is forty dollars.", "en+whisper")
    again = speak("Hello Nina.", "en+f4", rate_wpm=150)
    assert np.array_equal(first.samples, again.samples)
    assert first.words == again.words
    assert len(other.samples) > len(first.samples)
    assert not np.array_equal(first.samples, speak("Hello Nina.", "en+f4", rate_wpm=150, pitch=70).samples)


def test_sample_rate_does_not_move_words() -> None:
    wide, narrow = speak(TEXT), speak(TEXT, sample_rate=8000)
    assert wide.words == narrow.words
    assert len(narrow.samples) == pytest.approx(len(wide.samples) / 2, abs=1)


def test_nothing_to_say() -> None:
    assert speak("").words == ()
    assert speak(" ... ").words == ()


@pytest.mark.parametrize("voice", ["en+nobody", "nowhere"])
def test_an_unknown_voice_is_refused(voice: str) -> None:
    with pytest.raises(UsageError, match=r"has no voice"):
        speak("Hello", voice)
