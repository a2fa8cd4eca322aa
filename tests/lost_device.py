"""A process for a device that disappears, and is not found again: what `several` would have had run is another's."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from phi4mm_cli.engines.failing import foreseen
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.engines.worker import serve
from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.checkpoint import Checkpoint


def serve_losing(
    gone: Path, connection: Connection, checkpoint: Checkpoint, settings: dict[str, Any], beside: int
) -> None:
    """Serve as it should be; but what is not on the CPU is lost at once, and there is a file `gone` from then on."""

    def load(engine: LocalEngine) -> None:
        if gone.exists():
            raise MissingError("no CUDA device was found")
        gone.touch()
        with foreseen("the model"):
            raise RuntimeError("CUDA error: the device is lost")

    if settings["device"] != "cpu":
        LocalEngine._load = load  # type: ignore[method-assign, assignment]
    serve(connection, checkpoint, settings, beside)
