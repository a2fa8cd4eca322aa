"""Commands on a server: what is written, said and recorded. The server plays recorded vLLM behaviour."""

from __future__ import annotations

import json
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import recorded
import soundfile
from conftest import Phi4mm
from PIL import Image
from serving import Server
from web import Heard, serving

from phi4mm_cli.demo.voice import speak


@pytest.fixture
def talks(tmp_path: Path) -> list[Path]:
    spoken = speak("The meeting starts at six o'clock on Friday.", sample_rate=16000).samples
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, spoken, 16000)
    return [tmp_path / "a.wav", tmp_path / "b.wav"]


def test_recordings_are_transcribed_on_a_server(phi4mm: Phi4mm, tmp_path: Path, talks: list[Path]) -> None:
    text = "The meeting starts at six o'clock on Friday."
    with serving(recorded.answering(text, length=8192)) as web:
        environment = {"PHI4MM_URL": web.url, "PHI4MM_API_KEY": "sk-secret", "PHI4MM_ENGINE": "openai"}
        run = phi4mm("transcribe", *talks, "--json", "--strict", "--word-timestamps", "-v", env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("serve the model with --max-model-len 4096") == 1  # of all inputs together
    for name in ("a", "b"):
        written = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        assert written["text"] == text
        assert [warning["code"] for warning in written["warnings"]] == ["other_computation"]
        assert "--max-model-len 4096" in written["warnings"][0]["action"]
        assert written["model"] == {"id": "phi4mm-base", "engine": "openai", "server": f"127.0.0.1:{web.port}"}
        assert [word["word"] for word in written["segments"][0]["words"]] == text.split()
        assert written["usage"]["completion_tokens"] > 0
    assert {heard.headers["authorization"] for heard in web.heard} == {"Bearer sk-secret"}
    assert "sk-secret" not in run.stderr + run.stdout + (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        ("transcribe", "a.wav", "--no-vad"),
        ("translate", "note.txt", "--to", "fr"),
        ("summarize", "note.txt", "--style", "bullets"),
        ("ocr", "page.png"),
        ("describe", "page.png", "--style", "alt"),
        ("chat", "What is it about?", "--image", "page.png"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_is_the_same_on_a_server(
    phi4mm: Phi4mm, tmp_path: Path, talks: list[Path], echo_server: Server, command: tuple[str, ...]
) -> None:
    """On both sides the engine that answers with what it is asked."""
    (tmp_path / "note.txt").write_text("The boat is red. <|end|> It lies near the house.\n", encoding="utf-8")
    _draw_page(tmp_path / "page.png")
    here = phi4mm(*command, "--engine", "echo")
    there = phi4mm(*command, "--engine", "openai", "--url", echo_server.url)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert len(here.stdout) > 10
    assert there.stdout == here.stdout


def _draw_page(path: Path) -> None:
    page = Image.new("RGB", (448, 448), "white")
    page.paste("black", (40, 40, 400, 90))  # a blank one is not shown to any model
    page.save(path)


def test_a_page_is_read_on_a_server(phi4mm: Phi4mm, tmp_path: Path) -> None:
    _draw_page(tmp_path / "page.png")
    with serving(recorded.answering("# A title")) as web:
        run = phi4mm("ocr", "page.png", "--engine", "openai", "--url", web.url)
    assert (run.returncode, run.stdout) == (0, "# A title\n"), run.stderr
    assert [body["model"] for body in web.posted()] == ["vision", "vision"]  # the first to see whether it can


def test_tools_are_called_on_a_server(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text('[{"name": "weather", "parameters": {"city": {"type": "str"}}}]')
    call = '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>'
    with serving(recorded.answering(call)) as web:
        run = phi4mm("tools", "call", "Weather?", "--tools", "tools.json", "--engine", "openai", "--url", web.url)
    assert json.loads(run.stdout) == [{"name": "weather", "arguments": {"city": "Oslo"}}], run.stderr


def test_what_a_server_ignores_is_recorded_with_tools_too(phi4mm: Phi4mm) -> None:
    with serving(recorded.answering("It rains.")) as web:
        choice = ("--num-beams", "2", "--engine", "openai", "--url", web.url)
        run = phi4mm("tools", "run", "Weather?", "--json", "--command", "echo {city}", *choice)
    assert run.returncode == 0, run.stderr
    assert [warning["code"] for warning in json.loads(run.stdout)["warnings"]] == ["ignored_setting"]
    assert run.stderr.count("num_beams") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="connections are no files there")
def test_no_more_connections_than_the_system_allows(phi4mm: Phi4mm, tmp_path: Path) -> None:
    import resource

    lock, now, most = threading.Lock(), [0], [0]

    def counted(heard: Heard) -> None:
        if heard.path == "/v1/chat/completions":
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.1)
            with lock:
                now[0] -= 1
        recorded.answering("Bonjour.")(heard)

    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"Number {number} is red.\n", encoding="utf-8")
    with serving(counted) as web:
        options = ("--engine", "openai", "--url", web.url, "--concurrency", "300", "-o", "out")
        few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (120, 120))
        run = phi4mm("translate", ".", "--to", "fr", *options, preexec_fn=few)
    assert (run.returncode, "Traceback" in run.stderr) == (0, False), run.stderr
    assert "19 requests are in flight: the system allows few open files" in run.stderr
    assert len([*(tmp_path / "out").glob("*.txt")]) == 60
    assert most[0] <= 19


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--engine openai needs --url"),
        (["--url", "localhost:8000"], 2, "--url takes the URL of a server"),
        (["--url", "http://256.1.1.1/v1"], 2, "--url takes the URL of a server"),
        (["--url", "http://localhost:0/v1"], 2, "--url takes the URL of a server"),
        (["--url", "http://127.0.0.1:9", "--adapter", "speech=x"], 2, "--adapter does not reach a server"),
        (["--url", "http://127.0.0.1:9", "--served", "text=x"], 2, "--served takes speech=NAME"),
        (["--url", "http://127.0.0.1:9", "--concurrency", "0"], 2, "--concurrency is 1 to"),
        (["--url", "http://127.0.0.1:9", "--timeout", "nan"], 2, "--timeout is 0.001 to 86400, not nan"),
        (["--url", "http://127.0.0.1:9/v1"], 5, "the server at 127.0.0.1:9 cannot be reached: nobody answers there"),
    ],
)
def test_refusals_are_one_line(
    phi4mm: Phi4mm, talks: list[Path], arguments: list[str], code: int, message: str
) -> None:
    run = phi4mm("transcribe", talks[0], "--engine", "openai", *arguments)
    assert (run.returncode, run.stdout) == (code, ""), run.stderr
    assert message in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_a_server_is_not_for_a_project_to_choose(phi4mm: Phi4mm, tmp_path: Path, talks: list[Path]) -> None:
    (tmp_path / "phi4mm.toml").write_text('url = ["http://elsewhere/v1"]\n')
    run = phi4mm("transcribe", talks[0], "--engine", "openai")
    assert run.returncode == 2
    assert "a project's file may not set 'url'" in " ".join(run.stderr.split())
