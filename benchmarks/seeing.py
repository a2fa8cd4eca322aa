"""What the demo checkpoint sees, asked as people ask: `phi4mm ocr` and `phi4mm describe`, with one loading of it.

    python benchmarks/seeing.py [--model demo] [--count 40] [SKILL...]

The cases are those of the demo's card, as many as it says, drawn from the same seed: pages, shapes and charts,
comparisons, spoken questions, videos. A score that is more than a point off the card's is a loss between the model and
the user, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

from phi4mm_cli import console, engine_options
from phi4mm_cli.cli import app
from phi4mm_cli.demo import exam, score
from phi4mm_cli.demo.exam.cases import Case, Skill, Studio
from phi4mm_cli.demo.exam.pictures import READING, SHAPES, Described, Read
from phi4mm_cli.engines import Engine, open_engine
from phi4mm_cli.errors import Phi4Error

SEED = 2026  # of the card
WITHIN = 1.0  # points


def main() -> None:
    """A row for each skill; ends with 1 where one is off the card's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("skills", nargs="*", help="parts of the names of skills")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--count", type=int, help="cases of each skill, where it is not the card's")
    parser.add_argument("--show", action="store_true", help="show the answers that are wrong, on stderr")
    chosen = parser.parse_args()
    card, off = score.card(), 0
    print("| Skill | Measure | Cases | Through the program | The card | Points off |\n|---|---|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory() as temporary,
        open_engine("local", chosen.model, None, "cpu", "auto", None) as one,
    ):
        os.environ |= {"PHI4MM_CONFIG": "", "XDG_STATE_HOME": temporary}
        lend(one)
        for number, skill in enumerate(exam.SKILLS):
            if skill not in (*SHAPES, *READING) or not named(skill, chosen.skills):
                continue
            cases, told = card.get(skill.name, (40, None))
            folder = Path(temporary) / str(number)
            folder.mkdir()
            drawn = [*islice(skill.cases(Studio(folder, SEED + 2 * number), False), chosen.count or cases)]
            began, answers = time.monotonic(), answered(drawn, folder)
            scored = score.score(skill.measure, drawn, answers)
            difference = None if told is None else abs(scored - told)
            off += difference is not None and difference > WITHIN
            cells = [skill.name, skill.measure, str(len(drawn)), f"{scored:.1f} %"]
            cells += ["", ""] if told is None else [f"{told:.1f} %", f"{difference:.1f}"]
            print(f"| {' | '.join(cells)} |", flush=True)
            print(f"{skill.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
            if chosen.show:
                score.show(drawn, answers)
    sys.exit(1 if off else 0)


def named(skill: Skill, parts: Sequence[str]) -> bool:
    """Whether one of the parts is in the skill's name, or there are none."""
    return not parts or any(part.lower() in skill.name.lower() for part in parts)


def lend(engine: Engine) -> None:
    """Have each command use this engine instead of one of its own."""

    def opened(*_: Any, **__: Any) -> AbstractContextManager[Engine]:
        return nullcontext(engine)

    engine_options.open_engine = opened


def answered(cases: Sequence[Case], folder: Path) -> list[str]:
    """What the program writes: about each question on stdout, of all pages in files of one run."""
    asked = [case.ask for case in cases]
    if all(isinstance(ask, Read) for ask in asked):
        pages = [Path(ask.source.path) for ask in asked if isinstance(ask, Read)]
        run(["ocr", *map(str, pages), "-o", str(folder / "out"), "-q"])
        return [written(folder / "out" / f"{page.stem}.md") for page in pages]
    return [run([*ask.command, "-q"]) for ask in asked if isinstance(ask, Described)]


def written(path: Path) -> str:
    """What is in the file of a page; nothing where there is none."""
    return path.read_text(encoding="utf-8").removesuffix("\n") if path.exists() else ""


def run(arguments: Sequence[str]) -> str:
    """What `phi4mm ARGUMENTS` writes to stdout. What it fails with is told."""
    with tempfile.TemporaryFile() as file:
        with stdout_into(file.fileno()):
            try:
                app(list(arguments), prog_name="phi4mm")
            except SystemExit:
                pass
            except Phi4Error as error:
                console.say(str(error), "error")
        file.seek(0)
        return file.read().decode().removesuffix("\n")


@contextmanager
def stdout_into(descriptor: int) -> Iterator[None]:
    """Within the context stdout is the file with this descriptor."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(descriptor, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


if __name__ == "__main__":
    main()
