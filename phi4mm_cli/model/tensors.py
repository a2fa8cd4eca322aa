"""Tensors that stay in their safetensors files until they are asked for, and then go straight to where they belong.

Files are read, not mapped: pages of a mapped file would count, and stay, beside the copy of them in another arithmetic.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.folder import AGAIN, in_a_line

DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
PIECE = 32 << 20  # bytes on their way from the file to another device or arithmetic

OnBytes = Callable[[int], None]


class Lazy(Protocol):
    """A tensor that is made when it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As torch has it."""

    @property
    def size(self) -> int:
        """In bytes, as it is stored."""

    def read(self) -> Tensor:
        """The tensor, on the CPU."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a safetensors file, whose header has been checked."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    path: Path
    start: int  # of its first byte in the file

    @property
    def size(self) -> int:
        """In bytes, in the file."""
        return self.count * self.dtype.itemsize

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return torch.Size(self.shape).numel()

    def read(self) -> Tensor:
        """The tensor as it is stored, on the CPU. Raises MissingError where the file does not give it."""
        return self.load(torch.device("cpu"), self.dtype, lambda count: None)

    def load(self, device: torch.device, dtype: torch.dtype, on_bytes: OnBytes) -> Tensor:
        """The tensor on `device` as `dtype`, never held twice in full; `on_bytes` hears of each piece that is read."""
        result = torch.empty(self.count, dtype=dtype, device=device)
        direct = device.type == "cpu" and dtype == self.dtype
        step = PIECE // self.dtype.itemsize
        buffer = torch.empty(0 if direct else min(step, self.count), dtype=self.dtype)
        try:
            with self.path.open("rb") as file:
                file.seek(self.start)
                for first in range(0, self.count, step):
                    piece = result[first : first + step]
                    target = piece if direct else buffer[: len(piece)]
                    if file.readinto(target.view(torch.uint8).numpy().data) < len(piece) * self.dtype.itemsize:
                        raise MissingError(f"{self.path} ends too early", AGAIN)
                    if not direct:
                        piece.copy_(target)
                    on_bytes(len(piece) * self.dtype.itemsize)
        except OSError as error:
            raise MissingError(f"{self.path} cannot be read: {in_a_line(error)}", AGAIN) from error
        return result.view(self.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A tensor that is computed when it is asked for."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """In bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def stored_in(folder: Path, files: list[str]) -> dict[str, Stored]:
    """The tensors of some safetensors files, by the names they have there.

    Raises MissingError where a file is no whole safetensors file, a name is there twice, or numbers are of a kind that
    is not for weights.
    """
    found: dict[str, Stored] = {}
    for name in files:
        header, start = _header(folder / name)
        for key, entry in header.items():
            dtype = DTYPES.get(entry["dtype"])
            if dtype is None or key in found:
                fault = "is there twice" if key in found else f"is stored as {entry['dtype']}"
                raise MissingError(f"{key} in {folder / name} {fault}, which cannot be used", AGAIN)
            found[key] = Stored(tuple(entry["shape"]), dtype, folder / name, start + entry["data_offsets"][0])
    return found


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file says of its tensors, and where in the file their bytes begin.

    The file begins with the length of its header, 8 bytes little-endian, and the header, which is JSON.
    """
    try:
        # Opened to check that the header is sound and the file as long as it says; by torch it would be mapped in a
        # way that a machine with less memory than the file has bytes refuses.
        with safe_open(path, framework="np"):
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(length))
    except (OSError, SafetensorError) as error:
        raise MissingError(f"{path} cannot be read: {in_a_line(error)}", AGAIN) from error
    header.pop("__metadata__", None)
    return header, 8 + length
