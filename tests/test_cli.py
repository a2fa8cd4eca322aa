"""The command line's contract: what goes where, what is refused, and with which exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import soundfile
from at_work import stop_at_once, wait_for
from conftest import Phi4mm, environment
from jsonschema import Draft202012Validator

from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.engine_options import ClusterOptions, EngineName, EngineOptions, ServerOptions
from phi4mm_cli.errors import UsageError
from phi4mm_cli.journal import FOLDER

ECHO = ("--engine", "echo", "--no-vad")


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 16000).astype("float32")
    for name in ("talk.wav", "a/one.wav", "a/deep/two.flac"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, noise, 16000)


def tree(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if FOLDER not in path.parts)


# ------------------------------------------------------------------------------------------ where results go

TEXT = "[0.000-1.000] Transcribe the audio clip into text.\n"


def test_one_input_goes_to_stdout(phi4mm: Phi4mm, tmp_path: Path) -> None:
    before = tree(tmp_path)
    run = phi4mm("transcribe", "talk.wav", *ECHO)
    assert (run.returncode, run.stdout, run.stderr) == (0, TEXT, "")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("asked", [("--srt", "--json"), ("-f", "srt,json"), ("-f", "json", "--format", "srt")])
def test_formats_go_to_the_current_folder(phi4mm: Phi4mm, tmp_path: Path, asked: tuple[str, ...]) -> None:
    run = phi4mm("transcribe", "a/one.wav", *ECHO, *asked)
    assert (run.returncode, run.stdout) == (0, "")
    assert {"one.srt", "one.json"} <= set(tree(tmp_path))


def test_the_sample_stays_beside_its_transcript(phi4mm: Phi4mm) -> None:
    assert phi4mm("sample").stdout == "meeting.flac\nmeeting.reference.json\n"
    assert phi4mm("transcribe", "meeting.flac", "--json", *ECHO).returncode == 0
    assert phi4mm("sample").returncode == 0  # nothing has been written over it


def test_folders_are_mirrored(phi4mm: Phi4mm, tmp_path: Path) -> None:
    run = phi4mm("transcribe", "a", "talk.wav", "-o", "out", *ECHO)
    assert (run.returncode, run.stdout) == (0, "")
    assert tree(tmp_path / "out") == ["deep/two.txt", "one.txt", "talk.txt"]
    assert run.stderr == "phi4mm: 3 inputs: 3 done\n"


def test_dash_is_stdout_for_one_format(phi4mm: Phi4mm) -> None:
    assert phi4mm("transcribe", "talk.wav", "-o", "-", "--vtt", *ECHO).stdout.startswith("WEBVTT\n")
    assert phi4mm("transcribe", "talk.wav", "-o", "-", "--vtt", "--srt", *ECHO).returncode == 2
    assert phi4mm("transcribe", "a", "-o", "-", "--vtt", *ECHO).returncode == 2


def test_jsonl_is_one_line_an_input(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "a", "talk.wav", "--jsonl", *ECHO)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert {line["source"] for line in lines} == {"talk.wav", "a/one.wav", "a/deep/two.flac"}
    for line in lines:
        Draft202012Validator(json_schema()).validate(line)


def test_answers_that_are_cut_off_are_reported(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "talk.wav", "--jsonl", "--strict", "--max-new-tokens", "3", *ECHO)
    assert run.returncode == 7, run.stderr
    result = json.loads(run.stdout)
    assert result["text"] == "[0.000-1.000] Transcribe the"
    assert [warning["code"] for warning in result["warnings"]] == ["token_limit"]
    assert result["options"]["max_new_tokens"] == 3
    Draft202012Validator(json_schema()).validate(result)


def test_stdin_is_an_input(phi4mm: Phi4mm, tmp_path: Path) -> None:
    with (tmp_path / "talk.wav").open("rb") as recording:
        assert phi4mm("transcribe", "-", *ECHO, stdin=recording).stdout == TEXT
    with (tmp_path / "talk.wav").open("rb") as recording:
        run = phi4mm("transcribe", "-", "--srt", "--name", "call", *ECHO, stdin=recording)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "call.srt").exists()


def test_an_output_is_replaced_unless_refused(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("old", encoding="utf-8")
    refused = phi4mm("transcribe", "talk.wav", "--txt", "--no-overwrite", *ECHO)
    assert refused.returncode == 2
    assert "talk.txt exists" in refused.stderr
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8") == "old"
    assert phi4mm("transcribe", "talk.wav", "--txt", *ECHO).returncode == 0
    assert (tmp_path / "talk.txt").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize(
    "name", ["a b.wav", "-dash.wav", "line\nbreak.wav", "ep.12.wav", "émoji 🎙.wav", "x" * 247 + ".wav"]
)
def test_any_file_name(phi4mm: Phi4mm, tmp_path: Path, name: str) -> None:
    (tmp_path / "talk.wav").rename(tmp_path / name)
    run = phi4mm("transcribe", "--json", *ECHO, "--", name)
    assert run.returncode == 0, run.stderr
    written = json.loads((tmp_path / (name.removesuffix(".wav") + ".json")).read_text(encoding="utf-8"))
    assert written["source"] == name


def test_a_name_that_is_not_utf8(phi4mm: Phi4mm, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / "talk.wav").rename(tmp_path / name)
    run = phi4mm("transcribe", name, "--json", *ECHO)
    assert run.returncode == 0, run.stderr
    assert (
        json.loads((tmp_path / os.fsdecode(b"caf\xe9.json")).read_text(encoding="utf-8"))["source"] == "caf\ufffd.wav"
    )


def test_names_that_look_alike_are_two_inputs(phi4mm: Phi4mm, tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"caf\xe8.wav")]
    for name in names:
        (tmp_path / name).write_bytes((tmp_path / "talk.wav").read_bytes())
    run = phi4mm("transcribe", *names, "-o", "out", *ECHO)
    assert run.returncode == 0, run.stderr
    assert len(tree(tmp_path / "out")) == 2


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.wav"], 4, "no such file"),
        (["empty"], 4, "no media files"),
        (["text.wav"], 4, "text"),
        (["zero.mp3"], 4, "empty"),
        (["talk.wav", "--srt", "-o", "blocked/out"], 2, "cannot write to the output folder"),
        (["talk.wav", "--srt", "-o", "/proc/phi4mm"], 2, "cannot write to the output folder"),
        (["talk.wav", "-o", "talk.srt"], 2, "-o takes a folder, and talk.srt looks like a file"),
        (["a/one.wav", "b/one.mp3", "--srt"], 2, "would both write one.srt"),
        (["talk.wav", "-l", "klingon"], 2, "does not hear the language 'klingon'"),
        (["talk.wav", "-f", "docx"], 2, "unknown format 'docx'"),
        (["talk.wav", "--batch-size", "many"], 2, "--batch-size"),
        (["talk.wav", "--chunk-seconds", "50"], 2, "--chunk-seconds"),
        (["talk.wav", "--jsonl", "--srt"], 2, "--jsonl"),
    ],
)
def test_refusals_are_one_line(phi4mm: Phi4mm, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("no media", encoding="utf-8")
    (tmp_path / "text.wav").write_text("This is not a recording.\n" * 50, encoding="utf-8")
    (tmp_path / "zero.mp3").touch()
    (tmp_path / "blocked").touch()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.mp3").touch()
    before = tree(tmp_path)
    run = phi4mm("transcribe", *arguments)  # with the default engine and model: they must not be reached
    assert run.returncode == code
    assert run.stdout == ""
    assert run.stderr.startswith("phi4mm: error: ")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
    assert tree(tmp_path) == before


def test_a_model_that_cannot_be_had(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "talk.wav")
    assert run.returncode == 5
    assert run.stdout == ""
    assert run.stderr.count("\n") == 1
    assert "--model demo" in run.stderr


def test_one_bad_file_among_good_ones(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "a" / "bad.wav").write_bytes(b"RIFF" + bytes(100))
    run = phi4mm("transcribe", "a", "missing.wav", "-o", "out", *ECHO)
    assert run.returncode == 3
    assert tree(tmp_path / "out") == ["deep/two.txt", "one.txt"]
    assert "phi4mm: error: a/bad.wav: " in run.stderr
    assert "phi4mm: error: missing.wav: " in run.stderr
    assert "phi4mm: 4 inputs: 2 done, 2 failed\n" in run.stderr


def test_quiet_says_errors_only(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "talk.wav", "missing.wav", "-o", "out", "-q", *ECHO)
    assert run.stderr.splitlines() == [line for line in run.stderr.splitlines() if "error: missing.wav" in line]


# ------------------------------------------------------------------------------------------ pipes and signals


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m phi4mm_cli transcribe talk.wav --engine echo --no-vad | true"
    run = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert run.stdout == "0\n"
    assert run.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    "command", ["transcribe talk.wav --engine echo --no-vad", "chat Hello --engine echo", "schema"]
)
def test_a_full_stdout_is_said_in_one_line(tmp_path: Path, command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        program = [sys.executable, "-m", "phi4mm_cli", *command.split()]
        variables = environment(tmp_path)
        run = subprocess.run(
            program, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, encoding="utf-8", env=variables
        )
    assert run.returncode == 1
    assert run.stderr.startswith("phi4mm: error: cannot write the results: ")
    assert run.stderr.count("\n") == 1


def test_no_colour_and_no_bar_off_a_terminal(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "a", "missing.wav", "-o", "out", *ECHO)
    assert "\x1b" not in run.stderr + run.stdout
    assert "\r" not in run.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_reading(tmp_path: Path, number: signal.Signals, code: int) -> None:
    rate = 16000
    with soundfile.SoundFile(tmp_path / "long.flac", "w", rate, 1) as file:
        for _ in range(120):
            file.write(np.random.default_rng(2).normal(0, 0.1, rate * 60))
    run = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", "transcribe", "long.flac", "talk.wav", "--srt", "--engine", "echo"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_for((tmp_path / "talk.srt").exists, run)  # which is while the long one is still being read
    stderr = stop_at_once(run, number)
    assert run.returncode == code
    assert "Traceback" not in stderr
    assert [path for path in tree(tmp_path) if path.endswith((".srt", ".part"))] == ["talk.srt"]


@pytest.mark.parametrize(
    "options",
    [
        ("--url", "http://127.0.0.1:1/v1"),
        ("--timeout", "5", "--engine", "ray"),
        ("--workers", "2", "--engine", "echo"),
        ("--dtype", "float32", "--engine", "openai", "--url", "http://127.0.0.1:1/v1"),
    ],
    ids=" ".join,
)
def test_options_of_another_engine_are_refused(phi4mm: Phi4mm, options: tuple[str, ...]) -> None:
    run = phi4mm("transcribe", "a.wav", *options)
    assert run.returncode == 2
    assert run.stderr.startswith(f"phi4mm: error: {options[0]} ")
    set_elsewhere = phi4mm("transcribe", "a.wav", "--engine", "echo", env={"PHI4MM_URL": "http://127.0.0.1:1/v1"})
    assert "--url" not in set_elsewhere.stderr


def test_help_says_which_engines_an_option_is_for() -> None:
    """Those that refuse it are not among them."""
    hints = {
        name: hint
        for group in (EngineOptions, ServerOptions, ClusterOptions)
        for name, hint in get_type_hints(group, include_extras=True).items()
        if name not in ("model", "engine", "server", "cluster")
    }
    assert len(hints) == 15
    for name, hint in hints.items():
        said = hint.__metadata__[0].help.partition(" (--engine ")[2]
        assert any(engine in said for engine in EngineName), name
        for engine in EngineName:
            try:
                EngineOptions(engine=engine).check_given({name})
            except UsageError:
                assert engine not in said, name
