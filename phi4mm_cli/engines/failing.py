"""What goes wrong in torch, in the program's terms: no memory, a device that is gone, what nobody has foreseen."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from phi4mm_cli.engines import Listener
from phi4mm_cli.errors import DeviceLostError, MemoryExhaustedError, RequestError

# Only CUDA has a class for it; the last is what oneDNN says.
NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "could not create a primitive")
GONE = ("CUDA error", "HIP error")  # after which every further call fails, too


@contextmanager
def foreseen(what: str) -> Iterator[None]:
    """Raise MemoryExhaustedError where torch, or the CPU's allocator behind it, cannot hold `what`.

    And DeviceLostError where the device does not answer any more.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
            advice = "Use shorter clips or texts, smaller pictures, --quantize int4, or a --device with more memory"
            raise MemoryExhaustedError(f"{what} does not fit into memory", advice) from error
        if any(sign in str(error) for sign in GONE):
            advice = "Look at it with `nvidia-smi`, and run the same command again: what is done is kept"
            raise DeviceLostError(_in_short(error), advice) from error
        raise


def unforeseen(error: Exception, listener: Listener) -> RequestError:
    """A bug that was met with one request, as its failure: others are none the worse for it."""
    listener.detail("".join(traceback.format_exception(error)))
    return RequestError(
        f"unexpected {type(error).__name__}: {_in_short(error)}", "This is a bug; -v says where it was met"
    )


def _in_short(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]
