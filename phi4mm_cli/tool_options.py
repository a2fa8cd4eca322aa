"""The options of commands that let the model call tools, and what they do: ask first, call, and say so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import console
from phi4mm_cli.errors import UsageError
from phi4mm_cli.options import LogOptions, option
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.formats import read_json
from phi4mm_cli.tools.functions import Functions
from phi4mm_cli.tools.programs import read_program
from phi4mm_cli.tools.records import ToolResult
from phi4mm_cli.tools.results import Actor, Limits, carry_out, refused


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
        for name, most in (("max_steps", 1000), ("call_seconds", 86400), ("call_characters", 1000000)):
            if not 0 < getattr(self, name) <= most:  # so that no NaN passes
                raise UsageError(f"--{name.replace('_', '-')} is above 0 and at most {most}")

    def recorded(self) -> dict[str, str | int | float]:
        """What is recorded of them."""
        return {name: getattr(self, name) for name in ("approve", "max_steps", "call_seconds", "call_characters")}


def offers(
    stack: ExitStack, acting: ActingOptions, described: list[Path] | None = None
) -> Iterator[tuple[Tool, Actor | None]]:
    """The tools of all files and commands, with what carries them out. Raises UsageError and MissingError."""
    for path in described or ():
        yield from ((_sound(entry), None) for entry in read_json(path))
    for path in acting.functions or ():
        functions = stack.enter_context(Functions(path))
        yield from ((_sound(entry), functions) for entry in functions.tools())
    for text in acting.command or ():
        program = read_program(text)
        yield program.tool, program


def _sound(entry: Tool | UsageError) -> Tool:
    if isinstance(entry, UsageError):
        raise entry
    return entry


@dataclass(frozen=True, slots=True)
class Acts:
    """Carries out the calls that are approved, and says so on stderr."""

    actors: Mapping[str, Actor]
    how: CallOptions
    log: LogOptions

    def on(self, call: ToolCall) -> ToolResult:
        """What came of the call, or of its refusal."""
        actor = self.actors[call.name]
        shown = console.visible(actor.show(call))
        if self.how.approve is Approval.ASK and console.can_ask():
            if not console.confirm(f"call {shown}?"):
                return refused(call, "the user does not want this call")
        elif self.how.approve is not Approval.ALL:
            asked = self.how.approve is Approval.ASK
            self._say(f"not called: {shown}" + ("; there is nobody to ask, see --approve" if asked else ""))
            return refused(call, "calls are not allowed now")
        else:
            self._say(f"call {shown}")
        limits = Limits(self.how.call_seconds, self.how.call_characters)
        result = carry_out(call, lambda: actor.call(call, limits))
        if self.log.verbose or result.ending != "done":
            self._say(f"{call.name}: {console.visible(result.content)}")
        return result

    def _say(self, message: str) -> None:
        if not self.log.quiet:
            console.say(message)
