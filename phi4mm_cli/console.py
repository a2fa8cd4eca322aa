"""stdout for the result and nothing else, stderr for people.

Messages are plain lines off a terminal; on one, progress is drawn with rich.
"""

from __future__ import annotations

import os
import sys
import traceback
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from io import BufferedWriter, FileIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from phi4mm_cli.errors import ExitCode, Phi4Error, StorageError, UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.progress import Progress

_COLOURS = {"error": "31", "warning": "33", "note": "2"}
_log: TextIO | None = None


@contextmanager
def results() -> Iterator[TextIO]:
    """The program's stdout as UTF-8 text, while everything else that writes to stdout is sent to stderr.

    The file descriptor itself is redirected, so that a chatty C library cannot corrupt a result either. A reader that
    has seen enough and closed the pipe ends the program quietly. Raises StorageError where results find no room.
    """
    if sys.stdout is None:
        raise StorageError("cannot write the results: stdout is closed", "Send it to a file, or to /dev/null")
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    shadowed, sys.stdout = sys.stdout, sys.stderr
    try:
        raw = BufferedWriter(_Stdout(os.dup(real), "w"))
        with TextIOWrapper(raw, encoding="utf-8", errors="replace", newline="\n") as file:
            yield file
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), real)  # what is flushed at exit has no reader either
        sys.exit(ExitCode.OK)
    finally:
        sys.stdout = shadowed
        os.dup2(real, 1)
        os.close(real)


class _Stdout(FileIO):
    """Where results go."""

    def write(self, data: ReadableBuffer, /) -> int:
        """As any file, but raises StorageError where there is no room."""
        with needing_room():
            return super().write(data)


@contextmanager
def needing_room() -> Iterator[None]:
    """What writes results to `results`, or a file in its place. Raises StorageError where they find no room."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(f"cannot write the results: {error.strerror}", "Put that right and run it again") from error


def say(message: str, kind: str = "note", shown: bool = True) -> None:
    """One line on stderr: `phi4mm: message`, or `phi4mm: error: message`; and in the log, which has all of them."""
    line = f"{'' if kind == 'note' else f'{kind}: '}{' '.join(message.splitlines())}"
    _record(line)
    if shown:
        tell(f"phi4mm: {line}", kind)


def tell(message: str, kind: str = "note") -> None:
    """One line on stderr, in the colour of its kind, for somebody who knows who is talking."""
    line = " ".join(message.splitlines())
    if _coloured():
        line = f"\x1b[{_COLOURS[kind]}m{line}\x1b[0m"
    sys.stderr.write(line.encode("utf-8", "replace").decode() + "\n")
    sys.stderr.flush()


def say_bug(error: Exception, where: str = "") -> None:
    """An error that nobody has foreseen, with its traceback: it is worth a report."""
    say(f"{where}unexpected {type(error).__name__}: {error}", "error")
    write("".join(traceback.format_exception(error)))


def write(text: str) -> None:
    """Lines as they are, on stderr and in the log."""
    for line in text.splitlines():
        _record(line)
    sys.stderr.write(text.encode("utf-8", "replace").decode())
    sys.stderr.flush()


@contextmanager
def logged(path: Path | None) -> Iterator[None]:
    """Within the context all that is said is added to the file at `path`, a line each with its time, flushed at once.

    What ends the run is recorded too. A log that cannot be written to is no reason to stop. Raises UsageError where it
    cannot be opened.
    """
    global _log
    if path is None:
        yield
        return
    try:
        _log = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError as error:
        raise UsageError(f"cannot write the log {path}: {error.strerror}", "Give another --log") from None
    try:
        yield
    except Phi4Error as error:
        _record(f"error: {error}")
        raise
    finally:
        with suppress(OSError):
            _log.close()
        _log = None


def _record(line: str) -> None:
    if _log is not None:
        with suppress(OSError):  # of a full disk, above all
            _log.write(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}\n")


def can_ask() -> bool:
    """Whether there is somebody to ask: who sees stderr and types into stdin."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str) -> bool:
    """Whether the user answers yes. Anything but that is a no, and what was typed before the question is no answer."""
    _forget_typed()
    sys.stderr.write(f"phi4mm: {question} [y/N] ".encode("utf-8", "replace").decode())
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _forget_typed() -> None:
    try:
        import termios
    except ImportError:  # Windows
        return
    with suppress(OSError, termios.error):  # no terminal
        termios.tcflush(sys.stdin, termios.TCIFLUSH)


def visible(text: str) -> str:
    """`text` on one line, with escapes for all that would not show, or would make a terminal show something else."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def harmless(text: str) -> str:
    """`text` with its lines as they are, and escapes for all that would make a terminal do something."""
    return "".join(letter if letter.isprintable() or _is_plain(letter) else visible(letter) for letter in text)


def _is_plain(letter: str) -> bool:
    """Whether it does no more than its script needs: white space of any width, joiners, marks of direction."""
    return letter in "\n\t\xad\u200c\u200d\u200e\u200f" or unicodedata.category(letter) == "Zs"


def on_terminal() -> bool:
    """Whether stderr is a terminal that a person looks at."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def _coloured() -> bool:
    return on_terminal() and not os.environ.get("NO_COLOR")


def progress() -> Progress:
    """A bar on stderr, and below it the state of its task, that leave no trace. Only for terminals."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class TwoLines(Progress):
        def get_renderables(self) -> Iterable[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in (task for task in self.tasks if task.fields["state"]):
                yield Text(task.fields["state"], no_wrap=True, overflow="ellipsis")

    return TwoLines(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=True,
    )
