"""`python slow_program.py ARGUMENTS...`: phi4mm with an engine that takes its time and can be killed at work."""

from __future__ import annotations

import time
from typing import Any

from scripted import ScriptedEngine, said

from phi4mm_cli import __main__, engine_options
from phi4mm_cli.schema import Request, Result

SECONDS = 0.1  # for an answer


def heard(request: Request) -> Result:
    time.sleep(SECONDS)
    return said(f"Some words that are heard at {request.clips[0].start:.3f} and no other time.")


def main() -> None:
    def open_slow(*_: Any, **__: Any) -> ScriptedEngine:
        return ScriptedEngine(heard)

    engine_options.open_engine = open_slow  # type: ignore[assignment]
    __main__.main()


if __name__ == "__main__":
    main()
