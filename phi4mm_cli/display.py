"""How far a run is: two lines on a terminal, a line a minute elsewhere and in the log."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from phi4mm_cli import console, ranges
from phi4mm_cli.jobs import Job
from phi4mm_cli.outputs import Segment
from phi4mm_cli.schema import Request, Result
from phi4mm_cli.timing import clock

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 60.0  # between the lines that are said off a terminal
PIPE_SECONDS = 0.5  # after something was written to a pipe, in which the bar stays away
WIDEST_TITLE = 30  # columns of an input's name

Tally = Callable[[], str]
SegmentsOf = Callable[[Any], Sequence[Segment]]


@dataclass(frozen=True, slots=True)
class Live:
    """How the finished parts of a single input are shown while the rest is worked on."""

    segments: SegmentsOf  # of what a flow in a Gather returns
    text: TextIO | None  # a terminal that gets the text itself, which is then not written again; None: beside the bar


@dataclass(slots=True)
class _InHand:
    """An input that is worked on, or will be."""

    length: float | None  # seconds or pages; None where nobody knows
    reached: float = 0.0  # how much of it has been through the model
    pages: set[int | None] = field(default_factory=set)


class Display:
    """Counts what is expected, reached and finished. `expect` may be called in any thread."""

    def __init__(
        self,
        progress: Progress | None,
        is_said: bool,
        title: str,
        live: Live | None,
        tally: Tally,
        grows: bool,
        starts: bool,
        spans: tuple[ranges.Span, ...],
    ) -> None:
        self._progress, self._is_said, self._live, self._tally = progress, is_said, live, tally
        self._spans = spans  # of recordings, that are heard
        self._grows = grows  # more may be expected at any time
        self._starts = starts  # something has to be loaded before there can be an answer
        self._title = title if len(title) <= WIDEST_TITLE else f"{title[: WIDEST_TITLE - 1]}…"
        self._lock = threading.Lock()
        self._inputs: dict[str, _InHand] = {}
        self._expected = self._finished = self._answers = 0
        self._length, self._all_known = 0.0, True  # of all that is expected, as far as it is known
        self._reached = 0.0
        self._in_pages = False
        self.has_shown = False  # the text of the only input
        self._began = time.monotonic()
        self._next_line = self._began + LINE_SECONDS
        self._back_at: float | None = None  # the time at which the bar may be drawn again
        self._bar = progress.add_task(self._title, total=None, state=self.state()) if progress is not None else None

    def expect(self, name: str, length: float | None) -> None:
        """The job with this name will be worked on; its length in seconds or pages, where that is known."""
        with self._lock:
            self._inputs[name] = _InHand(length)
            self._expected += 1
            self._length += length or 0.0
            self._all_known = self._all_known and length is not None

    def loading(self, done: int, total: int, state: str) -> None:
        """So many bytes of the model are in memory; until all are, the bar is theirs."""
        if self._progress is not None and self._bar is not None and done < total:
            self._progress.update(self._bar, description="loading the model", total=total, completed=done, state=state)
        if done == total:
            self._began, self._starts = time.monotonic(), False
            self._show()

    def advance(self, job: Job[Any], request: Request, result: Result) -> None:
        """A request of `job` has been answered."""
        one = self._inputs.get(job.name)
        if one is None:
            return
        if request.pictures:
            self._in_pages = True
            one.pages.update(picture.page for picture in request.pictures)
        ends = [ranges.covered(self._spans, clip.end) for clip in request.clips]
        reached = float(len(one.pages)) if request.pictures else max(ends, default=0.0)
        self._reached += max(0.0, reached - one.reached)
        one.reached = max(one.reached, reached)
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
                self.has_shown = True
            elif self._progress is not None:
                text = segment.text.strip().replace("\n", "\n" + 9 * " ")
                self._progress.console.print(f"{clock(segment.start):>7}  {text}", markup=False, highlight=False)

    @contextmanager
    def aside(self, stdout: TextIO) -> Iterator[None]:
        """Take the bar away while something is written to `stdout`, where that is a terminal too, or leads to one."""
        if self._progress is None or not (stdout.isatty() or _is_pipe(stdout)):
            yield
            return
        self._progress.stop()
        yield
        if stdout.isatty():
            self._progress.start()
        else:  # whoever reads the pipe may write on the same terminal, now
            stdout.flush()
            self._back_at = time.monotonic() + PIPE_SECONDS

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def finish(self, job: Job[Any]) -> None:
        """`job` has ended, whether it was answered or not."""
        with self._lock:
            one = self._inputs.pop(job.name, None)
        if one is not None and one.length is not None:
            self._reached += one.length - one.reached
        self._finished += 1
        self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if self._progress is not None and self._back_at is not None and now >= self._back_at:
            self._back_at = None
            self._progress.start()
        if self._progress is not None and self._bar is not None:
            title, reached = self._title, self._reached
            self._progress.update(
                self._bar, description=title, total=self._total(), completed=reached, state=self.state()
            )
        if now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            if state := self.state():
                console.say(state, shown=self._is_said)

    def state(self) -> str:
        """What there is to say, on one line."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        speed = self._reached / seconds
        parts = [f"{self._finished} files"] if self._grows else []
        parts += [f"{self._finished}/{self._expected} files"] if not self._grows and self._expected > 1 else []
        total = self._total()
        if self._in_pages:
            parts.append(f"{self._reached:.0f}{f'/{total:.0f}' if total else ''} pages, {60 * speed:.0f} a minute")
        elif self._reached:
            parts.append(f"{clock(self._reached)}{f'/{clock(total)}' if total else ''} heard, {speed:.0f}x")
        elif self._answers:
            parts.append(f"{self._answers} answers")
        parts += filter(None, [self._tally()])
        if total and speed and total > self._reached:
            parts.append(f"{clock((total - self._reached) / speed)} left")
        return ", ".join(parts) or ("starting" if self._starts else "")

    def _total(self) -> float | None:
        return self._length if self._all_known and not self._grows and self._length else None

    def left_of(self, names: Iterable[str]) -> float | None:
        """Seconds that these jobs may still take, by the speed so far; None where nobody can know."""
        inputs = [self._inputs[name] for name in names if name in self._inputs]
        lengths = [one.length for one in inputs if one.length is not None]
        speed = self._reached / max(time.monotonic() - self._began, 1e-3)
        if not speed or len(lengths) < len(inputs):
            return None
        return max(0.0, sum(lengths) - sum(one.reached for one in inputs)) / speed


def _is_pipe(stdout: TextIO) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(stdout.fileno()).st_mode)
    except OSError:  # it is no file of the system's
        return False


@contextmanager
def display(
    lengths: Mapping[str, float | None],
    title: str,
    quiet: bool,
    live: Live | None = None,
    tally: Tally = lambda: "",
    grows: bool = False,
    starts: bool = True,
    spans: tuple[ranges.Span, ...] = ranges.WHOLE,
) -> Iterator[Display]:
    """A `Display` of jobs by name with their lengths in seconds or pages, under a title.

    Lines that change on a terminal, one now and then elsewhere, none where `quiet`. `tally` gives what there is to say
    of warnings and failures; `starts` says that something has to be loaded before there can be an answer.
    """
    on_terminal = console.on_terminal() and not quiet
    with console.progress() if on_terminal else nullcontext() as progress:
        shown = Display(progress, not (quiet or on_terminal), title, live, tally, grows, starts, spans)
        for name, length in lengths.items():
            shown.expect(name, length)
        yield shown


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
