"""What commands do with tools: read those that options name, and carry out calls, each asked for first and told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from phi4mm_cli import console
from phi4mm_cli.errors import UsageError
from phi4mm_cli.options import LogOptions
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tool_options import ActingOptions, Approval, CallOptions
from phi4mm_cli.tools import Tool, by_name
from phi4mm_cli.tools.formats import read_json
from phi4mm_cli.tools.functions import Functions
from phi4mm_cli.tools.programs import read_program
from phi4mm_cli.tools.records import ToolResult
from phi4mm_cli.tools.results import Actor, Limits, carry_out, refused


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Tools by name, and what carries out those of them that are not only described."""

    tools: Mapping[str, Tool]
    actors: Mapping[str, Actor]


def toolbox(stack: ExitStack, acting: ActingOptions, described: Sequence[Path] = ()) -> Toolbox:
    """The tools of all files and commands. Raises UsageError, also where there are none, and MissingError."""
    found = [*_offers(stack, acting, described)]
    tools = by_name([tool for tool, _ in found])
    return Toolbox(tools, {tool.name: actor for tool, actor in found if actor is not None})


def _offers(stack: ExitStack, acting: ActingOptions, described: Sequence[Path]) -> Iterator[tuple[Tool, Actor | None]]:
    for path in described:
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
