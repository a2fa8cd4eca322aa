"""The driver: right owners, bounded work, no deadlock, with an engine that behaves as badly as the contract allows."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from phi4mm_cli import cancel
from phi4mm_cli.driver import run
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.errors import InputError, RequestError
from phi4mm_cli.flow import Flow, Gather
from phi4mm_cli.jobs import Job, Outcome
from phi4mm_cli.schema import Message, Request, Result, Sampling


def ask(text: str) -> Request:
    return Request((Message("user", (text,)),), Sampling(10))


def said(result: Result) -> str:
    return result.text


class BadEngine(EchoEngine):
    """Answers out of order, one or two at a time, sometimes nothing; fails what says `fail`; has little room."""

    def __init__(self, seed: int, room: int = 7) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.capacity = room
        self.most_in_hand = 0
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.thread = threading.get_ident()

    def room(self) -> int:
        assert threading.get_ident() == self.thread
        return self.capacity - len(self._queue)

    def submit(self, request: Request) -> None:
        assert request.key not in self._queue, "submitted twice"
        assert len(self._queue) < self.capacity, "submitted without room"
        super().submit(request)
        self.submitted.append(request.key)
        self.most_in_hand = max(self.most_in_hand, len(self._queue))

    def cancel(self, key: str) -> None:
        self.cancelled.append(key)
        super().cancel(key)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        assert self._queue, "polled with nothing in hand"
        if timeout is not None and self.random.random() < 0.3:
            return []
        keys = self.random.sample(list(self._queue), min(len(self._queue), self.random.randint(1, 2)))
        requests = [self._queue.pop(key) for key in keys]
        return [(request.key, self.answer(request)) for request in requests]

    def answer(self, request: Request) -> Result | RequestError:
        text = str(request.messages[0].parts[0])
        if "fail" in text:
            return RequestError(f"refused {text}")
        return Result(text.upper(), (1,), "stop", 1)


def rounds(name: str, sizes: list[int]) -> Flow[list[list[str]]]:
    """A flow of several rounds, which checks that each answer is its own."""
    seen = []
    for number, size in enumerate(sizes):
        texts = [f"{name} {number} {i}" for i in range(size)]
        results = yield (ask(text) for text in texts)
        assert [said(r) for r in results] == [text.upper() for text in texts]
        seen.append([said(r) for r in results])
    return seen


@pytest.mark.parametrize("seed", range(20))
def test_out_of_order_partial_batches_reach_their_owners(seed: int) -> None:
    rng = random.Random(seed)
    plans = {f"f{i}": [rng.randint(0, 12) for _ in range(rng.randint(0, 4))] for i in range(15)}
    engine = BadEngine(seed, room=rng.randint(1, 9))
    jobs = [Job(name, lambda name=name, sizes=sizes: rounds(name, sizes)) for name, sizes in plans.items()]
    outcomes = list(run(jobs, engine, workers=rng.randint(1, 5)))
    assert {o.job.name for o in outcomes} == set(plans)
    for outcome in outcomes:
        assert outcome.error is None
        assert outcome.value is not None
        assert [len(texts) for texts in outcome.value] == plans[outcome.job.name]
    assert engine.most_in_hand <= engine.capacity


def test_failed_request_is_raised_in_its_own_flow_only() -> None:
    engine = BadEngine(1)

    def flow(name: str) -> Flow[str]:
        results = yield [ask(f"{name} ok"), ask(f"{name} last")]
        return said(results[0])

    names = ["a", "fail", "b", "c"]
    outcomes = {o.job.name: o for o in run([Job(n, lambda n=n: flow(n)) for n in names], engine)}
    assert [outcomes[n].value for n in "abc"] == ["A OK", "B OK", "C OK"]
    assert isinstance(outcomes["fail"].error, RequestError)


def test_flow_may_catch_a_failure_and_ask_again() -> None:
    def flow() -> Flow[str]:
        try:
            yield [ask("fail"), ask("fine")]
        except RequestError:
            results = yield [ask("again")]
            return said(results[0])
        raise AssertionError("the failure was not raised")

    (outcome,) = run([Job("x", flow)], BadEngine(3))
    assert outcome.value == "AGAIN"


def test_error_and_bug_in_a_flow_end_that_flow_only() -> None:
    closed = []

    def bad(error: Exception, while_making: bool) -> Flow[str]:
        def requests() -> Iterator[Request]:
            yield ask("one")
            raise error

        try:
            yield requests() if while_making else [ask("one")]
            raise error
        finally:
            closed.append(error)

    errors = [InputError("no sound"), ZeroDivisionError("a bug"), InputError("later")]
    jobs = [Job(str(i), lambda e=e, i=i: bad(e, i % 2 == 0)) for i, e in enumerate(errors)]
    jobs.append(Job("good", lambda: rounds("good", [3])))
    outcomes = {o.job.name: o for o in run(jobs, BadEngine(5))}
    assert [outcomes[str(i)].error for i in range(3)] == errors
    assert outcomes["good"].value == [["GOOD 0 0", "GOOD 0 1", "GOOD 0 2"]]
    assert set(map(id, closed)) == set(map(id, errors))


def test_nobody_waits_for_jobs_that_are_long_in_coming() -> None:
    wanted = threading.Event()

    def jobs() -> Iterator[Job[list[list[str]]]]:
        yield Job("first", lambda: rounds("first", [2, 1]))
        yield Job("second", lambda: rounds("second", [3]))
        assert wanted.wait(20), "the first two were not answered while there was no third"
        yield Job("third", lambda: rounds("third", [1]))

    found = run(jobs(), BadEngine(1))
    assert {next(found).job.name, next(found).job.name} == {"first", "second"}
    wanted.set()
    assert [outcome.job.name for outcome in found] == ["third"]


def test_a_run_can_be_left_while_it_waits_for_jobs() -> None:
    def jobs() -> Iterator[Job[list[list[str]]]]:
        yield Job("first", lambda: rounds("first", [1]))
        threading.Event().wait()

    found = run(jobs(), BadEngine(1))
    assert next(found).job.name == "first"
    found.close()  # type: ignore[attr-defined]


def test_an_error_in_the_jobs_ends_the_run_behind_what_is_done() -> None:
    def jobs() -> Iterator[Job[list[list[str]]]]:
        yield Job("first", lambda: rounds("first", [2]))
        raise OSError("the list is gone")

    found = run(jobs(), BadEngine(1))
    assert next(found).job.name == "first"
    with pytest.raises(OSError, match="the list is gone"):
        next(found)


def test_open_flows_are_bounded_and_jobs_are_taken_lazily() -> None:
    now, most, started = 0, 0, 0
    lock = threading.Lock()

    def flow(i: int) -> Flow[int]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        try:
            yield [ask(f"{i} {j}") for j in range(3)]
            return i
        finally:
            with lock:
                now -= 1

    def jobs() -> Iterator[Job[int]]:
        nonlocal started
        for i in range(200):
            started += 1
            yield Job(str(i), lambda i=i: flow(i))

    done = 0
    for _ in run(jobs(), BadEngine(7), workers=3):
        done += 1
        assert started <= done + 3 + 7  # workers, and the engine's room
    assert done == 200
    assert most <= 3 + 7


def test_many_short_flows_fill_a_batch() -> None:
    class Batching(EchoEngine):
        most = 0

        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            if timeout is not None:
                return []  # more is being made: a batch that is not full yet
            self.most = max(self.most, len(self._queue))
            return super().poll(timeout)

    engine = Batching()
    assert len(list(run([Job(str(i), lambda i=i: rounds(str(i), [1])) for i in range(200)], engine, workers=2))) == 200
    assert engine.most > 30


def test_requests_are_submitted_while_the_round_is_still_being_made() -> None:
    engine = BadEngine(9, room=2)
    answered_before_end = threading.Event()

    def flow() -> Flow[int]:
        def requests() -> Iterator[Request]:
            yield ask("first")
            assert answered_before_end.wait(10), "the first request waited for the whole round"
            yield ask("second")

        return len((yield requests()))

    outcomes = run([Job("x", flow)], engine, on_result=lambda job, request, result: answered_before_end.set())
    assert [o.value for o in outcomes] == [2]


def test_a_short_flow_passes_a_long_one() -> None:
    jobs = [Job("long", lambda: rounds("long", [40, 40])), Job("short", lambda: rounds("short", [2]))]
    assert [o.job.name for o in run(jobs, BadEngine(11))] == ["short", "long"]


def test_equal_requests_are_asked_once_and_answered_everywhere() -> None:
    all_asked = threading.Event()
    barrier = threading.Barrier(2, all_asked.set)

    class Waiting(BadEngine):
        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            return super().poll(timeout) if all_asked.wait(0.01) else []

    def requests() -> Iterator[Request]:
        yield from [ask("same"), ask("other"), ask("same")]
        barrier.wait(30)

    def flow() -> Flow[list[str]]:
        results = yield requests()
        return [said(r) for r in results]

    engine = Waiting(13, room=3)
    outcomes = list(run([Job(str(i), flow) for i in range(2)], engine, workers=4))
    assert [o.value for o in outcomes] == [["SAME", "OTHER", "SAME"]] * 2
    assert len(engine.submitted) == 2


def chained(name: str, rounds: int) -> Flow[str]:
    """Asks for one thing after the other."""
    text = name
    for _ in range(rounds):
        [result] = yield [ask(text)]
        text = said(result) + "."
    return text


@pytest.mark.parametrize("seed", range(5))
def test_flows_side_by_side_in_one_go_on_by_themselves(seed: int) -> None:
    counts = [(7 * i) % 5 for i in range(40)]

    def flow(name: str) -> Flow[list[str]]:
        gather = Gather(chained(f"{name} {i}", n) for i, n in enumerate(counts))
        yield gather
        return gather.values

    engine = BadEngine(seed)
    outcomes = {o.job.name: o.value for o in run([Job(name, lambda name=name: flow(name)) for name in "ab"], engine)}
    for name in "ab":
        expected = [(f"{name} {i}".upper() if n else f"{name} {i}") + "." * n for i, n in enumerate(counts)]
        assert outcomes[name] == expected
    assert engine.most_in_hand <= engine.capacity


def test_what_is_finished_is_told_in_order_before_the_end() -> None:
    told: list[tuple[str, str]] = []
    answered: list[int] = []

    def flow(name: str) -> Flow[str]:
        for part in ("first", "second"):
            gather = Gather(chained(f"{name} {part} {i}", (5 * i) % 4) for i in range(20))
            yield gather
        return name

    def tell(job: Job[str], part: str) -> None:
        told.append((job.name, part.lower().rstrip(".")))
        answered.append(len(engine.submitted))

    engine = BadEngine(4)
    jobs = [Job(name, lambda name=name: flow(name)) for name in "ab"]  # type: ignore[misc]
    assert len(list(run(jobs, engine, on_part=tell))) == 2
    for name in "ab":
        parts = [part for owner, part in told if owner == name]
        assert parts == [f"{name} {part} {i}" for part in ("first", "second") for i in range(20)]
    assert answered[0] < len(engine.submitted) / 4, "the first is told while most of the others are still to come"


def test_equal_requests_of_flows_side_by_side_reach_each_of_them() -> None:
    def flow() -> Flow[list[str]]:
        gather = Gather([*(chained("same", 2) for _ in range(5)), chained("other", 3), chained("same", 1)])
        yield gather
        return gather.values

    [outcome] = run([Job("x", flow)], BadEngine(3))
    assert outcome.value == ["SAME.."] * 5 + ["OTHER...", "SAME."]


def test_a_failure_of_one_of_them_is_raised_in_the_flow_that_gathers_them() -> None:
    ended = []

    def careful(name: str) -> Flow[str]:
        try:
            return (yield from chained(name, 3))
        finally:
            ended.append(name)

    def flow() -> Flow[str]:
        try:
            yield Gather(careful(name) for name in ("a", "b", "fail", "c"))
        except RequestError as error:
            return f"{error}, {sorted(ended)}"
        return "none"

    [outcome] = run([Job("x", flow)], BadEngine(5))
    assert outcome.error is None
    assert outcome.value is not None
    assert outcome.value.startswith("refused fail")
    assert "'fail'" in outcome.value, "those that wait are ended before the flow goes on"


def test_failure_cancels_what_the_flow_still_has_in_hand() -> None:
    class FailsFirst(BadEngine):
        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            failing = self._queue.pop(ask("fail").key, None)
            return [(failing.key, RequestError("refused"))] if failing else []

    engine = FailsFirst(17, room=50)

    def flow() -> Flow[None]:
        yield [ask(f"more {i}") for i in range(20)] + [ask("fail")]

    (outcome,) = run([Job("x", flow)], engine)
    assert isinstance(outcome.error, RequestError)
    assert len(engine.cancelled) == len(engine.submitted) - 1 > 0
    assert engine.room() == 50


def test_flows_go_on_while_the_engine_works() -> None:
    class Slow(EchoEngine):
        polls = 0

        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            self.polls += 1
            time.sleep(0.2)
            return super().poll(timeout)

    engine = Slow()
    jobs = [Job(str(i), lambda i=i: rounds(str(i), [1])) for i in range(100)]
    assert len(list(run(jobs, engine, workers=2))) == 100
    assert engine.polls < 30  # with two flows a poll it would be fifty


def test_leaving_early_closes_the_open_flows() -> None:
    closed: list[int] = []
    together = threading.Barrier(3)

    def flow(i: int) -> Flow[int]:
        def requests() -> Iterator[Request]:
            for j in range(1000):
                time.sleep(0.001)
                yield ask(f"{i} {j}")

        try:
            if i < 3:
                together.wait(60)
            yield [ask(str(i))] if i == 0 else requests()
            return i
        finally:
            closed.append(i)

    outcomes = run([Job(str(i), lambda i=i: flow(i)) for i in range(9)], BadEngine(19), workers=3)
    assert next(outcomes).value == 0
    outcomes.close()  # type: ignore[attr-defined]
    assert set(range(3)) <= set(closed)
    assert len(closed) == len(set(closed)) < 9


def test_long_work_is_given_up_when_the_run_ends() -> None:
    """Work that makes no request for long, as decoding an hour of silence, asks whether it is still wanted."""
    ended = threading.Event()

    def endless() -> Flow[str]:
        def requests() -> Iterator[Request]:
            while True:
                time.sleep(0.001)
                cancel.check()
            yield ask("never")

        try:
            yield requests()
        finally:
            ended.set()
        return "never"

    outcomes = run([Job("endless", endless), Job("short", lambda: rounds("short", [1]))], BadEngine(23))
    assert next(outcomes).job.name == "short"
    outcomes.close()  # type: ignore[attr-defined]
    assert ended.is_set()


def test_engine_failure_ends_the_run() -> None:
    class Broken(EchoEngine):
        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            raise InputError("no model")

    with pytest.raises(InputError, match="no model"):
        list(run([Job("x", lambda: rounds("x", [1]))], Broken()))


def test_many_requests_cost_little() -> None:
    def flow() -> Flow[int]:
        def requests() -> Iterable[Request]:
            return (ask(str(i)) for i in range(20_000))

        return len((yield requests()))

    began = time.process_time()
    outcomes: list[Outcome[int]] = list(run([Job("x", flow)], EchoEngine()))
    assert outcomes[0].value == 20_000
    assert time.process_time() - began < 20  # quadratic bookkeeping would take minutes
