"""Where an option's value comes from: command line, environment, project's file, user's file, in this order."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from conftest import Phi4mm
from journalled import outputs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "talk.wav", [0.0] * 16000, 16000)
    return tmp_path


def language(run: object) -> str:
    assert run.returncode == 0, run.stderr  # type: ignore[attr-defined]
    return str(json.loads(run.stdout)["options"].get("language"))  # type: ignore[attr-defined]


def test_precedence(phi4mm: Phi4mm, folder: Path) -> None:
    user = folder / "user.toml"
    arguments = ["transcribe", "talk.wav", "--engine", "echo", "--jsonl"]
    env = {"PHI4MM_CONFIG": str(user)}
    assert language(phi4mm(*arguments)) == "None"
    user.write_text('language = "de"', encoding="utf-8")
    assert language(phi4mm(*arguments, env=env)) == "de"
    user.write_text('language = "de"\n[transcribe]\nlanguage = "French"', encoding="utf-8")
    assert language(phi4mm(*arguments, env=env)) == "fr"
    (folder / "phi4mm.toml").write_text('language = "it"', encoding="utf-8")
    assert language(phi4mm(*arguments, env=env)) == "it"
    assert language(phi4mm(*arguments, env={**env, "PHI4MM_LANGUAGE": "es"})) == "es"
    assert language(phi4mm(*arguments, "-l", "Japanese", env={**env, "PHI4MM_LANGUAGE": "es"})) == "ja"


def test_lists_flags_and_dashes(phi4mm: Phi4mm, folder: Path) -> None:
    (folder / "phi4mm.toml").write_text('format = ["srt", "json"]\noutput-dir = "out"\nvad = false', encoding="utf-8")
    run = phi4mm("transcribe", "talk.wav", "--engine", "echo")
    assert run.returncode == 0, run.stderr
    assert sorted(outputs(folder / "out")) == ["talk.json", "talk.srt"]
    assert json.loads((folder / "out/talk.json").read_text(encoding="utf-8"))["options"]["vad"] is False


@pytest.mark.parametrize("table", ["", "[transcribe]\n"])
def test_one_value_stands_for_a_list_of_one(phi4mm: Phi4mm, folder: Path, table: str) -> None:
    text = table + 'format = "txt,json"\nhotwords = "New York, Zoltan"\noutput-dir = "out"\nvad = false'
    (folder / "phi4mm.toml").write_text(text, encoding="utf-8")
    run = phi4mm("transcribe", "talk.wav", "--engine", "echo")
    assert run.returncode == 0, run.stderr
    assert sorted(outputs(folder / "out")) == ["talk.json", "talk.txt"]
    result = json.loads((folder / "out/talk.json").read_text(encoding="utf-8"))
    assert result["options"]["hotwords"] == "New York, Zoltan"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("languag = 'de'", "'languag' is no option"),
        ("[transcrib]\nlanguage = 'de'", "[transcrib] is no command"),
        ("[transcribe]\nfoo = 1", "'foo' is no option"),
        ("language = ", "Mend the file"),
        ("model = 'somewhere/else'", "may not set 'model'"),
        ("[transcribe]\nrevision = 'x'", "may not set 'revision'"),
        ("log = 'x'", "may not set 'log'"),
        ("log_file = 'x'", "'log_file' is no option"),
        ("inputs = ['x']", "'inputs' is no option"),
    ],
)
def test_what_a_project_file_may_not_say(phi4mm: Phi4mm, folder: Path, text: str, message: str) -> None:
    (folder / "phi4mm.toml").write_text(text, encoding="utf-8")
    run = phi4mm("transcribe", "talk.wav", "--engine", "echo")
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert run.stdout == ""


def test_user_file_may_set_the_model(phi4mm: Phi4mm, folder: Path) -> None:
    user = folder / "user.toml"
    user.write_text('model = "demo"\nengine = "echo"', encoding="utf-8")
    run = phi4mm("transcribe", "talk.wav", env={"PHI4MM_CONFIG": str(user)})
    assert run.returncode == 0, run.stderr


def test_options_are_named_as_on_the_command_line(phi4mm: Phi4mm, folder: Path) -> None:
    user = folder / "user.toml"
    user.write_text(
        'engine = "echo"\nlog = "run.log"\n[translate]\nfrom = "de"\n[status]\njson = true', encoding="utf-8"
    )
    env = {"PHI4MM_CONFIG": str(user)}
    assert phi4mm("transcribe", "talk.wav", "-o", "out", env=env).returncode == 0
    assert "talk.wav" in (folder / "run.log").read_text(encoding="utf-8")
    assert json.loads(phi4mm("status", "out", env=env).stdout)["commands"]
    clash = phi4mm("translate", "talk.wav", "--to", "de", env=env)
    assert "--from and --to are both German" in clash.stderr


def test_a_user_file_that_is_not_there(phi4mm: Phi4mm, folder: Path) -> None:
    run = phi4mm("transcribe", "talk.wav", "--engine", "echo", env={"PHI4MM_CONFIG": "none.toml"})
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "PHI4MM_CONFIG names none.toml" in run.stderr


def test_a_home_that_cannot_be_looked_into(folder: Path) -> None:
    closed = folder / "home"
    closed.mkdir(mode=0)  # which keeps nobody out who is root, as a name that is too long does
    code = "from phi4mm_cli import config; print(config.defaults({}))"
    for home in (str(closed), f"/{300 * 'x'}"):
        run = subprocess.run([sys.executable, "-c", code], env={"HOME": home}, capture_output=True, encoding="utf-8")
        assert run.stdout == "{}\n", run.stderr
    closed.chmod(0o700)
