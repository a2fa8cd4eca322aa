"""`python -m phi4mm_cli.demo.training STAGE WORK`: runs one stage of the training in the folder WORK.

The stages are, in order: pool (speaks what is listened to), base (text), far (long conversations), listen (the audio
encoder alone), speech (its adapter), look (the vision tower alone), project (its projection alone), see (its adapter).
`export` writes what there is as a checkpoint into WORK/checkpoint. A stage goes on where its state in WORK stops, or
the one that lies beside this file; the base model of the adapters is the one that ships, where WORK has none.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import socket
import sys
from pathlib import Path

from torch.multiprocessing.spawn import spawn

from phi4mm_cli.demo.training import export, pool, stages
from phi4mm_cli.demo.training.parts import Settings
from phi4mm_cli.model.checkpoint import DEMO_FOLDER

STATES = Path(__file__).parent / "state"  # of a training that is not done yet
LATER = ("speech", "project", "see", "export")  # what needs the base model


def main() -> None:
    """Start the processes of a stage."""
    parser = argparse.ArgumentParser(prog="python -m phi4mm_cli.demo.training", description=__doc__)
    parser.add_argument("stage", choices=["pool", *stages.STAGES, "export"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int)
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    for state in STATES.glob("*"):
        if not (chosen.work / state.name).exists():
            shutil.copy(state, chosen.work)
    if chosen.stage in LATER and not (chosen.work / "far.safetensors").exists():
        export.take_base(DEMO_FOLDER, chosen.work)
    if chosen.stage == "pool":
        pool.build_all(chosen.work, chosen.workers)
        return
    if chosen.stage == "export":
        export.export(chosen.work, chosen.work / "checkpoint")
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings(chosen.stage, chosen.work, chosen.workers, chosen.minutes, chosen.steps, port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # takes the workers along
    spawn(stages.work, args=(settings,), nprocs=chosen.workers, daemon=True)  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
