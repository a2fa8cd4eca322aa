"""Tasks as generators: `driver.py` runs many of them against one engine.

A flow yields requests, is sent their results in the same order, and returns its output record. What it yields may be
a generator: then its requests are submitted as they come, and a recording is decoded while its first chunks are
already with the model. A flow does no model I/O and knows no engine; given the same results it makes the same
requests. A request that fails is raised at the `yield` of the flow that made it, as a RequestError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Generic, Self, TypeVar

from phi4mm_cli.errors import RequestError
from phi4mm_cli.schema import Request, Result

T = TypeVar("T")
Flow = Generator[Iterable[Request], Sequence[Result], T]


@dataclass(eq=False, slots=True)
class _Strand(Generic[T]):
    """One of the flows in a Gather, with the round that it waits for."""

    number: int
    flow: Flow[T]
    asked: list[str] = field(default_factory=list)  # keys
    answers: dict[str, Result] = field(default_factory=dict)


class Gather(Generic[T]):
    """Flows side by side within one flow, which yields it as its round and then finds what they returned in `values`.

    Each goes on as soon as its own requests are answered, whatever the others wait for, and is started when the
    engine has room. A flow in it yields requests, not another Gather. What one
    of them does not catch ends all.
    """

    def __init__(self, flows: Iterable[Flow[T]]) -> None:
        self.values: list[T] = []  # in the order of the flows, as far as all before them have ended
        self._flows = iter(flows)
        self._numbers = count()
        self._ready: deque[Request] = deque()
        self._waiting: dict[str, list[_Strand[T]]] = {}  # by key of a request
        self._ended: dict[int, T] = {}

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Request:
        """The next request that some flow makes; StopIteration while all of them wait, and when all have ended."""
        while not self._ready:
            flow = next(self._flows)
            self._resume(_Strand(next(self._numbers), flow), None)
        return self._ready.popleft()

    def take(self, key: str, result: Result | RequestError) -> None:
        """The request with this key has been answered, or has failed."""
        for strand in self._waiting.pop(key, ()):
            if isinstance(result, RequestError):
                self._give_up(strand)
                self._resume(strand, result)
                continue
            strand.answers[key] = result
            if all(asked in strand.answers for asked in strand.asked):
                self._resume(strand, [strand.answers[asked] for asked in strand.asked])

    def _give_up(self, strand: _Strand[T]) -> None:
        """What else it waits for is of no use to it any more."""
        for key in strand.asked:
            self._waiting[key] = [other for other in self._waiting.get(key, ()) if other is not strand]

    def _resume(self, strand: _Strand[T], results: Sequence[Result] | RequestError | None) -> None:
        try:
            if isinstance(results, RequestError):
                requests = list(strand.flow.throw(results))
            else:
                requests = list(next(strand.flow) if results is None else strand.flow.send(results))
            while not requests:
                requests = list(strand.flow.send([]))
        except StopIteration as end:
            self._ended[strand.number] = end.value
            while len(self.values) in self._ended:
                self.values.append(self._ended.pop(len(self.values)))
            return
        strand.asked, strand.answers = [request.key for request in requests], {}
        for request in {request.key: request for request in requests}.values():
            self._waiting.setdefault(request.key, []).append(strand)
            self._ready.append(request)

    def close(self) -> None:
        """End the flows that wait: their `finally` blocks run."""
        close(self._flows)
        for strand in {id(strand): strand for strands in self._waiting.values() for strand in strands}.values():
            strand.flow.close()


def close(requests: Iterator[Any]) -> None:
    """End generators that are not run through: their `finally` blocks run."""
    if isinstance(requests, (Generator, Gather)):
        requests.close()
