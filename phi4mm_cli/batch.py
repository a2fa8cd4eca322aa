"""Files in, outputs out: what every command that takes files has in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TextIO

from phi4mm_cli import console, files, writers
from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.driver import Job, Outcome, run
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import ExitCode, InputError, UsageError
from phi4mm_cli.files import Input, Work
from phi4mm_cli.flow import Flow
from phi4mm_cli.options import EngineOptions, LogOptions
from phi4mm_cli.output_options import CaptionOutputOptions, OutputOptions
from phi4mm_cli.outputs import Body, Document, Summary, Timings
from phi4mm_cli.report import Live, Loading, Report, SegmentsOf, display
from phi4mm_cli.schema import Profile, Source

STDOUT = Path("-")
STDIN_NAME, TOGETHER_NAME = "stdin", "together"  # of results that no single file lends its name to

CountTokens = Callable[[str], int]  # of a text; safe in any thread
Prepare = Callable[[Profile, CountTokens], Callable[..., Flow[Body]]]  # which is called with the sources of the work


@dataclass(frozen=True, slots=True)
class Edition:
    """A form in which a result is written."""

    format: str
    name: str  # of the file, behind the stem: "srt", "fr.srt"
    write: writers.Writer


class Editions(Protocol):
    """The forms in which the results of a command are written, where `asked` formats are; () leaves them to it."""

    def names(self, path: Path, asked: tuple[str, ...]) -> Sequence[str]:
        """What the files that are written for an input may be called, behind their stem."""

    def of(
        self, path: Path, document: Document, asked: tuple[str, ...], rules: PresetName, together: bool
    ) -> Iterable[Edition]:
        """The editions of a result; one alone where they go to stdout `together`."""


@dataclass(frozen=True, slots=True)
class OneEach:
    """An edition for each format, which is text unless asked for otherwise."""

    tag: str | None

    def names(self, path: Path, asked: tuple[str, ...]) -> Sequence[str]:
        """The formats, behind the tag."""
        return [f"{self.tag}.{name}" if self.tag else name for name in asked or ("txt",)]

    def of(
        self, path: Path, document: Document, asked: tuple[str, ...], rules: PresetName, together: bool
    ) -> Iterable[Edition]:
        """As the writers have them."""
        for format, name in zip(asked or ("txt",), self.names(path, asked), strict=True):
            yield Edition(format, name, writers.writer(format, rules))


@dataclass(frozen=True, slots=True)
class Task:
    """What a command does to one file."""

    suffixes: Collection[str]  # of the files that are taken from folders
    probe: Callable[[Path], float | None]  # reads the header; the length in seconds where it tells; raises InputError
    source: Callable[[Path], Source]
    prepare: Prepare  # the flow, once it is known what the model can do
    options: Mapping[str, str | int | float | bool | None]  # what is recorded of the options in each result
    segments: SegmentsOf | None = None  # of what a flow in its Gather returns, to be shown while others run
    tag: str | None = None  # stands in the names of the outputs before the extension, as in talk.fr.srt
    replaced_tags: Collection[str] = ()  # of inputs, whose place it takes: talk.en.srt becomes talk.fr.srt
    editions: Editions | None = None  # None: one for each format


@dataclass(frozen=True, slots=True)
class Plan:
    """Where results go."""

    folder: Path | None  # None: all to stdout
    formats: tuple[str, ...]  # () leaves them to the command
    captions: PresetName


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
    editions = task.editions or OneEach(task.tag)
    if plan.folder is not None:
        claims = [(work, editions.names(work.path, plan.formats)) for work in _works(inputs, output, together)]
        files.check_outputs(claims, plan.folder, output.overwrite)
    report = Report(output.strict, log)
    for label, error in empty:
        report.failed(label, error)
    with ExitStack() as stack:
        lengths = dict(_probed(task, stack.enter_context(files.stdin_spooled(inputs)), report))
        complete = len(lengths) == len(inputs) and not empty
        if lengths and (complete or not together):
            stdout = stack.enter_context(console.results())
            opened = stack.enter_context(engine.open(loading))
            if opened.profile.notice and not log.quiet:
                console.say(opened.profile.notice)
            works = _works([*lengths], output, together)
            live = _live(task, plan, stdout) if len(works) == 1 else None
            writer = _Writer(task, editions, opened, plan, stdout, report, live)
            owners = {str(work.path): work for work in works}
            named = {key: _total(lengths[file] for file in work.inputs) for key, work in owners.items()}
            with display(named, next(iter(owners.values())).label, log.quiet, live) as bar:
                loading.bar = bar
                flow = task.prepare(opened.profile, opened.count_tokens)

                def start(work: Work) -> Flow[Body]:
                    return flow(*(task.source(file.path) for file in work.inputs))

                jobs = (Job(key, partial(start, work)) for key, work in owners.items())
                for outcome in run(jobs, opened, on_result=bar.advance, on_part=bar.part):
                    with bar.aside(stdout):
                        writer.take(owners[outcome.job.name], outcome)
                    bar.finish(outcome.job)
    return report.end()


def _live(task: Task, plan: Plan, stdout: TextIO) -> Live | None:
    """How the parts of the only input are shown: its text appears as it is finished where a person reads it."""
    if task.segments is None:
        return None
    is_read = plan.folder is None and plan.formats in ((), ("txt",)) and stdout.isatty()
    return Live(task.segments, stdout if is_read else None)


def _works(inputs: Sequence[Input], output: OutputOptions, together: bool) -> list[Work]:
    if together and inputs:
        name = output.name or TOGETHER_NAME
        return [Work(tuple(inputs), name, Path(name))]
    return [Work((file,), file.label, file.stem) for file in inputs]


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


def _probed(task: Task, inputs: Sequence[Input], report: Report) -> Iterator[tuple[Input, float | None]]:
    for file in inputs:
        try:
            yield file, task.probe(file.path)
        except InputError as error:
            report.failed(file.label, error)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Turns the outcome of a job into its output files, or into a line of the report."""

    task: Task
    editions: Editions
    engine: Engine
    plan: Plan
    stdout: TextIO
    report: Report
    live: Live | None

    def take(self, work: Work, outcome: Outcome[Body]) -> None:
        if outcome.error is not None:
            self.report.failed(work.label, outcome.error)
            return
        assert outcome.value is not None
        document = Document(
            source=work.label,
            model=self.engine.info,
            options=self.task.options,
            timings=Timings(outcome.seconds),
            usage=outcome.usage,
            body=outcome.value,
            sources=tuple(file.label for file in work.inputs) if len(work.inputs) > 1 else None,
        )
        try:
            self._write(work, document)
        except InputError as error:
            self.report.failed(work.label, error)
        else:
            self.report.done(document)

    def _write(self, work: Work, document: Document) -> None:
        plan = self.plan
        for edition in self.editions.of(work.path, document, plan.formats, plan.captions, plan.folder is None):
            if plan.folder is not None:
                target = files.target_of(work, plan.folder, edition.name)
                files.write(target, lambda stream, edition=edition: edition.write(document, stream))  # type: ignore[misc]
            elif self.live is None or self.live.text is None:
                drawn = edition.format == "txt" and isinstance(document.body, Summary) and self.stdout.isatty()
                (writers.write_for_people if drawn else edition.write)(document, self.stdout)
                self.stdout.flush()
