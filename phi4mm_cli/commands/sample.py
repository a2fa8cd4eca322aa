"""`phi4mm sample`: the sample recording that comes with the package, copied to where you are."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import console
from phi4mm_cli.errors import UsageError

SAMPLES = Path(__file__).parents[1] / "demo" / "samples"


def command(
    folder: Annotated[Path, typer.Argument(help="Where to.")] = Path(),
) -> None:
    """Copy the sample recording, with its reference text and times, into a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        copies = []
        for sample in sorted(SAMPLES.iterdir()):
            target = folder / sample.name
            if target.exists() and target.read_bytes() != sample.read_bytes():
                raise UsageError(f"{target} exists and is another file", "Remove it, or name another folder")
            copies.append(shutil.copyfile(sample, target))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None
    with console.results() as stdout:
        stdout.writelines(f"{copy}\n" for copy in copies)
