"""The options that commands share, each declared once, in groups that a command takes as one argument.

A command writes `engine: EngineOptions` in its signature; `with_shared` puts the fields of the group on the command
line and hands them over as the frozen record. Every option has its `PHI4MM_X` variable.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from phi4mm_cli import ranges, sharding
from phi4mm_cli.engines import Engine, Listener, open_engine
from phi4mm_cli.errors import UsageError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL
from phi4mm_cli.model.layout import ADAPTERS
from phi4mm_cli.schema import Sampling

# Options that a project's own file may not set: a cloned folder must not redirect recordings, choose what is run, or
# have the model shown files.
PERSONAL = frozenset({"model", "revision", "adapter", "engine", "tools", "functions", "command", "approve"})
PERSONAL |= {"image", "audio", "video", "doc", "session"}
PERSONAL |= {"address", "ship_media", "host", "port", "api_key_file"}

MOST_WORKERS = 1024
PERSONAL |= {"url", "served"}

MOST_CONCURRENCY = 1024
LONGEST_TIMEOUT = 86400.0  # seconds
LONGEST_CHUNK = 40.0  # seconds: the encoder's window, and the longest clip that the model card advises


class EngineName(StrEnum):
    """What runs the model."""

    LOCAL = "local"
    RAY = "ray"
    OPENAI = "openai"
    ECHO = "echo"


class DtypeName(StrEnum):
    """Number formats of the weights."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


class AttentionName(StrEnum):
    """Attention kernels."""

    AUTO = "auto"
    FLASH = "flash"
    SDPA = "sdpa"
    EAGER = "eager"


class DeviceMapName(StrEnum):
    """Ways of splitting one model over devices."""

    AUTO = "auto"


class QuantizeName(StrEnum):
    """Smaller ways of storing the decoder's weights."""

    INT8 = "int8"
    INT4 = "int4"


def option(*names: str, help: str, panel: str | None = None, **settings: Any) -> Any:
    """An option of the command line, with its `PHI4MM_X` variable."""
    variable = "PHI4MM_" + names[0].split("/")[0].lstrip("-").replace("-", "_").upper()
    return typer.Option(*names, envvar=variable, show_envvar=False, help=help, rich_help_panel=panel, **settings)


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
        if self.chunk_seconds is not None and not 1 <= self.chunk_seconds <= LONGEST_CHUNK:
            raise UsageError(f"--chunk-seconds is 1 to {LONGEST_CHUNK:g}, not {self.chunk_seconds:g}")

    def spans(self) -> tuple[ranges.Span, ...]:
        """The parts to be heard. Raises UsageError."""
        return ranges.WHOLE if self.range is None else ranges.parse(self.range)

    def recorded(self) -> dict[str, str | int | float | bool]:
        """What shapes the result."""
        chosen = {"chunk_seconds": self.chunk_seconds, "channel": self.channel, "range": self.range}
        return {"vad": self.vad} | {name: value for name, value in chosen.items() if value is not None}


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which model answers, and where it runs. Raises UsageError where a value makes no sense."""

    model: Annotated[
        str,
        option("--model", "-m", panel="Model", help="A Hub id, a folder, or [b]demo[/b], the toy that comes along."),
    ] = DEFAULT_MODEL
    revision: Annotated[str | None, option("--revision", panel="Model", help="Branch, tag or commit on the Hub.")] = (
        None
    )
    adapter: Annotated[
        list[str] | None,
        option(
            "--adapter",
            panel="Model",
            metavar="NAME=PATH",
            help="A folder with another [b]speech[/b] or [b]vision[/b] adapter; may be given for both.",
        ),
    ] = None
    engine: Annotated[
        EngineName,
        option(
            "--engine",
            panel="Model",
            help="[b]local[/b]: here; [b]openai[/b]: a server; [b]ray[/b]: a cluster; [b]echo[/b] needs no model.",
        ),
    ] = EngineName.LOCAL
    url: Annotated[
        list[str] | None,
        option(
            "--url",
            panel="Server",
            metavar="URL",
            help="Of a server for --engine openai: http://localhost:8000/v1; several share the work.",
        ),
    ] = None
    served: Annotated[
        list[str] | None,
        option(
            "--served",
            panel="Server",
            metavar="SKILL=NAME",
            help="What a server calls its [b]speech[/b] or [b]vision[/b] adapter.",
            show_default="its list tells",
        ),
    ] = None
    concurrency: Annotated[int, option("--concurrency", panel="Server", help="Requests that are in flight.")] = 16
    timeout: Annotated[float, option("--timeout", panel="Server", help="Most seconds for one answer.")] = 600.0
    address: Annotated[
        str,
        option("--address", panel="Cluster", help="Of the Ray cluster: [b]auto[/b], ray://HOST:PORT or HOST:PORT."),
    ] = "auto"
    workers: Annotated[
        int | None,
        option("--workers", panel="Cluster", help="Engines on the cluster.", show_default="one for each GPU, or node"),
    ] = None
    ship_media: Annotated[
        bool,
        option("--ship-media", panel="Cluster", help="Send files to the cluster, whose nodes do not see this disk."),
    ] = False
    device: Annotated[
        str,
        option(
            "--device", panel="Model", help="auto, cpu, mps, cuda:1; cuda:0,cuda:1 shares the work; [b]all[/b] GPUs."
        ),
    ] = "auto"
    device_map: Annotated[
        DeviceMapName | None,
        option("--device-map", panel="Model", help="[b]auto[/b] splits one model over devices and the CPU."),
    ] = None
    dtype: Annotated[DtypeName, option("--dtype", panel="Model", help="Number format of the weights.")] = DtypeName.AUTO
    attn: Annotated[
        AttentionName, option("--attn", panel="Model", help="Attention kernel; [b]flash[/b] needs flash-attn.")
    ] = AttentionName.AUTO
    quantize: Annotated[
        QuantizeName | None,
        option("--quantize", panel="Model", help="Store most weights in 8 or 4 bits; needs bitsandbytes."),
    ] = None
    batch_size: Annotated[
        str, option("--batch-size", panel="Model", help="Clips that go through the model at once, or [b]auto[/b].")
    ] = "auto"

    def __post_init__(self) -> None:
        self.adapters()
        self.rows()
        if self.workers is not None and not 1 <= self.workers <= MOST_WORKERS:
            raise UsageError(f"--workers is 1 to {MOST_WORKERS}, not {self.workers}")
        if not 1 <= self.concurrency <= MOST_CONCURRENCY:
            raise UsageError(f"--concurrency is 1 to {MOST_CONCURRENCY}, not {self.concurrency}")
        if not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise UsageError(f"--timeout is more than 0 and at most {LONGEST_TIMEOUT:g} seconds, not {self.timeout:g}")

    def open(self, listener: Listener) -> AbstractContextManager[Engine]:
        """The engine that these options choose, not yet loaded. Raises MissingError where its model cannot be had."""
        if self.engine is EngineName.RAY:
            return self._cluster(listener)
        if self.engine is EngineName.OPENAI:
            return self._openai(listener)
        return open_engine(
            self.engine,
            self.model,
            self.revision,
            self.device,
            self.dtype,
            self.rows(),
            self.adapters(),
            listener,
            attention=self.attn,
            quantize=self.quantize,
            device_map=self.device_map,
        )

    def deciding(self) -> dict[str, Any]:
        """What was asked for of the model, as far as its answers depend on it, in JSON values."""
        names = ("engine", "model", "revision", "dtype", "quantize", "served")
        adapters = {name: str(path) for name, path in self.adapters()}
        return {name: getattr(self, name) for name in names} | {"adapters": adapters}

    def _cluster(self, listener: Listener) -> AbstractContextManager[Engine]:
        from phi4mm_cli.engines.cluster import ClusterEngine

        if self.device_map is not None:
            raise UsageError("--device-map does not go with --engine ray", "Leave it out")
        return ClusterEngine(
            self.model,
            self.revision,
            self.adapters(),
            listener,
            address=self.address,
            workers=self.workers,
            ship_media=self.ship_media,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.rows(),
            attention=self.attn,
            quantize=self.quantize,
        )

    def _openai(self, listener: Listener) -> AbstractContextManager[Engine]:
        from phi4mm_cli.engines.openai.catalogue import named
        from phi4mm_cli.engines.openai.engine import OpenAIEngine

        if not self.url:
            raise UsageError("--engine openai needs --url", "As in --url http://localhost:8000/v1")
        if self.adapter:
            raise UsageError("--adapter is for --engine local", "A server loads its own; --served names them")
        names, key = named(self.served or ()), os.environ.get("PHI4MM_API_KEY")
        return OpenAIEngine(self.url, key, self.model, names, self.concurrency, self.timeout, listener)

    def adapters(self) -> tuple[tuple[str, Path], ...]:
        """The adapters asked for, by name. Raises UsageError."""
        found: dict[str, Path] = {}
        for asked in self.adapter or ():
            name, separator, path = asked.partition("=")
            if name not in ADAPTERS or not separator or not path:
                raise UsageError(f"--adapter takes speech=PATH or vision=PATH, not '{asked}'")
            if name in found:
                raise UsageError(f"--adapter {name}= is given twice", "Leave one out")
            found[name] = Path(path).expanduser()
        return tuple(sorted(found.items()))

    def rows(self) -> int | None:
        """The batch size, None for `auto`. Raises UsageError."""
        if self.batch_size == "auto":
            return None
        if not self.batch_size.isdecimal() or int(self.batch_size) < 1:
            raise UsageError(f"--batch-size takes a number from 1 or 'auto', not '{self.batch_size}'")
        return int(self.batch_size)


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
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # so that no NaN passes
                raise UsageError(f"--{name.replace('_', '-')} is {low} to {high}, not {value}")
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
