"""What a run says of its inputs and when it ends: failures, warnings, the loading of the model, the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from phi4mm_cli import console, paging
from phi4mm_cli.display import LINE_SECONDS, Display, Live, SegmentsOf, bytes_bar, display
from phi4mm_cli.errors import ExitCode, Phi4Error
from phi4mm_cli.journal import State
from phi4mm_cli.options import LogOptions
from phi4mm_cli.outputs import Document, Warning
from phi4mm_cli.tally import Tally
from phi4mm_cli.timing import clock
from phi4mm_cli.writers import read_of

__all__ = ["Live", "Loading", "Report", "SegmentsOf", "bytes_bar", "display"]

# Off a terminal loading is silent for so long, and then there is a line every so often.
SILENT_SECONDS = 20.0

OnFailure = Callable[[str, Exception], None]  # given what people call the input


class Report:
    """Counts how the inputs of a run ended, and says so on stderr as it happens."""

    def __init__(self, strict: bool, log: LogOptions, on_failure: OnFailure | None = None) -> None:
        self._strict = strict
        self._on_failure = on_failure
        self._log = log
        self.tally = Tally()

    def done(self, document: Document, fresh: bool = True, replayed: int = 0) -> None:
        """An input has its result: `fresh` from the model, but for the `replayed` answers that were known."""
        self.tally.add_done(document, fresh, replayed)
        warnings = [warning for warning in document.body.warnings if not warning.is_of_the_engine]
        label, body = document.source, document.body
        usage, seconds = document.usage, document.timings.total
        cost = f"{usage.calls} calls, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
        if (speech := body.coverage.speech) is not None and not speech and not any(one.counts for one in body.warnings):
            advice = " (--no-vad has all of it heard)" if "vad" in document.options else ""
            console.say(f"{label}: there is no speech in it{advice}", shown=not self._log.quiet)
        console.say(f"{label}: {read_of(body)} in {seconds:.1f} s, {cost}", shown=self._log.verbose)
        for warning, pages in _by_page(warnings):
            where = "" if warning.start is None else f" at {clock(warning.start)}"
            where += f", page{'s' * (len({*pages}) > 1)} {paging.listed(pages)}" if pages else ""
            shown = self._log.verbose or not (warning.healed or self._log.quiet)
            console.say(f"{label}{where}: {warning.message}; {warning.action}", "warning", shown)

    def skipped(self, label: str, state: State) -> None:
        """An earlier run has dealt with an input."""
        self.tally.add_skipped(state.rest["warnings"], state.rest["coverage"])
        console.say(f"{label}: done before", shown=self._log.verbose)

    def left_alone(self, label: str) -> None:
        """An output is not written anew."""
        console.say(f"{label} has been edited; it stays as it is (--force replaces it)", shown=not self._log.quiet)

    def counted(self, warnings: int) -> None:
        """An input has been dealt with, and so many warnings were said of it."""
        self.tally.counted({"rules": warnings})

    def failed(self, label: str, error: Exception, has_line: bool = False) -> None:
        """An input has none, or `has_line` of an earlier run, which stays."""
        self.tally.add_failed(label, error)
        if isinstance(error, Phi4Error):
            console.say(f"{label}: {error}", "error")
        else:
            console.say_bug(error, f"{label}: ")
        if self._on_failure is not None and not has_line:
            self._on_failure(label, error)

    def troubles(self) -> str:
        """Warnings and failures so far, as far as there are any."""
        warnings = self.tally.warnings.total()
        counts = ((len(self.tally.failures), "failed"), (warnings, "warning" if warnings == 1 else "warnings"))
        return ", ".join(f"{count} {what}" for count, what in counts if count)

    def end(self) -> ExitCode:
        """The last line, where there were several inputs, and the exit code."""
        tally = self.tally
        if tally.inputs > 1 or tally.skipped:
            parts = [f"{tally.done} done"] if tally.done or not tally.skipped else []
            parts += [f"{tally.skipped} done before"] if tally.skipped else []
            parts += filter(None, [self.troubles()])
            inputs = f"{tally.inputs} input{'s' * (tally.inputs > 1)}"
            console.say(f"{inputs}: {', '.join(parts)}", shown=not self._log.quiet)
        return tally.exit_code(self._strict)


def _by_page(warnings: Sequence[Warning]) -> Iterator[tuple[Warning, list[int]]]:
    """Each warning, and the pages of which it is said; a long document says of many what it says of one."""
    pages: dict[Warning, list[int]] = {}
    for warning in warnings:
        pages.setdefault(replace(warning, page=None), []).extend([] if warning.page is None else [warning.page])
    yield from pages.items()


class Loading:
    """Says how far the loading of the model is: a bar of bytes on a terminal, a line now and then elsewhere.

    Where it `waits`, notes are held back until there is something to do.
    """

    def __init__(self, log: LogOptions, waits: bool = False) -> None:
        self.quiet = log.quiet
        self._held: list[str] | None = [] if waits else None
        self._log = log
        self._began: float | None = None
        self._done = 0
        self._next_line = SILENT_SECONDS
        self.bar: Display | None = None

    def note(self, message: str) -> None:
        """Something that is worth a line."""
        if self._held is not None:
            self._held.append(message)
        else:
            console.say(message, shown=not self._log.quiet)

    def begin(self) -> None:
        """There is something to do."""
        held, self._held = self._held or (), None
        for message in held:
            self.note(message)

    def detail(self, message: str) -> None:
        """Something that is worth a line only where more was asked for."""
        console.say(message, shown=self._log.verbose)

    def loaded(self, done: int, total: int) -> None:
        """So many bytes have been read."""
        now = time.monotonic()
        if self._began is None or done < self._done:  # a load that was stopped begins anew
            self._began, self._next_line = now, SILENT_SECONDS
        self._done = done
        seconds = max(now - self._began, 1e-3)
        state = f"{done / 1e9:.1f} of {total / 1e9:.1f} GB, {done / 1e6 / seconds:.0f} MB/s"
        if self.bar is not None:
            self.bar.loading(done, total, state)
        if done == total:
            console.say(f"loaded the model in {seconds:.1f} s: {state}", shown=self._log.verbose)
        elif seconds >= self._next_line:
            self._next_line = seconds + LINE_SECONDS
            console.say(f"loading the model: {state}", shown=not self._log.quiet and not console.on_terminal())
