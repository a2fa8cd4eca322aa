"""A run's own journal: what need not be done again, and what is noted down as it is done."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from phi4mm_cli import __version__
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import InputError, Phi4Error, StorageError, UsageError, exit_code_of
from phi4mm_cli.files import Work
from phi4mm_cli.journal import lock, states
from phi4mm_cli.journal.answers import Answers, Replaying, ShortAnswers
from phi4mm_cli.journal.no_journal import NoJournal
from phi4mm_cli.journal.pile import Pile
from phi4mm_cli.journal.records import FOLDER, VERSION, Key, Order, Stamp, digest, file_name, line
from phi4mm_cli.journal.results import Results
from phi4mm_cli.journal.states import Mark, State, States, marked
from phi4mm_cli.outputs import Document, reason_of
from phi4mm_cli.schema import Request, Result, Source, to_json
from phi4mm_cli.sharding import Shard

Identify = Callable[[Path], Source]  # raises InputError


@dataclass(frozen=True, slots=True)
class _InHand:
    """A work that is begun and not over."""

    stamp: Stamp
    attempt: int  # counted from 1
    answers: Answers | ShortAnswers | None = None  # None where its result was there before
    known: Mapping[str, Result] = field(default_factory=dict)  # from an earlier run, by key of the request

    @property
    def kept(self) -> bool:
        return self.answers is None


class Journal(NoJournal):
    """Of a run that writes to a folder. Within its context no other run writes there.

    Whatever is noted down raises StorageError where there is no room for it.
    """

    advice = "Its result is kept: run the same command again"

    def __init__(
        self, folder: Path, order: Order, identify: Identify, force: bool = False, shard: Shard | None = None
    ) -> None:
        self._outputs, self._folder = folder, folder / FOLDER
        self._suffix = f"-{shard.number}-of-{shard.count}" if shard is not None else ""
        self._requests = self._folder / "requests"
        self._results = Results(self._folder / "results", self._suffix)
        self._short = Pile(self._folder / f"requests{self._suffix}.jsonl")  # answers for short inputs
        self._earlier: dict[str, list[Mapping[str, Any]]] = {}  # ... of earlier runs, by names that `file_name` gives
        self._has_failures = False
        self._order, self._family, self._task, self._form = order, order.family, order.task, order.form
        self._identify, self._force, self._shard = identify, force, shard
        self._past = States()
        self._in_hand: dict[int, _InHand] = {}  # by `id` of the work: two may have one key at a time
        self._known: dict[str, Result] = {}  # answers of all that is in hand, by key of the request
        self._lines = Pile(self._folder / f"journal{self._suffix}.jsonl")
        self._begun = False
        self._writing = threading.Lock()
        self._held = ExitStack()

    def read(self) -> None:
        """Take in what the journals of the folder say: all that `settled`, `unfinished` and `kept` need.

        Raises UsageError where a later version has written them.
        """
        self._past = states.read(self._outputs)
        over = {file_name(key) for key, state in self._past.of.items() if state.kind == "done"}
        for path in sorted(self._folder.glob("requests*.jsonl")):
            for *_, plain in Pile(path).lines():
                if (name := str(plain.get("of"))) not in over:
                    self._earlier.setdefault(name, []).append(plain)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            try:
                for kept in (self._results.folder, self._requests):
                    kept.mkdir(parents=True, exist_ok=True)
                what, parts = self._family, None
                if self._shard is not None:
                    what, parts = f"{what}, shard {self._shard}", self._shard.count
                    opened.enter_context(lock.held(self._folder / f"lock{self._suffix}", what))
                opened.enter_context(lock.held(self._folder / "lock", what, parts))
                self._lines.open()
                opened.callback(self._lines.close)
                self.read()
            except OSError as error:
                raise UsageError(f"cannot write to {self._folder}: {error.strerror}", "Give another -o") from error
            self._results.alone = self._shard is None
            self._held = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, BrokenPipeError):  # nobody reads on: the run is cut off
            with suppress(StorageError):
                self.ended(exit_code_of(error))
        self._results.close()
        if error is None and not (self._in_hand or self._earlier or self._has_failures):
            self._short.remove()
        self._short.close()
        self._held.close()

    # ------------------------------------------------------------------------------------------ what is known

    def settled(self, work: Work) -> State | None:
        """The state of what is done, where doing it again would change nothing: outputs are there, and its own."""
        key = self._key(work)
        state = self._state(key)
        if state is None or state.kind != "done" or state.rest["form"] != self._form or state.stamp is None:
            return None
        for output in state.rest["outputs"]:
            if self._past.owners[output].key != key or not (self._outputs / output).exists():
                return None
        return state if self._unchanged(work, state.stamp) else None

    def unfinished(self, work: Work) -> bool:
        """Whether an earlier run with the same order had the work in hand: outputs that are there are its own."""
        state = self._state(self._key(work))
        return state is not None and (state.kind == "started" or (state.kind == "failed" and "outputs" in state.rest))

    def kept(self, work: Work) -> Document | None:
        """The result that only needs to be written."""
        key = self._key(work)
        found = None if self._force else self._results.kept(key, self._task)
        if found is None or not self._unchanged(work, found[0]):
            return None
        stamp, document = found
        self._in_hand[id(work)] = _InHand(stamp, max(1, self._tried(key, stamp)))
        return document

    def is_edited(self, output: str) -> bool:
        """Whether an output, by its name in the folder, is no longer as an earlier run has written it."""
        owner = self._past.owners.get(output)
        if owner is None or owner.mark is None or (now := marked(self._outputs / output)) is None:
            return False
        return owner.mark != now

    def _marks(self, outputs: Sequence[str], edited: Collection[str]) -> dict[str, Mark | None]:
        owners = self._past.owners
        return {name: owners[name].mark if name in edited else marked(self._outputs / name) for name in outputs}

    def _state(self, key: Key) -> State | None:
        state = self._past.of.get(key)
        return None if state is None or self._force or state.task != self._task else state

    def _key(self, work: Work) -> Key:
        return (self._family, work.name)

    def _unchanged(self, work: Work, before: Stamp) -> bool:
        """Size and time tell, and where the time is another one, as that of a copy is, the content."""
        try:
            found = [file.path.stat() for file in work.inputs]
            size, changed = sum(stat.st_size for stat in found), max(stat.st_mtime_ns for stat in found)
            if (size, changed) == (before.size, before.time) and len(found) == 1:
                return True
            return size == before.size and before.same_content(
                _stamp(work, [self._identify(file.path) for file in work.inputs])
            )
        except (OSError, Phi4Error):
            return False  # its reader will say why

    # ----------------------------------------------------------------------------------------- what is noted down

    def planned(self, inputs: int, todo: int, length: float | None, unit: str) -> None:
        """How much the run has before it: inputs, those left to do, and their length where that is known."""
        if todo or self._begun:
            self._note("planned", inputs=inputs, todo=todo, length=length, unit=unit)

    def started(self, work: Work, sources: Sequence[Source], length: float | None, is_short: bool = False) -> None:
        """The work is begun; many are where it `is_short`. In any thread."""
        key, stamp = self._key(work), _stamp(work, sources)
        answers: Answers | ShortAnswers
        if is_short:
            earlier = self._earlier.pop(file_name(key), ())
            answers = ShortAnswers(self._short, key, self._task, stamp, earlier)
        else:
            answers = Answers(self._requests, key, self._task, stamp)
        with self._needing_room():
            if self._force:
                answers.remove()
            known = answers.known()
        self._known.update(known)
        self._in_hand[id(work)] = _InHand(stamp, self._tried(key, stamp) + 1, answers, known)
        self._note_of(work, "started", length=length)

    def replaying(self, engine: Engine) -> Engine:
        """`engine`, which is not asked again what it has answered for a work that an earlier run did not finish."""
        return Replaying(engine, self._known)

    def answered(self, work: Work, request: Request, result: Result) -> None:
        """A request of the work has been answered."""
        begun = self._in_hand[id(work)]
        if begun.answers is None or request.key in begun.known:
            return
        with self._needing_room():
            begun.answers.add(request, result)

    def keep(self, work: Work, document: Document) -> None:
        """The work has its result."""
        begun = self._in_hand[id(work)]
        with self._needing_room():
            self._results.keep(self._key(work), self._task, begun.stamp, document)
            if begun.answers is not None:
                begun.answers.remove()

    def done(self, work: Work, document: Document, outputs: Sequence[str], edited: Collection[str] = ()) -> int:
        """Its outputs, by their names in the folder, are written, but for those that are `edited`.

        Gives how many answers for it were known before.
        """
        begun, coverage = self._in_hand[id(work)], document.body.coverage
        figures = {
            "kept": begun.kept,
            "seconds": round(document.timings.total, 3),
            "coverage": coverage,
            "calls": document.usage.calls,
            "replayed": len(begun.known),
            "warnings": Counter(warning.code for warning in document.body.warnings if warning.counts),
            "model": to_json(document.model),
        }
        marks = self._marks(outputs, edited)
        self._note_of(work, "done", form=self._form, outputs=list(outputs), marks=marks, **figures)
        self._put_down(work)
        return len(begun.known)

    def failed(self, work: Work, error: Exception, outputs: Sequence[str] = (), edited: Collection[str] = ()) -> None:
        """It has none, or only these of its outputs are written, as `done` has them."""
        begun = self._in_hand.get(id(work))
        self._has_failures |= begun is not None and begun.answers is not None  # whose answers are of use
        written = {"outputs": list(outputs), "marks": self._marks(outputs, edited)} if outputs else {}
        self._note_of(work, "failed", error=to_json(reason_of(error)), **written)
        self._put_down(work)

    def _put_down(self, work: Work) -> None:
        if (begun := self._in_hand.pop(id(work), None)) is not None:
            for request in begun.known:
                self._known.pop(request, None)

    def ended(self, code: int) -> None:
        """The run is over."""
        if self._begun:
            self._note("end", code=int(code))

    def _run(self) -> dict[str, Any]:
        """The run's own line, which stands before its first other one: a run that does nothing leaves no trace."""
        order = self._order
        return {
            "event": "run",
            "at": round(time.time(), 3),
            "layout": VERSION,
            "version": __version__,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "shard": str(self._shard) if self._shard is not None else None,
            "command": order.command,
            "family": self._family,
            "task": self._task,
            "deciding": order.deciding,
            "engine": order.engine,
            "form": self._form,
            "writing": order.writing,
        }

    def _tried(self, key: Key, stamp: Stamp | None) -> int:
        """How often earlier runs have tried the same: this order, for an input with this content."""
        before = self._past.of.get(key)
        if before is None or before.task != self._task or (stamp is None) != (before.stamp is None):
            return 0
        same = stamp is None or before.stamp is None or stamp.same_content(before.stamp)
        return before.attempt if same else 0

    def _note_of(self, work: Work, event: str, **fields: Any) -> None:
        key = self._key(work)
        begun = self._in_hand.get(id(work))
        stamp = begun.stamp if begun is not None else None
        attempt = begun.attempt if begun is not None else self._tried(key, None) + 1
        self._note(event, family=key[0], name=key[1], task=self._task, stamp=stamp, attempt=attempt, **fields)

    def _note(self, event: str, **fields: Any) -> None:
        noted = {"event": event, "at": round(time.time(), 3), **fields}
        with self._writing, self._needing_room():
            self._lines.add((b"" if self._begun else line(self._run())) + line(noted))
            self._begun = True

    @contextmanager
    def _needing_room(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"cannot write {self._folder}: {error.strerror}"
            advice = "Put that right and run the same command again: it goes on where it was"
            raise StorageError(message, advice) from error


def _stamp(work: Work, sources: Sequence[Source]) -> Stamp:
    try:
        changed = max(file.path.stat().st_mtime_ns for file in work.inputs)
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}") from error
    if len(sources) == 1:
        return Stamp(sources[0].size, changed, sources[0].fingerprint)
    return Stamp(sum(source.size for source in sources), changed, digest([source.fingerprint for source in sources]))
