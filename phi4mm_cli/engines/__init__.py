"""The one interface between the flows and whatever runs the model."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol, Self

from phi4mm_cli.errors import RequestError
from phi4mm_cli.model.checkpoint import Adapters
from phi4mm_cli.schema import ModelInfo, Profile, Request, Result


class Engine(Protocol):
    """Answers requests, in any order. Used from one thread; a context manager that frees what it holds.

    Entering an engine is cheap: weights are loaded when the first request needs them, so that a run with nothing to
    ask never pays for them.
    """

    @property
    def info(self) -> ModelInfo:
        """What is recorded about the model in every result."""

    @property
    def profile(self) -> Profile:
        """What the checkpoint says of itself."""

    def count_tokens(self, text: str) -> int:
        """How many tokens of the model's vocabulary `text` is; names of control tokens in it are text like any other.

        Loads no weights. Safe in any thread, unlike all else here: flows count while they make their requests.
        """

    def room(self) -> int:
        """How many more requests the engine wants now; 0 asks the caller to wait."""

    def submit(self, request: Request) -> None:
        """Take `request` in hand. It is identified by its key: a key that is in hand is not submitted again."""

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        """The requests that have finished since the last call, as (key, outcome) in order of completion.

        Waits for the first one up to `timeout` seconds (None: as long as it takes) where requests are in hand. Runs a
        partial batch rather than wait for more requests.
        """

    def cancel(self, key: str) -> None:
        """Drop the request if it has not started; one that has may still be reported."""

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Answer one request now, yielding its text piece by piece. Raises RequestError.

        An engine that knows the tokens of what it yields makes each a Piece.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Listener(Protocol):
    """Hears what an engine does before its first answer."""

    def loaded(self, done: int, total: int) -> None:
        """So many of the bytes of the model's files have been read. Called often."""

    def note(self, message: str) -> None:
        """Something that its user should know."""

    def detail(self, message: str) -> None:
        """Something for a user who wants to know all."""


class Silence:
    """Tells nobody."""

    def loaded(self, done: int, total: int) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""

    def detail(self, message: str) -> None:
        """Nothing."""


def open_engine(
    name: str,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    batch_size: int | None,
    adapters: Adapters = (),
    listener: Listener | None = None,
    attention: str = "auto",
    quantize: str | None = None,
    device_map: str | None = None,
) -> AbstractContextManager[Engine]:
    """The engine called `name`, not yet loaded. Raises MissingError where its model cannot be had.

    `adapters` are names and folders of those that take the place of the checkpoint's own, or are added to them.
    """
    if name == "echo":
        from phi4mm_cli.engines.echo import EchoEngine

        return EchoEngine()
    from phi4mm_cli.engines.devices import device_names
    from phi4mm_cli.engines.local import LocalEngine
    from phi4mm_cli.engines.several import SeveralEngine
    from phi4mm_cli.model.checkpoint import resolve

    names, checkpoint = device_names(device), resolve(model, revision, adapters)
    settings: dict[str, Any] = {"dtype": dtype, "batch_size": batch_size, "attention": attention, "quantize": quantize}
    if device_map is not None:
        return LocalEngine(checkpoint, device, listener=listener, split=True, **settings)
    if len(names) > 1:
        return SeveralEngine(checkpoint, names, listener, **settings)
    return LocalEngine(checkpoint, names[0], listener=listener, **settings)
