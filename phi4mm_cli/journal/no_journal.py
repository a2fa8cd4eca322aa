"""What a journal is asked and told, and how a run gets along without one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from phi4mm_cli.engines import Engine
from phi4mm_cli.files import Work
from phi4mm_cli.journal.states import State
from phi4mm_cli.outputs import Document
from phi4mm_cli.schema import Request, Result, Source


class NoJournal:
    """Of a run whose results go to stdout, or to no folder of their own: nothing is remembered, nothing left out."""

    advice = "Its result is lost"  # to people to whom an output could not be written

    def settled(self, work: Work) -> State | None:
        """The state of what is done, where doing it again would change nothing."""
        return None

    def unfinished(self, work: Work) -> bool:
        """Whether an earlier run with the same order had the work in hand: outputs that are there are its own."""
        return False

    def kept(self, work: Work) -> Document | None:
        """The result that only needs to be written."""
        return None

    def planned(self, inputs: int, todo: int, length: float | None, unit: str) -> None:
        """How much the run has before it."""

    def started(self, work: Work, sources: Sequence[Source], length: float | None, is_short: bool = False) -> None:
        """The work is begun; many are where it `is_short`. In any thread."""

    def replaying(self, engine: Engine) -> Engine:
        """`engine`, which is not asked again what it has answered for a work that an earlier run did not finish."""
        return engine

    def answered(self, work: Work, request: Request, result: Result) -> None:
        """A request of the work has been answered."""

    def keep(self, work: Work, document: Document) -> None:
        """The work has its result."""

    def is_edited(self, output: str) -> bool:
        """Whether an output, by its name in the folder, is no longer as an earlier run has written it."""
        return False

    def done(self, work: Work, document: Document, outputs: Sequence[str], edited: Collection[str] = ()) -> int:
        """Its outputs, by their names in the folder, are written, but for those that are `edited`.

        Gives how many answers for it were known before.
        """
        return 0

    def failed(self, work: Work, error: Exception, outputs: Sequence[str] = (), edited: Collection[str] = ()) -> None:
        """It has none, or only these of its outputs are written, as `done` has them."""

    def ended(self, code: int) -> None:
        """The run is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
