"""Long recordings: words, sentences lost and doubled, times, warnings, and the peak of memory, through the program.

    python benchmarks/long.py [--minutes 30 180] [--chunk-seconds 10 30] [--world] [--alone 60] [--keep FOLDER]

A meeting of each length is made (several voices, pauses, silence, music, noise), transcribed by `phi4mm transcribe` in
a process of its own, and compared with what was said in it. `--world` takes the sentences and voices that the demo
checkpoint is trained on in place of those of the sample meeting.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import long_meeting

MEGABYTE = 1 << 20


def main() -> None:
    """Print a row for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[30, 180])
    parser.add_argument("--model", default="demo")
    parser.add_argument(
        "--chunk-seconds", nargs="+", default=[], help="the longest chunks, in place of the model's own"
    )
    parser.add_argument("--world", action="store_true")
    parser.add_argument("--alone", type=int, default=0, help="so many sentences of each meeting each by itself, too")
    parser.add_argument("--keep", type=Path, help="where meetings and transcripts stay")
    chosen = parser.parse_args()
    heads = "minutes | chunks s | seconds taken | peak MB | sentences | lost | doubled | WER"
    print(f"| {heads} | captions off by ms, median | 95 % | speech s | transcribed s | warnings |")
    print("|---" * 13 + "|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for minutes in chosen.minutes:
            path = folder / f"meeting-{minutes:g}.flac"
            said = long_meeting.make(path, 60 * minutes, seed=round(minutes), world=chosen.world)
            for longest in chosen.chunk_seconds or [""]:
                arguments = ["--chunk-seconds", longest] if longest else []
                print(row(path, said, longest, ["--model", chosen.model, *arguments]), flush=True)
            if chosen.alone:
                errors = long_meeting.alone(path, said, chosen.alone, "--model", chosen.model)
                print(f"\n{chosen.alone} sentences of these {minutes:g} minutes, each alone: WER {100 * errors:.2f} %")


def row(path: Path, said: Sequence[long_meeting.Sentence], longest: str, arguments: Sequence[str]) -> str:
    """Transcribe a meeting, and compare."""
    began = time.monotonic()
    result, peak = long_meeting.transcribe(path, *arguments)
    taken = time.monotonic() - began
    counts, coverage = long_meeting.compare(said, result["text"]), result["coverage"]
    codes = [warning["code"] + (" (healed)" if warning["healed"] else "") for warning in result["warnings"]]
    told = ", ".join(f"{codes.count(code)} {code}" for code in sorted(set(codes))) or "none"
    run = f"{result['duration'] / 60:.0f} | {longest or 'own'} | {taken:.0f} | {peak / MEGABYTE:.0f}"
    words = f"{counts.sentences} | {counts.lost} | {counts.doubled} | {100 * counts.word_errors:.2f} %"
    off = 1000 * np.abs(long_meeting.start_errors(said, result))
    times = f"{np.median(off):.0f} | {np.quantile(off, 0.95):.0f}"
    return f"| {run} | {words} | {times} | {coverage['speech']:.0f} | {coverage['transcribed']:.0f} | {told} |"


if __name__ == "__main__":
    main()
