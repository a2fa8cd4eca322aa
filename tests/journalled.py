"""The program run in this process on an output folder, with an engine that counts what it is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from phi4mm_cli.journal import FOLDER


@dataclass
class Ran:
    code: int
    stderr: str
    asked: int  # requests that the model was asked

    @property
    def last(self) -> str:
        return self.stderr.splitlines()[-1].removeprefix("phi4mm: ")


HereRun = Callable[..., Ran]


def save(path: Path, seed: int, seconds: int = 1) -> None:
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 16000 * seconds), 16000)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FOLDER / "journal.jsonl").read_text().splitlines()]


def outputs(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and FOLDER not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def untimed(files: dict[str, bytes]) -> dict[str, Any]:
    """Outputs without what is another in every run."""
    return {name: _untimed(content) if name.endswith(".json") else content for name, content in files.items()}


def _untimed(content: bytes) -> dict[str, Any]:
    return {name: value for name, value in json.loads(content).items() if name != "timings"}
