"""Where the work of a batch becomes results, and results output files or lines of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO

from phi4mm_cli import console, files, media, stopping, writers
from phi4mm_cli.display import Display, Live, display
from phi4mm_cli.driver import Driver
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import ExitCode, StorageError, UsageError
from phi4mm_cli.files import Work
from phi4mm_cli.finding import Found, Unfound
from phi4mm_cli.flow import Flow
from phi4mm_cli.jobs import Job, Outcome
from phi4mm_cli.journal import NoJournal, State
from phi4mm_cli.lines import Lines
from phi4mm_cli.outputs import Body, Document, Summary, Timings, Unit, remarked
from phi4mm_cli.report import Loading, Report
from phi4mm_cli.schema import ModelInfo, Request, Result, Source
from phi4mm_cli.sharding import Shard
from phi4mm_cli.task import Plan, Task

SHORT: dict[Unit, float] = {"seconds": 15.0, "pages": 1.0, "tokens": 0.0}


@dataclass(frozen=True, slots=True)
class _Todo:
    """A work that the model is to be asked about."""

    name: str  # within the run
    work: Work
    begin: Callable[[], list[Source]]  # called when there is room for it; raises what is wrong with it


class InTheWayError(UsageError):
    """There is a line that is not to be replaced."""


class _DoneBefore(Exception):  # noqa: N818 - no error: there is nothing left to be done
    """An earlier run has dealt with the work, or has left a result that only has to be written."""

    def __init__(self, how: State | Document) -> None:
        super().__init__()
        self.how = how


def _raise(error: Exception) -> NoReturn:
    raise error


@dataclass(frozen=True, slots=True)
class Desk:
    """Where works become results, and results output files, or a line of the report."""

    task: Task
    plan: Plan
    stdout: TextIO
    report: Report
    journal: NoJournal
    shard: Shard | None = None  # the part of the inputs that is the run's own
    lines: Lines | None = None  # what `stdout` stands for, where it is a file of its own

    def settled(self, work: Work) -> State | None:
        """The state of what is done, where doing it again would change nothing."""
        return self.journal.settled(work) if self.lines is None or work.label in self.lines else None

    def left(self, works: Sequence[Work], unfound: Sequence[str], overwrite: bool) -> list[Work]:
        """What is not done yet; where there is a result already, it is written and needs no model.

        Raises UsageError where something would be replaced that is not to be: outputs, or lines of a file that may
        hold some of what is `unfound` too.
        """
        states = [self.settled(work) for work in works]
        left = [work for work, state in zip(works, states, strict=True) if state is None]
        if not overwrite:
            self._require_absent([work for work in left if not self.journal.unfinished(work)])
        if self.lines is not None:
            self.lines.leave_out({*unfound, *(work.label for work in left)})
        for work, state in zip(works, states, strict=True):
            if state is not None:
                self.report.skipped(work.label, state)
        return [work for work in left if not self._written_again(work)]

    def _require_absent(self, works: Sequence[Work]) -> None:
        """Raise UsageError where something would be replaced."""
        if self.plan.folder is not None:
            files.check_absent(self.plan.claims(self.task, works), self.plan.folder)
        if self.lines is not None and (there := [work.label for work in works if work.label in self.lines]):
            raise InTheWayError(f"there is a line of {there[0]} already", "Remove it, or leave out --no-overwrite")

    def check_names(self, work: Work) -> None:
        """Raise InputError where an output cannot be called as it would be."""
        if self.plan.folder is not None:
            files.check_names(work, self.task.forms.names(work.path, self.plan.formats), self.plan.folder)

    def _written_again(self, work: Work) -> bool:
        document = self.journal.kept(work)
        if document is None:
            return False
        self._take_done(work, document)
        return True

    def work(self, lengths: Mapping[Work, float | None], engine: Engine, loading: Loading) -> ExitCode | None:
        """Have the model work on what has these lengths, in seconds or pages.

        The exit code of a signal, where one has asked to finish early.
        """
        live = self._live() if len(lengths) == 1 else None
        todo = [_Todo(str(work.path), work, partial(self._begin, work, length)) for work, length in lengths.items()]
        named = {one.name: lengths[one.work] for one in todo}
        title = todo[0].work.label if len(todo) == 1 else self.task.command
        with display(named, title, loading.quiet, live, self.report.troubles, spans=self.task.spans) as bar:
            return self._run(todo, engine, loading, bar)

    def work_as_named(
        self, found: Iterable[Found], overwrite: bool, engine: Engine, loading: Loading
    ) -> ExitCode | None:
        """... on what is found, as it is found: all that may be wrong with it is its own failure."""
        claims = files.Claims(self.plan.folder) if self.plan.folder is not None else None
        with display(
            {}, self.task.command, loading.quiet, None, self.report.troubles, True, spans=self.task.spans
        ) as bar:
            return self._run(self._as_named(found, claims, overwrite, loading, bar), engine, loading, bar)

    def _as_named(
        self, found: Iterable[Found], claims: files.Claims | None, overwrite: bool, loading: Loading, bar: Display
    ) -> Iterator[_Todo]:
        for number, one in enumerate(found):
            loading.begin()
            name = str(number)  # for a path may come again
            if isinstance(one, Unfound):
                yield _Todo(name, Work((), one.label, Path(), name), partial(_raise, one.error))
                continue
            if self.shard is not None and not self.shard.has(one.name):
                continue
            work = Work((one,), one.label, one.stem, one.name)
            bar.expect(name, None)
            yield _Todo(name, work, partial(self._begin_named, work, claims, overwrite))

    def _begin(self, work: Work, length: float | None) -> list[Source]:
        sources = [media.source(file.path) for file in work.inputs]
        is_short = length is not None and length <= SHORT[self.task.unit]
        self.journal.started(work, sources, length, is_short)
        return sources

    def _begin_named(self, work: Work, claims: files.Claims | None, overwrite: bool) -> list[Source]:
        self.check_names(work)
        if claims is not None:
            claims.take(work, self.task.forms.names(work.path, self.plan.formats))
        if (state := self.settled(work)) is not None:
            raise _DoneBefore(state)
        if not overwrite and not self.journal.unfinished(work):
            self._require_absent([work])
        if (document := self.journal.kept(work)) is not None:
            raise _DoneBefore(document)
        return self._begin(work, self.task.probe(work.path))

    def _run(self, todo: Iterable[_Todo], engine: Engine, loading: Loading, bar: Display) -> ExitCode | None:
        loading.bar = bar
        flow = self.task.prepare(engine.profile, engine.count_tokens)
        in_hand: dict[str, Work] = {}
        stopped: list[ExitCode] = []

        def start(one: _Todo) -> Flow[Body]:
            return flow(*one.begin())

        def jobs() -> Iterator[Job[Body]]:
            for one in todo:
                in_hand[one.name] = one.work
                yield Job(one.name, partial(start, one))

        def answered(job: Job[Body], request: Request, result: Result) -> None:
            self.journal.answered(in_hand[job.name], request, result)
            bar.advance(job, request, result)

        def finish(code: ExitCode) -> bool:
            if (isinstance(todo, Sized) and len(todo) == 1) or not driver.has_answers:
                return False
            names = [job.name for job in driver.finish()]
            stopped.append(code)
            stopping.tell(code, [in_hand[name].label for name in names if name in in_hand], bar.left_of(names))
            return True

        with (
            Driver(jobs(), self.journal.replaying(engine), on_result=answered, on_part=bar.part) as driver,
            stopping.finishing(finish),
        ):
            for outcome in driver.run():
                with bar.aside(self.stdout):
                    self._take(in_hand.pop(outcome.job.name), outcome, engine.info, bar.has_shown)
                bar.finish(outcome.job)
        return stopped[0] if stopped else None

    def _live(self) -> Live | None:
        """How the parts of the only input are shown: its text appears as it is finished where a person reads it."""
        if self.task.segments is None:
            return None
        is_read = self.plan.folder is None and self.plan.formats in ((), ("txt",)) and self.stdout.isatty()
        return Live(self.task.segments, self.stdout if is_read else None)

    def _take(self, work: Work, outcome: Outcome[Body], model: ModelInfo, shown: bool) -> None:
        if isinstance(outcome.error, StorageError):
            raise outcome.error
        if isinstance(outcome.error, _DoneBefore):
            self._take_done(work, outcome.error.how)
            return
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
        self._deliver(work, document, shown=shown)

    def _take_done(self, work: Work, how: State | Document) -> None:
        if isinstance(how, State):
            self.report.skipped(work.label, how)
        else:
            self._deliver(work, replace(how, source=work.label, options=self.task.options), fresh=False)

    def _fail(self, work: Work, error: Exception, outputs: Sequence[str] = (), edited: Sequence[str] = ()) -> None:
        stays = isinstance(error, InTheWayError)
        if self.lines is not None and not stays:
            with console.needing_room():
                self.lines.renew(work.label)
        self.report.failed(work.label, error, stays)
        if work.inputs:
            self.journal.failed(work, error, outputs, edited)

    def _deliver(self, work: Work, document: Document, fresh: bool = True, shown: bool = False) -> None:
        """Write the result, `fresh` from the model or kept, unless a person has been `shown` it already."""
        edited: list[str] = []
        outputs: list[str] = []
        try:
            if not shown:
                outputs.extend(self._write(work, document, None if fresh else edited))
        except (StorageError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 - a bug met in writing one result is that file's failure
            self._fail(work, error, outputs, edited)
        else:
            self.report.done(document, fresh, self.journal.done(work, document, outputs, edited))

    def _write(self, work: Work, document: Document, edited: list[str] | None) -> Iterator[str]:
        """The names of the files that are written, in the folder; those that are `edited` are left as they are."""
        plan, forms = self.plan, self.task.forms
        self.check_names(work)  # of a kept result, other outputs were written before
        for edition in forms.of(work.path, document, plan.formats, plan.captions, plan.folder is None):
            if plan.folder is not None:
                target = files.target_of(work, plan.folder, edition.name)
                name = target.relative_to(plan.folder).as_posix()
                if edited is not None and self.journal.is_edited(name):
                    self.report.left_alone(files.label_of(target))
                    edited.append(name)
                else:
                    files.write(target, partial(edition.write, document), self.journal.advice)
                yield name
            else:
                if self.lines is not None:
                    with console.needing_room():
                        self.lines.renew(work.label)
                is_prose = isinstance(document.body, Summary) or document.body.task == "description"
                drawn = edition.format == "txt" and is_prose and self.stdout.isatty()
                with console.needing_room():
                    (writers.write_for_people if drawn else edition.write)(document, self.stdout)
                    self.stdout.flush()
