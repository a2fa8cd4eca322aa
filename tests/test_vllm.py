"""A real vLLM server on the CPU, which serves the demo through the folder that we write, with both adapters.

The environment variable PHI4MM_VLLM names a virtual environment with vLLM, which phi4mm's own need not have. The only
thing in it that is not vLLM's own is the size of the vision tower (`vllm_plugin/`, for tests only). The demo has no
adapters and has not learnt to see, so adapters and what is seen are random here: the tokens are what is compared.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import Phi4mm
from PIL import Image
from test_local_engine import ASK
from tiny_model import write_adapter

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import DEMO_FOLDER, resolve
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Result, Sampling

VLLM = os.environ.get("PHI4MM_VLLM")
MEETING = SAMPLES / "meeting.flac"
STARTING_SECONDS = 1200.0  # three processes import torch and vLLM

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(VLLM is None, reason="PHI4MM_VLLM names no virtual environment with vLLM"),
]


@dataclass(frozen=True)
class Served:
    """A server, and the checkpoint that it serves as phi4mm has it."""

    url: str
    checkpoint: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("vllm")
    checkpoint = folder / "demo"
    shutil.copytree(DEMO_FOLDER, checkpoint)
    for name in ("speech", "vision"):
        if not (checkpoint / f"{name}-lora").exists():
            _add_adapter(checkpoint, name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "phi4mm_cli"]
    subprocess.run([*command, "models", "convert", checkpoint, folder / "served", "--to", "vllm"], check=True)
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
            yield Served(f"http://127.0.0.1:{port}/v1", checkpoint)
        finally:
            server.terminate()
            server.wait(60)


def _add_adapter(checkpoint: Path, name: str) -> None:
    """A random one, faint enough for answers in words."""
    write_adapter(checkpoint, name=name)
    settings = checkpoint / f"{name}-lora" / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"lora_alpha": 0.1}))


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


def asked(served: Served, model: str, text: str, *media: dict[str, Any]) -> tuple[str, int]:
    """The server's answer, and how many tokens the prompt had."""
    body = {"model": model, "temperature": 0, "max_tokens": 60}
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": text}, *media]}]
    message = urllib.request.Request(
        f"{served.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(message, timeout=300) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        pytest.fail(error.read().decode()[:1000])
    return found["choices"][0]["message"]["content"], found["usage"]["prompt_tokens"]


def local(checkpoint: str, *parts: Part) -> tuple[str, int]:
    with LocalEngine(resolve(checkpoint), device="cpu") as engine:
        engine.submit(Request((Message("user", parts),), Sampling(60)))
        [(_, result)] = engine.poll()
    assert isinstance(result, Result), result
    return result.text, result.prompt_tokens


def sound(start: int, end: int) -> dict[str, Any]:
    """A part of the sample as a server takes it."""
    samples, rate = soundfile.read(MEETING, start=start * 16000, stop=end * 16000, dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def test_text_and_sound_of_the_model_itself(served: Served) -> None:
    assert asked(served, "demo", "Where is the red boat?") == local("demo", "Where is the red boat?")
    clip = Clip(audio.source(MEETING), 0, 8)
    answer = asked(served, "demo", f"<|audio_1|>{ASK}", sound(0, 8))
    assert answer == local("demo", clip, ASK)
    assert len(answer[0].split()) > 10


def test_both_adapters(served: Served, tmp_path: Path) -> None:
    """A picture that fills its crops: vLLM does not mask those that are filled up."""
    clip = Clip(audio.source(MEETING), 8, 15)
    heard = asked(served, "speech", f"<|audio_1|>{ASK}", sound(8, 15))
    assert heard == local(str(served.checkpoint), clip, ASK)
    Image.effect_mandelbrot((448, 448), (-2, -1.5, 1, 1.5), 60).convert("RGB").save(tmp_path / "seen.png")
    data = base64.b64encode((tmp_path / "seen.png").read_bytes()).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    seen = asked(served, "vision", "<|image_1|>What is this?", part)
    picture = Picture(audio.source(tmp_path / "seen.png"))
    assert seen == local(str(served.checkpoint), picture, "What is this?")


def test_transcribe_through_the_server(served: Served, phi4mm: Phi4mm) -> None:
    """The whole sample on the command line."""
    ask = ("transcribe", MEETING, "--chunk-seconds", 15)
    here = phi4mm(*ask, "-m", served.checkpoint, "--device", "cpu")
    there = phi4mm(*ask, "--engine", "openai", "--url", served.url)
    assert (here.returncode, there.returncode) == (0, 0), here.stderr + there.stderr
    assert there.stdout == here.stdout
    assert len(here.stdout.split()) > 40
