"""What the tests share: the program run as people run it, and models that are only read from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from phi4mm_cli.model.loading import Model

Phi4mm = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def phi4mm(tmp_path: Path) -> Phi4mm:
    """Runs `phi4mm ARGUMENTS` in an empty folder, with no configuration of the user's, and gives what it printed."""

    def run(*arguments: object, **settings: object) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if not name.startswith("PHI4MM_")}
        variables |= {"PHI4MM_CONFIG": "", "HF_HUB_OFFLINE": "1", "COLUMNS": "80"} | dict(settings.pop("env", {}))  # type: ignore[call-overload]
        return subprocess.run(
            [sys.executable, "-m", "phi4mm_cli", *map(str, arguments)],
            env=variables,
            cwd=settings.pop("cwd", tmp_path),  # type: ignore[arg-type]
            capture_output=True,
            encoding="utf-8",
            check=False,
            timeout=settings.pop("timeout", 120),  # type: ignore[arg-type]
            **settings,  # type: ignore[call-overload]
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
