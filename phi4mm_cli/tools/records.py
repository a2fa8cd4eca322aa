"""The records of answers to a question, with tools and without, down to what `tools run` and `chat` write as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from phi4mm_cli.outputs import SCHEMA_VERSION, Timings, Usage, Warning
from phi4mm_cli.schema import Finish, ModelInfo, ToolCall, to_json

ToolEnding = Literal["done", "failed", "refused", "time_limit"]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of a call."""

    call: ToolCall
    ending: ToolEnding
    content: str  # JSON text of an object: what the model is told
    seconds: float
    truncated: bool = False  # the tool returned more than the model is told


@dataclass(frozen=True, slots=True)
class Step:
    """An answer of the model that asks for tools, and what came of its calls."""

    answer: str  # as the model wrote it
    results: tuple[ToolResult, ...]


ToolRunEnding = Literal["answered", "too_many_steps", "no_valid_call"]


@dataclass(frozen=True, slots=True)
class ToolRun:
    """How a question was answered with the help of tools."""

    text: str  # the answer; "" where there is none
    ending: ToolRunEnding
    steps: tuple[Step, ...]
    problem: str | None = None  # why there is no answer
    warnings: tuple[Warning, ...] = ()
    task: Literal["calls"] = "calls"


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the model says in a conversation."""

    text: str  # JSON where it was held against a schema
    finish: Finish
    turns: int  # of the conversation that the model was told, with this one
    left_out: int = 0  # turns at its beginning for which there was no room
    steps: tuple[Step, ...] = ()
    warnings: tuple[Warning, ...] = ()
    task: Literal["chat"] = "chat"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and what came of it: in JSON, the fields of the body stand beside the others."""

    question: str | None  # None where it was spoken
    media: tuple[str, ...]  # names of the recordings and pictures that came with it
    model: ModelInfo
    options: Mapping[str, str | int | float | bool | None]
    timings: Timings
    usage: Usage
    tools: tuple[str, ...]  # names of those on offer
    body: ToolRun | ChatReply

    def to_json(self) -> dict[str, Any]:
        """One flat JSON object: the envelope, then the body of the task."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "body"}
        envelope = {name: to_json(value) for name, value in values.items() if value is not None}
        body = to_json(self.body)
        return {"schema_version": SCHEMA_VERSION, "task": body.pop("task"), **envelope, **body}
