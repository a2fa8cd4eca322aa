"""The options that choose tokens: what they may be, where they come from, and that they are recorded."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import Phi4mm

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.errors import UsageError
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.schema import Sampling


def test_defaults_are_greedy() -> None:
    assert SamplingOptions().sampling(70) == Sampling(70)
    assert SamplingOptions().recorded() == {}


def test_every_setting_of_a_request_is_an_option() -> None:
    assert [f.name for f in fields(SamplingOptions)] == [f.name for f in fields(Sampling)]
    values: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "repetition_penalty": 1.1}
    values |= {"no_repeat_ngram_size": 4, "num_beams": 1}
    assert SamplingOptions(max_new_tokens=9, **values).sampling(70) == Sampling(9, **values)
    assert SamplingOptions(**values).sampling(70) == Sampling(70, **values)
    del values["num_beams"]  # at its default
    assert SamplingOptions(**values).recorded() == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "--temperature is 0 to 2, not -0.1"),
        ({"temperature": 2.5}, "--temperature is 0 to 2"),
        ({"temperature": float("nan")}, "--temperature is 0 to 2"),
        ({"temperature": 1e-30}, "--temperature is 0, or 0.01 to 2"),
        ({"top_p": 1.1}, "--top-p is 0 to 1"),
        ({"seed": -1}, "--seed is 0 to 4294967295"),
        ({"seed": 2**70}, "--seed is 0 to 4294967295"),
        ({"max_new_tokens": 0}, "--max-new-tokens is 1 to 131072, not 0"),
        ({"repetition_penalty": 0.0}, "--repetition-penalty is 0.1 to 10"),
        ({"no_repeat_ngram_size": -1}, "--no-repeat-ngram-size is 0 to"),
        ({"num_beams": 0}, "--num-beams is 1 to 64"),
        ({"num_beams": 2, "temperature": 0.5}, "--num-beams is for answers without chance"),
    ],
    ids=str,
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingOptions(**values)
    assert caught.value.message.startswith(message)
    assert "\n" not in str(caught.value)


def test_refused_before_anything_is_read(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "missing.wav", "--top-p", "7")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "phi4mm: error: --top-p is 0 to 1, not 7\n"


def test_options_and_variables_reach_the_model_and_the_record(phi4mm: Phi4mm, tmp_path: Path) -> None:
    samples, rate = soundfile.read(SAMPLES / "meeting.flac", frames=10 * 16000)
    soundfile.write(tmp_path / "a.wav", samples, rate)

    def transcript(*arguments: object, **env: str) -> Any:
        run = phi4mm("transcribe", "a.wav", "--model", "demo", "--jsonl", *arguments, env=env)
        assert run.stdout, (run.returncode, run.stderr)
        return json.loads(run.stdout)

    short = transcript("--max-new-tokens", 3)
    assert short["options"] == {"language": None, "vad": True, "word_timestamps": False, "max_new_tokens": 3}
    assert {warning["code"] for warning in short["warnings"]} == {"token_limit"}
    assert 0 < len(short["text"].split()) < 10
    (tmp_path / "phi4mm.toml").write_text("[transcribe]\ntop-p = 0.95\n", encoding="utf-8")
    drawn = transcript(PHI4MM_TEMPERATURE="1.8", PHI4MM_SEED="1", PHI4MM_MAX_NEW_TOKENS="40")
    wanted = {"temperature": 1.8, "top_p": 0.95, "seed": 1, "max_new_tokens": 40}
    assert drawn["options"] == {"language": None, "vad": True, "word_timestamps": False} | wanted
    assert "The meeting starts at six o'clock on Friday." not in drawn["text"]  # as it is written without chance
