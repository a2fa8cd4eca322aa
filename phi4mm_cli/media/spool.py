"""Decoded sound on disk: 16-bit samples in an anonymous temporary file, which vanishes with the process."""

from __future__ import annotations

import shutil
import tempfile
import threading

import numpy as np
from numpy.typing import NDArray

from phi4mm_cli.errors import InputError

FULL_SCALE = 32768  # of a 16-bit sample: the float 1.0
BYTES_PER_SAMPLE = 2


class Spool:
    """Mono samples that are appended by one thread and read by any. Floats are in [-1, 1).

    Raises InputError where the disk has no room; the temporary folder follows TMPDIR.
    """

    def __init__(self, expected: int = 0) -> None:
        """Make room for `expected` samples (0: not known)."""
        self._lock = threading.Lock()
        self._count = 0
        folder = tempfile.gettempdir()
        check_room(folder, expected * BYTES_PER_SAMPLE, shutil.disk_usage(folder).free)
        # Unbuffered, so that a full disk is met in append() and not again when the file is closed.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by close()

    def __len__(self) -> int:
        """Samples written so far."""
        return self._count

    def append(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Write `samples` (clipped to 16 bits) and return them as `read` will give them."""
        levels = np.rint(samples * np.float32(FULL_SCALE))
        pcm = np.clip(levels, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
        with self._lock:
            try:
                self._file.seek(self._count * BYTES_PER_SAMPLE)
                rest = memoryview(pcm.tobytes())
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                needed = (self._count + pcm.size) * BYTES_PER_SAMPLE
                raise InputError(
                    f"its decoded sound could not be kept in {tempfile.gettempdir()}: {error.strerror}",
                    f"More than {gigabytes(needed)} are needed. Free some space, or set TMPDIR to another folder.",
                ) from error
            self._count += pcm.size
        return to_float(pcm)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Samples `first` to `last` (exclusive), as many of them as have been written."""
        with self._lock:
            first, last = max(first, 0), min(last, self._count)
            if first >= last:
                return np.zeros(0, np.float32)
            self._file.seek(first * BYTES_PER_SAMPLE)
            wanted = (last - first) * BYTES_PER_SAMPLE
            parts = []
            while wanted:
                parts.append(self._file.read(wanted))
                wanted -= len(parts[-1])
        return to_float(np.frombuffer(b"".join(parts), np.int16))

    def close(self) -> None:
        """Give the disk space back."""
        with self._lock:
            self._file.close()


def to_float(pcm: NDArray[np.int16]) -> NDArray[np.float32]:
    """16-bit samples as float32 in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)


def check_room(folder: str, needed: int, free: int) -> None:
    """Raise InputError where `needed` bytes do not go into `free` bytes of `folder`."""
    if needed > free:
        raise InputError(
            f"decoding it needs {gigabytes(needed)} in {folder}, where {gigabytes(free)} are free",
            "Free some space, or set TMPDIR to a folder on a larger disk.",
        )


def gigabytes(size: int) -> str:
    """A size in bytes for people."""
    return f"{size / 1e9:.3g} GB"
