"""The media that clients send: anonymous temporary files, of which nothing is left, however the program ends."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import IO

from phi4mm_cli.errors import Phi4Error


class Uploads:
    """A private folder with a name for each upload, under which the engine finds it; a context manager.

    The name is new each time, so that no upload is mistaken for an earlier one. On Linux it is a link to an open file
    that has no name of its own: a program that is killed leaves links to nothing. Elsewhere it is the file.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="phi4mm-serve-")))
        self._numbers = count(1)

    @contextmanager
    def kept(self, content: bytes | IO[bytes]) -> Iterator[Path]:
        """A path at which `content`, or an anonymous file that holds it, can be read within the context."""
        path = self._folder / str(next(self._numbers))
        with ExitStack() as stack:
            try:
                if sys.platform != "linux":
                    path.write_bytes(content if isinstance(content, bytes) else content.read())
                else:
                    if isinstance(content, bytes):
                        content = stack.enter_context(_anonymous(content))
                    path.symlink_to(f"/proc/{os.getpid()}/fd/{content.fileno()}")
            except OSError as error:
                message = f"what was sent could not be kept in {self._folder.parent}: {error.strerror}"
                raise Phi4Error(message, "Free some space there, or set TMPDIR to another folder") from error
            stack.callback(path.unlink, missing_ok=True)
            yield path

    def close(self) -> None:
        """Remove the folder."""
        self._stack.close()


@contextmanager
def _anonymous(content: bytes) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file
