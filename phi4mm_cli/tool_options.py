"""The options of commands that let the model call tools, in groups like those of `options.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli.options import SECONDS, option, require_ranges


class Approval(StrEnum):
    """Which calls are carried out."""

    ASK = "ask"
    ALL = "all"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class ActingOptions:
    """Tools that can be carried out."""

    functions: Annotated[
        list[Path] | None,
        typer.Option("--functions", help="A Python file of typed, documented functions. It is imported."),
    ] = None
    command: Annotated[
        list[str] | None,
        typer.Option("--command", help="A program, such as [b]'wc -l {path} # Count the lines of a file'[/b]."),
    ] = None

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return bool(self.functions or self.command)


@dataclass(frozen=True, slots=True)
class OfferOptions(ActingOptions):
    """... and those that are only described."""

    tools: Annotated[
        list[Path] | None,
        typer.Option("--tools", help="A JSON file: the model's own format, OpenAI's 'tools', or JSON Schemas."),
    ] = None


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How calls are carried out. Raises UsageError where a value is out of its range."""

    approve: Annotated[
        Approval,
        typer.Option(
            "--approve", help="[b]ask[/b] before each call (off a terminal, none is made), make [b]all[/b], or none."
        ),
    ] = Approval.ASK
    max_steps: Annotated[int, option("--max-steps", help="How often the model may ask for tools.")] = 5
    call_seconds: Annotated[float, option("--call-seconds", help="How long a call may take; then it is ended.")] = 30.0
    call_characters: Annotated[
        int, option("--call-characters", help="How much the model is told of what a call returned.")
    ] = 10000

    def __post_init__(self) -> None:
        require_ranges(self, {"max_steps": (1, 1000), "call_seconds": SECONDS, "call_characters": (1, 1000000)})

    def recorded(self) -> dict[str, str | int | float]:
        """What is recorded of them."""
        return {name: getattr(self, name) for name in ("approve", "max_steps", "call_seconds", "call_characters")}
