"""How far phi4mm and plain transformers are from right where transformers' port of the model errs.

    python benchmarks/port.py

Right is what the model's original code was recorded to compute, or the same computation without the shortcut: one clip
at a time, no cache, eager attention. The checkpoints are the small random ones of the tests, in float32; how much each
case costs on the released weights is not said here. The cases are explained in `tests/port_cases.py`.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from port_cases import CASES, Bench


def main() -> None:
    """Compute and print a line a case."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers"))
    print(f"{platform.machine()}, Python {platform.python_version()}, {names}, float32\n")
    print(f"{'distance from right':22}{'phi4mm':>12}{'transformers':>16}   unit")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        bench = Bench(Path(folder))
        for name, case in CASES.items():
            found = case(bench)
            plain = found.plain if isinstance(found.plain, str) else f"{found.plain:.3g}"
            print(f"{name:22}{found.ours:>12.3g}{plain:>16}   {found.unit}")


if __name__ == "__main__":
    main()
