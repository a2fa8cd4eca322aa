"""`python scripted_program.py ANSWERS.json ARGUMENTS...`: phi4mm with an engine that gives those answers in turn.

Each request is a line of the file `asked`, where it is run. PAUSE is how many seconds each word of an answer takes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from scripted import ScriptedEngine, said

from phi4mm_cli import __main__, engine_options
from phi4mm_cli.schema import Request, Result, canonical_json

ASKED = Path("asked").absolute()


class SlowEngine(ScriptedEngine):
    """Takes its time over each word."""

    def stream(self, request: Request) -> Generator[str, None, Result]:
        with ASKED.open("a", encoding="utf-8") as asked:
            asked.write(canonical_json(request) + "\n")
        answer = super().stream(request)
        while True:
            time.sleep(float(os.environ.get("PAUSE", "0")))
            try:
                yield next(answer)
            except StopIteration as end:
                result: Result = end.value
                return result


def main() -> None:
    answers = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))

    def open_scripted(*_: Any, **__: Any) -> ScriptedEngine:
        return SlowEngine(lambda request: said(answers.pop(0)))

    engine_options.open_engine = open_scripted  # type: ignore[assignment]
    sys.argv = ["phi4mm", *sys.argv[2:]]
    __main__.main()


if __name__ == "__main__":
    main()
