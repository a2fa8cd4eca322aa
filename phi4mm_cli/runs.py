"""What is said of whole runs: how one has ended, and where an output folder stands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from phi4mm_cli.outputs import SCHEMA_VERSION, Coverage, Failure
from phi4mm_cli.schema import ModelInfo, to_json


@dataclass(frozen=True, slots=True)
class FailedFor:
    """Inputs that have failed for the same reason."""

    message: str
    count: int
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunReport:
    """How a run has ended: what `--report` writes."""

    command: str
    inputs: int
    done: int
    done_before: int  # by an earlier run
    failed: int
    reasons: tuple[FailedFor, ...]
    failures: tuple[Failure, ...]
    warnings: Mapping[str, int]  # how many of each code, but for those that were healed
    coverage: tuple[Coverage, ...]  # of all that is done together, for each unit
    seconds: float  # wall-clock, from the start of the run to its end
    speed: Mapping[str, float]  # of each unit, what this run has read in a second
    calls: int  # of the model, in this run
    replayed: int  # answers that an earlier run had been given
    exit_code: int
    model: ModelInfo | None = None  # None where it was not needed
    task: Literal["report"] = "report"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The latest run, or the latest of a shard."""

    state: Literal["running", "ended", "stopped"]  # stopped: killed, or its machine gone
    host: str
    pid: int
    began: float  # seconds since 1970
    last: float  # when it last wrote to its journal
    inputs: int
    todo: int  # of them, those that it had to do
    over: int  # of these, those that are done or have failed
    shard: str | None = None  # as in 3/8
    exit_code: int | None = None
    speed: float | None = None  # what it reads in a second
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True)
class CommandStatus:
    """Where the inputs of one command stand."""

    command: str  # with its tag: "translate fr"
    state: Literal["running", "ended", "stopped"]
    inputs: int
    done: int
    failed: int
    begun: int  # and neither done nor failed
    left: int  # not begun
    reasons: tuple[FailedFor, ...]
    warnings: Mapping[str, int]
    coverage: tuple[Coverage, ...]
    seconds: float  # wall-clock of all runs so far, those side by side added up
    runs: tuple[RunStatus, ...]
    speed: float | None = None  # of the runs that are at work, together; else of an earlier one on average
    seconds_left: float | None = None  # until the last of them ends


@dataclass(frozen=True, slots=True)
class Status:
    """Where an output folder stands: what `phi4mm status --json` prints."""

    folder: str
    commands: tuple[CommandStatus, ...]
    task: Literal["status"] = "status"


def whole_json(record: RunReport | Status) -> dict[str, Any]:
    """One JSON object, told from results by its task."""
    body = to_json(record)
    return {"schema_version": SCHEMA_VERSION, "task": body.pop("task"), **body}


def grouped(reasons: Iterable[tuple[str, str]]) -> tuple[FailedFor, ...]:
    """Inputs and why they failed, by reason: the most frequent first."""
    found: dict[str, list[str]] = {}
    for name, message in reasons:
        found.setdefault(message, []).append(name)
    groups = (FailedFor(message, len(names), tuple(names)) for message, names in found.items())
    return tuple(sorted(groups, key=lambda group: (-group.count, group.message)))


def added(coverages: dict[str, Coverage], more: Coverage) -> None:
    """Add to the coverage of its unit."""
    known = coverages.get(more.unit)
    coverages[more.unit] = more if known is None else _sum(known, more)


def _sum(one: Coverage, other: Coverage) -> Coverage:
    def both(a: float | None, b: float | None) -> float | None:
        return a if b is None else b if a is None else a + b

    return replace(
        one,
        total=one.total + other.total,
        read=one.read + other.read,
        speech=both(one.speech, other.speech),
        transcribed=both(one.transcribed, other.transcribed),
    )
