"""The options of what runs the model, in groups like those of `options.py`: here, on a server, or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from phi4mm_cli.engines import Engine, Listener, open_engine
from phi4mm_cli.errors import UsageError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL
from phi4mm_cli.model.layout import ADAPTERS
from phi4mm_cli.options import SECONDS, dashed, option, require_ranges
from phi4mm_cli.paths import from_home

MOST_CONCURRENCY = MOST_WORKERS = 1024
OF_THIS_MACHINE = ("revision", "device", "device_map", "dtype", "attn", "quantize", "batch_size")


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


def _of(engines: str, *names: str, help: str, **settings: Any) -> Any:
    """An option that only these engines have, which its help says."""
    return option(*names, help=f"{help} (--engine {engines})", **settings)


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Which servers --engine openai asks, and how. Raises UsageError where a value is out of its range."""

    url: Annotated[
        list[str] | None,
        _of(
            "openai",
            "--url",
            panel="Server",
            metavar="URL",
            help="Of a server: http://localhost:8000/v1; several share the work.",
        ),
    ] = None
    served: Annotated[
        list[str] | None,
        _of(
            "openai",
            "--served",
            panel="Server",
            metavar="SKILL=NAME",
            help="What a server calls its [b]speech[/b] or [b]vision[/b] adapter.",
            show_default="its list tells",
        ),
    ] = None
    concurrency: Annotated[int, _of("openai", "--concurrency", panel="Server", help="Requests that are in flight.")] = (
        16
    )
    timeout: Annotated[float, _of("openai", "--timeout", panel="Server", help="Most seconds for one answer.")] = 600.0

    def __post_init__(self) -> None:
        require_ranges(self, {"concurrency": (1, MOST_CONCURRENCY), "timeout": SECONDS})


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Which cluster --engine ray works on, and how. Raises UsageError where a value is out of its range."""

    address: Annotated[
        str,
        _of("ray", "--address", panel="Cluster", help="Of the Ray cluster: [b]auto[/b], ray://HOST:PORT or HOST:PORT."),
    ] = "auto"
    workers: Annotated[
        int | None,
        _of(
            "ray",
            "--workers",
            panel="Cluster",
            help="Engines on the cluster.",
            show_default="one for each GPU, or node",
        ),
    ] = None
    ship_media: Annotated[
        bool,
        _of(
            "ray", "--ship-media", panel="Cluster", help="Send files to the cluster, whose nodes do not see this disk."
        ),
    ] = False

    def __post_init__(self) -> None:
        require_ranges(self, {"workers": (1, MOST_WORKERS)})


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which model answers, and where it runs. Raises UsageError where a value makes no sense."""

    model: Annotated[
        str,
        option(
            "--model",
            "-m",
            panel="Model",
            help="A Hub id, a folder, [b]demo[/b] (a toy that comes along), or a name on the server.",
            show_default="Microsoft's",
        ),
    ] = DEFAULT_MODEL
    revision: Annotated[
        str | None, _of("local, ray", "--revision", panel="Model", help="Branch, tag or commit on the Hub.")
    ] = None
    adapter: Annotated[
        list[str] | None,
        _of(
            "local, ray",
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
    device: Annotated[
        str,
        _of(
            "local; ray: auto, cpu",
            "--device",
            panel="Model",
            help="auto, cpu, mps, cuda:1; cuda:0,cuda:1 shares the work; [b]all[/b] GPUs.",
        ),
    ] = "auto"
    device_map: Annotated[
        DeviceMapName | None,
        _of("local", "--device-map", panel="Model", help="[b]auto[/b] splits one model over devices and the CPU."),
    ] = None
    dtype: Annotated[
        DtypeName,
        _of(
            "local, ray",
            "--dtype",
            panel="Model",
            metavar="TYPE",
            help="Number format of the weights: [b]auto[/b], bfloat16, float16, float32.",
        ),
    ] = DtypeName.AUTO
    attn: Annotated[
        AttentionName,
        _of("local, ray", "--attn", panel="Model", help="Attention kernel; [b]flash[/b] needs flash-attn."),
    ] = AttentionName.AUTO
    quantize: Annotated[
        QuantizeName | None,
        _of("local, ray", "--quantize", panel="Model", help="Store most weights in 8 or 4 bits; needs bitsandbytes."),
    ] = None
    batch_size: Annotated[
        str,
        _of(
            "local, ray", "--batch-size", panel="Model", help="Clips that go through the model at once, or [b]auto[/b]."
        ),
    ] = "auto"
    server: ServerOptions = field(default_factory=ServerOptions)
    cluster: ClusterOptions = field(default_factory=ClusterOptions)

    def __post_init__(self) -> None:
        self.adapters()
        self.rows()

    def check_given(self, typed: Collection[str]) -> None:
        """Raise UsageError where one of these, typed on the command line, is of another engine."""
        for group, engine in ((ServerOptions, EngineName.OPENAI), (ClusterOptions, EngineName.RAY)):
            for name in (one.name for one in fields(group)):
                if name in typed and self.engine is not engine:
                    raise UsageError(f"--{dashed(name)} is for --engine {engine}", f"Add --engine {engine}")
        for name in OF_THIS_MACHINE:
            if name in typed and self.engine is EngineName.OPENAI:
                raise UsageError(f"--{dashed(name)} does not reach a server", "Start the server with it")

    @contextmanager
    def open(self, listener: Listener) -> Iterator[Engine]:
        """The engine that these options choose, not yet loaded. Raises UsageError, MissingError.

        What its checkpoint has to say to those who use it, as that it is a toy, is said.
        """
        with self._engine(listener) as engine:
            if engine.profile.notice:
                listener.note(engine.profile.notice)
            yield engine

    def _engine(self, listener: Listener) -> AbstractContextManager[Engine]:
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
        """What was asked for of the model, as far as its answers depend on it, in JSON values.

        The processes of a cluster compute as one of this machine does: a run may go on there, and come back.
        """
        engine = EngineName.LOCAL if self.engine is EngineName.RAY else self.engine
        names = ("model", "revision", "dtype", "quantize")
        adapters = {name: str(path) for name, path in self.adapters()}
        asked = {name: getattr(self, name) for name in names}
        return {"engine": engine, **asked, "served": self.server.served, "adapters": adapters}

    def adapters(self) -> tuple[tuple[str, Path], ...]:
        """The adapters asked for, by name. Raises UsageError."""
        found: dict[str, Path] = {}
        for asked in self.adapter or ():
            name, separator, path = asked.partition("=")
            if name not in ADAPTERS or not separator or not path:
                raise UsageError(f"--adapter takes speech=PATH or vision=PATH, not '{asked}'")
            if name in found:
                raise UsageError(f"--adapter {name}= is given twice", "Leave one out")
            found[name] = from_home(path)
        return tuple(sorted(found.items()))

    def rows(self) -> int | None:
        """The batch size, None for `auto`. Raises UsageError."""
        if self.batch_size == "auto":
            return None
        if not self.batch_size.isdecimal() or int(self.batch_size) < 1:
            raise UsageError(f"--batch-size takes a number from 1 or 'auto', not '{self.batch_size}'")
        return int(self.batch_size)

    def _cluster(self, listener: Listener) -> AbstractContextManager[Engine]:
        from phi4mm_cli.engines.cluster import ClusterEngine

        if self.device_map is not None:
            raise UsageError("--device-map does not go with --engine ray", "Leave it out")
        return ClusterEngine(
            self.model,
            self.revision,
            self.adapters(),
            listener,
            address=self.cluster.address,
            workers=self.cluster.workers,
            ship_media=self.cluster.ship_media,
            device=self.device,
            dtype=self.dtype,
            batch_size=self.rows(),
            attention=self.attn,
            quantize=self.quantize,
        )

    def _openai(self, listener: Listener) -> AbstractContextManager[Engine]:
        from phi4mm_cli.engines.openai.catalogue import named
        from phi4mm_cli.engines.openai.engine import OpenAIEngine

        server = self.server
        if not server.url:
            raise UsageError("--engine openai needs --url", "As in --url http://localhost:8000/v1")
        if self.adapter:
            raise UsageError("--adapter does not reach a server", "A server loads its own; --served names them")
        names, key = named(server.served or ()), os.environ.get("PHI4MM_API_KEY")
        return OpenAIEngine(server.url, key, self.model, names, server.concurrency, server.timeout, listener)
