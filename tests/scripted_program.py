"""`python scripted_program.py ANSWERS.json ARGUMENTS...`: phi4mm with an engine that gives those answers in turn."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from scripted import ScriptedEngine, said

from phi4mm_cli import __main__, options


def main() -> None:
    answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def open_scripted(*_: Any, **__: Any) -> ScriptedEngine:
        return ScriptedEngine(lambda request: said(answers.pop(0)))

    options.open_engine = open_scripted  # type: ignore[assignment]
    sys.argv = ["phi4mm", *sys.argv[2:]]
    __main__.main()


if __name__ == "__main__":
    main()
