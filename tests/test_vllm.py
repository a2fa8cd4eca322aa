"""A real vLLM server on the CPU, which serves the demo through the folder that we write, with both adapters.

The environment variable PHI4MM_VLLM names a virtual environment with vLLM, which phi4mm's own need not have. The only
thing in it that is not vLLM's own is the size of the vision tower (`vllm_plugin/`, for tests only).
"""

from __future__ import annotations

import difflib
import json
import os
import random
import shlex
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from conftest import Phi4mm
from contract import Outcome, all_requests, answers, asked, drained, told

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.demo.voice import speak
from phi4mm_cli.demo.world import documents, pictures
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.engines.openai.engine import OpenAIEngine
from phi4mm_cli.errors import MissingError, RequestError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL, DEMO_FOLDER, resolve
from phi4mm_cli.schema import Request, Result

VLLM = os.environ.get("PHI4MM_VLLM")
MEETING = SAMPLES / "meeting.flac"
STARTING_SECONDS = 1800.0  # three processes import torch and vLLM
BEYOND = ("past the switch",)  # which takes more tokens than the server is started for
DRAWN = {"drawn by chance"}  # by vLLM's own generator
# What vLLM computes otherwise, or is asked otherwise, and how that is said.
_SCALED, _BESIDE = "lets the padding beside a picture be seen", "projects the sound beside a picture"
DIFFERENT = {
    "control tokens": "names of the model's control tokens",
    "a clip, and the name of one": "names of the model's control tokens",
    "letters of a call": "names of the model's control tokens",
    "what a tool said": "names of the model's control tokens",
    "without repeats": "does not know no_repeat_ngram_size",
    "beams": "does not know num_beams",
    "telephone": "hears telephone sound",
    "a picture": _SCALED,
    "turned": _SCALED,
    "the second page": _SCALED,
    "one crop": _SCALED,
    "two pictures": _SCALED,
    "both": _BESIDE,
    "both and words": _BESIDE,
    "sound, then sight": _BESIDE,
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VLLM is None, reason="PHI4MM_VLLM names no virtual environment with vLLM"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server."""
    folder = tmp_path_factory.mktemp("vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "phi4mm_cli"]
    subprocess.run([*command, "models", "convert", DEMO_FOLDER, folder / "served", "--to", "vllm"], check=True)
    line = [*command, "serve-command", str(folder / "served"), "--port", str(port)]
    words = shlex.split(subprocess.run(line, check=True, capture_output=True, encoding="utf-8").stdout)
    words = [word for word in words if not word.startswith("VLLM_")][1:]
    small = ["--enforce-eager", "--max-num-seqs", "4", "--skip-mm-profiling"]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [str(Path(str(VLLM)) / "bin" / "vllm"), *words, *small], env=_variables(folder), stdout=log, stderr=log
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", server, folder / "log.txt")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(60)


def _variables(folder: Path) -> dict[str, str]:
    vision = json.loads((DEMO_FOLDER / "config.json").read_text())["vision_config"]
    own = {
        "CUDA_VISIBLE_DEVICES": "",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_MODULES_CACHE": str(folder / "modules"),
        "OMP_NUM_THREADS": "2",
        "PHI4MM_THIN_TOWER": json.dumps(vision),
        "PYTHONPATH": str(Path(__file__).parent / "vllm_plugin"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_RPC_BASE_PATH": str(folder),
    }
    return os.environ | own


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    pytest.fail("vLLM did not start: " + log.read_text()[-3000:])


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Request]:
    found = all_requests(tmp_path_factory.mktemp("media"))
    return {name: request for name, request in found.items() if name not in BEYOND}


@pytest.fixture(scope="module")
def expected(requests: dict[str, Request]) -> dict[str, Outcome]:
    with LocalEngine(resolve("demo"), "cpu", "float32") as engine:
        return answers(engine, requests)


@pytest.fixture
def engine(served: str) -> Iterator[OpenAIEngine]:
    with OpenAIEngine([served], model=DEFAULT_MODEL, concurrency=4) as engine:
        yield engine


def test_the_contract_of_all_engines(
    engine: OpenAIEngine, requests: dict[str, Request], expected: dict[str, Outcome]
) -> None:
    """What vLLM computes otherwise is said with the answer; all else is the same, to the token."""
    found = answers(engine, requests)
    said = {
        name: outcome.remarks[0].message
        for name, outcome in found.items()
        if isinstance(outcome, Result) and outcome.remarks
    }
    assert said.keys() == DIFFERENT.keys()
    assert not [name for name, words in DIFFERENT.items() if words not in said[name]]
    alike = requests.keys() - DIFFERENT.keys() - DRAWN
    assert len(alike) >= 17
    assert {name: told(found[name], {"words"}) for name in alike} == {
        name: told(expected[name], {"words"}) for name in alike
    }


@pytest.mark.parametrize("case", ["two turns", "a clip", "a picture of whole crops", "a tool"])
def test_streams(engine: OpenAIEngine, requests: dict[str, Request], expected: dict[str, Outcome], case: str) -> None:
    pieces, result = drained(engine.stream(requests[case]))
    assert "".join(pieces) == result.text
    assert told(result, {"words"}) == told(expected[case], {"words"})


def test_errors_are_ours(engine: OpenAIEngine, served: str) -> None:
    found = answers(engine, {"long": asked("a " * 5000), "short": asked("a")})
    assert isinstance(found["long"], RequestError)
    assert found["long"].message.startswith("the prompt is too long for the server at ")
    assert isinstance(found["short"], Result)
    with OpenAIEngine([served], model="another") as wrong, pytest.raises(MissingError, match="does not serve"):
        assert wrong.profile


def both(phi4mm: Phi4mm, served: str, *arguments: object) -> tuple[str, str]:
    """What a command prints where the model runs here, and where it runs on the server."""
    here = phi4mm(*arguments, "-m", "demo", "--device", "cpu")
    there = phi4mm(*arguments, "--engine", "openai", "--url", served)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    return here.stdout, there.stdout


def test_transcribe(served: str, phi4mm: Phi4mm) -> None:
    """The whole sample."""
    here, there = both(phi4mm, served, "transcribe", MEETING, "--chunk-seconds", 15)
    assert there == here
    assert len(here.split()) > 40


def test_ocr(served: str, phi4mm: Phi4mm, tmp_path: Path) -> None:
    """A page that fills its crops: vLLM does not mask those that are filled up."""
    rng = random.Random(3)
    text = documents.page(rng)
    pictures.draw_text(text, rng).image.save(tmp_path / "page.png")
    here, there = (json.loads(printed) for printed in both(phi4mm, served, "ocr", "page.png", "--json", "-o", "-"))
    assert there["model"]["engine"] == "openai"
    for result in (here, there):
        del result["model"], result["timings"]
    assert there == here
    assert difflib.SequenceMatcher(None, here["text"], text).ratio() > 0.8


@pytest.mark.parametrize("aloud", [False, True])
def test_tools_call(served: str, phi4mm: Phi4mm, tmp_path: Path, aloud: bool) -> None:
    """Asked in writing, of the model itself; and aloud, of the speech adapter."""
    described = {"name": "get_weather", "description": "Get the weather in a city."}
    described["parameters"] = {"city": {"description": "The city.", "type": "str"}}  # type: ignore[assignment]
    (tmp_path / "tools.json").write_text(json.dumps([described]), encoding="utf-8")
    question = "What is the weather in Paris?"
    soundfile.write(tmp_path / "question.wav", speak(question, sample_rate=16000).samples, 16000)
    asked = ("--audio", "question.wav") if aloud else (question,)
    here, there = both(phi4mm, served, "tools", "call", *asked, "--tools", "tools.json")
    assert there == here
    assert json.loads(here) == [{"name": "get_weather", "arguments": {"city": "Paris"}}]
