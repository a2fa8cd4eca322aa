"""Features against the numbers of the model's original code, transformers' extractor, and a plain 8 kHz spectrum."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from transformers import Phi4MultimodalFeatureExtractor

from phi4mm_cli.model.features import audio_tokens, log_mel

ORIGINAL = json.loads((Path(__file__).parent / "data" / "original_features.json").read_text())["waves"]


def wave(seconds: float, variant: int) -> NDArray[np.int16]:
    """The waves of the recorded numbers: six gliding parabolic tones under an envelope, and noise; integers only."""
    n = np.arange(round(seconds * 16000), dtype=np.int64)
    total = np.zeros_like(n)
    for tone in range(6):
        low, high = 90 + (397 * tone + 211 * variant) % 900, 250 + (2731 * tone + 1297 * variant) % 6800  # Hz
        speed, glide = (low << 32) // 16000, ((high - low) << 32) // (16000 * len(n))
        phase = ((speed * n + glide * (n * (n - 1) // 2)) % 2**32 // 2**16) - 32768
        total += (phase * (32768 - abs(phase)) // 2**13) * (5 - tone // 2)
    loudness = abs((7 * n + 2000 * variant) % 32768 - 16384) + 4096
    noise = (n * 2654435761 + variant * 40503 + 1) % 2**32
    noise = ((noise ^ (noise >> 15)).astype(np.uint64) * np.uint64(2246822519) % np.uint64(2**32)).astype(np.int64)
    noise = ((noise ^ (noise >> 13)) >> 24) - 128
    return np.clip((total * loudness // 2**19) + noise, -32768, 32767).astype(np.int16)


def samples(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    return pcm.astype(np.float32) / 32768


@pytest.mark.parametrize("recorded", ORIGINAL, ids=["3.7s", "2.1s"])
def test_features_are_those_of_the_original_code(recorded: dict) -> None:
    pcm = wave(recorded["seconds"], recorded["variant"])
    assert zlib.crc32(pcm.astype("<i2").tobytes()) == recorded["int16_crc32"]
    features = log_mel(samples(pcm), 16000)
    assert list(features.shape) == recorded["features"]["shape"]
    np.testing.assert_allclose(
        features.flatten()[recorded["features"]["index"]], recorded["features"]["value"], rtol=0, atol=1e-5
    )


def test_features_are_those_of_transformers_but_for_the_last_band() -> None:
    pcm = samples(wave(3.7, 0))
    theirs = Phi4MultimodalFeatureExtractor()(pcm, sampling_rate=16000, return_tensors="pt").audio_input_features[0]
    ours = log_mel(pcm, 16000)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours[:, :79], theirs[:, :79], rtol=0, atol=1e-4)
    # Theirs gives FFT bin 246 a weight in the last band; the numbers of the original code say that it has none.


def telephone_features(pcm: NDArray[np.float32]) -> NDArray[np.float64]:
    """The 8 kHz path, one frame and one band at a time."""

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    spacing = mel(7690) / 81
    rows = []
    for start in range(0, len(pcm) - 199, 80):
        frame = pcm[start : start + 200]
        frame = 32768 * (frame - np.float32(0.97) * frame[[0, *range(199)]])  # in single precision, as the original
        power = np.abs(np.fft.fft(frame * np.hamming(200), 256)) ** 2
        row = []
        for band in range(80):
            heights = [1 - abs(mel(k * 8000 / 256) - (band + 1) * spacing) / spacing for k in range(128)]
            row.append(sum(power[k] * heights[k] for k in range(1, 128) if heights[k] > 0))
        rows.append(np.log(np.maximum(row, 1.0)))
    return np.array(rows)


def test_telephone_speech_keeps_its_own_spectrum() -> None:
    pcm = samples(wave(1.0, 3))[:8000]
    ours = log_mel(pcm, 8000)
    np.testing.assert_allclose(ours, telephone_features(pcm), rtol=0, atol=1e-5)
    assert ours[:, -1].max() == 0.0  # nothing above 4 kHz
    assert ours[:, :40].min() > 0.0


@pytest.mark.parametrize(("rate", "window", "hop"), [(16000, 400, 160), (8000, 200, 80)])
def test_incomplete_frames_are_dropped_and_short_clips_padded(rate: int, window: int, hop: int) -> None:
    pcm = samples(wave(0.5, 1))
    assert len(log_mel(pcm[: window + hop - 1], rate)) == 1
    assert len(log_mel(pcm[: window + hop], rate)) == 2
    short = log_mel(pcm[: window - 1], rate)
    padded = log_mel(np.append(pcm[: window - 1], np.float32(0)), rate)
    assert short.shape == (1, 80)
    assert (short == padded).all()
    assert log_mel(pcm[:0], rate).tolist() == [[0.0] * 80]


def test_long_clips_are_the_same_in_blocks() -> None:
    pcm = samples(wave(61.0, 2))
    whole = log_mel(pcm, 16000)
    tail = log_mel(pcm[5990 * 160 :], 16000)
    assert len(whole) == 6098
    assert (whole[5990:] == tail).all()


def test_other_rates_are_refused() -> None:
    with pytest.raises(ValueError, match="44100"):
        log_mel(np.zeros(1000, np.float32), 44100)


def test_a_position_of_the_prompt_is_80_ms() -> None:
    assert [audio_tokens(frames) for frames in (1, 8, 9, 368)] == [1, 1, 2, 46]
