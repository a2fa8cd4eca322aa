"""One engine for many threads: who hears what, and when their media may go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from at_work import PATIENCE, wait_for
from scripted import MEETING, ScriptedEngine, hears, said

from phi4mm_cli.driver import run
from phi4mm_cli.engines import Engine
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError
from phi4mm_cli.flows import transcribe
from phi4mm_cli.jobs import Job
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Message, Request, Result, Sampling
from phi4mm_cli.serving.refusal import Refusal
from phi4mm_cli.serving.seat import Seat, Withdrawn
from phi4mm_cli.serving.shared import Event, SharedEngine


def asking(text: str) -> Request:
    return Request((Message("user", (text,)),), Sampling(1000))


class Client:
    """Keeps what it hears of one request."""

    def __init__(self, shared: SharedEngine, request: Request, streamed: bool = False) -> None:
        self.heard: list[Event] = []
        self.done = 0
        self._over = threading.Event()
        self.ticket = shared.ask(request, self._hear, self._end, streamed)

    def _hear(self, event: Event) -> None:
        self.heard.append(event)
        if not isinstance(event, str):
            self._over.set()

    def _end(self) -> None:
        self.done += 1

    def last(self) -> Event:
        assert self._over.wait(PATIENCE)
        return self.heard[-1]


@contextmanager
def at_work(engine: Engine, most_streams: int = 4) -> Iterator[SharedEngine]:
    shared = SharedEngine(engine, most_streams, lambda size: None)
    thread = threading.Thread(target=shared.run)
    thread.start()
    try:
        yield shared
    finally:
        shared.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_everybody_hears_their_own_answer() -> None:
    with at_work(EchoEngine(), most_streams=2) as shared:
        streams = [Client(shared, asking(f"word {n} " * 50), streamed=True) for n in range(5)]
        whole = [Client(shared, asking(f"word {n % 3}")) for n in range(9)]  # three clients ask the same
        for n, client in enumerate(whole):
            assert isinstance(result := client.last(), Result)
            assert (result.text, client.done) == (f"word {n % 3}", 1)
        for n, client in enumerate(streams):
            assert isinstance(client.last(), Result)
            assert "".join(map(str, client.heard[:-1])).split() == ["word", str(n)] * 50
            assert client.done == 1


def test_errors_are_told_to_whom_they_concern() -> None:
    def script(request: Request) -> Result | RequestError:
        match request.messages[0].parts:
            case ("bad",):
                return RequestError("not that")
            case ("bug",):
                raise ZeroDivisionError
            case _:
                return said("fine")

    with at_work(ScriptedEngine(script)) as shared:
        for text, kind in (("bad", RequestError), ("bug", Refusal), ("good", Result)):
            client = Client(shared, asking(text))
            assert isinstance(client.last(), kind)
            assert client.done == 1


def test_an_engine_that_fails_ends_it_and_all_are_told() -> None:
    def script(request: Request) -> Result:
        raise MissingError("the weights are gone")

    shared = SharedEngine(ScriptedEngine(script), 4, lambda size: None)
    clients = [Client(shared, asking("a")), Client(shared, asking("b"), streamed=False)]
    with pytest.raises(MissingError):
        shared.run()
    for client in clients:
        assert isinstance(client.last(), MissingError)
        assert client.done == 1
    with pytest.raises(Phi4Error):
        Client(shared, asking("c"))


def test_who_goes_is_let_go_of_and_hears_nothing() -> None:
    shared = SharedEngine(EchoEngine(), 1, lambda size: None)
    gone = [Client(shared, asking("a")), Client(shared, asking("b"), True), Client(shared, asking("c"), True)]
    for client in gone:
        shared.withdraw(client.ticket)
    staying = Client(shared, asking("a"))
    thread = threading.Thread(target=shared.run)
    thread.start()
    assert isinstance(staying.last(), Result)
    shared.close()
    thread.join(PATIENCE)
    assert [(client.heard, client.done) for client in gone] == [([], 1)] * 3


def test_an_answer_that_nobody_waits_for_is_given_up_while_it_is_written() -> None:
    """With those of the same batch, one of which is wanted; and when all ends."""
    words = (Message("user", ("Hello",)),)
    endless = [Request(words, Sampling(n, repetition_penalty=0.1)) for n in (3900, 3901)]  # never ends by itself
    beams = Request(words, Sampling(3900, repetition_penalty=0.1, num_beams=2))
    with LocalEngine(resolve("demo"), "cpu", "float32") as engine, at_work(engine) as shared:
        brief = Client(shared, Request(words, Sampling(20)))
        assert isinstance(expected := brief.last(), Result)
        going, searching = [Client(shared, request) for request in endless], Client(shared, beams)
        staying = Client(shared, Request(words, Sampling(21)))
        time.sleep(0.5)
        for client in (*going, searching):
            shared.withdraw(client.ticket)
        assert isinstance(found := staying.last(), Result)
        assert found.tokens == expected.tokens
        wait_for(lambda: all(client.done for client in (*going, searching)))
        for client in (*going, searching):
            assert all(len(result.tokens) < 3000 for result in client.heard if isinstance(result, Result))
        last = Client(shared, endless[0])
        time.sleep(0.2)
        shared.close()
        assert isinstance(last.last(), Phi4Error)


def test_flows_run_through_a_seat_as_through_the_engine() -> None:
    source = audio.source(MEETING)
    flow = Job("it", lambda: transcribe.flow(source, transcribe.Options()))
    [alone] = run([flow], ScriptedEngine(hears))
    with at_work(ScriptedEngine(hears)) as shared, Seat(shared) as seat, Seat(shared) as other:
        [first], [second] = run([flow], seat), run([flow], other)
    assert alone.value is not None
    assert first.value == second.value == alone.value


def test_a_flow_ends_when_its_client_goes() -> None:
    with at_work(ScriptedEngine(hears)) as shared, Seat(shared) as seat:
        seat.withdraw()
        with pytest.raises(Withdrawn):
            [*run([Job("it", lambda: transcribe.flow(audio.source(MEETING), transcribe.Options()))], seat)]
