"""Programs at work beside a test: begun, held where the test wants them, waited for and stopped.

What is waited for is an event, never a time: it comes late on a slow machine, and is not missed on a fast one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROGRAM = str(Path(__file__).with_name("faulty_program.py"))
PATIENCE = 900.0  # seconds; reached only where something hangs


def begun(folder: Path, *arguments: object, hold: int | None = None, **faults: float) -> subprocess.Popen[str]:
    """The program in `folder`, in a session of its own, with an engine that has these faults.

    It gives no more than `hold` answers until `let_go`.
    """
    (folder / "faults.json").write_text(json.dumps(faults), encoding="utf-8")
    if hold is not None:
        (folder / "hold").write_text(str(hold), encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-u", PROGRAM, "faults.json", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PHI4MM_CONFIG": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
        bufsize=1,
    )


def let_go(folder: Path) -> None:
    """Have the program that is held go on."""
    (folder / "hold").unlink()


def wait_for(happened: Callable[[], object], run: subprocess.Popen[str] | None = None) -> None:
    """Until it has happened, which is to be while `run` is at work."""
    until = time.monotonic() + PATIENCE
    while not happened():
        assert run is None or run.poll() is None, f"the program has ended, with {run.returncode}"
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.01)


def said_of_stopping(run: subprocess.Popen[str], number: signal.Signals) -> str:
    """The line with which a run answers its first signal."""
    assert run.stderr is not None
    run.send_signal(number)
    line = run.stderr.readline()
    assert "finishing" in line and "ends it at once" in line, line
    return line


def stop_at_once(run: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a run says that gets the signal, and gets it again if there is an input in hand that it would finish."""
    assert run.stderr is not None
    run.send_signal(number)
    said = last = ""
    while line := run.stderr.readline():
        said += line
        if "finishing" in line and "finishing what is written" not in line:
            run.send_signal(number)
            last = "; finished outputs are kept\n"
    run.communicate(timeout=PATIENCE)
    assert said.endswith(last), said
    return said
