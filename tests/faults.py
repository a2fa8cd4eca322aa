"""What a batch survives: `python tests/faults.py [NAME ...] [--small]` injects faults into runs, and prints a table.

Each case works in a folder of its own, with an engine that needs no model (`faulty_program.py`), and tells what was
seen; it fails where that is not what a run promises: every output whole, none lost, the reason told.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

PROGRAM = Path(__file__).with_name("faulty_program.py")
FORMATS = ("srt", "vtt", "txt", "json")
RATE = 8000


class SkippedError(Exception):
    """This machine does not let the fault be injected."""


# ------------------------------------------------------------------------------------------ runs


@dataclass
class Ran:
    code: int
    stderr: str

    @property
    def last(self) -> str:
        return self.stderr.splitlines()[-1] if self.stderr else ""


@dataclass
class Batch:
    """Recordings in a folder of their own, and runs over them."""

    home: Path
    faults: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    @property
    def rec(self) -> Path:
        return self.home / "rec"

    @property
    def out(self) -> Path:
        return self.home / "out"

    def record(self, count: int, seconds: float = 0.5) -> None:
        for number in range(count):
            path = self.rec / f"{number % 7}" / f"{number:05}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound(seconds * (1 + number % 3), number), RATE)

    def start(self, *more: str, **faults: Any) -> subprocess.Popen[str]:
        spec = self.home / f"faults-{random.randrange(1 << 30)}.json"
        spec.write_text(json.dumps(self.faults | faults), encoding="utf-8")
        inputs = () if "--files-from" in more else ("rec",)
        out = () if "-o" in more else ("-o", "out")
        command = [sys.executable, PROGRAM, spec, "transcribe", *inputs, *out, "--no-vad", *self.arguments, *more]
        return subprocess.Popen(
            [*map(str, command)],
            cwd=self.home,
            env=os.environ | {"PHI4MM_CONFIG": ""},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )

    def hold(self, answers: int) -> None:
        """The engine gives no more than these until `let_go`."""
        (self.home / "hold").write_text(str(answers), encoding="utf-8")

    def let_go(self) -> None:
        (self.home / "hold").unlink()

    def run(self, *more: str, **faults: Any) -> Ran:
        process = self.start(*more, **faults)
        _, stderr = process.communicate(timeout=1800)
        return Ran(process.returncode, stderr)

    def written(self, out: Path | None = None) -> dict[str, str]:
        """Every output, but for what differs between any two runs."""
        out = out or self.out
        return {str(path.relative_to(out)): content(path) for path in visible(out)}


def sound(seconds: float, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype("float32")


def visible(out: Path) -> list[Path]:
    """The outputs that people see: no file or folder with a dot in front."""
    found = []
    for where, folders, names in os.walk(out):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return found


def content(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".json":
        return text
    document = json.loads(text)
    document.pop("timings")
    return json.dumps(document)


def left_over(out: Path) -> list[str]:
    """Temporary files."""
    return [str(path) for path in out.rglob("*.part")]


@contextmanager
def watched(batch: Batch, expected: dict[str, str]) -> Iterator[list[str]]:
    """Reads every output again and again, and notes those that are not what they should be."""
    wrong: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for path in visible(batch.out):
                name = str(path.relative_to(batch.out))
                try:
                    if expected.get(name) != content(path):
                        wrong.append(name)
                except ValueError:
                    wrong.append(name)
            over.wait(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join()


def failures(batch: Batch) -> dict[str, str]:
    """Reasons, by the name of the input, of the latest run."""
    found: dict[str, str] = {}
    for line in (batch.out / ".phi4mm" / "journal.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "failed":
            found[event["name"]] = event["error"]["message"]
        elif event["event"] == "done":
            found.pop(event["name"], None)
    return found


# ------------------------------------------------------------------------------------------ the cases


def killed(home: Path, small: bool) -> str:
    """SIGKILL at random moments, and the same command again"""
    files, kills = (12, 3) if small else (200, 50)
    batch = Batch(home, {"seconds": 0.05}, ("--chunk-seconds", "1", "-f", ",".join(FORMATS)))
    batch.record(files, 0.9)
    undisturbed = batch.run("-o", "expected", count="expected.keys", seconds=0)
    assert undisturbed.code == 0, undisturbed.stderr
    expected = batch.written(home / "expected")
    assert len(expected) == len(FORMATS) * files
    hit, chance, journal = 0, random.Random(8), batch.out / ".phi4mm" / "journal.jsonl"
    with watched(batch, expected) as wrong:
        for number in range(kills):
            runs = events(journal, "run")
            process = batch.start(count="keys")
            while number % 5 and events(journal, "run") == runs and process.poll() is None:
                time.sleep(0.01)  # until it is at work; each fifth is killed while it starts
            time.sleep(chance.uniform(0, 0.6))
            hit += process.poll() is None
            process.kill()
            process.communicate()
        last = batch.run(count="keys")
        assert last.code == 0, last.stderr
    assert not wrong, f"seen half-written: {sorted(set(wrong))[:5]}"
    assert batch.written() == expected
    asked = Counter((home / "keys").read_text(encoding="utf-8").split())
    needed = len(set((home / "expected.keys").read_text(encoding="utf-8").split()))
    repeated = sum(asked.values()) - needed
    assert repeated <= kills * 6, f"{repeated} answers were asked for again"
    return (
        f"{files} files killed {hit} times: {len(expected)} outputs as undisturbed, none half-done; "
        f"{repeated} of {needed} answers asked for again; {len(left_over(batch.out))} temporary files left"
    )


def events(journal: Path, kind: str) -> int:
    return journal.read_bytes().count(f'"event":"{kind}"'.encode()) if journal.exists() else 0


def disk_full(home: Path, small: bool) -> str:
    """The disk of the outputs is full, and then is not"""
    batch = Batch(home, {"seconds": 0.005}, ("-f", "txt,json"))
    batch.record(30 if small else 120)
    with tmpfs(batch.out, "200k" if small else "500k") as grow:
        first = batch.run()
        assert first.code == 1 and "No space left" in first.stderr, (first.code, first.stderr[-500:])
        for path in visible(batch.out):
            content(path)
        some = len(visible(batch.out))
        grow("20m")
        second = batch.run()
        assert second.code == 0, second.stderr
        found = batch.written()
    assert batch.run("-o", "expected").code == 0
    assert found == batch.written(home / "expected")
    return f"exit code 1, {first.last!r}; {some} outputs, all whole; with more room the rest is done"


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        raise SkippedError("no file system can be mounted here")

    def again(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield lambda size: again(size if size in ("ro", "rw") else f"size={size}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def files_too_large(home: Path, small: bool) -> str:
    """No file may grow beyond a limit of the shell's (ulimit -f): outputs and journal"""
    batch = Batch(home, {}, ("-f", "json"))
    batch.record(20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, hard))
    try:
        first = batch.run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert first.code in (1, 2, 3, 4) and "Traceback" not in first.stderr, first.stderr[-800:]
    for path in visible(batch.out):
        content(path)
    second = batch.run()
    assert second.code == 0, second.stderr
    assert len(visible(batch.out)) == 20
    return f"exit code {first.code}, {first.last!r}; without the limit all are done"


def permission_lost(home: Path, small: bool) -> str:
    """The output folder may not be written any more, half-way"""
    batch = Batch(home)
    batch.record(30)

    def half_way(lose: Callable[[], None]) -> Ran:
        batch.hold(10)
        process = batch.start()
        wait_for(lambda: len(visible(batch.out)) > 3)
        lose()
        batch.let_go()
        _, stderr = process.communicate(timeout=1800)
        return Ran(process.returncode, stderr)

    try:
        first = half_way(lambda: forbid(batch.out))
        some = len(visible(batch.out))
    finally:
        forbid(batch.out, again=True)
    second = batch.run()
    count = len(visible(batch.out))
    assert first.code in (1, 3) and "Traceback" not in first.stderr, (first.code, first.stderr[-800:])
    assert (second.code, count) == (0, 30), second.stderr
    return f"exit code {first.code} after {some} outputs, {first.last!r}; again: all done"


def forbid(out: Path, again: bool = False) -> None:
    """Take the permission to write to the folders of the outputs, or give it back."""
    for folder in (path for path in out.iterdir() if not path.name.startswith(".")):
        if os.geteuid():
            folder.chmod(0o700 if again else 0o500)
        elif subprocess.run(["chattr", "-i" if again else "+i", str(folder)], capture_output=True).returncode:
            raise SkippedError("root may write everywhere on this file system")


def inputs_lost(home: Path, small: bool) -> str:
    """Inputs are deleted, truncated and replaced while the run is on"""
    batch = Batch(home, {}, ("-f", "json"))
    batch.record(21)
    names = sorted(batch.rec.rglob("*.wav"))
    batch.hold(6)
    process = batch.start()
    wait_for(lambda: len(visible(batch.out)) > 1)
    deleted, truncated, replaced = names[-1], names[-2], names[-3]
    deleted.unlink()
    os.truncate(truncated, 3000)
    shutil.copy(names[0], replaced)
    batch.let_go()
    _, stderr = process.communicate(timeout=1800)
    found = failures(batch)
    known = {str(path.relative_to(batch.rec)): path for path in (deleted, truncated, replaced)}
    told = {name: found.get(name) or warned(batch, name) for name in known}
    assert told[str(deleted.relative_to(batch.rec))], stderr
    assert told[str(truncated.relative_to(batch.rec))], stderr
    assert process.returncode == 3 and len(visible(batch.out)) >= 18, stderr
    assert set(found) <= set(known)
    return "; ".join(
        f"{['deleted', 'truncated', 'replaced'][i]}: {why or 'as it is now'}" for i, why in enumerate(told.values())
    )


def warned(batch: Batch, name: str) -> str:
    document = json.loads((batch.out / name).with_suffix(".json").read_text(encoding="utf-8"))
    return ", ".join(warning["message"] for warning in document["warnings"])


def names(home: Path, small: bool) -> str:
    """Names of 255 bytes, with newlines, dashes, emoji, bytes that are no UTF-8"""
    batch = Batch(home, {}, ("-f", "txt,srt"))
    batch.rec.mkdir()
    odd = [
        b"x" * 251,
        b"new\nline",
        b"-dash",
        b"--help",
        "émoji 🎙".encode(),
        b"caf\xe9",
        b"caf\xe8",
        b"a b ' \" \\ `x`",
    ]
    odd += [b"tab\t\x1b[31mred", b"dots...", b"CON", "e\u0301".encode(), b"%s{0}[bold]", b"$HOME", b"~", b"#1", b"*"]
    recording = home / "sound.wav"
    soundfile.write(recording, sound(0.5, 1), RATE)
    for name in odd:
        shutil.copy(recording, os.fsencode(batch.rec) + b"/" + name + b".wav")
    first = batch.run()
    assert first.code == 0, first.stderr
    found = {os.fsencode(path.name) for path in visible(batch.out)}
    assert found == {name + suffix for name in odd for suffix in (b".txt", b".srt")}
    assert "\x1b" not in first.stderr
    again = batch.run()
    assert f"{len(odd)} done before" in again.last, again.stderr
    listed = home / "list"
    listed.write_bytes(b"\0".join(b"rec/" + name + b".wav" for name in odd))
    third = batch.run("--files-from", "list", "-0", "-o", "listed")
    assert third.code == 0, third.stderr
    assert len(visible(home / "listed")) == 2 * len(odd)
    shutil.copy(recording, batch.rec / ("y" * 251 + ".wav"))
    long = batch.run("-f", "json")  # 256 bytes
    [said] = [line for line in long.stderr.splitlines() if "yyy" in line]
    assert long.code == 3 and "would have 256 bytes" in said, long.stderr[-800:]
    assert len([*batch.out.glob("*.json")]) == len(odd) - 1  # nor does that of 251 letters fit
    told = said.replace("y" * 251, "y...")
    return f"{len(odd)} names, from a folder and from a list: all done, and known again; of 256 bytes: {told!r}"


def broken(home: Path, small: bool) -> str:
    """Files that are broken, each in another way, among good ones"""
    batch = Batch(home, {}, ("-f", "json", "--chunk-seconds", "1"))
    batch.record(60 if small else 970, 0.3)
    ways = break_files(batch.rec / "broken")
    ran = batch.run()
    assert ran.code == 3, ran.stderr[-2000:]
    assert "Traceback" not in ran.stderr, ran.stderr[-3000:]
    reasons = failures(batch)
    told = {way: reasons.get(f"broken/{way}") or warned(batch, f"broken/{way}") for way in ways}
    silent = [way for way, reason in told.items() if not reason]
    assert not silent, f"nothing is said of {silent}"
    good = len(visible(batch.out)) - sum(f"broken/{way}" not in reasons for way in ways)
    assert good == (60 if small else 970), good
    failed = sum(f"broken/{way}" in reasons for way in ways)
    return f"{len(ways)} broken: {failed} failed, {len(ways) - failed} read in part with a warning; {good} others done"


def break_files(folder: Path) -> list[str]:
    """Files that are broken, and their names."""
    folder.mkdir()
    samples = sound(4.0, 1)
    whole = {}
    formats = {"wav": "WAV", "flac": "FLAC", "aiff": "AIFF", "caf": "CAF", "au": "AU", "w64": "W64"}
    forms = [(suffix, format, "PCM_16") for suffix, format in formats.items()]
    for suffix, format, subtype in (*forms, ("ogg", "OGG", "VORBIS"), ("mp3", "MP3", None), ("opus", "OGG", "OPUS")):
        path = folder / f"whole.{suffix}"
        soundfile.write(path, samples, RATE, format=format, subtype=subtype)
        whole[suffix] = path.read_bytes()
        path.unlink()
    made: dict[str, bytes] = {f"half-{suffix}.{suffix}": data[: len(data) // 2] for suffix, data in whole.items()}
    made |= {f"head-{suffix}.{suffix}": data[:20] for suffix, data in whole.items()}
    made |= {
        "empty.wav": b"",
        "one-byte.wav": b"R",
        "zeros.wav": bytes(5000),
        "text.wav": b"This is not a recording.\n" * 50,
        "html.mp3": b"<!DOCTYPE html><html><body>404</body></html>",
        "picture.m4a": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "zip.flac": b"PK\x03\x04" + bytes(200),
        "pdf.ogg": b"%PDF-1.7\n" + bytes(200),
        "noise.mp4": np.random.default_rng(1).bytes(5000),
        "hiss.mp3": np.random.default_rng(2).bytes(5000),
        "riff-only.wav": b"RIFF" + bytes(100),
        "no-data.wav": whole["wav"][:36] + b"data" + bytes(4),
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    (folder / "link.wav").symlink_to("nowhere")
    return [*made, "link.wav"]


def out_of_memory(home: Path, small: bool) -> str:
    """Requests that do not fit into memory, at random"""
    batch = Batch(home, {}, ("--chunk-seconds", "1"))
    batch.record(30 if small else 200, 0.9)
    first = batch.run(exhausted=0.1)
    assert first.code == 3 and "does not fit into memory" in first.stderr, first.stderr[-500:]
    some = len(visible(batch.out))
    second = batch.run()
    assert second.code == 0, second.stderr
    assert batch.run("-o", "expected").code == 0
    assert batch.written() == batch.written(home / "expected")
    return f"{some} of {len(batch.written())} files done; the others failed, by name, and are done by the next run"


def device_lost(home: Path, small: bool) -> str:
    """The GPU disappears"""
    batch = Batch(home, {}, ("--chunk-seconds", "1"))
    batch.record(30, 0.9)
    first = batch.run(lost_after=20)
    assert first.code == 1 and "the device is lost" in first.stderr, (first.code, first.stderr[-500:])
    assert "Traceback" not in first.stderr
    some = len(visible(batch.out))
    assert 0 < some < 30
    second = batch.run()
    assert second.code == 0, second.stderr
    assert len(visible(batch.out)) == 30
    return f"exit code 1, {first.last!r}; {some} outputs kept, the rest by the next run"


def worker_killed(home: Path, small: bool) -> str:
    """A process of --device cpu,cpu is killed, with the demo model"""
    batch = Batch(home)
    shutil.copytree(Path(__file__).parents[1] / "phi4mm_cli" / "demo" / "samples", home / "samples", dirs_exist_ok=True)
    batch.rec.mkdir()
    for number in range(3):
        shutil.copy(next((home / "samples").glob("*.flac")), batch.rec / f"{number}.flac")
    command = [sys.executable, "-m", "phi4mm_cli", "transcribe", "rec", "-m", "demo", "--batch-size", "2"]
    settings: dict[str, Any] = {"cwd": home, "env": os.environ | {"PHI4MM_CONFIG": ""}, "encoding": "utf-8"}
    subprocess.run([*command, "-o", "expected", "--device", "cpu"], check=True, capture_output=True, **settings)
    run = subprocess.Popen([*command, "-o", "out", "--device", "cpu,cpu"], stderr=subprocess.PIPE, **settings)
    workers: list[psutil.Process] = []
    wait_for(lambda: bool(workers.extend(_workers(run.pid))) or bool(workers) or run.poll() is not None)
    time.sleep(1.0)
    workers[0].kill()
    _, stderr = run.communicate(timeout=1800)
    assert run.returncode == 0, stderr
    assert batch.written() == batch.written(home / "expected")
    said = next(line for line in stderr.splitlines() if "ended" in line)
    return f"{len(batch.written())} files as on one device; said: {said!r}"


def _workers(pid: int) -> list[psutil.Process]:
    children = psutil.Process(pid).children(recursive=True)
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def long_recording(home: Path, small: bool) -> str:
    """One long recording, killed at three random moments"""
    minutes = 2 if small else 180
    batch = Batch(
        home, {"seconds": 0.1 if small else 0.05}, ("--chunk-seconds", "5" if small else "30", "-f", ",".join(FORMATS))
    )
    batch.rec.mkdir()
    with soundfile.SoundFile(batch.rec / "long.flac", "w", RATE, 1) as file:
        for minute in range(minutes):
            file.write(sound(60.0, minute))
    assert batch.run("-o", "expected", count="expected.keys", seconds=0).code == 0
    needed = len(set((home / "expected.keys").read_text().split()))
    chance, shares = random.Random(3), []
    keys = home / "keys"
    for _ in range(3):
        before = answers(keys)
        process = batch.start(count="keys")
        goal = before + chance.randint(2, needed // 4)
        while process.poll() is None and answers(keys) < goal:
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()
        process.communicate()
        shares.append(answers(keys) / needed)
    assert not visible(batch.out)
    last = batch.run(count="keys")
    assert last.code == 0, last.stderr
    assert batch.written() == batch.written(home / "expected")
    asked = answers(keys)
    assert asked - needed <= 3 * 6, f"{asked - needed} answers were asked for again"
    told = ", ".join(f"{share:.0%}" for share in shares)
    return f"{minutes} min killed at {told}: as undisturbed; {asked - needed} of {needed} answers asked for again"


def answers(keys: Path) -> int:
    return len(keys.read_text(encoding="utf-8").split()) if keys.exists() else 0


def two_runs(home: Path, small: bool) -> str:
    """Two runs at once on one folder"""
    batch = Batch(home)
    batch.record(20)
    batch.hold(0)  # until one of them has been refused
    both = [batch.start(), batch.start()]
    wait_for(lambda: any(process.poll() is not None for process in both))
    batch.let_go()
    ends = sorted((process.communicate(timeout=1800)[1], process.returncode) for process in both)
    codes = sorted(code for _, code in ends)
    refused = next(stderr for stderr, code in ends if code == 2) if 2 in codes else ""
    assert codes == [0, 2] and "process" in refused, ends
    assert len(visible(batch.out)) == 20
    return f"exit codes 0 and 2, {refused.strip()!r}"


def shards(home: Path, small: bool) -> str:
    """Eight shards at once"""
    batch = Batch(home)
    batch.record(60 if small else 200)
    count = 3 if small else 8
    running = [batch.start("--shard", f"{number}/{count}") for number in range(1, count + 1)]
    ends = [process.communicate(timeout=1800)[1] for process in running]
    assert [process.returncode for process in running] == [0] * count, ends
    done = Counter()
    for path in (batch.out / ".phi4mm").glob("journal*.jsonl"):
        events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        done.update(event["name"] for event in events if event["event"] == "done")
    files = 60 if small else 200
    assert len(done) == files and set(done.values()) == {1}
    assert len(visible(batch.out)) == files
    return f"{files} files, each done by one of {count} runs"


def many_files(home: Path, small: bool) -> str:
    """Very many tiny files"""
    count = 500 if small else 20000
    batch = Batch(home, {"room": 64, "at_once": 64}, ("--no-vad",))
    for number in range(count):
        path = batch.rec / f"{number % 100:02}" / f"{number:06}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number < 1:
            soundfile.write(path, sound(0.1, number), RATE)
        else:
            shutil.copy(batch.rec / "00" / "000000.wav", path)
    first, memory = measured(batch, journal="first")
    again, _ = measured(batch)
    empty = Batch(home / "empty", batch.faults, batch.arguments)
    empty.record(1)
    startup, alone = measured(empty)
    a_file, kept = 1000 * (again - startup) / count, 1000 * float((home / "first").read_text()) / count
    quarter, whole = memory[len(memory) // 4], max(memory)
    assert a_file + kept < (5.0 if small else 1.0), f"{a_file:.2f} and {kept:.2f} ms a file"
    flat = max(alone) if small else quarter
    assert whole < (1.0 if small else 1.5) * flat + 50e6, f"{flat / 1e6:.0f} MB, then {whole / 1e6:.0f} MB"
    return (
        f"{count} files: {1000 * (first - startup) / count:.2f} ms each with the echo engine, of which {kept:.2f} for "
        f"the journal, and {a_file:.2f} ms where all is done before; "
        f"{max(alone) / 1e6:.0f} MB for one, {quarter / 1e6:.0f} MB at a quarter, {whole / 1e6:.0f} MB at most"
    )


def measured(batch: Batch, **faults: Any) -> tuple[float, list[float]]:
    """Processor seconds of a run, and its memory in bytes from time to time."""
    memory = []
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = batch.start(**faults)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            memory.append(float(watched.memory_info().rss))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr[-1000:]
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime, memory


def wait_for(condition: Callable[[], bool], seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


CASES: tuple[Callable[[Path, bool], str], ...] = (
    killed, long_recording, disk_full, files_too_large, permission_lost, inputs_lost, names, broken, out_of_memory,
    device_lost, worker_killed, two_runs, shards, many_files,
)  # fmt: skip


def run(case: Callable[[Path, bool], str], small: bool) -> tuple[str, str]:
    """How a case ended, and what was seen."""
    with tempfile.TemporaryDirectory(prefix="phi4mm-faults-") as home:
        try:
            return "ok", case(Path(home), small)
        except SkippedError as reason:
            return "skipped", str(reason)
        except AssertionError as error:
            return "FAILED", str(error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help=", ".join(case.__name__ for case in CASES))
    parser.add_argument("--small", action="store_true", help="as in the test suite: seconds, not minutes")
    asked = parser.parse_args()
    failed = False
    for case in CASES:
        if asked.names and case.__name__ not in asked.names:
            continue
        began = time.monotonic()
        ending, seen = run(case, asked.small)
        failed |= ending == "FAILED"
        print(f"{case.__name__:16} {ending:8} {time.monotonic() - began:6.0f} s  {case.__doc__}")
        print(f"{'':34} {seen}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
