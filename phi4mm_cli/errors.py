"""The error tree. Every error carries its exit code and its advice; `__main__` is the one place that prints them.

Phi4Error              1  a failure that phi4mm foresaw
├── UsageError         2  the command line, or what it names, cannot work as a whole
├── InputError         4  one input cannot be used; the others go on
├── RequestError       4  an engine failed one request; raised in the flow that made it
│   ├── TooLongError   4  ... because it is longer than the model's context
│   └── MemoryExhaustedError 6  ... because it does not fit into memory
├── StorageError       1  nothing can be written any more: the disk is full
├── DeviceLostError    1  the GPU does not answer any more, to anything that this process asks
├── MissingError       5  a package, a model or a server is missing
└── AnswerError        8  the model gave no answer of the form that was asked for
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit codes of the program: part of its stable interface."""

    OK = 0
    ERROR = 1
    USAGE = 2
    SOME_FAILED = 3
    ALL_FAILED = 4
    MISSING = 5
    OUT_OF_MEMORY = 6
    QUALITY = 7
    NO_VALID_ANSWER = 8
    INTERRUPTED = 130
    TERMINATED = 143


class Phi4Error(Exception):
    """A foreseen failure: `message` says what is wrong in one line, `advice` what to do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.ERROR

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}. {self.advice}" if self.advice else self.message


class UsageError(Phi4Error):
    """The command cannot start as it was typed."""

    exit_code = ExitCode.USAGE


class InputError(Phi4Error):
    """One input cannot be used; a batch goes on without it."""

    exit_code = ExitCode.ALL_FAILED


class StorageError(Phi4Error):
    """The run cannot go on, because nothing can be written any more; what is done is kept."""


class DeviceLostError(Phi4Error):
    """The process cannot use its device any more; another process may."""


class MissingError(Phi4Error):
    """Something that the run needs is not there: a package, a model, a server."""

    exit_code = ExitCode.MISSING


class RequestError(Phi4Error):
    """An engine could not answer one request."""

    exit_code = ExitCode.ALL_FAILED


class TooLongError(RequestError):
    """The prompt is longer than the model's context."""


class MemoryExhaustedError(RequestError):
    """A single request does not fit into memory, after every retry."""

    exit_code = ExitCode.OUT_OF_MEMORY


class AnswerError(Phi4Error):
    """The model was asked twice, and gave no tool call or answer of the form that was asked for."""

    exit_code = ExitCode.NO_VALID_ANSWER


def exit_code_of(error: BaseException) -> ExitCode:
    """With which a program ends that this error ends."""
    if isinstance(error, Phi4Error):
        return error.exit_code
    return ExitCode(int(error.code or 0)) if isinstance(error, SystemExit) else ExitCode.ERROR
