"""Several devices behind one engine: the answers of one, whatever becomes of a process, and no process that is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import soundfile
import torch
from at_work import PATIENCE, wait_for
from lost_device import serve_losing
from test_local_engine import ASK, SENTENCES, Outcome, answers, request, result, saved
from test_memory import Heard
from tiny_model import write_tiny_model

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.engines import open_engine
from phi4mm_cli.engines import several as several_devices
from phi4mm_cli.engines.devices import device_names
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.engines.several import SeveralEngine
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError, UsageError
from phi4mm_cli.model.checkpoint import Checkpoint, resolve
from phi4mm_cli.schema import Message, Request, Sampling


def workers(process: psutil.Process | None = None) -> list[psutil.Process]:
    """The processes that a run has for its devices."""
    children = (process or psutil.Process()).children(recursive=True)
    found = []
    for child in children:
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    assert workers() == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


def texts(count: int, budget: int = 8) -> list[Request]:
    return [request("a b " * (1 + i % 5) + f"{i}", budget=budget) for i in range(count)]


# ------------------------------------------------------------------------------------------------------ the answers


def test_a_lost_process_costs_no_answer(tmp_path: Path) -> None:
    """With the demo checkpoint: one of two processes is killed while it has requests in hand."""
    clips = [saved(tmp_path / f"{i}.wav", SENTENCES[i % 5], SENTENCES[i % 3]) for i in range(10)]
    asked = [request(clip, ASK) for clip in clips]
    missing = request(saved(tmp_path / "lost.wav", SENTENCES[0]), ASK)
    (tmp_path / "lost.wav").unlink()
    with LocalEngine(resolve("demo"), device="cpu") as engine:
        expected = answers(engine, *asked)
    heard = Heard()
    with open_engine("local", "demo", None, "cpu,cpu", "auto", 2, listener=heard) as several:
        assert isinstance(several, SeveralEngine)
        assert (several.info.device, several.info.dtype, several.room()) == ("cpu,cpu", None, 16)
        for one in (missing, *asked):
            several.submit(one)
        assert several.room() == 16 - 11
        found: dict[str, Outcome] = dict(several.poll())
        while len(workers()) < 2 or not all(worker.in_hand for worker in several._workers):
            found.update(several.poll(0.1))
        os.kill(several._workers[1].process.pid, signal.SIGKILL)  # type: ignore[union-attr, arg-type]
        while outcomes := several.poll():
            assert not found.keys() & dict(outcomes).keys()
            found.update(outcomes)
        assert (several.info.device, several.info.dtype) == ("cpu,cpu", "float32")
    failure = found.pop(missing.key)
    assert isinstance(failure, RequestError)
    assert "no such file" in failure.message
    assert found == expected
    assert heard.notes == ["the process on cpu ended with exit code -9; others take what it had in hand"]
    assert heard.bytes[-1][0] == heard.bytes[-1][1]


def test_both_work_and_a_few_requests_start_one_process(tiny: Path) -> None:
    asked = texts(30, budget=30)
    with LocalEngine(resolve(str(tiny)), device="cpu") as engine:
        expected = answers(engine, *asked)
    with SeveralEngine(resolve(str(tiny)), ["cpu", "cpu"], batch_size=3) as several:
        assert workers() == []
        first = answers(several, asked[0])  # type: ignore[arg-type]
        assert len(workers()) == 1
        for one in asked[1:]:
            several.submit(one)
        several.cancel(asked[-1].key)
        found = dict(first)
        both = False
        while outcomes := several.poll():
            found.update(outcomes)
            both = both or all(worker.rows for worker in several._workers)
        assert both
        assert several.poll() == []
    assert found == {key: outcome for key, outcome in expected.items() if key != asked[-1].key}


def test_a_request_that_breaks_processes_fails_and_others_do_not(tiny: Path) -> None:
    """Whichever process has it in hand is killed; each is replaced."""
    asked = texts(7, budget=300)
    bad = asked[2]
    with SeveralEngine(resolve(str(tiny)), ["cpu"] * 2, batch_size=3) as several:
        for one in asked:
            several.submit(one)
        found: dict[str, Outcome] = {}
        while len(found) < len(asked):
            for worker in several._workers:
                if worker.connection is not None and bad in worker.in_hand and worker.process is not None:
                    worker.process.kill()
            found.update(several.poll(0.02))
    failure = found.pop(bad.key)
    assert isinstance(failure, RequestError)
    assert "ended with exit code -9" in failure.message
    assert {result(outcome).finish for outcome in found.values()} <= {"stop", "length"}


def test_a_device_that_is_gone_is_given_up_and_another_does_all(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first process loses it, the next one does not find it."""
    monkeypatch.setattr(several_devices, "serve", partial(serve_losing, tmp_path / "gone"))
    asked, heard = texts(9), Heard()
    with LocalEngine(resolve(str(tiny)), device="cpu") as engine:
        expected = answers(engine, *asked)
    with SeveralEngine(resolve(str(tiny)), ["cpu", "mps"], heard, batch_size=1) as several:
        good, gone = several._workers
        found = answers(several, asked[0])  # type: ignore[arg-type]
        while not gone.lost:
            found.update(answers(several, *asked[:3]))  # type: ignore[arg-type]
        found.update(answers(several, *asked))  # type: ignore[arg-type]
        assert (good.lost, good.losses) == (False, 0)
    assert found == expected
    assert [note.partition(";")[0] for note in heard.notes] == [
        "CUDA error: the device is lost",
        "the process on mps ended with exit code 1",
        "no CUDA device was found",
    ]


def test_when_none_is_left_the_run_ends(tiny: Path) -> None:
    with SeveralEngine(resolve(str(tiny)), ["cpu", "cpu"], batch_size=1) as several:
        for one in texts(6, budget=300):
            several.submit(one)
        with pytest.raises(Phi4Error, match="no process is left: the process on cpu ended with exit code -9"):
            while True:
                several.poll(0.02)
                for process in workers():
                    with suppress(psutil.NoSuchProcess):
                        process.kill()


def test_what_stops_the_run_stops_it_here_too(tmp_path: Path) -> None:
    broken = Checkpoint(tmp_path, "broken", None, None, resolve("demo").profile)
    with SeveralEngine(broken, ["cpu", "cpu"]) as several:
        several.submit(request("a"))
        with pytest.raises(MissingError, match=r"no config\.json"):
            several.poll()


def test_streams(tiny: Path) -> None:
    asked, long = request("a b c d", budget=20), request("e f", budget=3000)
    with LocalEngine(resolve(str(tiny)), device="cpu") as engine:
        expected = answers(engine, asked)
    with SeveralEngine(resolve(str(tiny)), ["cpu", "cpu"]) as several:
        stream, pieces = several.stream(asked), []
        with pytest.raises(StopIteration) as end:
            while True:
                pieces.append(next(stream))
        assert {asked.key: end.value.value} == expected
        assert "".join(pieces) == end.value.value.text
        left = several.stream(long)
        next(left)
        assert answers(several, asked) == expected  # type: ignore[arg-type]
        several.submit(asked)
        other = several.stream(long)
        next(other)
        with pytest.raises(Phi4Error, match="Close one of them first"):
            several.poll()
        other.close()
        assert dict(several.poll()) == expected
        left.close()
        assert answers(several, asked) == expected  # type: ignore[arg-type]
        with pytest.raises(RequestError, match="tokens long"):
            next(several.stream(request("word " * 5000)))
        assert answers(several, asked) == expected  # type: ignore[arg-type]
        reply = Message("assistant", (end.value.value.reply,))
        further = Request((*asked.messages, reply, Message("user", ("g h",))), Sampling(20))
        stream = several.stream(further)
        with pytest.raises(StopIteration) as end:
            while True:
                next(stream)
        assert {further.key: end.value.value} == answers(several, further)


def test_a_streamed_answer_shows_that_a_device_works(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_devices, "LOST_IN_A_ROW", 2)
    asked = request("a b c d", budget=5)
    with SeveralEngine(resolve(str(tiny)), ["cpu"]) as several:
        [worker] = several._workers
        for _ in range(2):
            assert [*several.stream(asked)]
            assert worker.process is not None
            worker.process.kill()
            with pytest.raises(RequestError, match="ended with exit code -9"):
                [*several.stream(asked)]
        assert not worker.lost


# ------------------------------------------------------------------------------------------------ the end of a run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_no_process_outlives_the_run(tmp_path: Path, number: signal.Signals) -> None:
    for i in range(3):
        soundfile.write(tmp_path / f"{i}.wav", speak(SENTENCES[i], sample_rate=16000).samples, 16000)
    options = ("-m", "demo", "--device", "cpu,cpu", "--batch-size", "1", "--no-vad")
    run = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", "transcribe", ".", "-o", "out", *options],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    process = psutil.Process(run.pid)
    wait_for(lambda: workers(process), run)
    found = workers(process)
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # as a terminal does
    else:
        run.send_signal(number)
    _, stderr = run.communicate(timeout=PATIENCE)
    assert run.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert "Traceback" not in stderr
    assert gone(found)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_what_is_in_hand_is_finished_where_the_workers_are_told_to_end_too(tmp_path: Path) -> None:
    """As schedulers do, which send SIGTERM to every process of a job."""
    (tmp_path / "in").mkdir()
    for i in range(12):
        soundfile.write(tmp_path / "in" / f"{i}.wav", speak(SENTENCES[i % 5], sample_rate=16000).samples, 16000)
    options = ("-m", "demo", "--device", "cpu,cpu", "--batch-size", "1", "--no-vad")
    run = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", "transcribe", "in", "-o", "out", *options],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    assert run.stderr is not None
    written = (tmp_path / "out").glob
    wait_for(lambda: [*written("*.txt")], run)
    found = workers(psutil.Process(run.pid))
    try:
        for worker in found:
            worker.suspend()  # so that they have something in hand when it comes
        os.killpg(run.pid, signal.SIGTERM)
        while "finishing" not in run.stderr.readline():
            assert run.poll() is None
    finally:
        for worker in found:
            worker.resume()
    _, stderr = run.communicate(timeout=PATIENCE)
    heard = [path.read_text(encoding="utf-8").strip() for path in written("*.txt")]
    assert (run.returncode, "exit code" in stderr) == (143, False)
    assert stderr.splitlines()[-1] == f"phi4mm: {len(heard)} inputs: {len(heard)} done"
    assert {*heard} <= {*SENTENCES}
    assert gone(found)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_one_signal_ends_an_answer_whose_worker_still_loads(tmp_path: Path) -> None:
    """The worker is held, and says no more."""
    run = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", "chat", "Hello?", "-m", "demo", "--device", "cpu,cpu", "--no-history"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    process = psutil.Process(run.pid)
    wait_for(lambda: workers(process), run)
    found = workers(process)
    for worker in found:
        worker.suspend()
    wait_for(lambda: process.status() == psutil.STATUS_SLEEPING, run)  # it waits for the worker
    run.terminate()
    try:
        _, stderr = run.communicate(timeout=PATIENCE)
    finally:
        run.kill()
        for worker in found:
            with suppress(psutil.NoSuchProcess):
                worker.resume()
    assert (run.returncode, "Traceback" in stderr) == (143, False), stderr
    assert gone(found)


# --------------------------------------------------------------------------------------------------------- names


def test_names_of_devices() -> None:
    assert device_names("auto") == ["auto"]
    assert device_names("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    for wrong in ("", "cuda:0,", "auto,cpu", "cpu,all"):
        with pytest.raises(UsageError, match="with commas"):
            device_names(wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_gpus_where_there_are_none() -> None:
    with pytest.raises(MissingError, match="no CUDA device"):
        open_engine("local", "demo", None, "all", "auto", None)
