"""Batches over a Ray cluster: the answers of a local run, whatever becomes of an actor, its node or the files."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from at_work import PATIENCE, wait_for
from conftest import RAY, Phi4mm
from test_local_engine import ASK, SENTENCES, Outcome, answers, request, saved
from test_memory import Heard

from phi4mm_cli.engine_options import ClusterOptions, DeviceMapName, EngineName, EngineOptions
from phi4mm_cli.engines import Silence
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError, UsageError
from phi4mm_cli.model.checkpoint import resolve

ray = pytest.importorskip("ray")


def on_ray(cluster: ClusterOptions, **settings: Any) -> EngineOptions:
    return EngineOptions(model="demo", engine=EngineName.RAY, cluster=cluster, **settings)


def actors() -> list[psutil.Process]:
    """The processes that have a local engine."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if process.name().startswith("ray::Actor")]


def test_what_cannot_be() -> None:
    """Before any cluster is connected to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{taken.getsockname()[1]}"
        wrong: list[tuple[dict[str, Any], dict[str, Any], type[Phi4Error], str]] = [
            ({"address": f"ray://{nobody}"}, {}, MissingError, f"nothing answers at ray://{nobody}: "),
            ({"address": nobody}, {}, MissingError, f"nothing answers at {nobody}: "),
            ({"address": "somewhere"}, {}, UsageError, "--address is auto, ray://HOST:PORT or HOST:PORT, not 's"),
            ({}, {"device": "cuda:1"}, UsageError, "--device cuda:1 does not go with --engine ray"),
            ({}, {"device_map": DeviceMapName.AUTO}, UsageError, "--device-map does not go with --engine ray"),
            ({"workers": 0}, {}, UsageError, "--workers is 1 to 1024, not 0"),
        ]
        for cluster_settings, settings, kind, message in wrong:
            with pytest.raises(kind, match="^" + re.escape(message)):
                on_ray(ClusterOptions(**cluster_settings), **settings).open(Silence()).__enter__()


def test_a_run_on_two_actors(cluster: None, tmp_path: Path) -> None:
    """One of them is killed while it has requests in hand. A file that is gone is an error of its own."""
    clips = [saved(tmp_path / f"{i}.wav", SENTENCES[i % 5], SENTENCES[i % 3]) for i in range(10)]
    asked = [request(clip, ASK) for clip in clips]
    missing = request(saved(tmp_path / "lost.wav", SENTENCES[0]), ASK)
    (tmp_path / "lost.wav").unlink()
    with LocalEngine(resolve("demo"), device="cpu") as engine:
        expected = answers(engine, *asked)
    heard = Heard()
    options = on_ray(ClusterOptions(workers=2), batch_size="2")
    with options.open(heard) as engine:
        assert (engine.info.engine, engine.room()) == ("ray", 16)
        for one in (missing, *asked):
            engine.submit(one)
        found: dict[str, Outcome] = {}
        while not all(worker.in_hand for worker in engine._workers):  # type: ignore[attr-defined]
            found.update(engine.poll(0.1))
        assert len(actors()) == 2
        actors()[0].kill()
        while outcomes := engine.poll():
            assert not found.keys() & dict(outcomes).keys()
            found.update(outcomes)
        assert (engine.info.engine, engine.info.device, engine.info.dtype) == ("ray", "cpu", "float32")
        stream, pieces = engine.stream(asked[0]), []
        with pytest.raises(StopIteration) as end:
            while True:
                pieces.append(next(stream))
        assert end.value.value == expected[asked[0].key]
        assert "".join(pieces) == end.value.value.text
    failure = found.pop(missing.key)
    assert isinstance(failure, RequestError)
    assert f"{tmp_path / 'lost.wav'} is not on {socket.gethostname()}" in failure.message
    assert found == expected
    notice, lost = heard.notes
    assert notice.startswith("demo checkpoint: ")
    assert lost.split(":")[1] == " its process ended; others take what it had in hand"
    assert heard.bytes[-1][0] == heard.bytes[-1][1]
    assert not psutil.wait_procs(actors(), timeout=PATIENCE)[1]


def test_files_that_nodes_cannot_see_are_sent(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is at their paths on the node is not looked at: here the files are gone by then, but for their bytes."""
    clips = [saved(tmp_path / f"{i}.wav", SENTENCES[i]) for i in range(2)]
    asked = [request(clip, ASK) for clip in clips]
    beyond = request(saved(tmp_path / "beyond.wav", SENTENCES[0]), ASK)
    large = [request(saved(tmp_path / f"large{i}.wav", SENTENCES[i]), ASK) for i in range(2)]
    with LocalEngine(resolve("demo"), device="cpu") as engine:
        expected = answers(engine, *asked)
    folders = partial(Path(tempfile.gettempdir()).glob, "phi4mm-media-*")
    before = {*folders()}
    with on_ray(ClusterOptions(workers=1, ship_media=True)).open(Heard()) as engine:
        for one in asked:
            engine._parcels([one])  # type: ignore[attr-defined]
            Path(one.clips[0].source.path).unlink()
        Path(beyond.clips[0].source.path).unlink()
        for one in (*asked, beyond):
            engine.submit(one)
        found: dict[str, Outcome] = {}
        while outcomes := engine.poll():
            found.update(outcomes)
        monkeypatch.setattr("phi4mm_cli.engines.cluster.SENT_BYTES", 1)  # one at a time, then
        for one in large:
            engine.submit(one)
        assert [len(engine.poll()) for _ in (*large, None)] == [1, 1, 0]
    failure = found.pop(beyond.key)
    assert isinstance(failure, RequestError)
    assert failure.message == f"{tmp_path / 'beyond.wav'} could not be read when it was to be sent"
    assert found == expected
    assert before >= {*folders()}


def test_what_was_sent_is_let_go_of(cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little of the object store is taken, by bytes as by files; what is asked about now is always there."""
    from phi4mm_cli.engines import cluster as engines

    asked = [request(saved(tmp_path / f"{i}.wav", SENTENCES[0]), ASK) for i in range(6)]
    size = asked[0].sources[0].size
    asked.append(request(saved(tmp_path / "long.wav", SENTENCES[0] * 8), ASK))
    monkeypatch.setattr(engines, "SENT_BYTES", 2 * size)
    with on_ray(ClusterOptions(ship_media=True)).open(Silence()) as engine:
        assert isinstance(engine, engines.ClusterEngine)
        kept = []
        for one in asked:
            assert [*engine._parcels([one])] == [*one.sources]
            kept.append([Path(source.path).stem for source in engine._sent])
        assert kept == [["0"], ["0", "1"], ["1", "2"], ["2", "3"], ["3", "4"], ["4", "5"], ["long"]]
        assert [len(engine._at_once(asked[first:])) for first in (0, 5, 6)] == [2, 1, 1]
        monkeypatch.setattr(engines, "SENT_FILES", 1)
        assert engine._parcels([asked[0]]).keys() == engine._sent.keys() == {*asked[0].sources}


@pytest.mark.slow
def test_a_node_that_goes_down_loses_nothing_and_doubles_nothing(phi4mm: Phi4mm, tmp_path: Path) -> None:
    """Three nodes transcribe a directory, and one of them is killed when the first results are there."""
    ask, out = transcribed_here(phi4mm, tmp_path, 36), tmp_path / "out"
    with of_nodes(3) as cluster:
        nodes = [*cluster.worker_nodes]
        arguments = [*ask, "-o", out, "--engine", "ray", "--address", cluster.address, "--batch-size", 2]
        run = subprocess.Popen(
            [sys.executable, "-m", "phi4mm_cli", *map(str, arguments)], stderr=subprocess.PIPE, encoding="utf-8"
        )
        try:
            wait_for(lambda: [*out.glob("*.json")], run)
            [raylet] = nodes[0].all_processes["raylet"]
            on_node = [child for child in psutil.Process(raylet.process.pid).children() if "Actor" in child.name()]
            assert on_node
            cluster.remove_node(nodes[0], allow_graceful=False)
            _, said = run.communicate(timeout=PATIENCE)
        finally:
            run.kill()
    assert run.returncode == 0, said
    assert "others take what it had in hand" in said
    assert results(out, 36) == results(tmp_path / "local", 36)


@pytest.mark.slow
def test_a_cluster_that_this_machine_is_no_part_of(phi4mm: Phi4mm, tmp_path: Path) -> None:
    """It is reached by Ray's client, and files are sent to it. Its head node falls silent in the next run."""
    ask = transcribed_here(phi4mm, tmp_path, 12)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with of_nodes(1, ray_client_server_port=port) as cluster:
        address = f"ray://{cluster.head_node.node_ip_address}:{port}"
        wait_for(lambda: is_open(address.removeprefix("ray://")))
        ask += ("--batch-size", 2, "--engine", "ray", "--address", address, "--ship-media")
        run = phi4mm(*ask, "-o", tmp_path / "out", env=RAY, timeout=PATIENCE)
        assert run.returncode == 0, run.stderr
        assert results(tmp_path / "out", 12) == results(tmp_path / "local", 12)

        [head] = cluster.head_node.all_processes["ray_client_server"]
        again = subprocess.Popen(
            [sys.executable, "-m", "phi4mm_cli", *map(str, ask), "-o", str(tmp_path / "again")],
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            wait_for(lambda: [*(tmp_path / "again").glob("*.json")], again)
            os.kill(head.process.pid, signal.SIGSTOP)
            again.send_signal(signal.SIGINT)
            said = next(line for line in again.stderr or () if "Ctrl-C again ends it at once" in line)
            again.send_signal(signal.SIGINT)
            said += again.communicate(timeout=PATIENCE)[1]
        finally:
            os.kill(head.process.pid, signal.SIGCONT)
            again.kill()
    assert again.returncode == 130, said
    assert "Traceback" not in said


def transcribed_here(phi4mm: Phi4mm, folder: Path, count: int) -> tuple[object, ...]:
    """The command that transcribes `count` new files, after it was run without a cluster, into `local`."""
    (folder / "clips").mkdir()
    for i in range(count):
        saved(folder / "clips" / f"{i:02}.wav", SENTENCES[i % 5], SENTENCES[i % 3])
    ask = ("transcribe", folder / "clips", "-m", "demo", "--json", "--no-vad")
    local = phi4mm(*ask, "-o", folder / "local", "--device", "cpu", timeout=600)
    assert local.returncode == 0, local.stderr
    return ask


@contextmanager
def of_nodes(count: int, **head: Any) -> Iterator[Any]:
    """A cluster of so many nodes on this machine, which this process is no part of."""
    from ray.cluster_utils import Cluster

    each = {"num_cpus": 1, "object_store_memory": 100 << 20}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in RAY.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args=each | head)
        try:
            for _ in range(count - 1):
                cluster.add_node(**each)
            yield cluster
        finally:
            cluster.shutdown()


def is_open(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except OSError:
        return False
    return True


def results(folder: Path, count: int) -> dict[str, Any]:
    """What the files say, but for how it came about."""
    found = {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert len(found) == count
    return {name: {**content, "model": None, "timings": None} for name, content in found.items()}
