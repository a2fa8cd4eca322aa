"""Long recordings: words, sentences lost and doubled, warnings, and the peak of memory, through the program.

    python benchmarks/long.py [--minutes 30 180] [--model demo] [--world] [--keep FOLDER]

A meeting of each length is made (several voices, pauses, silence, music, noise), transcribed by `phi4mm transcribe` in
a process of its own, and compared with what was said in it. `--world` takes the sentences and voices that the demo
checkpoint is trained on in place of those of the sample meeting.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import long_meeting

MEGABYTE = 1 << 20


def main() -> None:
    """Print a row for each length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[30, 180])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--world", action="store_true")
    parser.add_argument("--keep", type=Path, help="where meetings and transcripts stay")
    chosen = parser.parse_args()
    print(
        "| minutes | seconds taken | peak MB | sentences | lost | doubled | WER | speech s | transcribed s | warnings |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for minutes in chosen.minutes:
            print(row(folder, minutes, chosen.model, chosen.world), flush=True)


def row(folder: Path, minutes: float, model: str, world: bool) -> str:
    """Make, transcribe and compare a meeting of so many minutes."""
    path = folder / f"meeting-{minutes:g}.flac"
    said = long_meeting.make(path, 60 * minutes, seed=round(minutes), world=world)
    began = time.monotonic()
    result, peak = long_meeting.transcribe(path, "--model", model)
    taken = time.monotonic() - began
    counts, coverage = long_meeting.compare(said, result["text"]), result["coverage"]
    codes = [warning["code"] + (" (healed)" if warning["healed"] else "") for warning in result["warnings"]]
    told = ", ".join(f"{codes.count(code)} {code}" for code in sorted(set(codes))) or "none"
    return (
        f"| {minutes:g} | {taken:.0f} | {peak / MEGABYTE:.0f} | {counts.sentences} | {counts.lost} | {counts.doubled} "
        f"| {100 * counts.word_errors:.2f} % | {coverage['speech']:.0f} | {coverage['transcribed']:.0f} | {told} |"
    )


if __name__ == "__main__":
    main()
