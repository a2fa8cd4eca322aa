"""The program: runs the command line, and turns errors into messages and exit codes. Nothing else ends the process."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from phi4mm_cli import console
from phi4mm_cli.cli import app
from phi4mm_cli.errors import ExitCode, Phi4Error

_STOPPED = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


def main() -> NoReturn:
    """Run `phi4mm` with the arguments of the process."""
    for number in _STOPPED:
        signal.signal(number, _stop)
    try:
        app(prog_name="phi4mm")
    except Phi4Error as error:
        console.say(str(error), "error")
        sys.exit(error.exit_code)
    sys.exit(ExitCode.OK)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    """End the run where it is: `finally` blocks run, finished outputs stay."""
    code = _STOPPED[signal.Signals(number)]
    console.say(f"{code.name.lower()}; finished outputs are kept")
    sys.exit(code)


if __name__ == "__main__":
    main()
