"""Where an output folder stands, by its journals: those of shards together, also while runs are at work."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi4mm_cli.errors import UsageError
from phi4mm_cli.files import label_of
from phi4mm_cli.journal import answers, lock, states
from phi4mm_cli.journal.records import FOLDER, Key, file_name
from phi4mm_cli.journal.states import State, States
from phi4mm_cli.outputs import Coverage
from phi4mm_cli.paths import is_folder
from phi4mm_cli.runs import CommandStatus, RunStatus, Status, added, grouped


@dataclass(slots=True)
class _Run:
    """A run, by its lines so far."""

    path: Path  # of its journal
    start: Mapping[str, Any]  # its first line
    last: float
    planned: Mapping[str, Any] = field(default_factory=dict)
    code: int | None = None
    lengths: dict[Key, float | None] = field(default_factory=dict)  # of what is in hand
    over: int = 0
    worked: float = 0.0  # length of what is over
    alive: bool = False

    def add(self, event: Mapping[str, Any]) -> None:
        self.last = event["at"]
        if event["event"] == "planned":
            self.planned = event
        elif event["event"] == "end":
            self.code = event["code"]
        elif event["event"] == "started":
            self.lengths[event["family"], event["name"]] = event["length"]
        elif (key := (event["family"], event["name"])) in self.lengths:
            self.over += 1
            self.worked += self.lengths.pop(key) or 0.0

    @property
    def until(self) -> float:
        return time.time() if self.alive else self.last

    @property
    def seconds(self) -> float:
        return self.until - float(self.start["at"])


def status(folder: Path) -> Status:
    """Where the output folder stands. Raises UsageError where it has no journal."""
    past, runs = States(), list[_Run]()
    for path in states.journals(folder):
        run: _Run | None = None
        for event in states.events(path):
            try:
                past.add(event)
                if event["event"] == "run":
                    run = _Run(path, event, event["at"])
                    runs.append(run)
                elif run is not None:
                    run.add(event)
            except (KeyError, TypeError, ValueError):
                continue  # no line of ours
        if run is not None and run.code is None:
            run.alive = lock.owner(path.with_name(path.stem.replace("journal", "lock"))) is not None
    if not runs and not is_folder(folder):
        raise UsageError(f"there is no folder {folder}", "Name a folder that a run was given with -o")
    if not runs:
        raise UsageError(f"there is no journal in {folder}", "Name a folder that a run was given with -o")
    families = dict.fromkeys(run.start["family"] for run in sorted(runs, key=lambda run: -run.last))
    return Status(str(folder), tuple(_of_command(folder, family, past, runs) for family in families))


def _of_command(folder: Path, family: str, past: States, runs: Sequence[_Run]) -> CommandStatus:
    runs = sorted((run for run in runs if run.start["family"] == family), key=lambda run: run.start["at"])
    latest = _latest(runs)
    told = [_of_run(folder, run) for run in latest]
    found = {key: state for key, state in past.of.items() if key[0] == family}
    kinds = Counter(state.kind for state in found.values())
    inputs = max(sum(run.inputs for run in told), len(found))
    speeds = [run.speed for run in told if run.state == "running" and run.speed is not None]
    left = [run.seconds_left for run in told if run.seconds_left is not None]
    done = [state for state in found.values() if state.kind == "done"]
    failed = [(label_of(Path(key[1])), state) for key, state in found.items() if state.kind == "failed"]
    seconds = sum(run.seconds for run in runs)
    at_work = any(run.alive for run in latest)
    return CommandStatus(
        command=family,
        state="running" if at_work else "ended" if all(run.code is not None for run in latest) else "stopped",
        inputs=inputs,
        done=kinds["done"],
        failed=kinds["failed"],
        begun=kinds["started"],
        left=inputs - len(found),
        reasons=grouped((label, _reason(state)) for label, state in failed),
        warnings=dict(sum((Counter(state.rest["warnings"]) for state in done), Counter[str]())),
        coverage=_coverage(done),
        seconds=seconds,
        runs=tuple(told),
        speed=sum(speeds) if at_work and speeds else _average(runs),
        seconds_left=max(left) if at_work and left else None,
    )


def _latest(runs: Sequence[_Run]) -> list[_Run]:
    """Of each shard the latest run, as the latest of them all has parted the inputs."""
    count = _parts(runs[-1])
    return list({run.path: run for run in runs if _parts(run) == count}.values())


def _parts(run: _Run) -> str:
    return (run.start["shard"] or "1/1").partition("/")[2]


def _of_run(folder: Path, run: _Run) -> RunStatus:
    reached = sum(_reached(folder, key) for key in run.lengths) if run.alive else 0.0
    todo, length = run.planned.get("todo", 0), run.planned.get("length")
    seconds = run.until - run.planned.get("at", run.last)
    speed = (run.worked + reached) / seconds if run.worked + reached > 0 and seconds > 0 else None
    left = None
    if run.alive and speed and length is not None:
        left = max(0.0, length - run.worked - reached) / speed
    elif run.alive and run.over:
        left = (todo - run.over) * seconds / run.over
    return RunStatus(
        state="running" if run.alive else "stopped" if run.code is None else "ended",
        host=run.start["host"],
        pid=run.start["pid"],
        began=run.start["at"],
        last=run.last,
        inputs=run.planned.get("inputs", 0),
        todo=todo,
        over=run.over,
        shard=run.start["shard"],
        exit_code=run.code,
        speed=speed,
        seconds_left=left,
    )


def _reached(folder: Path, key: Key) -> float:
    """How far the model is in an input that is in hand: seconds, or pages."""
    lines = list(answers.read(folder / FOLDER / "requests" / f"{file_name(key)}.jsonl"))
    pages = {line["page"] for line in lines if "page" in line}
    return max((line["end"] for line in lines if "end" in line), default=float(len(pages)))


def _average(runs: Sequence[_Run]) -> float | None:
    """What a run has read in a second, over all of them."""
    worked, seconds = sum(run.worked for run in runs), sum(run.seconds for run in runs if run.worked)
    return worked / seconds if worked and seconds else None


def _coverage(done: Sequence[State]) -> tuple[Coverage, ...]:
    found: dict[str, Coverage] = {}
    for state in done:
        added(found, state.rest["coverage"])
    return tuple(found.values())


def _reason(state: State) -> str:
    return str(state.rest.get("error", {}).get("message", ""))
