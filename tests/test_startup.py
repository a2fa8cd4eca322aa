"""Help, version, completion and errors of the command line load nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from phi4mm_cli.cli import app
from phi4mm_cli.commands import captions, models, tools

HEAVY = {"torch", "transformers", "numpy", "librosa", "av", "PIL", "soundfile", "soxr", "silero_vad", "onnxruntime"}
HEAVY |= {"pypdfium2"}
PROBE = """
import json, sys
from phi4mm_cli.__main__ import main
sys.argv = ["phi4mm", *sys.argv[1:]]
try:
    main()
finally:
    print(json.dumps(sorted(name for name in sys.modules if "." not in name)), file=sys.stderr)
"""
COMMANDS = [[str(command.name)] for command in app.registered_commands]
for group, name in ((models, "models"), (tools, "tools"), (captions, "captions")):
    COMMANDS += [[name], *([name, str(command.name)] for command in group.app.registered_commands)]


def loaded(*arguments: str, cwd: Path) -> tuple[set[str], str]:
    run = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, encoding="utf-8", cwd=cwd, check=False
    )
    return set(json.loads(run.stderr.splitlines()[-1])), run.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([*name, "--help"] for name in COMMANDS)])
def test_help_loads_no_heavy_module(arguments: list[str], tmp_path: Path) -> None:
    modules, stdout = loaded(*arguments, cwd=tmp_path)
    assert stdout
    assert not modules & HEAVY


def test_probe_sees_heavy_modules(tmp_path: Path) -> None:
    modules, _ = loaded("transcribe", "missing.wav", cwd=tmp_path)
    assert "numpy" in modules


# What a question in writing does not need: other ways of loading and storing weights, sound, films, statistics.
UNUSED = {"peft", "bitsandbytes", "librosa", "sklearn", "pandas", "av", "silero_vad", "onnxruntime"}


def test_a_text_request_loads_what_it_needs_alone(tmp_path: Path) -> None:
    modules, stdout = loaded("chat", "What is two plus three?", "--model", "demo", "--no-history", cwd=tmp_path)
    assert stdout.strip()
    assert "torch" in modules
    assert not modules & UNUSED


def test_wrong_language_is_told_without_loading_anything(tmp_path: Path) -> None:
    modules, stdout = loaded("transcribe", "x.wav", "--language", "klingon", cwd=tmp_path)
    assert not modules & HEAVY
    assert stdout == ""


@pytest.mark.parametrize("arguments", [["list", "--functions"], ["list", "--json", "--functions"], ["check"]])
def test_tools_are_looked_at_without_loading_anything(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def f(x: int) -> int:\n    'Do.'\n    return x\n", encoding="utf-8")
    modules, stdout = loaded("tools", *arguments, "tools.py", cwd=tmp_path)
    assert not modules & HEAVY
    assert "f" in stdout


def test_captions_are_checked_and_mended_without_loading_anything(tmp_path: Path) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,000\n{'a long line ' * 9}\n"
    (tmp_path / "a.srt").write_text(text, encoding="utf-8")
    for command, expected in (("check", "a.srt:2: width"), ("fix", "a long line a long\nline")):
        modules, stdout = loaded("captions", command, "a.srt", cwd=tmp_path)
        assert expected in stdout
        assert not modules & HEAVY


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shipped_completions_are_what_the_program_prints(shell: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "phi4mm_cli"],
        env={"_PHI4MM_COMPLETE": f"source_{shell}"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    shipped = Path(__file__).parents[1] / "completions" / f"phi4mm.{shell}"
    # zsh looks for its functions by the first line of files; what prints them begins with an empty one.
    assert run.stdout.lstrip("\n") == shipped.read_text(encoding="utf-8")
