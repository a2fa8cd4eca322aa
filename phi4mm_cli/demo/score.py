"""Scores the demo checkpoint: `python -m phi4mm_cli.demo.score` prints the table of its card.

The questions go through the program's own flows and engine. It needs the packages of the `dev` extra.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from phi4mm_cli.demo import exam
from phi4mm_cli.demo.exam.cases import Case, Measure, Studio
from phi4mm_cli.driver import run
from phi4mm_cli.engines import Engine, open_engine
from phi4mm_cli.jobs import Job

HEADER = "| Skill | Measure | Cases | Score | Past 4,096 tokens | Target |\n|---|---|---|---|---|---|"


def main() -> None:
    """Score the skills that the command line names, all of them without any."""
    parser = argparse.ArgumentParser(prog="python -m phi4mm_cli.demo.score", description=__doc__)
    parser.add_argument("skills", nargs="*", help="parts of the names of skills")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--count", type=int, default=100, help="cases of each skill; a tenth of it past 4,096 tokens")
    parser.add_argument("--beyond", type=int, help="cases past 4,096 tokens, where it is not that")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--show", action="store_true", help="show the answers that are wrong, on stderr")
    chosen = parser.parse_args()
    beyond = chosen.count // 10 if chosen.beyond is None else chosen.beyond
    print(HEADER)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engine = stack.enter_context(open_engine("local", chosen.model, None, "auto", "auto", None))
        for number, skill in enumerate(exam.SKILLS):
            if chosen.skills and not any(part.lower() in skill.name.lower() for part in chosen.skills):
                continue
            began, scores = time.monotonic(), []
            for count, far in ((chosen.count, False), (beyond, True)):
                studio = Studio(folder, chosen.seed + 2 * number + far)
                cases = list(islice(skill.cases(studio, far), count))
                answers = answer(engine, cases)
                scores.append(f"{score(skill.measure, cases, answers):.1f} %" if cases else "")
                if chosen.show:
                    show(cases, answers)
            target = "" if skill.target is None else f"{skill.target:g} %"
            cells = [skill.name, skill.measure, str(chosen.count), *scores, target]
            print(f"| {' | '.join(cells)} |", flush=True)
            print(f"{skill.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)


def card() -> dict[str, tuple[int, float]]:
    """By name of the skill how many cases the card of the demo that ships has of it, and its score in percent."""
    found = {}
    for line in Path(__file__).with_name("README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) >= 4 and cells[2].isdecimal():
            found[cells[0]] = (int(cells[2]), float(cells[3].removesuffix(" %")))
    return found


def answer(engine: Engine, cases: Sequence[Case]) -> list[str]:
    """The program's answers, in order. Raises what a flow raised."""
    jobs = (Job(str(number), case.ask) for number, case in enumerate(cases))
    answers = [""] * len(cases)
    for outcome in run(jobs, engine):
        if outcome.error is not None:
            raise outcome.error
        answers[int(outcome.job.name)] = outcome.value or ""
    return answers


def score(measure: Measure, cases: Sequence[Case], answers: Sequence[str]) -> float:
    """In percent: errors by word or character, chrF, or how many answers are exactly right."""
    import jiwer
    import sacrebleu

    right = [case.expected for case in cases]
    match measure:
        case "word error rate":
            return 100 * jiwer.wer([_words(text) for text in right], [_words(text) for text in answers])
        case "character error rate":
            return 100 * jiwer.cer(right, list(answers))
        case "chrF":
            return sacrebleu.corpus_chrf(answers, [right]).score
    return 100 * sum(map(str.__eq__, right, answers)) / len(right)


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w'-]+", text.lower()))


def show(cases: Sequence[Case], answers: Sequence[str]) -> None:
    """Print what is wrong."""
    for case, text in zip(cases, answers, strict=True):
        if text != case.expected:
            print(f"  wanted: {case.expected!r}\n  got:    {text!r}", file=sys.stderr)


if __name__ == "__main__":
    main()
