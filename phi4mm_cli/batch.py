"""Files in, outputs out: what every command that takes files has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from phi4mm_cli import console, files
from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.desk import Desk
from phi4mm_cli.errors import ExitCode, InputError, UsageError
from phi4mm_cli.files import Input, Work
from phi4mm_cli.journal import Journal, NoJournal, Order
from phi4mm_cli.options import EngineOptions, LogOptions
from phi4mm_cli.output_options import CaptionOutputOptions, OutputOptions
from phi4mm_cli.report import Loading, Report
from phi4mm_cli.task import Plan, Task

STDOUT = Path("-")
STDIN_NAME, TOGETHER_NAME = "stdin", "together"  # of results that no single file lends its name to


def run_files(
    task: Task,
    paths: Sequence[Path],
    engine: EngineOptions,
    output: OutputOptions,
    log: LogOptions,
    together: bool = False,
) -> ExitCode:
    """Run `task` over the files that `paths` name, write their results, and say how the run ended.

    Each file has a result of its own, or `together` they have one, to which none of them may be lacking.

    What can be known is checked before the model is loaded. Raises UsageError and MissingError for what stops the run
    as a whole; what stops one input is reported, and the others go on.
    """
    loading = Loading(log)
    inputs, empty = files.find(paths, task.suffixes, output.name or STDIN_NAME, task.tag, task.replaced_tags)
    plan = _plan(paths, output, together)
    if plan.folder is not None:
        files.check_outputs(plan.claims(task, _works(inputs, output, together)), plan.folder)
    report = Report(output.strict, log)
    for label, error in empty:
        report.failed(label, error)
    with ExitStack() as stack:
        works = _works(stack.enter_context(files.stdin_spooled(inputs)), output, together)
        journal = stack.enter_context(_journal(task, plan, engine, output))
        desk = Desk(task, plan, stack.enter_context(console.results()), report, journal)
        left = [] if together and empty else desk.left(works, output.overwrite)
        lengths = dict(_probed(task, left, report, journal))
        if lengths:
            opened = stack.enter_context(engine.open(loading))
            if opened.profile.notice and not log.quiet:
                console.say(opened.profile.notice)
            desk.work(lengths, opened, loading)
        code = report.end()
        journal.ended(code)
    return code


def _journal(task: Task, plan: Plan, engine: EngineOptions, output: OutputOptions) -> NoJournal:
    if plan.folder is None or output.output_dir is None:
        return NoJournal()
    deciding = {name: value for name, value in task.options.items() if name not in task.writing}
    writing = {**task.writing, "formats": plan.formats, "captions": plan.captions}
    order = Order(task.command, task.tag, deciding, engine.deciding(), writing, task.timed)
    return Journal(plan.folder, order, task.source, output.force)


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


def _plan(paths: Sequence[Path], output: OutputOptions, together: bool) -> Plan:
    formats: tuple[str, ...] = output.formats()
    rules = output.captions if isinstance(output, CaptionOutputOptions) else PresetName.PLAIN
    single = together or (len(paths) == 1 and not paths[0].is_dir())
    if output.jsonl:
        if formats or output.output_dir not in (None, STDOUT):
            raise UsageError("--jsonl writes to stdout and goes with no other format or folder")
        return Plan(None, ("jsonl",), rules)
    if output.output_dir == STDOUT:
        if len(formats) > 1 or not single:
            raise UsageError("'-o -' takes one input and one format", "For several inputs there is --jsonl")
        return Plan(None, formats, rules)
    if single and not formats and output.output_dir is None:
        return Plan(None, (), rules)
    return Plan(output.output_dir or Path(), formats, rules)


def _probed(
    task: Task, works: Sequence[Work], report: Report, journal: NoJournal
) -> Iterator[tuple[Work, float | None]]:
    """Those that can be worked on, with their lengths."""
    for work in works:
        lengths: list[float | None] = []
        for file in work.inputs:
            try:
                lengths.append(task.probe(file.path))
            except InputError as error:
                report.failed(file.label, error)
                journal.failed(work, error)
        if len(lengths) == len(work.inputs):
            yield work, _total(lengths)
