"""Python files of typed, documented functions as tools.

A file is imported and its functions are called in a process of their own: one that hangs is killed, one that prints
cannot reach stdout, and one that takes its process down takes nothing else. What a file keeps in variables lasts from
call to call, until a call has to be killed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi4mm_cli.closing import Closing
from phi4mm_cli.errors import UsageError
from phi4mm_cli.paths import is_file
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.checking import check_schema
from phi4mm_cli.tools.process import Process, TimeLimitError, how
from phi4mm_cli.tools.results import Limits, Returned, ToolError

WORKER = Path(__file__).with_name("worker.py")
IMPORT_SECONDS = 60.0  # some files import libraries that take their time
DESCRIPTION_BYTES = 1 << 22
ESCAPED = 12  # most bytes of a character in JSON


class Functions(Closing):
    """The functions of one file. A context manager that ends their process."""

    def __init__(self, path: Path) -> None:
        """Import `path` and describe its functions. Raises UsageError where that fails."""
        self._path = path
        if not is_file(path):
            raise UsageError(f"{path}: there is no such file", "Tools are read from files")
        self._process: Process | None = None
        try:
            self._descriptions = self._start()
        except ToolError as error:
            raise UsageError(f"{path} cannot be imported: {error}", "Mend the file") from None

    def tools(self) -> Iterator[Tool | UsageError]:
        """The tools of the file, one by one, each or what is wrong with it."""
        for described in self._descriptions:
            name = described["name"]
            try:
                if "problem" in described:
                    raise UsageError(f"{self._path}: '{name}': {described['problem']}", "Type and document it")
                check_schema(f"the parameters of '{name}'", described["parameters"])
                yield Tool(name, described["description"], described["parameters"])
            except UsageError as error:
                yield error

    def show(self, call: ToolCall) -> str:
        """The call as Python would write it, with values in JSON."""
        given = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items()]
        return f"{call.name}({', '.join(given)})"

    def call(self, call: ToolCall, limits: Limits) -> Returned:
        """What the function returns. Raises ToolError."""
        if self._process is None:
            self._start()
        request = {"name": call.name, "arguments": dict(call.arguments), "most": limits.characters}
        answer = self._exchange(request, limits.seconds, ESCAPED * limits.characters + 1000)
        if "error" in answer:
            raise ToolError(answer["error"])
        return Returned(answer["value"], answer["characters"])

    def _start(self) -> list[dict[str, Any]]:
        self._process = Process([sys.executable, "-P", str(WORKER), str(self._path)], merged=False)
        answer = self._exchange(None, IMPORT_SECONDS, DESCRIPTION_BYTES)
        if "error" in answer:
            self.close()
            raise ToolError(answer["error"])
        described: list[dict[str, Any]] = answer["tools"]
        return described

    def _exchange(self, request: dict[str, Any] | None, seconds: float, most: int) -> dict[str, Any]:
        """Ask the process, and read its answer; where there is none, the process is ended."""
        assert self._process is not None
        deadline = time.monotonic() + seconds
        try:
            if request is not None:
                self._process.send(json.dumps(request).encode() + b"\n")
            output = self._process.read(deadline, most, line=True)
            answer: dict[str, Any] = json.loads(output.content)
        except TimeLimitError:
            self.close()
            raise ToolError(f"it took more than {seconds:g} seconds and was ended", "time_limit") from None
        except (OSError, ValueError):
            code = self._process.end()
            self.close()
            raise ToolError(f"its process ended with {how(code)}") from None
        except BaseException:  # as Ctrl-C in a chat: this answer would be taken for that of the next call
            self.close()
            raise
        return answer

    def close(self) -> None:
        """End the process; the next call starts another one."""
        if self._process is not None:
            self._process.close()
            self._process = None
