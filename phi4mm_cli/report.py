"""What a run says while it works and when it ends: failures, warnings, progress, the exit code."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from phi4mm_cli import console
from phi4mm_cli.driver import Job
from phi4mm_cli.errors import ExitCode, MemoryExhaustedError, Phi4Error
from phi4mm_cli.journal import State
from phi4mm_cli.options import LogOptions
from phi4mm_cli.outputs import Document, Segment
from phi4mm_cli.schema import Request, Result
from phi4mm_cli.timing import clock
from phi4mm_cli.writers import read_of

if TYPE_CHECKING:
    from rich.progress import Progress


# Off a terminal loading is silent for so long, and then there is a line every so often.
SILENT_SECONDS, LINE_SECONDS = 20.0, 60.0

OnFailure = Callable[[str, Exception], None]  # given what people call the input


class Report:
    """Counts how the inputs of a run ended, and says so on stderr as it happens."""

    def __init__(self, strict: bool, log: LogOptions, on_failure: OnFailure | None = None) -> None:
        self._strict = strict
        self._on_failure = on_failure
        self._log = log
        self._done = 0
        self._skipped = 0
        self._warnings = 0
        self._failures: list[Exception] = []

    def done(self, document: Document) -> None:
        """An input has its result."""
        warnings = [warning for warning in document.body.warnings if not warning.is_of_the_engine]
        self.counted(sum(not warning.healed for warning in warnings))
        label, body = document.source, document.body
        if self._log.verbose:
            usage, seconds = document.usage, document.timings.total
            cost = f"{usage.calls} calls, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
            console.say(f"{label}: {read_of(body)} in {seconds:.1f} s, {cost}")
        for warning in warnings:
            if self._log.verbose or not (warning.healed or self._log.quiet):
                where = "" if warning.start is None else f" at {clock(warning.start)}"
                where += "" if warning.page is None else f", page {warning.page}"
                console.say(f"{label}{where}: {warning.message}; {warning.action}", "warning")

    def skipped(self, label: str, state: State) -> None:
        """An earlier run has dealt with an input."""
        self._skipped += 1
        self._warnings += sum(state.rest["warnings"].values())
        if self._log.verbose:
            console.say(f"{label}: done before")

    def counted(self, warnings: int) -> None:
        """An input has been dealt with, and so many warnings were said of it."""
        self._done += 1
        self._warnings += warnings

    def failed(self, label: str, error: Exception) -> None:
        """An input has none. A bug is shown with its traceback: it is worth a report."""
        self._failures.append(error)
        if isinstance(error, Phi4Error):
            console.say(f"{label}: {error}", "error")
        else:
            console.say(f"{label}: unexpected {type(error).__name__}: {error}", "error")
            console.write("".join(traceback.format_exception(error)))
        if self._on_failure is not None:
            self._on_failure(label, error)

    def end(self) -> ExitCode:
        """The last line, where there were several inputs, and the exit code."""
        total = self._done + self._skipped + len(self._failures)
        if (total > 1 or self._skipped) and not self._log.quiet:
            parts = [f"{self._done} done"] if self._done or not self._skipped else []
            parts += [f"{self._skipped} done before"] if self._skipped else []
            parts += [f"{len(self._failures)} failed"] if self._failures else []
            parts += [f"{self._warnings} warnings"] if self._warnings else []
            console.say(f"{total} input{'s' * (total > 1)}: " + ", ".join(parts))
        if self._failures and not self._done and not self._skipped:
            alone = total == 1 and isinstance(self._failures[0], MemoryExhaustedError)
            return ExitCode.OUT_OF_MEMORY if alone else ExitCode.ALL_FAILED
        if self._failures:
            return ExitCode.SOME_FAILED
        return ExitCode.QUALITY if self._strict and self._warnings else ExitCode.OK


class Loading:
    """Says how far the loading of the model is: a bar of bytes on a terminal, a line now and then elsewhere."""

    def __init__(self, log: LogOptions) -> None:
        self.quiet = log.quiet
        self._log = log
        self._began: float | None = None
        self._next_line = SILENT_SECONDS
        self.bar: Display | None = None

    def note(self, message: str) -> None:
        """Something that is worth a line."""
        if not self._log.quiet:
            console.say(message)

    def detail(self, message: str) -> None:
        """Something that is worth a line only where more was asked for."""
        if self._log.verbose:
            console.say(message)

    def loaded(self, done: int, total: int) -> None:
        """So many bytes have been read."""
        now = time.monotonic()
        self._began = self._began if self._began is not None else now
        seconds = max(now - self._began, 1e-3)
        state = f"{done / 1e9:.1f} of {total / 1e9:.1f} GB, {done / 1e6 / seconds:.0f} MB/s"
        if self.bar is not None:
            self.bar.loading(done, total, state)
        if done == total:
            if self._log.verbose:
                console.say(f"loaded the model in {seconds:.1f} s: {state}")
        elif seconds >= self._next_line and not self._log.quiet and not console.on_terminal():
            self._next_line = seconds + LINE_SECONDS
            console.say(f"loading the model: {state}")


SegmentsOf = Callable[[Any], Sequence[Segment]]


@dataclass(frozen=True, slots=True)
class Live:
    """How the finished parts of a single input are shown while the rest is worked on."""

    segments: SegmentsOf  # of what a flow in a Gather returns
    text: TextIO | None  # a terminal that gets the text itself, which is then not written again; None: beside the bar


class Display:
    """A progress bar over all inputs, in seconds or pages, below what is finished of one; silent off a terminal."""

    def __init__(
        self, progress: Progress | None, lengths: Mapping[str, float | None], first: str, live: Live | None
    ) -> None:
        self._progress = progress
        self._live = live
        self._lengths = lengths
        self._first = first
        self._reached = dict.fromkeys(lengths, 0.0)  # how much of each input has been through the model
        self._pages: dict[str, set[int | None]] = {name: set() for name in lengths}
        self._answers = 0
        self._finished = 0
        self._began = time.monotonic()
        if progress is not None:
            known = all(length is not None for length in lengths.values())
            self._total = sum(length or 0.0 for length in lengths.values()) if known else None
            self._bar = progress.add_task(self._title(), total=self._total, state="starting")

    def loading(self, done: int, total: int, state: str) -> None:
        """So many bytes of the model are in memory; until all are, the bar is theirs."""
        if self._progress is None:
            return
        if done < total:
            self._progress.update(self._bar, description="loading the model", total=total, completed=done, state=state)
        else:
            self._began = time.monotonic()
            self._progress.reset(self._bar, description=self._title(), total=self._total, state="starting")

    def advance(self, job: Job[Any], request: Request, result: Result) -> None:
        """A request of `job` has been answered."""
        self._pages[job.name].update(picture.page for picture in request.pictures)
        reached = max((clip.end for clip in request.clips), default=float(len(self._pages[job.name])))
        self._reached[job.name] = max(self._reached[job.name], reached)
        self._answers += 1
        self._show()

    def part(self, _: Job[Any], part: Any) -> None:
        """All up to this part of a job has been answered."""
        if self._live is None:
            return
        for segment in self._live.segments(part):
            if self._live.text is not None:
                self._stop()  # the text is on the same terminal, and tells as much as the bar
                self._live.text.write(segment.text + "\n")
                self._live.text.flush()
            elif self._progress is not None:
                line = f"{clock(segment.start):>7}  {segment.text}"
                self._progress.console.print(line, markup=False, highlight=False)

    @contextmanager
    def aside(self, stdout: TextIO) -> Iterator[None]:
        """Take the bar away while something is written to `stdout`, where that is a terminal too."""
        if self._progress is None or not stdout.isatty():
            yield
            return
        self._progress.stop()
        yield
        self._progress.start()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def finish(self, job: Job[Any]) -> None:
        """`job` has ended, whether it was answered or not."""
        self._reached[job.name] = self._lengths[job.name] or self._reached[job.name]
        self._finished += 1
        self._show()

    def _show(self) -> None:
        if self._progress is None:
            return
        reached = sum(self._reached.values())
        speed = reached / (time.monotonic() - self._began)
        heard = f"{clock(reached)} heard, {speed:.0f}x" if reached else f"{self._answers} answers"
        paged = f"{reached:.0f} pages, {60 * speed:.0f} a minute"
        state = paged if any(self._pages.values()) else heard
        self._progress.update(self._bar, description=self._title(), completed=reached, state=state)

    def _title(self) -> str:
        if len(self._lengths) == 1:
            return self._first
        return f"{self._finished}/{len(self._lengths)} files"


@contextmanager
def display(
    lengths: Mapping[str, float | None], first: str, quiet: bool, live: Live | None = None
) -> Iterator[Display]:
    """A `Display` of jobs by name with their lengths in seconds; `first` is what people call the first of them.

    A bar on a terminal, nothing elsewhere.
    """
    if quiet or not console.on_terminal():
        yield Display(None, lengths, first, live)
        return
    with console.progress() as progress:
        yield Display(progress, lengths, first, live)


@contextmanager
def bytes_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """What is to be told how many bytes of how many are done: a bar on a terminal, nothing elsewhere."""
    if not console.on_terminal():
        yield lambda done, total: None
        return
    with console.progress() as progress:
        bar = progress.add_task(title, total=None, state="")
        yield lambda done, total: progress.update(
            bar, total=total, completed=done, state=f"{done / 1e9:.1f} of {total / 1e9:.1f} GB"
        )
