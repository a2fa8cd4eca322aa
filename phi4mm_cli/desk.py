"""Where the work of a batch becomes results, and results output files or lines of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TextIO

from phi4mm_cli import files, writers
from phi4mm_cli.driver import Job, Outcome, run
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import InputError, StorageError
from phi4mm_cli.files import Work
from phi4mm_cli.flow import Flow
from phi4mm_cli.journal import NoJournal
from phi4mm_cli.outputs import Body, Document, Summary, Timings, remarked
from phi4mm_cli.report import Live, Loading, Report, display
from phi4mm_cli.schema import ModelInfo, Request, Result
from phi4mm_cli.task import Plan, Task


@dataclass(frozen=True, slots=True)
class Desk:
    """Where works become results, and results output files, or a line of the report."""

    task: Task
    plan: Plan
    stdout: TextIO
    report: Report
    journal: NoJournal

    def left(self, works: Sequence[Work], overwrite: bool) -> list[Work]:
        """What is not done yet; where there is a result already, it is written and needs no model."""
        states = [self.journal.settled(work) for work in works]
        left = [work for work, state in zip(works, states, strict=True) if state is None]
        if not overwrite and self.plan.folder is not None:
            others = [work for work in left if not self.journal.unfinished(work)]
            files.check_absent(self.plan.claims(self.task, others), self.plan.folder)
        for work, state in zip(works, states, strict=True):
            if state is not None:
                self.report.skipped(work.label, state)
        return [work for work in left if not self._written_again(work)]

    def _written_again(self, work: Work) -> bool:
        document = self.journal.kept(work)
        if document is None:
            return False
        self._deliver(work, replace(document, source=work.label, options=self.task.options))
        return True

    def work(self, lengths: Mapping[Work, float | None], engine: Engine, loading: Loading) -> None:
        """Have the model work on what has these lengths, in seconds or pages."""
        owners = {str(work.path): work for work in lengths}
        named = {key: lengths[work] for key, work in owners.items()}
        live = self._live() if len(owners) == 1 else None
        with display(named, next(iter(lengths)).label, loading.quiet, live) as bar:
            loading.bar = bar
            flow = self.task.prepare(engine.profile, engine.count_tokens)

            def start(work: Work) -> Flow[Body]:
                sources = [self.task.source(file.path) for file in work.inputs]
                self.journal.started(work, sources, lengths[work])
                return flow(*sources)

            def answered(job: Job[Body], request: Request, result: Result) -> None:
                self.journal.answered(owners[job.name], request, result)
                bar.advance(job, request, result)

            jobs = (Job(key, partial(start, work)) for key, work in owners.items())
            for outcome in run(jobs, self.journal.replaying(engine), on_result=answered, on_part=bar.part):
                with bar.aside(self.stdout):
                    self._take(owners[outcome.job.name], outcome, engine.info, live)
                bar.finish(outcome.job)

    def _live(self) -> Live | None:
        """How the parts of the only input are shown: its text appears as it is finished where a person reads it."""
        if self.task.segments is None:
            return None
        is_read = self.plan.folder is None and self.plan.formats in ((), ("txt",)) and self.stdout.isatty()
        return Live(self.task.segments, self.stdout if is_read else None)

    def _take(self, work: Work, outcome: Outcome[Body], model: ModelInfo, live: Live | None) -> None:
        if isinstance(outcome.error, StorageError):
            raise outcome.error
        if outcome.error is not None:
            self._fail(work, outcome.error)
            return
        assert outcome.value is not None
        document = Document(
            source=work.label,
            model=model,
            options=self.task.options,
            timings=Timings(outcome.seconds),
            usage=outcome.usage,
            body=remarked(outcome.value, outcome.remarks),
            sources=tuple(file.label for file in work.inputs) if len(work.inputs) > 1 else None,
        )
        self.journal.keep(work, document)
        self._deliver(work, document, shown=live is not None and live.text is not None)

    def _fail(self, work: Work, error: Exception) -> None:
        self.report.failed(work.label, error)
        self.journal.failed(work, error)

    def _deliver(self, work: Work, document: Document, shown: bool = False) -> None:
        """Write the result, unless a person has been `shown` it already."""
        try:
            outputs = [] if shown else [*self._write(work, document)]
        except InputError as error:
            self._fail(work, error)
        else:
            self.journal.done(work, document, outputs)
            self.report.done(document)

    def _write(self, work: Work, document: Document) -> Iterator[str]:
        """The names of the files that are written, in the folder."""
        plan, forms = self.plan, self.task.forms
        for edition in forms.of(work.path, document, plan.formats, plan.captions, plan.folder is None):
            if plan.folder is not None:
                target = files.target_of(work, plan.folder, edition.name)
                files.write(target, partial(edition.write, document), self.journal.advice)
                yield target.relative_to(plan.folder).as_posix()
            else:
                drawn = edition.format == "txt" and isinstance(document.body, Summary) and self.stdout.isatty()
                (writers.write_for_people if drawn else edition.write)(document, self.stdout)
                self.stdout.flush()
