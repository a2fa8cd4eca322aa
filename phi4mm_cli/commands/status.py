"""`phi4mm status`: where an output folder stands, by its journals. Needs no model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import console
from phi4mm_cli.options import option
from phi4mm_cli.outputs import Coverage
from phi4mm_cli.paths import is_file
from phi4mm_cli.runs import CommandStatus, FailedFor, RunStatus, whole_json
from phi4mm_cli.timing import clock

SHOWN = 3  # inputs that are named for each reason

EXAMPLES = """
[b]Examples[/b]

phi4mm status out/

phi4mm status out/ --json | jq '.commands[].seconds_left'
"""


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="What runs were given with [b]-o[/b].", show_default=False)
    ],
    as_json: Annotated[bool, option("--json", help="Print JSON ([b]phi4mm schema[/b] describes it).")] = False,
) -> None:
    """Say what is done, failed and left in an output folder, also while runs are at work."""
    from phi4mm_cli.journal.status import status

    found = status(folder.parent if is_file(folder) else folder)  # of lines of JSON, the journal is beside their file
    with console.results() as stdout:
        if as_json:
            stdout.write(json.dumps(whole_json(found), ensure_ascii=False, indent=2) + "\n")
        else:
            for one in found.commands:
                stdout.writelines(console.visible(line) + "\n" for line in _lines(one))
    raise typer.Exit


def _lines(one: CommandStatus) -> Iterator[str]:
    """What people are told of a command."""
    yield f"{one.command}: {_state(one)}"
    counts = {"done": one.done, "failed": one.failed, "begun": one.begun, "left": one.left}
    parts = [f"{count} {name}" for name, count in counts.items() if count or name == "done"]
    yield f"  {one.inputs} input{'s' * (one.inputs != 1)}: {', '.join(parts)}"
    for coverage in one.coverage:
        yield f"  {_amount(coverage)} read" + (f", in {clock(one.seconds)} of work" if one.seconds >= 1 else "")
    if one.speed is not None:
        pages = any(coverage.unit == "pages" for coverage in one.coverage)
        speed = f"{60 * one.speed:.1f} pages a minute" if pages else f"{one.speed:.1f}x"
        left = f", about {clock(one.seconds_left)} left" if one.seconds_left is not None else ""
        yield f"  speed: {speed}{left}"
    if one.warnings:
        told = sorted(one.warnings.items(), key=lambda warning: (-warning[1], warning[0]))
        yield "  warnings: " + ", ".join(f"{count} {code}" for code, count in told)
    for reason in one.reasons:
        yield f"  {reason.count} failed: {reason.message} ({_named(reason)})"
    if len(one.runs) > 1:
        yield from (f"  shard {run.shard}: {run.over} of {run.todo} done or failed, {_of(run)}" for run in one.runs)


def _state(one: CommandStatus) -> str:
    if len(one.runs) == 1:
        return _of(one.runs[0])
    running = sum(run.state == "running" for run in one.runs)
    return f"{running} of {len(one.runs)} shards running" if running else one.state


def _of(run: RunStatus) -> str:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.began if run.state == "running" else run.last))
    if run.state == "running":
        return f"running since {when}, process {run.pid} on {run.host}"
    if run.state == "stopped":
        return f"stopped at {when} without a word; the same command again goes on"
    return f"ended at {when} with exit code {run.exit_code}"


def _amount(coverage: Coverage) -> str:
    if coverage.unit == "seconds":
        return f"{clock(coverage.read)} of {clock(coverage.total)}"
    return f"{coverage.read:.0f} of {coverage.total:.0f} {coverage.unit}"


def _named(reason: FailedFor) -> str:
    more = f" and {reason.count - SHOWN} more" if reason.count > SHOWN else ""
    return ", ".join(reason.inputs[:SHOWN]) + more
