"""The options that commands share, each declared once, in groups that a command takes as one argument.

A command writes `engine: EngineOptions` in its signature; `with_shared` puts the fields of the group on the command
line and hands them over as the frozen record; a group may hold others. Every option has its `PHI4MM_X` variable, but
for those that have code run.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, get_type_hints, runtime_checkable

import typer

from phi4mm_cli import ranges, sharding
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.schema import Sampling

# Options that a project's own file may not set: a cloned folder must not redirect recordings, choose what is run or who
# is let in, or have the model shown files.
PERSONAL = frozenset({"model", "revision", "adapter", "engine", "url", "served", "address", "ship_media"})
PERSONAL |= {"tools", "functions", "command", "approve", "image", "audio", "video", "doc", "session"}
PERSONAL |= {"host", "port", "api_key_file", "log_file", "report", "files_from", "voice"}

WITH_SPACES = frozenset({"hotwords"})  # lists whose variable is one value, not cut at spaces: names have them

LONGEST_CHUNK = 40  # seconds: the encoder's window, and the longest clip that the model card advises
SECONDS = (0.001, 86400)  # that may be set as a limit: up to a day


def option(*names: str, help: str, panel: str | None = None, **settings: Any) -> Any:
    """An option of the command line, with its `PHI4MM_X` variable."""
    variable = "PHI4MM_" + names[0].split("/")[0].lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, help=help, rich_help_panel=panel, **settings)


def named_inputs(help: str) -> Any:
    """The argument of commands that take files."""
    return typer.Argument(default_factory=list, metavar="INPUT", help=help, show_default=False)


def require_words(prompt: str | None) -> None:
    """Raise UsageError where a question is given that says nothing."""
    if prompt is not None and not prompt.strip():
        raise UsageError("--prompt is empty, and the model would be asked nothing", "Say what it is to answer")


def require_ranges(group: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Raise UsageError where an option of `group` has a value that is below the first or above the second number."""
    for name, (low, high) in ranges.items():
        value = getattr(group, name)
        if value is not None and not low <= value <= high:  # so that no NaN passes
            raise UsageError(f"--{dashed(name)} is {low:.10g} to {high:.10g}, not {value:.10g}")


def dashed(name: str) -> str:
    """The option for a field of a group, without its first dashes."""
    return name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class ListeningOptions:
    """How recordings are heard. Raises UsageError where a value is out of its range."""

    chunk_seconds: Annotated[
        float | None, option("--chunk-seconds", help="Longest chunk, 1 to 40.", show_default="what the model takes")
    ] = None
    vad: Annotated[bool, option("--vad/--no-vad", help="Find the speech first, or hear everything.")] = True

    channel: Annotated[
        int | None, option("--channel", help="Hear one channel, counted from 1.", show_default="all, mixed")
    ] = None
    range: Annotated[
        str | None,
        option("--range", help="Hear only this part: 10:00-20:00, 90s-, -5:00; several with commas."),
    ] = None

    def __post_init__(self) -> None:
        self.spans()
        if self.channel is not None and self.channel < 1:
            raise UsageError(f"--channel is counted from 1, not {self.channel}")
        require_ranges(self, {"chunk_seconds": (1, LONGEST_CHUNK)})

    def spans(self) -> tuple[ranges.Span, ...]:
        """The parts to be heard. Raises UsageError."""
        return ranges.WHOLE if self.range is None else ranges.parse(self.range)

    def require_recording(self) -> None:
        """Raise InputError where a part of a recording is asked for, of an input that is none."""
        for name, value in (("--range", self.range), ("--channel", self.channel)):
            if value is not None:
                raise InputError(f"{name} is for recordings, and this is a text", "Leave it out, or cut the text first")

    def recorded(self) -> dict[str, str | int | float | bool]:
        """What shapes the result."""
        chosen = {"chunk_seconds": self.chunk_seconds, "channel": self.channel, "range": self.range}
        return {"vad": self.vad} | {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How tokens are chosen: the best each time, as the model's authors do, unless told otherwise.

    Raises UsageError where a value is out of its range, or two do not go together.
    """

    max_new_tokens: Annotated[
        int | None,
        option(
            "--max-new-tokens", panel="Decoding", help="Most tokens of one answer.", show_default="what it may need"
        ),
    ] = None
    temperature: Annotated[
        float, option("--temperature", panel="Decoding", help="0 takes the best token; up to 2 draws by chance.")
    ] = 0.0
    top_p: Annotated[
        float, option("--top-p", panel="Decoding", help="Draw from the best tokens that make up this probability.")
    ] = 1.0
    seed: Annotated[int, option("--seed", panel="Decoding", help="Another number draws other tokens.")] = 0
    repetition_penalty: Annotated[
        float,
        option("--repetition-penalty", panel="Decoding", help="Above 1, tokens that were there become less likely."),
    ] = 1.0
    no_repeat_ngram_size: Annotated[
        int,
        option("--no-repeat-ngram-size", panel="Decoding", help="Forbid repeats of so many tokens in a row; 0: none."),
    ] = 0
    num_beams: Annotated[
        int, option("--num-beams", panel="Decoding", help="Search so many answers at once for the likeliest.")
    ] = 1

    def __post_init__(self) -> None:
        require_ranges(self, RANGES)
        if 0 < self.temperature < COLDEST:
            raise UsageError(f"--temperature is 0, or {COLDEST} to 2, not {self.temperature}")
        if self.num_beams > 1 and self.temperature > 0:
            raise UsageError("--num-beams is for answers without chance", "Leave --temperature or --num-beams out")

    def sampling(self, budget: int) -> Sampling:
        """The settings of one request, with at most `budget` tokens unless the user has set a number."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Sampling(**values | {"max_new_tokens": self.max_new_tokens or budget})

    def recorded(self) -> dict[str, int | float]:
        """What is not at its default."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


RANGES: dict[str, tuple[float, float]] = {
    "max_new_tokens": (1, 131072),  # the context of the released model
    "temperature": (0, 2),
    "top_p": (0, 1),
    "seed": (0, 2**32 - 1),
    "repetition_penalty": (0.1, 10),
    "no_repeat_ngram_size": (0, 1000),
    "num_beams": (1, 64),
}
COLDEST = 0.01  # colder draws are the best token, and overflow


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How a run over files goes. Raises UsageError where two options do not go together."""

    files_from: Annotated[
        Path | None,
        option(
            "--files-from",
            panel="Batch",
            metavar="LIST",
            help="A file with an input a line; of [b]-[/b], stdin, each is worked on as soon as it is named.",
        ),
    ] = None
    null: Annotated[
        bool,
        option("--null", "-0", panel="Batch", help="The names in the list end with NUL, as of [b]find -print0[/b]."),
    ] = False

    dry_run: Annotated[
        bool,
        option("--dry-run", "-n", panel="Batch", help="Only say what would be done: needs no model, writes nothing."),
    ] = False
    log_file: Annotated[
        Path | None, option("--log", panel="Messages", help="A file to which all that is said is added, with its time.")
    ] = None

    shard: Annotated[
        str | None,
        option("--shard", panel="Batch", metavar="3/8", help="Work on this part of the inputs; others are another's."),
    ] = None
    report: Annotated[
        Path | None,
        option("--report", panel="Batch", help="A file for what the run has come to, in JSON; [b]-[/b] is stdout."),
    ] = None

    def part(self) -> sharding.Shard | None:
        """The part of the inputs that is the run's own; None is all of them. Raises UsageError."""
        return None if self.shard is None else sharding.parse(self.shard)

    def __post_init__(self) -> None:
        self.part()
        if self.null and self.files_from is None:
            raise UsageError("--null is for the list of --files-from", "Give one, - for stdin, or leave --null out")


@dataclass(frozen=True, slots=True)
class LogOptions:
    """How much is said on stderr."""

    quiet: Annotated[bool, option("--quiet", "-q", panel="Messages", help="Say nothing but errors.")] = False
    verbose: Annotated[bool, option("--verbose", "-v", panel="Messages", help="Say how each input went.")] = False


Command = TypeVar("Command", bound=Callable[..., None])


@runtime_checkable
class Choosy(Protocol):
    """A group in which some options are of use only with others."""

    def check_given(self, typed: Collection[str]) -> None:
        """Raise UsageError where one of these, typed on the command line, would have no effect."""


def with_shared(command: Command) -> Command:
    """`command`, with every parameter that is a group of options replaced by the group's fields."""
    hints = get_type_hints(command, include_extras=True)
    parameters = [p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()]
    groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}

    @functools.wraps(command)
    def run(context: typer.Context, **arguments: Any) -> None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        typed = {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
        for name in WITH_SPACES & sources.keys():
            source = sources[name]
            if source is not None and source.name == "ENVIRONMENT":
                arguments[name] = [os.environ[f"PHI4MM_{name.upper()}"]]
        for name, group in groups.items():
            arguments[name] = filled = _filled(group, arguments)
            if isinstance(filled, Choosy):
                filled.check_given(typed)
        command(**arguments)

    flat = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
    flat += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters if p.name not in groups]
    flat += [field for group in groups.values() for field in _parameters(group)]
    run.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in flat}
    return run  # type: ignore[return-value]


def _filled(group: Any, arguments: dict[str, Any]) -> Any:
    """The group with its options, which are taken out of `arguments`."""
    hints = get_type_hints(group)
    values = {
        name: _filled(kind, arguments) if is_dataclass(kind) else arguments.pop(name) for name, kind in hints.items()
    }
    return group(**values)


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if is_dataclass(hints[field.name]):
            yield from _parameters(hints[field.name])
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            yield inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
