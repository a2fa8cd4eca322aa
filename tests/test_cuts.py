"""Cuts in hard conditions: whispers, faint voices, music, the telephone, speech without a pause, real files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
import soundfile
from conversation import QUIET, WHISPERS, Conversation, InMemory, Samples, chords, converse, noises, unbroken

from phi4mm_cli.demo.voice import Word
from phi4mm_cli.errors import UsageError
from phi4mm_cli.media import audio
from phi4mm_cli.media.activity import RATE
from phi4mm_cli.media.speech import Chunk, chunks

LIMITS = (5.0, 10.0, 30.0)


def cut(talk: Conversation, max_seconds: float = 30.0, vad: bool = True, block: int = 48000) -> list[Chunk]:
    """The chunks of `talk`, after the checks that all chunks must pass."""
    found = list(chunks(InMemory(talk.samples, talk.rate, block), max_seconds, vad))
    duration = talk.samples.size / talk.rate
    for chunk in found:
        assert 0 <= chunk.start < chunk.end <= duration
        assert chunk.end - chunk.start <= max_seconds + 1e-9
        for moment in (chunk.start, chunk.end):
            assert moment * talk.rate == pytest.approx(round(moment * talk.rate), abs=1e-6)
        for region in chunk.speech:
            assert chunk.start <= region.start < region.end <= chunk.end
    assert all(before.end <= after.start for before, after in pairwise(found))
    return found


def whole(words: Sequence[Word], found: Sequence[Chunk]) -> float:
    """The share of the words that lie in one chunk from start to end."""
    inside = [any(chunk.start <= word.start and word.end <= chunk.end for chunk in found) for word in words]
    return sum(inside) / len(inside)


def conditions(word_count: int) -> Iterator[tuple[str, Conversation]]:
    for rate in (16000, 8000):
        talk = converse(word_count, seed=1, rate=rate)
        noisy = talk + talk.noise(25)
        yield f"clean {rate}", talk
        yield f"noise {rate}", noisy
        yield f"-25 dB {rate}", noisy * QUIET
        yield f"music bits {rate}", noisy + _music_bits(noisy)
        talk = converse(word_count, seed=2, rate=rate, gains=(1.0, QUIET))
        yield f"loud and -25 dB {rate}", talk + talk.noise(25) * np.float32(QUIET)
        talk = converse(word_count, seed=3, rate=rate, voices=WHISPERS)
        yield f"whisper voices {rate}", talk + talk.noise(25)
        yield f"whisper voices -25 dB {rate}", (talk + talk.noise(25)) * QUIET
        talk = converse(word_count, seed=4, rate=rate, whispered=True)
        yield f"noise for voice {rate}", talk + talk.noise(25)
        yield f"noise for voice -25 dB {rate}", (talk + talk.noise(25)) * QUIET


def _music_bits(talk: Conversation) -> Samples:
    """Chords in the pauses of more than a second."""
    music = chords(talk.samples.size / talk.rate, talk.rate)
    gate = np.zeros(talk.samples.size, np.float32)
    for before, after in pairwise(talk.words):
        if after.start - before.end > 1.0:
            gate[round((before.end + 0.1) * talk.rate) : round((after.start - 0.1) * talk.rate)] = 1.0
    return music[: gate.size] * gate


QUICK = ("music bits 16000", "noise for voice -25 dB 8000", "whisper voices 8000")


def test_no_word_is_cut_or_lost() -> None:
    for name, talk in conditions(120):
        if name in QUICK:
            for limit in LIMITS:
                assert whole(talk.words, cut(talk, limit)) >= 0.99, (name, limit)


@pytest.mark.slow
def test_no_word_is_cut_or_lost_in_any_condition() -> None:
    report: list[str] = []
    for name, talk in conditions(2000):
        shares = [whole(talk.words, cut(talk, limit)) for limit in LIMITS]
        errors = onset_errors(talk, cut(talk))
        report.append(f"{name:32s} {len(talk.words)} words, {talk.samples.size / talk.rate / 60:.0f} min, whole:")
        report[-1] += " ".join(f" {share:.2%} ({limit:.0f} s)" for share, limit in zip(shares, LIMITS, strict=True))
        report[-1] += f", onsets {1000 * np.median(errors):.0f} ms, 95 % within {1000 * np.percentile(errors, 95):.0f}"
        if min(shares) < 0.995 or np.median(errors) > 0.1:
            report[-1] += "  FAILED"
    assert not any(line.endswith("FAILED") for line in report), "\n".join(report)


def onset_errors(talk: Conversation, found: Sequence[Chunk]) -> list[float]:
    """Seconds between the words that begin after a pause of 0.3 s or more, and the next start of a region."""
    starts = np.array([region.start for chunk in found for region in chunk.speech])
    onsets = [after.start for before, after in pairwise(talk.words) if after.start - before.end >= 0.3]
    return [float(np.abs(starts - onset).min()) for onset in onsets]


def test_chunks_are_well_filled_and_leave_silence_out() -> None:
    talk = converse(200, seed=6, pauses=(0.3, 1.0))
    found = cut(talk, 10.0)
    assert np.mean([chunk.end - chunk.start for chunk in found[:-1]]) > 6.5
    silence = Conversation(np.concatenate([np.zeros(16000 * 7, np.float32), talk.samples] * 3), 16000, ())
    covered = sum(chunk.end - chunk.start for chunk in cut(silence, 10.0))
    assert covered < 3 * talk.samples.size / 16000 + 1


def test_pauses_are_cut_in_their_middle() -> None:
    talk = converse(40, seed=7, pauses=(0.7, 0.7), sentence=(7, 8))
    ends = [chunk.end for chunk in cut(talk, 5.0)]
    pauses = [(before.end, after.start) for before, after in pairwise(talk.words) if after.start - before.end > 0.6]
    assert len(ends) > 4
    assert all(any(start < end < stop for start, stop in pauses) for end in ends[:-1])


@pytest.mark.parametrize("vad", [True, False])
def test_five_minutes_without_a_pause_are_cut_where_they_are_quietest(vad: bool) -> None:
    talk = unbroken(620, gap=(0.08, 0.14), seed=8)
    assert talk.samples.size > 280 * 16000
    noisy = talk + talk.noise(25)
    for limit in (5.0, 30.0):
        found = cut(noisy, limit, vad)
        assert len(found) <= 2.1 * 300 / limit
        assert whole(talk.words, found) >= 1 - 0.03 * len(found) / len(talk.words), limit  # of the cuts, 3 % hit a word


@pytest.mark.parametrize("rate", [8000, 16000])
def test_without_listening_every_sample_is_in_one_chunk(rate: int) -> None:
    talk = converse(60, seed=9, rate=rate)
    for count in (1, 100, 5 * rate, 5 * rate + 1, 11 * rate + 77, talk.samples.size):
        part = Conversation(talk.samples[:count], rate, ())
        found = cut(part, 5.0, vad=False)
        assert found[0].start == 0
        assert found[-1].end == pytest.approx(count / rate, abs=1e-9)
        assert all(before.end == after.start for before, after in pairwise(found))
        assert not any(chunk.speech for chunk in found)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_silence_and_noise_are_no_speech(rate: int) -> None:
    for name, sound in noises(20, rate).items():
        for level in (-60, -25):
            assert not cut(Conversation(sound * np.float32(10 ** (level / 20)), rate, ())), (name, level)
    assert not cut(Conversation(np.zeros(30 * rate, np.float32), rate, ()))
    assert not cut(Conversation(np.zeros(0, np.float32), rate, ()))


def test_frames_judged_together_are_cut_like_frames_judged_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against Silero's own model, called as its authors do: frame by frame."""
    import torch
    from silero_vad import load_silero_vad

    from phi4mm_cli.media.activity import _Stream

    talk = converse(60, seed=12)
    talk = talk + talk.noise(25)
    together = cut(talk, 10.0)
    model = load_silero_vad()  # sets torch to one thread
    models: dict[int, torch.nn.Module] = {}

    def judge(self: _Stream, frames: Samples) -> Samples:
        if id(self) not in models:
            models[id(self)] = load_silero_vad()
        return np.array([models[id(self)](torch.from_numpy(frame.copy()), RATE).item() for frame in frames], np.float32)

    model(torch.zeros(512), RATE)
    monkeypatch.setattr(_Stream, "judge", judge)
    assert together == cut(talk, 10.0)


def test_a_decoded_file_is_cut_like_its_samples(tmp_path: object) -> None:
    talk = converse(40, seed=14)
    path = f"{tmp_path}/talk.flac"
    soundfile.write(path, talk.samples, 16000)
    stored, _ = soundfile.read(path, dtype="float32")
    with audio.open_recording(audio.source(path)) as recording:
        found = list(chunks(recording, 5.0))
    assert found == cut(Conversation(stored, 16000, ()), 5.0)
    assert whole(talk.words, found) == 1


def test_a_length_below_a_second_is_refused() -> None:
    with pytest.raises(UsageError, match="shorter than a second"):
        next(chunks(InMemory(np.zeros(16000, np.float32)), 0.5))
