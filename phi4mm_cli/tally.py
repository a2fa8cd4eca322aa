"""What a run has come to so far: counts and figures of its inputs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from phi4mm_cli.errors import AnswerError, ExitCode, MemoryExhaustedError
from phi4mm_cli.outputs import Coverage, Document, Failure, reason_of
from phi4mm_cli.runs import RunReport, added, grouped
from phi4mm_cli.schema import ModelInfo


class Tally:
    """Counts how the inputs of a run ended."""

    def __init__(self) -> None:
        self.done = self.skipped = 0
        self.warnings: Counter[str] = Counter()
        self.failures: list[tuple[Failure, Exception]] = []
        self._coverage: dict[str, Coverage] = {}
        self._fresh: dict[str, float] = {}  # of each unit, what this run has read
        self._calls = self._replayed = 0
        self._model: ModelInfo | None = None
        self._began = time.monotonic()

    @property
    def inputs(self) -> int:
        """All that are dealt with."""
        return self.done + self.skipped + len(self.failures)

    def add_done(self, document: Document, fresh: bool, replayed: int) -> None:
        """An input has its result; `fresh` from the model, but for the `replayed` answers that were known."""
        self.counted(Counter(warning.code for warning in document.body.warnings if warning.counts))
        coverage = document.body.coverage
        added(self._coverage, coverage)
        if fresh:
            self._fresh[coverage.unit] = self._fresh.get(coverage.unit, 0.0) + coverage.read
            self._calls += document.usage.calls - replayed
            self._replayed += replayed
            self._model = document.model

    def add_skipped(self, warnings: Mapping[str, int], coverage: Coverage) -> None:
        """An earlier run has done an input."""
        self.skipped += 1
        self.warnings.update(warnings)
        added(self._coverage, coverage)

    def counted(self, warnings: Mapping[str, int]) -> None:
        """An input has been dealt with, and this was said of it."""
        self.done += 1
        self.warnings.update(warnings)

    def add_failed(self, label: str, error: Exception) -> None:
        """An input has no result."""
        self.failures.append((Failure(label, reason_of(error)), error))

    def exit_code(self, strict: bool) -> ExitCode:
        """How the run ends, if it ends now."""
        if self.failures and not self.done and not self.skipped:
            (_, error), *others = self.failures
            if not others and isinstance(error, (MemoryExhaustedError, AnswerError)):
                return error.exit_code
            return ExitCode.ALL_FAILED
        if self.failures:
            return ExitCode.SOME_FAILED
        return ExitCode.QUALITY if strict and self.warnings.total() else ExitCode.OK

    def report(self, command: str, code: ExitCode) -> RunReport:
        """All of it."""
        seconds = time.monotonic() - self._began
        failures = tuple(failure for failure, _ in self.failures)
        return RunReport(
            command=command,
            inputs=self.inputs,
            done=self.done,
            done_before=self.skipped,
            failed=len(failures),
            reasons=grouped((failure.source, failure.error.message) for failure in failures),
            failures=failures,
            warnings=dict(self.warnings),
            coverage=tuple(self._coverage.values()),
            seconds=seconds,
            speed={unit: read / seconds for unit, read in self._fresh.items()},
            calls=self._calls,
            replayed=self._replayed,
            exit_code=int(code),
            model=self._model,
        )
