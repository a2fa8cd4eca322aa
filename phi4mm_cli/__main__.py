"""The program: runs the command line, and turns errors into messages and exit codes. Nothing else ends the process."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import NoReturn

from phi4mm_cli import console, stopping
from phi4mm_cli.cli import app
from phi4mm_cli.errors import ExitCode, Phi4Error


def main() -> NoReturn:
    """Run `phi4mm` with the arguments of the process."""
    stopping.watch()
    if isinstance(sys.stdout, TextIOWrapper):  # for help; results are UTF-8 wherever they go
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="phi4mm")
    except Phi4Error as error:
        console.say(str(error), "error")
        sys.exit(error.exit_code)
    sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
