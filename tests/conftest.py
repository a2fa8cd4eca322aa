"""What the tests share: the program run as people run it, and models that are only read from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from at_work import PATIENCE
from journalled import HereRun, Ran
from scripted import ScriptedEngine, said

from phi4mm_cli import console, engine_options
from phi4mm_cli.cli import app
from phi4mm_cli.errors import Phi4Error, RequestError
from phi4mm_cli.schema import Request, Result

if TYPE_CHECKING:
    from serving import Server

    from phi4mm_cli.model.loading import Model

# The processes of Ray run as others do, and are not ended for what other programs take of the memory.
RAY = {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_memory_monitor_refresh_ms": "0"}
Phi4mm = Callable[..., subprocess.CompletedProcess[str]]
Scripted = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def phi4mm(tmp_path: Path) -> Phi4mm:
    """Runs `phi4mm ARGUMENTS` in an empty folder, with no configuration of the user's, and gives what it printed."""

    def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PHI4MM_")}
        variables |= {"PHI4MM_CONFIG": "", "XDG_STATE_HOME": str(tmp_path / "state"), "HF_HUB_OFFLINE": "1"}
        if "input" not in settings:
            settings.setdefault("stdin", subprocess.DEVNULL)
        variables |= {"COLUMNS": "80"} | dict(settings.pop("env", {}))  # type: ignore[call-overload]
        return subprocess.run(
            [sys.executable, "-m", "phi4mm_cli", *map(str, arguments)],
            env=variables,
            cwd=settings.pop("cwd", tmp_path),  # type: ignore[arg-type]
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=settings.pop("timeout", PATIENCE),  # type: ignore[arg-type]
            **settings,  # type: ignore[call-overload]
        )

    return run


@pytest.fixture
def phi4mm_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> HereRun:
    """The program in this process and an empty folder, with an engine that answers as it is told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHI4MM_CONFIG", "")

    def run(*arguments: object, engine: Callable[[Request], Result | RequestError] = _hears) -> Ran:
        scripted = ScriptedEngine(engine)
        monkeypatch.setattr(engine_options, "open_engine", lambda *_, **__: scripted)
        capfd.readouterr()
        code: Any = 0
        try:
            app([str(argument) for argument in arguments], prog_name="phi4mm")
        except SystemExit as end:
            code = end.code
        except Phi4Error as error:
            code = error.exit_code
            console.say(str(error), "error")
        return Ran(int(code), capfd.readouterr().err, len(scripted.asked))

    return run


def environment(folder: Path) -> dict[str, str]:
    """Variables with which no file of the user's is read or written."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PHI4MM_")}
    return kept | {
        "PHI4MM_CONFIG": "",
        "XDG_STATE_HOME": str(folder / "state"),
        "COLUMNS": "80",
        "TERM": "xterm",
        "NO_COLOR": "1",
    }


def program(folder: Path, answers: list[str], arguments: tuple[str, ...]) -> list[str]:
    """The command line of `phi4mm ARGUMENTS` with an engine that gives the answers."""
    path = folder / "answers.json"
    path.write_text(json.dumps(answers), encoding="utf-8")
    return [sys.executable, str(Path(__file__).with_name("scripted_program.py")), str(path), *arguments]


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """Runs `phi4mm ARGUMENTS` with an engine that gives the answers, off a terminal."""

    def run(answers: list[str], *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            program(tmp_path, answers, arguments),
            cwd=tmp_path,
            env=environment(tmp_path),
            **({"stdin": subprocess.DEVNULL} | settings),  # type: ignore[call-overload]
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture(scope="session")
def demo() -> Model:
    """The demo checkpoint."""
    return _loaded("demo")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Random weights, no adapters, and a LongRoPE switch at 64 tokens."""
    from tiny_model import write_tiny_model

    return _loaded(str(write_tiny_model(tmp_path_factory.mktemp("tiny"))))


def _hears(request: Request) -> Result:
    return said(f"Sentence at {request.clips[0].start:.0f}." if request.clips else "A text.")


def _loaded(name: str) -> Model:
    import torch  # here, as it takes seconds, which tests of words and files need not wait for

    from phi4mm_cli.model.checkpoint import resolve
    from phi4mm_cli.model.loading import load

    return load(resolve(name), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint with both adapters."""
    from tiny_model import write_adapter, write_tiny_model

    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    write_adapter(folder)
    write_adapter(folder, name="vision")
    return folder


@pytest.fixture(scope="session")
def demo_server() -> Iterator[Server]:
    """`phi4mm serve` with the demo checkpoint."""
    from serving import serving

    with serving("--model", "demo", "-v") as server:
        yield server


@pytest.fixture(scope="session")
def echo_server() -> Iterator[Server]:
    """`phi4mm serve` with the echo engine."""
    from serving import serving

    with serving("--engine", "echo") as server:
        yield server


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster of this machine alone, with two CPUs to give; this process is part of it."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY.items():
            patch.setenv(name, value)
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
        yield
        ray.shutdown()
