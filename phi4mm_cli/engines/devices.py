"""What `--device` names."""

from __future__ import annotations

from phi4mm_cli.errors import MissingError, UsageError


def device_names(asked: str) -> list[str]:
    """One device or more: `cuda:0,cuda:1`, or `all` for every GPU. Raises UsageError, MissingError."""
    if asked != "all":
        names = [name.strip() for name in asked.split(",")]
        if not all(names) or (len(names) > 1 and not {"auto", "all"}.isdisjoint(names)):
            raise UsageError(f"--device takes names with commas between them, not '{asked}'", "As in cuda:0,cuda:1")
        return names
    import torch  # only it knows

    if not torch.cuda.is_available():
        raise MissingError("no CUDA device was found", "Check the driver with `nvidia-smi`, or use --device auto")
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
