"""The openai engine and servers that are down, busy, broken or hostile: bounded time and memory, a key that is kept."""

from __future__ import annotations

import json
import logging
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded
import soundfile
from web import Answer, Heard, Web, serving

from phi4mm_cli.engines import Silence
from phi4mm_cli.engines.openai import exchange, servers, sockets, transport
from phi4mm_cli.engines.openai.engine import OpenAIEngine
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError, UsageError
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL
from phi4mm_cli.schema import Clip, Message, Request, Result, Sampling

KEY = "sk-very-secret-0123456789"
SOON = 60.0  # seconds: longer than a slow machine takes, shorter than what is not to be waited for
SLOW = 2.0  # seconds that are waited for a slow server: more than a busy machine takes to hear a request


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "FIRST_WAIT", 0.05)
    monkeypatch.setattr(exchange, "LONGEST_PAUSE", 0.05)


def request(words: str = "Hello?") -> Request:
    return Request((Message("user", (words,)),), Sampling(20))


def opened(*webs: Web, **settings: Any) -> OpenAIEngine:
    return OpenAIEngine([web.url for web in webs], **{"model": DEFAULT_MODEL, "patience": 0.5} | settings)


def outcome(engine: OpenAIEngine, asked: Request | None = None) -> Result | Phi4Error:
    engine.submit(asked or request())
    try:
        [(_, found)] = engine.poll()
    except MissingError as error:
        return error
    return found


def after(*first: Answer) -> Answer:
    """Deals with the first chat requests so, and answers the others."""
    waiting = [*first]
    lock = threading.Lock()

    def answer(heard: Heard) -> None:
        with lock:
            is_chat = heard.path == "/v1/chat/completions"
            deal = waiting.pop(0) if waiting and is_chat else recorded.answering()
        deal(heard)

    return answer


def busy(heard: Heard) -> None:
    heard.reply(recorded.ERRORS["busy"][1], 503)


def limited(heard: Heard) -> None:
    heard.reply({"error": {"message": "slow down"}}, 429, Retry_After="0.2")


def failing(heard: Heard) -> None:
    heard.reply({"error": {"message": "Cannot connect to host", "code": 500}}, 500)


def cut(heard: Heard) -> None:
    heard.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"cho')


def silent(heard: Heard) -> None:
    time.sleep(100)


def dripping(heard: Heard) -> None:
    heard.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(90):
        heard.write(b"X-Drip: 1\r\n")
        time.sleep(1)


def page(heard: Heard) -> None:
    heard.reply(b"<!doctype html><title>Welcome</title>" + b"<p>hello</p>" * 9999, kind="text/html")


def no_json(heard: Heard) -> None:
    heard.reply(b'{"choices": [{"message": {"content": "hel')


def hollow(heard: Heard) -> None:
    heard.reply({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 0}})


def no_http(heard: Heard) -> None:
    heard.write(b"220 mail ready\r\n")


@pytest.mark.parametrize("trouble", [busy, limited, failing, cut, silent, no_json, hollow, page])
def test_what_may_have_been_an_accident_is_tried_again(trouble: Answer) -> None:
    with serving(after(trouble)) as web, opened(web, timeout=SLOW if trouble is silent else 30.0) as engine:
        began = time.monotonic()
        assert isinstance(outcome(engine), Result)
        assert len(web.posted()) == 2
        assert time.monotonic() - began > (0.2 if trouble is limited else 0)


@pytest.mark.parametrize("trouble", [failing, cut, silent, dripping, no_json, hollow, page, no_http])
def test_what_stays_broken_is_given_up(trouble: Answer) -> None:
    seconds = SLOW if trouble in (silent, dripping) else 30.0
    with serving(after(*[trouble] * 9)) as web, opened(web, timeout=seconds) as engine:
        began = time.monotonic()
        error = outcome(engine)
        assert isinstance(error, RequestError)
        assert time.monotonic() - began < SOON
        assert len(web.posted()) == 1 + exchange.ACCIDENTS
        assert len(str(error)) < 300
        assert "<" not in str(error)
        assert isinstance(outcome(engine, request("another")), RequestError), "the engine goes on"


def test_a_busy_server_is_asked_for_as_long_as_that_makes_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "BUSY_SECONDS", 0.5)
    with serving(after(*[busy] * 999)) as web, opened(web) as engine:
        error = outcome(engine)
        assert isinstance(error, RequestError)
        assert "503: The engine is currently busy" in error.message
        assert len(web.posted()) > 1
    with serving(after(lambda heard: heard.reply({}, 429, Retry_After="3600"))) as web, opened(web) as engine:
        assert isinstance(outcome(engine), RequestError)
        assert len(web.posted()) == 1  # an hour is not waited


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_other_errors_are_not_tried_again(status: int) -> None:
    with serving(after(lambda heard: heard.reply({"detail": "no"}, status))) as web, opened(web) as engine:
        assert isinstance(outcome(engine), Phi4Error)
        assert len(web.posted()) == 1


def test_an_error_in_the_place_of_an_answer_is_told() -> None:
    def overloaded(heard: Heard) -> None:
        heard.reply({"error": {"message": f"overloaded, {KEY}: " + "so it is " * 99}})

    def full(heard: Heard) -> None:
        heard.reply({"object": "error", "message": "full", "code": 503})

    with serving(after(*[overloaded] * (1 + exchange.ACCIDENTS))) as web, opened(web, key=KEY) as engine:
        error = outcome(engine)
        assert isinstance(error, RequestError)
        assert "answers with an error: overloaded, …: so it is" in error.message
        assert len(error.message) < 300
        assert len(web.posted()) == 1 + exchange.ACCIDENTS
    with serving(after(*[full] * (2 + exchange.ACCIDENTS))) as web, opened(web) as engine:
        assert isinstance(outcome(engine), Result)  # asked as often as a busy one is


def test_an_answer_without_an_end_takes_little_memory() -> None:
    def endless(heard: Heard) -> None:
        heard.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n")
        for _ in range(1024):
            heard.write(b" " * (1 << 20))

    def endless_stream(heard: Heard) -> None:
        heard.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for _ in range(1024):
            heard.write(b"data: " + b"x" * (1 << 20))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serving(after(*[endless] * 3, *[endless_stream] * 3)) as web, opened(web) as engine:
        error = outcome(engine)
        assert isinstance(error, RequestError)
        assert f"longer than {transport.MOST_BYTES >> 20} MiB" in error.message
        with pytest.raises(RequestError, match="does not end"):
            next(engine.stream(request()))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kB


def test_a_list_of_models_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that is asked of a server; nothing is asked of such a one any more."""
    with serving(recorded.answering()) as other:

        def moved(heard: Heard) -> None:
            heard.reply({}, 302, Location=other.url + "/models")

        def endless(heard: Heard) -> None:
            heard.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
            for _ in range(1024):
                heard.write(b" " * (1 << 20))

        for trouble in (failing, cut, silent, dripping, page, no_json, no_http, moved, endless):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            monkeypatch.setattr(servers, "LISTING_SECONDS", SLOW if trouble in (silent, dripping) else 30.0)
            with serving(trouble) as web, opened(web, key=KEY) as engine:
                began = time.monotonic()
                with pytest.raises(MissingError, match=r"^the server at ") as raised:
                    engine.submit(request())
                assert time.monotonic() - began < SOON, trouble
                assert len(raised.value.message) < 300
                assert "<" not in str(raised.value)
                assert [heard.path for heard in web.heard] == ["/v1/models"], trouble
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # kB
        assert not other.heard


def test_what_is_packed_is_not_unpacked() -> None:
    bomb = after(*[lambda heard: heard.reply(b"\x1f\x8b" + b"\0" * 99, Content_Encoding="gzip")] * 3)
    with serving(bomb) as web, opened(web) as engine:
        error = outcome(engine)
        assert isinstance(error, RequestError)
        assert "packed" in error.message
        assert web.heard[-1].headers["accept-encoding"] == "identity"


# ------------------------------------------------------------------------------------------------------- the key


def test_the_key_goes_nowhere_else(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(recorded.answering()) as other:

        def moved(heard: Heard) -> None:
            heard.reply({}, 307, Location=other.url + "/chat/completions")

        def echoing(heard: Heard) -> None:
            said = f"bad header {heard.headers['authorization']} {json.dumps(heard.body)}" + "QUJD" * 500
            heard.reply({"error": {"message": said}}, 400)

        for trouble, word in ((moved, "sends elsewhere"), (echoing, "bad header Bearer …")):
            with serving(after(trouble)) as web, opened(web, key=KEY) as engine:
                error = outcome(engine)
                assert isinstance(error, Phi4Error)
                assert word in error.message
                assert KEY not in str(error)
                assert "QUJD" not in str(error)
                assert len(error.message) < 300
                assert web.heard[-1].headers["authorization"] == f"Bearer {KEY}"
        assert not other.heard
    out, err = capfd.readouterr()
    assert KEY not in out + err + caplog.text


def test_a_key_that_is_refused_ends_the_run_at_once() -> None:
    def closed(heard: Heard) -> None:
        heard.reply({"error": "Unauthorized"}, 401)

    with serving(closed) as web, opened(web, key=KEY) as engine, pytest.raises(MissingError, match="refuses the key"):
        engine.submit(request())
    with serving(closed) as web, opened(web) as engine, pytest.raises(MissingError, match="asks for a key"):
        assert engine.profile


def test_a_key_that_cannot_be_one_is_not_shown() -> None:
    for key in ("two words", "line\nend", "schlüssel"):
        with pytest.raises(UsageError) as raised:
            OpenAIEngine(["http://localhost/v1"], key)
        assert key not in str(raised.value)
    OpenAIEngine(["http://localhost/v1"], KEY + "\n")


# ---------------------------------------------------------------------------------------------- several servers


@contextmanager
def dead_port() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def test_a_server_that_is_not_there() -> None:
    with dead_port() as port, OpenAIEngine([f"http://127.0.0.1:{port}/v1"], model=DEFAULT_MODEL) as engine:
        began = time.monotonic()
        with pytest.raises(MissingError, match=f"127.0.0.1:{port} cannot be reached") as raised:
            assert engine.profile
        assert "--url" in raised.value.advice
        assert time.monotonic() - began < SOON


def test_several_servers_share_the_work() -> None:
    def slowly(heard: Heard) -> None:
        time.sleep(0.05)
        recorded.answering()(heard)

    with serving(slowly) as one, serving(slowly) as two, opened(one, two, concurrency=4) as engine:
        assert len(answered(engine, 24)) == 24
        assert min(len(one.posted()), len(two.posted())) >= 4


def answered(engine: OpenAIEngine, count: int) -> list[Result]:
    waiting = [request(f"number {number}") for number in range(count)]
    found: dict[str, Result] = {}
    while len(found) < count:
        while waiting and engine.room() > 0:
            engine.submit(waiting.pop())
        for key, result in engine.poll():
            assert isinstance(result, Result), result
            assert key not in found
            found[key] = result
    return [*found.values()]


def test_a_dead_server_is_left_out_and_tried_again() -> None:
    with dead_port() as port:
        pass
    with serving(recorded.answering()) as one:
        engine = OpenAIEngine([f"http://127.0.0.1:{port}/v1", one.url], model=DEFAULT_MODEL, patience=2.0)
        with engine:
            assert len(answered(engine, 10)) == 10
            assert len(one.posted()) == 10
            with serving(recorded.answering(), port) as late:
                until = time.monotonic() + SOON
                while not late.posted() and time.monotonic() < until:
                    answered(engine, 4)
                assert late.posted()


def test_a_server_that_dies_half_way_costs_no_result() -> None:
    """The second one stops listening while it has requests in hand."""
    with serving(recorded.answering()) as one:
        with serving(lambda heard: (time.sleep(0.05), recorded.answering()(heard))[1]) as two:  # type: ignore[func-returns-value]
            engine = opened(two, one, concurrency=4)
            waiting = [request(f"number {number}") for number in range(20)]
            for asked in waiting[:8]:
                engine.submit(asked)
            found = dict(engine.poll())
        with engine:
            for asked in waiting[8:]:
                engine.submit(asked)
            while len(found) < 20:
                found |= dict(engine.poll())
        assert all(isinstance(result, Result) for result in found.values())
        assert two.posted()


def test_when_all_are_gone_the_run_ends() -> None:
    with serving(recorded.answering()) as web:
        engine = opened(web)
        assert isinstance(outcome(engine), Result)
    with engine:
        began = time.monotonic()
        error = outcome(engine, request("late"))
        assert isinstance(error, MissingError)
        assert "no server answers any more" in error.message
        assert 0.4 < time.monotonic() - began < SOON


def test_a_server_that_streams_is_there_again() -> None:
    """What is asked after an outage is not told that the server has been gone since then."""
    lost = threading.Event()

    class Hears(Silence):
        def note(self, message: str) -> None:
            lost.set()

    def ask() -> None:
        answers.append("".join(engine.stream(request())))

    answers: list[str] = []
    with serving(recorded.answering()) as web:
        engine = opened(web, patience=SOON, listener=Hears())
        ask()
    with engine:
        asking = threading.Thread(target=ask)
        asking.start()
        assert lost.wait(SOON)
        with serving(recorded.answering(), web.port):
            asking.join()
            engine._all._patience = 0.0
            ask()
            ask()
    assert answers == ["hello there"] * 4


# ------------------------------------------------------------------------------------------- streams, and ends


def test_a_stream_that_breaks_off_is_no_answer() -> None:
    events = recorded.chunks("so", " far")
    broken = after(lambda heard: heard.events(*events[:-2], done=False))
    with serving(broken) as web, opened(web) as engine:
        answer = engine.stream(request())
        assert [next(answer), next(answer)] == ["so", " far"]
        with pytest.raises(RequestError, match="broke off"):
            next(answer)
        assert len(web.posted()) == 1  # what has been shown cannot be taken back


def test_a_stream_that_has_shown_nothing_is_begun_again() -> None:
    failed = {"error": {"message": "engine died", "code": 500}}
    with serving(after(busy, lambda heard: heard.events(failed))) as web, opened(web) as engine:
        assert "".join(engine.stream(request())) == "hello there"
        assert len(web.posted()) == 3


def test_an_error_in_a_stream_is_what_its_code_says() -> None:
    said = {"message": "slow down", "code": 429}
    late = {"object": "error", "message": "no more room", "code": "400"}
    tired = after(*[lambda heard: heard.events({"error": said}, done=False)] * (2 + exchange.ACCIDENTS))
    with serving(tired) as web, opened(web) as engine:
        assert "".join(engine.stream(request())) == "hello there"  # asked as often as a busy one is
        assert len(web.posted()) == 3 + exchange.ACCIDENTS
    with serving(after(lambda heard: heard.events(*recorded.chunks("so")[:-2], late))) as web, opened(web) as engine:
        answer = engine.stream(request())
        assert next(answer) == "so"
        with pytest.raises(RequestError, match="status 400: no more room"):
            next(answer)


def test_a_stream_that_says_nothing_is_no_answer() -> None:
    empty = after(*[lambda heard: heard.events({"type": "ping"}, {"choices": []})] * 9)
    with serving(empty) as web, opened(web) as engine:
        with pytest.raises(RequestError, match="there is no answer in it"):
            next(engine.stream(request()))
        assert len(web.posted()) == 1 + exchange.ACCIDENTS


def test_a_stream_that_nobody_reads_on_is_closed() -> None:
    closed = threading.Event()

    def endless(heard: Heard) -> None:
        heard.events(*recorded.chunks("a", "b")[:-2], done=False)
        try:
            while True:
                heard.write(b": still here\n\n")
                time.sleep(0.01)
        except OSError:
            closed.set()

    with serving(after(endless)) as web, opened(web) as engine:
        answer = engine.stream(request())
        assert next(answer) == "a"
        answer.close()
        assert closed.wait(SOON)


def test_leaving_does_not_wait_for_answers() -> None:
    with serving(after(*[silent] * 9)) as web:
        with opened(web) as engine:
            for number in range(8):
                engine.submit(request(str(number)))
            assert engine.poll(0.2) == []
            engine.cancel(request("0").key)
            began = time.monotonic()
        assert time.monotonic() - began < SOON
        assert not [thread for thread in threading.enumerate() if thread.name == "openai"]


def test_so_many_at_once_and_no_more() -> None:
    lock, three, now, most = threading.Lock(), threading.Barrier(3), [0], [0]

    def counted(heard: Heard) -> None:
        if heard.path == "/v1/chat/completions":
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            three.wait(SOON)
            with lock:
                now[0] -= 1
        recorded.answering()(heard)

    with serving(counted) as web, opened(web, concurrency=3) as engine:
        assert engine.room() == 6
        answered(engine, 21)
        assert most[0] == 3


def test_the_limit_of_open_files_is_raised_where_it_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    connections = 2 * 200 + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with serving(recorded.answering()) as web, opened(web, concurrency=200) as engine:
            answered(engine, 1)
            assert engine.room() == 2 * 200
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (connections + sockets.OTHERS, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_large_requests_are_fewer_at_once(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.wav", np.zeros(16000 * 100, np.int16), 16000)
    source = audio.source(tmp_path / "long.wav")
    lock, now, most = threading.Lock(), [0], [0]

    def counted(heard: Heard) -> None:
        if heard.path == "/v1/chat/completions":
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.05)
            with lock:
                now[0] -= 1
        recorded.answering()(heard)

    with serving(counted) as web, opened(web, concurrency=4) as engine:
        for number in range(6):
            clip = Clip(source, number / 10, 90.0)  # of two slots
            engine.submit(Request((Message("user", (clip, "What is said?")),), Sampling(20)))
        found: dict[str, Result | RequestError] = {}
        while len(found) < 6:
            found |= dict(engine.poll())
    assert all(isinstance(result, Result) for result in found.values())
    assert most[0] <= 2


def test_counting_does_not_wait_for_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "COUNT_SECONDS", 0.2)

    def answer(heard: Heard) -> None:
        (silent if heard.path == "/tokenize" else recorded.answering())(heard)

    with serving(answer) as web, opened(web) as engine:
        began = time.monotonic()
        assert engine.count_tokens("x" * 30) == 10
        assert time.monotonic() - began < SOON


def test_numbers_that_make_no_sense() -> None:
    def answer(heard: Heard) -> None:
        if heard.path == "/v1/models":
            heard.reply({"data": [{"id": "a", "max_model_len": -5, "profile": {"max_chunk_seconds": "x"}}, 7, {}]})
        else:
            reply = recorded.completion("ok", 2)
            reply["usage"] = {"prompt_tokens": -3, "completion_tokens": 10**18}
            reply["choices"][0]["token_ids"] = None
            heard.reply(reply)

    with serving(answer) as web, opened(web) as engine:
        found = outcome(engine)
        assert isinstance(found, Result)
        assert (found.text, found.prompt_tokens) == ("ok", 0)
        assert engine.profile.context == 131072
