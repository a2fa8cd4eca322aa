"""The three commands with a checkpoint of the released model's size, through the program: sizes, load time, memory.

    python benchmarks/loading.py --divide 1 --no-requests --folder /big/disk --keep  # makes it: 24 GB, random weights
    python benchmarks/full_size.py /big/disk/random-1-native /big/disk/random-1-original [--only chat] [--threads 2]

It runs on the CPU in bfloat16 and takes 13 GB of memory. The words are noise, as the weights are. Files are dropped
from the system's cache before each run, so that they are read from the disk, whose own speed is measured beside.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

ANSWER = 4  # tokens
REQUESTS = {
    "chat": ["chat", "What is two plus three?", "--no-history", "--verbose"],
    "transcribe": ["transcribe", "noise.wav", "--no-vad", "--verbose"],
    "describe": ["describe", "noise.png", "--crops", "1", "--verbose"],
}


def headers(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What each safetensors file says of its tensors, by their names.

    The original layout has its adapters in its shards, and beside them once more, where nobody reads them.
    """
    original = json.loads((folder / "config.json").read_text())["model_type"] == "phi4mm"
    for path in sorted(folder.glob("*.safetensors") if original else folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        yield path, header


def contents(folder: Path) -> tuple[str, int]:
    """The sizes of a checkpoint in words, and the bytes of its weights."""
    files = dict(headers(folder))
    tensors = [tensor for header in files.values() for tensor in header.values()]
    numbers = sum(math.prod(tensor["shape"]) for tensor in tensors)
    size = sum(tensor["data_offsets"][1] - tensor["data_offsets"][0] for tensor in tensors)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    found = f"{kind}: {len(files)} files, {len(tensors)} tensors, {numbers / 1e9:.3f} B numbers, {size / 1e9:.2f} GB"
    return found, size


def drop_from_cache(folder: Path) -> None:
    """Make the next one who reads these files wait for the disk."""
    for path, _ in headers(folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def disk_speed(folder: Path) -> float:
    """MB/s of reading the largest file from beginning to end."""
    drop_from_cache(folder)
    path = max((path for path, _ in headers(folder)), key=lambda path: path.stat().st_size)
    began, size = time.perf_counter(), 0
    with path.open("rb", buffering=0) as file:
        while block := file.read(1 << 24):
            size += len(block)
    return size / 1e6 / (time.perf_counter() - began)


def write_media(folder: Path) -> None:
    """Three seconds of noise, and a picture of one crop."""
    noise = random.Random(0)
    with wave.open(str(folder / "noise.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(noise.randbytes(2 * 48000))
    Image.frombytes("RGB", (448, 448), noise.randbytes(3 * 448 * 448)).save(folder / "noise.png")


def run(arguments: list[str], cwd: Path, environment: Mapping[str, str]) -> tuple[int, float, Any, str]:
    """Exit status, seconds, resources and the messages of one command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "phi4mm_cli", *arguments]
    with subprocess.Popen(command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        messages = child.stdout.read() if child.stdout else b""
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    return child.returncode, time.perf_counter() - began, usage, messages.decode(errors="replace")


def main() -> None:
    """Print what is in each checkpoint, then a line for each request to it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--only", default=",".join(REQUESTS), help="with commas")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args()
    print(f"python {shlex.join(sys.argv)}")
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {asked.threads} threads, Python {platform.python_version()}")
    print(names)
    environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads)}
    for folder in map(Path.absolute, asked.folders):
        found, size = contents(folder)
        print(f"\n{found}; the disk reads {disk_speed(folder):.0f} MB/s", flush=True)
        for name in asked.only.split(","):
            drop_from_cache(folder)
            with tempfile.TemporaryDirectory() as scratch:
                write_media(Path(scratch))
                arguments = [*REQUESTS[name], "--model", str(folder), "--max-new-tokens", str(ANSWER)]
                status, seconds, usage, messages = run(arguments, Path(scratch), environment)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            loaded = re.search(r"loaded the model in .*", messages)
            print(
                f"{name:10} exit {status}, {seconds:5.0f} s ({usage.ru_utime + usage.ru_stime:.0f} s of CPU), peak "
                f"{peak / 1e9:.2f} GB = {peak / size:.2f} times the weights; {loaded[0] if loaded else messages}",
                flush=True,
            )


if __name__ == "__main__":
    main()
