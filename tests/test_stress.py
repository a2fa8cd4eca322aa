"""Recordings that make a speech model loop, stop early or invent: what comes of them is right, or it is said."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
from at_work import PATIENCE
from conftest import Phi4mm
from long_meeting import words

from phi4mm_cli import trust
from phi4mm_cli.demo.voice import speak
from phi4mm_cli.demo.world import noises

RATE = 16000
DEMO = ("--model", "demo", "--chunk-seconds", "40")
LOOSE = ("budget", "camera", "letter", "house", "bicycle", "meeting", "Oscar", "Nina", "Friday", "yellow", "seven")
GERMAN = (
    "Guten Morgen, meine Damen und Herren, wir beginnen mit dem ersten Punkt der Tagesordnung.",
    "Die Verhandlungen dauern schon drei Wochen, und noch immer gibt es keine Einigung.",
    "Niemand wusste, was geschehen war, bis der Zug endlich eintraf.",
    "Wir danken Ihnen für Ihre Geduld und bitten um Ihr Verständnis.",
)
NUMBER = "My number is seven five three."


def record(path: Path, texts: list[str], pause: float, voice: str = "en", noise: float = 0.0) -> Path:
    """The texts, said one after the other with hardly a pause, and some noise."""
    silence = np.zeros(round(RATE * pause), np.float32)
    samples = np.concatenate([part for text in texts for part in (speak(text, voice=voice).samples, silence)])
    samples = 0.4 * samples / np.abs(samples).max()
    hiss = noises.wave("pink", samples.size / RATE + 1, np.random.default_rng(1))[: samples.size]
    soundfile.write(path, samples + np.float32(noise) * hiss, RATE)
    return path


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the program says of each recording, in chunks of up to 40 s; the demo was taught 30 s."""
    folder, rng = tmp_path_factory.mktemp("stress"), random.Random(1)
    loose = [" ".join(rng.choices(LOOSE, k=12)) for _ in range(8)]
    made = {
        "loose": record(folder / "loose.wav", loose, 0.0),
        "noisy": record(folder / "noisy.wav", loose, 0.1, noise=0.15),
        "foreign": record(folder / "foreign.wav", [*GERMAN] * 2, 0.15, "de"),
        "number": record(folder / "number.wav", [NUMBER] * 14, 0.1),
    }
    command = [sys.executable, "-m", "phi4mm_cli", "transcribe", *map(str, made.values()), "--jsonl", "-q", *DEMO]
    run = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", timeout=PATIENCE)
    lines = map(json.loads, run.stdout.splitlines())
    return {Path(result["source"]).stem: result for result in lines}


@pytest.mark.parametrize("name", ["loose", "noisy", "foreign", "number"])
def test_no_hole_and_no_loop_without_a_word(results: dict[str, dict[str, Any]], name: str) -> None:
    result = results[name]
    coverage, remaining = result["coverage"], [w for w in result["warnings"] if not w["healed"]]
    assert coverage["speech"] > 20
    assert (coverage["transcribed"] < coverage["speech"] - 0.01) == bool(remaining)
    if not remaining:
        assert trust.letters(result["text"]) >= trust.SLOWEST * coverage["speech"]


def test_what_is_really_repeated_is_kept(results: dict[str, dict[str, Any]]) -> None:
    said = words(" ".join([NUMBER] * 14))
    assert trust.is_looping(results["number"]["text"])
    assert jiwer.wer(" ".join(said), " ".join(words(results["number"]["text"]))) < 0.15


def test_a_model_that_is_made_to_loop_is_healed_or_reported(phi4mm: Phi4mm, tmp_path: Path) -> None:
    record(tmp_path / "talk.wav", ["Please send the budget to Nina before Tuesday."] * 2, 0.3)
    run = phi4mm("transcribe", "talk.wav", "--jsonl", "--strict", *DEMO, "--repetition-penalty", "0.1")
    result = json.loads(run.stdout)
    assert {warning["code"] for warning in result["warnings"]} <= {
        "looping",
        "token_limit",
        "speech_rate",
        "missing_words",
        "empty_with_speech",
    }
    assert result["warnings"]
    assert run.returncode == (0 if all(warning["healed"] for warning in result["warnings"]) else 7)


def test_what_cannot_be_healed_is_reported(phi4mm: Phi4mm, tmp_path: Path) -> None:
    record(tmp_path / "talk.wav", ["Please send the budget to Nina before Tuesday."] * 2, 0.3)
    run = phi4mm("transcribe", "talk.wav", "--jsonl", "--strict", *DEMO, "--max-new-tokens", "4")
    result = json.loads(run.stdout)
    assert run.returncode == 7
    assert {(warning["code"], warning["healed"]) for warning in result["warnings"]} == {("token_limit", False)}
    assert result["coverage"]["transcribed"] < result["coverage"]["speech"]
    assert "decoded again to no avail" in run.stderr
