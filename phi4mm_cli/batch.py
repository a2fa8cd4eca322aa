"""Files in, outputs out: what every command that takes files has in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from phi4mm_cli import console, files, media, writers
from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.desk import Desk
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import ExitCode, InputError, Phi4Error, UsageError, exit_code_of
from phi4mm_cli.files import Input, Work
from phi4mm_cli.finding import Asked, Found, Rules, Unfound, once
from phi4mm_cli.journal import Journal, NoJournal, Order, states
from phi4mm_cli.lines import Lines
from phi4mm_cli.options import BatchOptions, LogOptions
from phi4mm_cli.output_options import CaptionOutputOptions, OutputOptions
from phi4mm_cli.paths import absolute, is_folder
from phi4mm_cli.rehearsal import rehearse
from phi4mm_cli.report import Loading, Report
from phi4mm_cli.runs import RunReport, whole_json
from phi4mm_cli.sharding import Shard
from phi4mm_cli.task import Plan, Task

STDOUT = Path("-")
STDIN_NAME, TOGETHER_NAME = "stdin", "together"  # of results that no single file lends its name to


def run_files(
    task: Task,
    paths: Sequence[Path],
    batch: BatchOptions,
    engine: EngineOptions,
    output: OutputOptions,
    log: LogOptions,
    together: bool = False,
) -> ExitCode:
    """Run `task` over what `paths` and the list of `batch` name, write the results, and say how the run ended.

    Each file has a result of its own, or `together` they have one, to which none of them may be lacking.

    What can be known is checked before the model is loaded. Raises UsageError and MissingError for what stops the run
    as a whole; what stops one input is reported, and the others go on.
    """
    asked = Asked(paths, batch, output.name or STDIN_NAME)
    plan, shard = _plan(asked, output, together, task.to_files), batch.part()
    if together and shard is not None:
        raise UsageError("--shard parts inputs, and --together joins them", "Leave one out")
    if batch.report == STDOUT and plan.folder is None and plan.lines is None:
        raise UsageError("'--report -' is for stdout, and so are the results", "Give the report a file")
    if batch.report is not None and batch.report != STDOUT and not batch.dry_run:
        files.check_target(batch.report)
    with ExitStack() as stack:
        stack.enter_context(console.logged(batch.log_file))
        stdout = told = stack.enter_context(console.results())
        lines = Lines(plan.lines) if plan.lines is not None else None
        if lines is not None and batch.dry_run:
            lines.read()
        elif lines is not None:
            stdout = stack.enter_context(lines.opened(task.command))
        report = Report(output.strict, log, partial(_write_failure, stdout) if output.jsonl else None)
        before = _outputs_before(plan, task) if task.replaced_tags else ()
        found = asked.found(Rules(task.suffixes, task.tag, task.replaced_tags, before))
        desk = Desk(task, plan, stdout, report, _journal(task, plan, engine, output, shard), shard, lines)
        if batch.dry_run:
            return _rehearsed(desk, [*once(found)], output, together, engine)
        try:
            if asked.grows and not together:
                stack.enter_context(desk.journal)
                if lines is not None:
                    lines.leave_out(())  # but one that is torn
                stopped = desk.work_as_named(found, output.overwrite, *_opened(engine, log, stack, waits=True))
            else:
                lengths = _checked(desk, [*once(found)], output, together, stack)
                stopped = desk.work(lengths, *_opened(engine, log, stack)) if lengths else None
        except BrokenPipeError:
            raise
        except (Exception, SystemExit) as error:  # a server that is gone, a full disk, a second signal, a bug
            report.end()
            if batch.report is not None:
                with suppress(Phi4Error):
                    _write_report(report.tally.report(task.command, exit_code_of(error)), batch.report, told)
            raise
        ended = report.end()
        code = stopped or ended
        desk.journal.ended(code)
        if batch.report is not None:
            _write_report(report.tally.report(task.command, code), batch.report, told)
    return code


def _write_report(report: RunReport, path: Path, stdout: TextIO) -> None:
    text = json.dumps(whole_json(report), ensure_ascii=False, indent=2) + "\n"
    if path == STDOUT:
        stdout.write(text)
    else:
        try:
            files.write(path, lambda file: file.writelines([text]), "The run itself has ended as it says above")
        except InputError as error:
            raise Phi4Error(error.message, error.advice) from error  # no input's fault


def _rehearsed(
    desk: Desk, found: Sequence[Found], output: OutputOptions, together: bool, engine: EngineOptions
) -> ExitCode:
    works = _works([one for one in found if isinstance(one, Input)], output, together)
    mine = [work for work in works if desk.shard is None or desk.shard.has(work.name)]
    return rehearse(desk, mine, [one for one in found if isinstance(one, Unfound)], engine, output.overwrite)


def _opened(engine: EngineOptions, log: LogOptions, stack: ExitStack, waits: bool = False) -> tuple[Engine, Loading]:
    loading = Loading(log, waits)
    return stack.enter_context(engine.open(loading)), loading


def _checked(
    desk: Desk, found: Sequence[Found], output: OutputOptions, together: bool, stack: ExitStack
) -> dict[Work, float | None]:
    """What there is to do, with its length; checked as far as is possible without the model."""
    inputs = [one for one in found if isinstance(one, Input)]
    plan, task, report, shard = desk.plan, desk.task, desk.report, desk.shard
    if plan.folder is not None:
        files.check_outputs(plan.claims(task, _works(inputs, output, together)), plan.folder)
    empty = [one for one in found if isinstance(one, Unfound)]
    works = _works(stack.enter_context(files.stdin_spooled(inputs)), output, together)
    works = [work for work in works if shard is None or shard.has(work.name)]
    stack.enter_context(desk.journal)
    left = [] if together and empty else desk.left(works, [one.label for one in empty], output.overwrite)
    for one in empty:
        report.failed(one.label, one.error)
    lengths = dict(_probed(desk, left))
    desk.journal.planned(len(works), len(lengths), _total(lengths.values()), task.unit)
    return lengths


def _journal(task: Task, plan: Plan, engine: EngineOptions, output: OutputOptions, shard: Shard | None) -> NoJournal:
    if plan.home is None or output.output_dir is None:
        return NoJournal()
    deciding = {name: value for name, value in task.options.items() if name not in task.writing}
    writing = {**task.writing, "formats": plan.formats, "captions": plan.captions}
    order = Order(task.command, task.tag, deciding, engine.deciding(), writing)
    return Journal(plan.home, order, media.source, output.force, shard)


def _outputs_before(plan: Plan, task: Task) -> set[str]:
    """What earlier runs of the command have written, whatever their tag: no input of this one, unless it is named."""
    if plan.folder is None:
        return set()
    owners = states.read(plan.folder).owners.items()
    mine = (output for output, owner in owners if owner.key[0].partition(" ")[0] == task.command)
    return {absolute(plan.folder / output) for output in mine}


def _write_failure(stdout: TextIO, label: str, error: Exception) -> None:
    with console.needing_room():
        writers.write_failure(label, error, stdout)
        stdout.flush()


def _works(inputs: Sequence[Input], output: OutputOptions, together: bool) -> list[Work]:
    if together and inputs:
        name = output.name or TOGETHER_NAME
        return [Work(tuple(inputs), name, Path(name), name)]
    return [Work((file,), file.label, file.stem, file.name) for file in inputs]


def _total(lengths: Iterable[float | None]) -> float | None:
    total = 0.0
    for length in lengths:
        if length is None:
            return None
        total += length
    return total


def _plan(asked: Asked, output: OutputOptions, together: bool, to_files: bool) -> Plan:
    formats: tuple[str, ...] = output.formats()
    rules = output.captions if isinstance(output, CaptionOutputOptions) else PresetName.PLAIN
    single = together or asked.is_one_file
    if output.jsonl:
        if formats:
            raise UsageError("--jsonl goes with no other format")
        lines = output.output_dir if output.output_dir != STDOUT else None
        if lines is not None and is_folder(lines):
            raise UsageError(f"--jsonl writes one file, and {files.label_of(lines)} is a folder", "Name a file with -o")
        return Plan(None, ("jsonl",), rules, lines)
    if output.output_dir == STDOUT:
        if len(formats) > 1 or not single:
            raise UsageError("'-o -' takes one input and one format", "For several inputs there is --jsonl")
        return Plan(None, formats, rules)
    if single and not formats and output.output_dir is None and not to_files:
        return Plan(None, (), rules)
    if output.output_dir is not None:
        files.check_folder_name(output.output_dir)
    return Plan(output.output_dir or Path(), formats, rules)


def _probed(desk: Desk, works: Sequence[Work]) -> Iterator[tuple[Work, float | None]]:
    """Those that can be worked on, with their lengths."""
    for work in works:
        lengths: list[float | None] = []
        for file in work.inputs:
            try:
                desk.check_names(work)
                lengths.append(desk.task.probe(file.path))
            except Exception as error:
                if isinstance(error, Phi4Error) and not isinstance(error, InputError):
                    raise  # what is wrong is not this input alone; a bug that is met with it is its own failure
                desk.report.failed(file.label, error)
                desk.journal.failed(work, error)
        if len(lengths) == len(work.inputs):
            yield work, _total(lengths)
