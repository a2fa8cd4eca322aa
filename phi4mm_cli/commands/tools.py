"""`phi4mm tools`: what the model would call, and calling it: functions and programs, each call asked for first."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import attaching, console
from phi4mm_cli.acting import Acts, toolbox
from phi4mm_cli.asking import asking
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.errors import AnswerError, ExitCode, UsageError
from phi4mm_cli.options import LogOptions, SamplingOptions, option, with_shared
from phi4mm_cli.outputs import Timings, remarked
from phi4mm_cli.schema import Message, to_json
from phi4mm_cli.tool_options import ActingOptions, CallOptions, OfferOptions
from phi4mm_cli.tools import SYSTEM, Tool, by_name, loop
from phi4mm_cli.tools.formats import ADVICE, OPTIONAL, flat, read_json
from phi4mm_cli.tools.functions import Functions
from phi4mm_cli.tools.records import Exchange

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@dataclass(frozen=True, slots=True)
class QuestionOptions:
    """What is asked, besides words."""

    audio: Annotated[list[Path] | None, option("--audio", help="A recording; alone, it is the question.")] = None
    image: Annotated[list[Path] | None, option("--image", help="A picture that the question is about.")] = None

    def messages(self, words: str | None) -> tuple[Message, ...]:
        """The conversation's beginning, with the sentence that the model knows tools by. Raises InputError."""
        if not words and not self.audio:
            raise UsageError("no question is asked", "Write it behind the command, or speak it and give --audio")
        files = [*map(attaching.picture, self.image or ()), *map(attaching.recording, self.audio or ())]
        for file in files:
            if file.damage:
                console.say(f"{file.damage}; what could be read is used", "warning")
        return Message("system", (SYSTEM,)), attaching.message(words, files)


@dataclass(frozen=True, slots=True)
class RunOptions(CallOptions):
    """... and what is printed."""

    json: Annotated[bool, typer.Option("--json", help="Every step, as JSON ([b]phi4mm schema[/b] describes it).")] = (
        False
    )


Words = Annotated[str | None, typer.Argument(metavar="QUESTION", help="What you want.", show_default=False)]


@app.callback()
def tools() -> None:
    """Let the model call functions and programs of yours."""


@app.command("call")
@with_shared
def call(
    offer: OfferOptions,
    asked: QuestionOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    log: LogOptions,
    words: Words = None,
) -> None:
    """Print the calls that the model would make, as JSON. Nothing is called."""
    with ExitStack() as stack:
        offered = toolbox(stack, offer, offer.tools or ()).tools
        messages = asked.messages(words)
        stdout = stack.enter_context(console.results())
        model = stack.enter_context(asking(engine, log))
        answer = model.ask(loop.turn(messages, offered, sampling.sampling(loop.BUDGET)))
        if not answer.calls:
            raise AnswerError(f"the model calls nothing, and says: {console.visible(answer.result.text)}")
        stdout.write(json.dumps(to_json(answer.calls), ensure_ascii=False) + "\n")


@app.command("run")
@with_shared
def run(
    acting: ActingOptions,
    asked: QuestionOptions,
    running: RunOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    log: LogOptions,
    words: Words = None,
) -> None:
    """Call the tools that the model asks for, tell it what came of them, and print its answer."""
    began = time.monotonic()
    with ExitStack() as stack:
        box = toolbox(stack, acting)
        messages = asked.messages(words)
        stdout = stack.enter_context(console.results())
        model = stack.enter_context(asking(engine, log))
        acts = Acts(box.actors, running, log)
        done = loop.converse(messages, box.tools, sampling.sampling(loop.BUDGET), running.max_steps, model.ask, acts.on)
        if running.json:
            exchange = Exchange(
                question=words,
                media=tuple(str(path) for path in (*(asked.image or ()), *(asked.audio or ()))),
                model=model.info,
                options={**running.recorded(), **sampling.recorded()},
                timings=Timings(time.monotonic() - began),
                usage=model.usage,
                tools=tuple(box.tools),
                body=remarked(done, model.remarks),
            )
            stdout.write(json.dumps(exchange.to_json(), ensure_ascii=False, indent=2) + "\n")
        elif done.problem is None:
            stdout.write(done.text + "\n")
    for warning in done.warnings:
        console.say(f"{warning.message}; {warning.action}", "warning")
    if done.problem is not None:
        raise AnswerError(done.problem)


@app.command("list")
@with_shared
def list_tools(
    offer: OfferOptions,
    as_json: Annotated[bool, typer.Option("--json", help="As the model is told of them.")] = False,
) -> None:
    """List the tools that files and commands offer. Needs no model."""
    with ExitStack() as stack:
        offered = toolbox(stack, offer, offer.tools or ()).tools
        stdout = stack.enter_context(console.results())
        if as_json:
            stdout.write(json.dumps([*map(flat, offered.values())], indent=2, ensure_ascii=False) + "\n")
            return
        for tool in offered.values():
            stdout.write(f"{_signature(tool)}\n    {console.visible(tool.description.partition(chr(10))[0])}\n")


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A JSON file, or a Python file: it is imported.")],
) -> None:
    """Say what is wrong with a file of tools. Needs no model."""
    with ExitStack() as stack:
        stdout = stack.enter_context(console.results())
        entries: Iterator[Tool | UsageError] = (
            stack.enter_context(Functions(path)).tools() if path.suffix == ".py" else read_json(path)
        )
        found, problems = [], 0
        for entry in entries:
            if isinstance(entry, UsageError):
                console.say(str(entry), "error")
                problems += 1
            else:
                stdout.write(f"{_signature(entry)}\n")
                found.append(entry)
        if problems:
            raise typer.Exit(ExitCode.USAGE)
        if not found:
            raise UsageError(f"{path} has no tools in it", ADVICE)
        by_name(found)


def _signature(tool: Tool) -> str:
    """The tool as Python would write it: `name(city: str, day: str = "today")`."""
    told = []
    for name, parameter in flat(tool)["parameters"].items():
        kind = parameter["type"]
        default = json.dumps(parameter["default"], ensure_ascii=False) if "default" in parameter else "None"
        optional = "default" in parameter or kind.endswith(OPTIONAL)
        told.append(f"{name}: {kind.removesuffix(OPTIONAL)}" + (f" = {default}" if optional else ""))
    return console.visible(f"{tool.name}({', '.join(told)})")
