"""How long `phi4mm --help` and each `phi4mm COMMAND --help` take, beside a Typer app of two small commands.

    python benchmarks/startup.py [RUNS]

Runs take turns, so that a machine whose speed drifts is fair to both; medians and their ratio are printed.
"""

from __future__ import annotations

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


def main() -> None:
    """Compare, and print a line a command."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
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
