"""How long `phi4mm --help` and each `phi4mm COMMAND --help` take, beside a Typer app of two small commands.

    python benchmarks/startup.py [RUNS]
    taskset -c 0,1 python benchmarks/startup.py --request [RUNS]

Runs take turns, so that a machine whose speed drifts is fair to both; medians and their ratio are printed. With
`--request` it is a question to the demo instead, step by step, and beside the seconds there are those of the processor,
which a busy machine hardly changes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REFERENCE = '''
import typer

app = typer.Typer()


@app.command()
def add(first: int, second: int = 1) -> None:
    """Add two numbers."""
    typer.echo(first + second)


@app.command()
def greet(name: str, loud: bool = False) -> None:
    """Greet somebody."""
    typer.echo(name.upper() if loud else name)


app()
'''
# A question, as `phi4mm chat` asks it; after each step the seconds of the clock and of the processor.
QUESTION = """
import json, resource, sys, time
began = float(sys.argv[1])
def step(name):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([name, time.time() - began, usage.ru_utime + usage.ru_stime]))
from phi4mm_cli.engines.importing import import_quickly
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Message, Request, Sampling
step("phi4mm")
import_quickly("torch")
step("torch")
import_quickly("transformers.models.phi4_multimodal.modeling_phi4_multimodal")
step("transformers")
import_quickly("phi4mm_cli.model.generate")
step("the rest")
with LocalEngine(resolve("demo")) as engine:
    answer = engine.stream(Request((Message("user", ("What is two plus three?",)),), Sampling(max_new_tokens=20)))
    first = next(answer)
    step("loading, and the first words")
    list(answer)
    step("the answer")
"""
COMMANDS = ("transcribe", "models", "sample", "schema")


def seconds(command: list[str]) -> float:
    """Wall-clock seconds of a process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def compare(ours: list[str], reference: list[str], runs: int) -> tuple[float, float]:
    """The median seconds of both commands."""
    pairs = [(seconds(ours), seconds(reference)) for _ in range(runs + 1)][1:]  # the first pair warms the caches
    return statistics.median(pair[0] for pair in pairs), statistics.median(pair[1] for pair in pairs)


def question() -> dict[str, tuple[float, float]]:
    """Seconds of the clock and of the processor that each step of a question took, and all of them together."""
    command = [sys.executable, "-c", QUESTION, str(time.time())]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    taken: dict[str, tuple[float, float]] = {}
    before = (0.0, 0.0)
    for name, clock, processor in map(json.loads, run.stdout.splitlines()):
        taken[name] = (clock - before[0], processor - before[1])
        before = (clock, processor)
    return taken | {"all": before}


def ask(runs: int) -> None:
    """Print a line a step: the least of the runs."""
    found = [question() for _ in range(runs)]
    print(f"{'':30}{'clock':>9}{'processor':>12}")
    for name in found[0]:
        clock, processor = (min(one[name][kind] for one in found) for kind in (0, 1))
        print(f"{name:30}{clock:7.2f} s{processor:10.2f} s")


def main() -> None:
    """Compare, and print a line a command."""
    words = [word for word in sys.argv[1:] if word != "--request"]
    if len(words) < len(sys.argv) - 1:
        ask(int(words[0]) if words else 3)
        return
    runs = int(words[0]) if words else 15
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "reference.py"
        script.write_text(REFERENCE, encoding="utf-8")
        for command in ((), *((name,) for name in COMMANDS)):
            ours = [sys.executable, "-m", "phi4mm_cli", *command, "--help"]
            reference = [sys.executable, str(script), *(("greet",) if command else ()), "--help"]
            own, other = compare(ours, reference, runs)
            name = " ".join(("phi4mm", *command, "--help"))
            print(f"{name:28} {own * 1000:6.0f} ms   two-command app {other * 1000:6.0f} ms   ratio {own / other:.2f}")


if __name__ == "__main__":
    main()
