"""The options that commands share, each declared once, in groups that a command takes as one argument.

A command writes `engine: EngineOptions` in its signature; `with_shared` puts the fields of the group on the command
line and hands them over as the frozen record. Every option has its `PHI4MM_X` variable.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from phi4mm_cli.errors import UsageError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL

# Options that a project's own file may not set: a cloned folder must not redirect recordings or choose what is run.
PERSONAL = frozenset({"model", "revision", "engine"})


class EngineName(StrEnum):
    """What runs the model."""

    LOCAL = "local"
    ECHO = "echo"


class DtypeName(StrEnum):
    """Number formats of the weights."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class Format(StrEnum):
    """Output formats, by their file extension."""

    TXT = "txt"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"


def option(*names: str, help: str, panel: str | None = None, **settings: Any) -> Any:
    """An option of the command line, with its `PHI4MM_X` variable."""
    variable = "PHI4MM_" + names[0].split("/")[0].lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, help=help, rich_help_panel=panel, **settings)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which model answers, and where it runs."""

    model: Annotated[
        str,
        option("--model", "-m", panel="Model", help="A Hub id, a folder, or [b]demo[/b], the toy that comes along."),
    ] = DEFAULT_MODEL
    revision: Annotated[str | None, option("--revision", panel="Model", help="Branch, tag or commit on the Hub.")] = (
        None
    )
    engine: Annotated[
        EngineName, option("--engine", panel="Model", help="[b]local[/b] runs the model here; [b]echo[/b] needs none.")
    ] = EngineName.LOCAL
    device: Annotated[str, option("--device", panel="Model", help="auto, cpu, cuda, cuda:1 or mps.")] = "auto"
    dtype: Annotated[DtypeName, option("--dtype", panel="Model", help="Number format of the weights.")] = DtypeName.AUTO
    batch_size: Annotated[
        str, option("--batch-size", panel="Model", help="Clips that go through the model at once, or [b]auto[/b].")
    ] = "auto"

    def rows(self) -> int | None:
        """The batch size, None for `auto`. Raises UsageError."""
        if self.batch_size == "auto":
            return None
        if not self.batch_size.isdecimal() or int(self.batch_size) < 1:
            raise UsageError(f"--batch-size takes a number from 1 or 'auto', not '{self.batch_size}'")
        return int(self.batch_size)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Which files are written, and where."""

    output_dir: Annotated[
        Path | None,
        option("--output-dir", "-o", panel="Output", help="Folder for the output files; [b]-[/b] is stdout."),
    ] = None
    format: Annotated[
        list[str] | None,
        option("--format", "-f", panel="Output", help="Formats, with commas: txt, json, srt, vtt, tsv."),
    ] = None
    txt: Annotated[bool, option("--txt", panel="Output", help="Write text.")] = False
    json: Annotated[bool, option("--json", panel="Output", help="Write JSON ([b]phi4mm schema[/b] describes it).")] = (
        False
    )
    srt: Annotated[bool, option("--srt", panel="Output", help="Write SubRip captions.")] = False
    vtt: Annotated[bool, option("--vtt", panel="Output", help="Write WebVTT captions.")] = False
    tsv: Annotated[bool, option("--tsv", panel="Output", help="Write a table of times and text.")] = False
    jsonl: Annotated[bool, option("--jsonl", panel="Output", help="One line of JSON an input, on stdout.")] = False
    name: Annotated[str, option("--name", panel="Output", help="What the output of [b]-[/b] (stdin) is called.")] = (
        "stdin"
    )
    overwrite: Annotated[
        bool, option("--overwrite/--no-overwrite", panel="Output", help="Replace outputs that exist, or refuse.")
    ] = True
    strict: Annotated[
        bool, option("--strict/--no-strict", panel="Output", help="Exit with 7 where a result has warnings.")
    ] = False

    def formats(self) -> tuple[Format, ...]:
        """The formats asked for, each once, in the order of `Format`. Raises UsageError."""
        named = {name.strip().lower() for names in self.format or () for name in names.split(",")} - {""}
        if unknown := sorted(named - set(Format)):
            raise UsageError(f"unknown format '{unknown[0]}'", f"The formats are {', '.join(Format)}")
        return tuple(f for f in Format if f in named or getattr(self, f))


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How much is said on stderr."""

    quiet: Annotated[bool, option("--quiet", "-q", panel="Messages", help="Say nothing but errors.")] = False
    verbose: Annotated[bool, option("--verbose", "-v", panel="Messages", help="Say how each input went.")] = False


Command = TypeVar("Command", bound=Callable[..., None])


def with_shared(command: Command) -> Command:
    """`command`, with every parameter that is a group of options replaced by the group's fields."""
    hints = get_type_hints(command, include_extras=True)
    parameters = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        for name, group in groups.items():
            arguments[name] = group(**{f.name: arguments.pop(f.name) for f in fields(group)})
        command(**arguments)

    flat = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters if p.name not in groups]
    flat += [field for group in groups.values() for field in _parameters(group)]
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run  # type: ignore[return-value]


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
