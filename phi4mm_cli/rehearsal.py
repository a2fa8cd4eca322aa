"""`--dry-run`: what a run would do, as far as that is known without a model and without writing anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TextIO

from phi4mm_cli import console, files
from phi4mm_cli.desk import Desk
from phi4mm_cli.engine_options import DtypeName, EngineName, EngineOptions
from phi4mm_cli.errors import ExitCode, InputError, UsageError
from phi4mm_cli.files import STDIN, Claims, Work
from phi4mm_cli.finding import Unfound
from phi4mm_cli.journal import Journal
from phi4mm_cli.outputs import Unit
from phi4mm_cli.timing import clock

USUAL = {"bfloat16 (a GPU)": 2, "float32 (a CPU)": 4}  # bytes of a number, where nobody has asked for another kind


@dataclass(slots=True)
class _Sum:
    """What the inputs come to."""

    todo: int = 0
    before: int = 0  # done
    kept: int = 0  # with a result that only has to be written
    outputs: int = 0
    length: float = 0.0  # of what is to be done, in seconds or pages
    unknown: int = 0  # inputs whose header does not tell their length
    failed: list[UsageError | InputError] = field(default_factory=list)


def rehearse(
    desk: Desk, works: Sequence[Work], unfound: Sequence[Unfound], engine: EngineOptions, overwrite: bool
) -> ExitCode:
    """Print a line for each input: what it is, how long, and what becomes of it; then what all come to.

    The exit code is that of the checks that the run would begin with.
    """
    if isinstance(desk.journal, Journal):
        desk.journal.read()
    total = _Sum()
    for one in unfound:
        _fail(desk.stdout, one.label, one.error, total)
    width = max((len(console.visible(work.label)) for work in works), default=0) if desk.stdout.isatty() else 0
    folder = desk.plan.folder
    claims = Claims(folder) if folder is not None else None
    if claims is not None:
        for work in works:
            claims.read(work)
    for work in works:
        try:
            told = _told(desk, work, claims, overwrite, total)
        except (InputError, UsageError) as error:
            _fail(desk.stdout, work.label, error, total)
        else:
            desk.stdout.write(_line(work.label, *told, width))
    desk.stdout.flush()  # before what they come to, which goes elsewhere
    for line in _summed(desk, total, engine):
        console.say(line)
    if any(isinstance(error, UsageError) for error in total.failed):
        return ExitCode.USAGE
    good = total.todo + total.kept + total.before
    return (ExitCode.SOME_FAILED if good else ExitCode.ALL_FAILED) if total.failed else ExitCode.OK


def _told(desk: Desk, work: Work, claims: Claims | None, overwrite: bool, total: _Sum) -> tuple[str, str]:
    """How long the work is, and what becomes of it. Raises InputError, and UsageError for what stops the run."""
    forms, folder = desk.task.forms.names(work.path, desk.plan.formats), desk.plan.folder
    if claims is not None:
        claims.write(work, forms)
    desk.check_names(work)
    if desk.settled(work) is not None:
        total.before += 1
        return "", "done before"
    if folder is not None and not overwrite and not desk.journal.unfinished(work):
        files.check_absent([(work, forms)], folder)
    if folder is None:
        names = "to stdout" if desk.plan.lines is None else files.label_of(desk.plan.lines)
    else:
        names = ", ".join(files.label_of(files.target_of(work, folder, form)) for form in forms)
    if desk.journal.kept(work) is not None:
        total.kept += 1
        total.outputs += len(forms) * (folder is not None)
        return "", f"{names}, from the kept result"
    lengths = [desk.task.probe(file.path) for file in work.inputs if file.path != STDIN]
    known = [length for length in lengths if length is not None]
    total.todo += 1
    total.outputs += len(forms) * (folder is not None)
    total.length += sum(known)
    is_known = len(known) == len(work.inputs)
    total.unknown += not is_known
    return _amount(sum(known), desk.task.unit) if is_known else "?", names


def _line(label: str, length: str, what: str, width: int) -> str:
    """With tabs between them, or at a `width` of the first that is not 0 as a table."""
    label, what = console.visible(label), console.visible(what)
    return f"{label:{width}}  {length:>8}  {what}\n" if width else f"{label}\t{length}\t{what}\n"


def _fail(stdout: TextIO, label: str, error: InputError | UsageError, total: _Sum) -> None:
    total.failed.append(error)
    stdout.write("\t".join((console.visible(label), "", f"error: {console.visible(str(error))}")) + "\n")


def _amount(length: float, unit: Unit) -> str:
    return clock(length) if unit == "seconds" else f"{length:.0f} {unit if length != 1 else unit.removesuffix('s')}"


def _summed(desk: Desk, total: _Sum, engine: EngineOptions) -> Iterator[str]:
    counts = (
        (total.todo, "to do"),
        (total.kept, "only to be written"),
        (total.before, "done before"),
        (len(total.failed), "not possible"),
    )
    told = ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"
    length = f"; {_amount(total.length, desk.task.unit)} in all" if total.length else ""
    length += f", and {total.unknown} that do not tell their length" if total.unknown else ""
    yield f"{told}{length}"
    if total.outputs:
        yield f"up to {total.outputs} outputs in {files.label_of(desk.plan.folder or Path())}"
    if total.todo and engine.engine is EngineName.LOCAL:
        yield _of_model(engine)
    if (speed := _speed(desk)) and total.length:
        yield f"about {clock(total.length / speed)} of work, at the speed of the last run on this folder"


def _of_model(engine: EngineOptions) -> str:
    from phi4mm_cli.model.checkpoint import cached, local_folder, resolve, ways_on
    from phi4mm_cli.model.folder import in_gb, numbers_in, shards_of
    from phi4mm_cli.model.layout import ADAPTERS

    folder = local_folder(engine.model, engine.revision) or cached(engine.model, engine.revision)
    if folder is None:
        return f"the model {engine.model} is not on this machine yet. {ways_on(engine.model, engine.revision)}"
    model = resolve(engine.model, engine.revision, engine.adapters())
    beside = {name: folder / f"{name}-lora" for name in ADAPTERS} if model.layout == "native" else {}
    adapters = {**beside, **dict(model.adapters)}.values()
    files = [*map(folder.joinpath, shards_of(folder)), *chain(*(place.glob("*.safetensors") for place in adapters))]
    numbers = sum(map(numbers_in, files))
    kind = model.dtype or engine.dtype
    kinds = USUAL if kind == DtypeName.AUTO else {kind: 4 if kind == DtypeName.FLOAT32 else 2}
    takes = " or ".join(f"{in_gb(size * numbers)} of memory in {name}" for name, size in kinds.items())
    less = f", less with {engine.quantize}" if engine.quantize is not None else ""
    return f"the model {engine.model} takes {takes}{less}, and what goes through it takes more"


def _speed(desk: Desk) -> float | None:
    """Seconds or pages a second, as an earlier run of the command did; None where there was none."""
    from phi4mm_cli.journal.status import status

    if not isinstance(desk.journal, Journal) or desk.plan.folder is None:
        return None
    try:
        commands = status(desk.plan.folder).commands
    except UsageError:  # there is no journal
        return None
    family = f"{desk.task.command} {desk.task.tag}" if desk.task.tag else desk.task.command
    return next((one.speed for one in commands if one.command == family), None)
