"""What the tests share: the program run as people run it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

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
