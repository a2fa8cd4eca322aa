"""What comes of a call, and how the model is told: a JSON object, so that whatever a tool returns is a text in it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools.records import ToolEnding, ToolResult


class ToolError(Exception):
    """A call failed; the message is for the model."""

    def __init__(self, message: str, ending: ToolEnding = "failed") -> None:
        super().__init__(message)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class Limits:
    """What a call may take."""

    seconds: float = 30.0
    characters: int = 10000  # of its result


@dataclass(frozen=True, slots=True)
class Returned:
    """What a tool returned: a JSON value, or of one that is too long the first characters."""

    value: Any
    characters: int  # of the whole


class Actor(Protocol):
    """What can carry out calls."""

    def show(self, call: ToolCall) -> str:
        """The call as people read it."""

    def call(self, call: ToolCall, limits: Limits) -> Returned:
        """Carry it out. Raises ToolError."""


def carry_out(call: ToolCall, act: Callable[[], Returned]) -> ToolResult:
    """The result of `act`, or of its failure, and how long it took."""
    began = time.monotonic()
    try:
        returned = act()
    except ToolError as error:
        return ToolResult(call, error.ending, failure(str(error)), time.monotonic() - began)
    kept = len(returned.value) if isinstance(returned.value, str) else returned.characters
    truncated = returned.characters - kept
    content = returned.value if isinstance(returned.value, dict) else {"result": returned.value}
    if truncated:
        content = {**content, "left_out": f"the last {truncated} of {returned.characters} characters"}
    text = json.dumps(content, ensure_ascii=False)
    return ToolResult(call, "done", text, time.monotonic() - began, truncated > 0)


def refused(call: ToolCall, reason: str) -> ToolResult:
    """The result of a call that was not carried out."""
    return ToolResult(call, "refused", failure(reason), 0.0)


def failure(reason: str) -> str:
    """How the model is told of what went wrong."""
    return json.dumps({"error": reason}, ensure_ascii=False)
