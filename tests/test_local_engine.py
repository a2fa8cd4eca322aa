"""The local engine on spoken clips: right words, the same tokens in every batch, failures that stay where they are."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_model import write_adapter, write_tiny_model
from torch import Tensor, nn

from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.demo.voice import speak
from phi4mm_cli.engines import Silence
from phi4mm_cli.engines.local import LocalEngine, Outcome
from phi4mm_cli.errors import DeviceLostError, MemoryExhaustedError, MissingError, RequestError
from phi4mm_cli.media import audio
from phi4mm_cli.model import encoding
from phi4mm_cli.model.checkpoint import Checkpoint, resolve
from phi4mm_cli.schema import Clip, Message, Part, Request, Result, Sampling

SENTENCES = (
    "Oscar forgot the letter on Monday.",
    "The meeting starts at six o'clock on Friday.",
    "Please send the budget to Nina before Tuesday.",
    "Julia and Carol are working on the camera.",
    "I see a yellow bicycle near the house.",
)
ASK = "Transcribe the audio clip into text."


def request(*parts: Part, budget: int = 60) -> Request:
    return Request((Message("user", parts),), Sampling(budget))


def saved(path: Path, *sentences: str, rate: int = 16000) -> Clip:
    """The sentences, spoken one after the other, as a file and a clip of all of it."""
    samples = np.concatenate([speak(text, sample_rate=rate).samples for text in sentences])
    soundfile.write(path, samples, rate)
    return Clip(audio.source(path), 0.0, len(samples) / rate)


def answers(engine: LocalEngine, *requests: Request) -> dict[str, Outcome]:
    for asked in requests:
        engine.submit(asked)
    found: dict[str, Outcome] = {}
    while outcomes := engine.poll():
        assert not found.keys() & dict(outcomes).keys()
        found.update(outcomes)
    return found


class Told(Silence):
    def __init__(self) -> None:
        self.details: list[str] = []

    def detail(self, message: str) -> None:
        self.details.append(message)


def demo_engine(batch_size: int | None = None) -> LocalEngine:
    return LocalEngine(resolve("demo"), device="cpu", batch_size=batch_size)


def result(outcome: Outcome) -> Result:
    assert isinstance(outcome, Result)
    return outcome


# ---------------------------------------------------------------------------------------------------- what it hears


def test_words_and_what_is_recorded_of_the_model(tmp_path: Path) -> None:
    asked = [request(saved(tmp_path / f"{i}.wav", text), ASK) for i, text in enumerate(SENTENCES)]
    with demo_engine() as engine:
        assert engine.poll() == []
        assert (engine.info.id, engine.info.engine, engine.info.device) == ("demo", "local", None)
        found = answers(engine, *asked)
        assert (engine.info.device, engine.info.dtype) == ("cpu", "float32")
    assert [result(found[one.key]).text for one in asked] == list(SENTENCES)
    assert {result(found[one.key]).finish for one in asked} == {"stop"}
    assert engine.profile == resolve("demo").profile


def test_stream_says_the_same_piece_by_piece(tmp_path: Path) -> None:
    asked = request(saved(tmp_path / "a.wav", SENTENCES[0]), ASK)
    with demo_engine() as engine:
        pieces = []
        answer = engine.stream(asked)
        with pytest.raises(StopIteration) as end:
            while True:
                pieces.append(next(answer))
        assert len(pieces) > 3
        assert "".join(pieces) == SENTENCES[0]
        assert {asked.key: end.value.value} == answers(engine, asked)


def test_telephone_speech_is_heard_through_its_own_features(tmp_path: Path) -> None:
    clip = saved(tmp_path / "phone.wav", SENTENCES[0], rate=8000)
    assert audio.read(clip)[1] == 8000
    with demo_engine() as engine:
        heard = result(answers(engine, request(clip, ASK)).popitem()[1])
    assert heard.prompt_tokens == pytest.approx(10 + 12.5 * clip.end, abs=2)


# --------------------------------------------------------------------------------------------------------- batches

LENGTHS = (0.02, 0.1, 0.3, 0.7, 1.3, 1.5, 2.0, 2.2, 2.9, 3.0, 3.7, 4.0, 4.4, 5.0, 6.0, 7.5, 9.0, 20.0, 41.0, 45.0)


def test_the_same_tokens_alone_and_in_any_batch(tmp_path: Path) -> None:
    whole = saved(tmp_path / "long.wav", *random.Random(3).choices(SENTENCES, k=40))
    clips = [Clip(whole.source, 1.37 * i, 1.37 * i + seconds) for i, seconds in enumerate(LENGTHS)]
    assert clips[-1].end < whole.end
    asked = [request(clip, ASK, budget=8 + round(2 * (clip.end - clip.start))) for clip in clips]
    with demo_engine(batch_size=1) as engine:
        alone = answers(engine, *asked)
        assert {result(one).finish for one in alone.values()} == {"stop", "length"}
        assert len({result(one).tokens for one in alone.values()}) > 15
    for size, seed in ((20, 0), (6, 1)):
        with demo_engine(batch_size=size) as engine:
            assert answers(engine, *random.Random(seed).sample(asked, k=len(asked))) == alone


def test_a_batch_is_the_oldest_request_and_its_neighbours_in_length(tmp_path: Path) -> None:
    whole = saved(tmp_path / "a.wav", *SENTENCES)
    seconds = [2.0, 9.0, 2.1, 0.5, 2.3, 8.0]
    asked = [request(Clip(whole.source, 0.0, length), ASK, budget=2) for length in seconds]
    with demo_engine(batch_size=3) as engine:
        assert engine.room() == 12
        for one in asked:
            engine.submit(one)
        assert engine.room() == 6
        batches = [{seconds[[one.key for one in asked].index(key)] for key, _ in engine.poll()} for _ in range(2)]
        assert engine.poll() == []
    assert batches == [{2.0, 2.1, 2.3}, {9.0, 8.0, 0.5}]


def test_sound_is_heard_with_the_adapter_and_text_read_without(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    clip = saved(tmp_path / "a.wav", SENTENCES[0])
    asked = [request(clip, "a"), request("a b c"), request(clip, "b", budget=20), request("d"), request("e " * 90)]

    def tokens() -> list[tuple[int, ...]]:
        with LocalEngine(resolve(str(folder)), device="cpu") as engine:
            found = answers(engine, *asked)
        return [result(found[one.key]).tokens for one in asked]

    bare = tokens()
    write_adapter(folder)
    adapted = tokens()
    heard, read = (0, 2), (1, 3, 4)
    assert [adapted[i] for i in read] == [bare[i] for i in read]
    assert all(adapted[i] != bare[i] for i in heard)


def test_one_that_fits_nowhere_makes_no_batch_smaller(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    long, *short = (request(text, budget=2) for text in ("a b " * 12, "a", "b", "c", "d", "e"))
    with LocalEngine(resolve(str(folder)), device="cpu", batch_size=4) as engine:
        expected = answers(engine, *short)
        rows: list[int] = []

        def exhaust(module: nn.Module, inputs: tuple[Tensor]) -> None:
            rows.append(len(inputs[0]))
            if inputs[0].shape[1] > 20 or len(inputs[0]) > limit:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

        engine._loaded().network.model.layers[-1].register_forward_pre_hook(exhaust)
        limit = 4
        found = answers(engine, long, *short)
        assert isinstance(found.pop(long.key), MemoryExhaustedError)
        assert found == expected
        assert (rows[0], engine.rows) == (4, 4)
        limit = 2
        assert answers(engine, *short) == expected
        assert engine.rows == 2  # where the batch as a whole is what does not fit


# -------------------------------------------------------------------------------------------------------- failures


def test_unreadable_media_fail_alone(tmp_path: Path) -> None:
    good = [request(saved(tmp_path / f"{i}.wav", SENTENCES[i]), ASK) for i in range(2)]
    lost = saved(tmp_path / "lost.wav", SENTENCES[2])
    Path(lost.source.path).unlink()
    bad, long = request(lost, ASK), request("word " * 140000)
    with demo_engine() as engine:
        found = answers(engine, good[0], bad, good[1], long)
        assert [result(found[one.key]).text for one in good] == list(SENTENCES[:2])
        assert isinstance(found[bad.key], RequestError)
        assert "no such file" in str(found[bad.key])
        assert "131072" in str(found[long.key])
        with pytest.raises(RequestError, match="no such file"):
            next(engine.stream(bad))


def test_a_bug_that_one_request_meets_is_its_own_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    odd, *others = (request(text, budget=2) for text in ("a b " * 12, "a", "b", "c", "d"))
    unread = request(saved(tmp_path / "a.wav", SENTENCES[0]), "a")
    heard = Told()
    with LocalEngine(resolve(str(folder)), device="cpu", batch_size=8, listener=heard) as engine:
        expected = answers(engine, *others)

        def break_down(module: nn.Module, inputs: tuple[Tensor]) -> None:
            if inputs[0].shape[1] > 20:
                raise IndexError("index 7 is out of range\nand so on")

        def misread(part: object) -> None:
            raise ZeroDivisionError("no frames")

        engine._loaded().network.model.layers[-1].register_forward_pre_hook(break_down)
        monkeypatch.setattr(encoding, "read", misread)
        found = answers(engine, others[0], odd, unread, *others[1:])
        for one, said in ((odd, "unexpected IndexError: index 7 is out of range. This"), (unread, "unexpected Zero")):
            failure = found.pop(one.key)
            assert isinstance(failure, RequestError)
            assert str(failure).startswith(said)
        assert found == expected
        assert engine.rows == 8
    assert all(any(bug in said for said in heard.details) for bug in ("in break_down", "in misread"))


def test_a_device_that_is_lost_stops_the_run_in_a_line(tmp_path: Path) -> None:
    with LocalEngine(resolve(str(write_tiny_model(tmp_path / "tiny"))), device="cpu") as engine:

        def lose(module: nn.Module, inputs: tuple[Tensor]) -> None:
            raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later")

        engine._loaded().network.model.layers[-1].register_forward_pre_hook(lose)
        for one in (request("a", budget=2), request("b", budget=2)):
            engine.submit(one)
        with pytest.raises(DeviceLostError) as caught:
            engine.poll()

        def stop(module: nn.Module, inputs: tuple[Tensor]) -> None:
            raise Cancelled  # as Ctrl-C does in a chat: no failure either

        engine._loaded().network.model.layers[0].register_forward_pre_hook(stop)
        engine.submit(request("a", budget=2))
        with pytest.raises(Cancelled):
            engine.poll()
    assert caught.value.message == "CUDA error: unspecified launch failure"
    assert "nvidia-smi" in caught.value.advice


def test_cancelled_requests_are_not_run(tmp_path: Path) -> None:
    first, second = (request(text, budget=2) for text in ("a", "b"))
    with demo_engine() as engine:
        engine.submit(first)
        engine.submit(second)
        engine.cancel(first.key)
        engine.cancel("unknown")
        assert [key for key, _ in engine.poll()] == [second.key]


def test_a_model_that_cannot_be_loaded_stops_the_run(tmp_path: Path) -> None:
    broken = Checkpoint(tmp_path, "broken", None, None, resolve("demo").profile)
    with LocalEngine(broken, device="cpu") as engine:
        engine.submit(request("a"))
        with pytest.raises(MissingError, match=r"no config\.json"):
            engine.poll()


def run_apart(code: str, *arguments: object, **environment: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | environment,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    return run.stdout.splitlines()


def test_a_run_with_nothing_to_ask_loads_nothing() -> None:
    code = """
import sys
from phi4mm_cli.engines import open_engine
with open_engine("local", "demo", None, "auto", "auto", None) as engine:
    engine.info, engine.profile, engine.room(), engine.poll()
print(sorted({"torch", "transformers", "numpy"} & sys.modules.keys()))
"""
    assert run_apart(code) == ["[]"]


MEMORY = """
import resource, sys
import torch
from phi4mm_cli.engines import Silence
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MemoryExhaustedError
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Clip, Message, Request, Sampling

torch.set_num_threads(1)
source = audio.source(sys.argv[1])
parts = [(Clip(source, i, i + 30.0), "Transcribe the audio clip into text.") for i in range(8)]
requests = [Request((Message("user", part),), Sampling(3)) for part in parts]
large = Request((Message("user", tuple(part[0] for part in parts) + (parts[0][0],)),), Sampling(3))

def answers(engine, requests, spare):
    "Outcomes with `spare` MiB of memory left."
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + spare * 2**20, resource.RLIM_INFINITY))
    for one in requests:
        engine.submit(one)
    found = {}
    while outcomes := engine.poll():
        found.update(outcomes)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return found

with LocalEngine(resolve("demo"), device="cpu", batch_size=1) as engine:
    alone = answers(engine, requests, 4000)
    [failed] = answers(engine, [large], 20).values()
    print(isinstance(failed, MemoryExhaustedError), failed)
    for spare in (320, 240, 180, 135, 100, 75, 56, 42):  # how much a batch takes differs between machines
        engine._batch_size = 8
        found = answers(engine, requests, spare)
        if engine.room() // 4 < 8:
            break
    print(found == alone, engine.room() // 4)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space limits are Linux's")
def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path) -> None:
    whole = saved(tmp_path / "long.wav", *random.Random(3).choices(SENTENCES, k=20))
    assert whole.end > 37
    # What is freed goes back at once: else a later batch finds room that the limit does not count.
    too_large, halved = run_apart(MEMORY, whole.source.path, MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="0")
    assert too_large.startswith("True a single request does not fit into memory. Use shorter clips")
    same, size = halved.split()
    assert same == "True"
    assert int(size) < 8  # and the next batches are as small
