"""A place for a worker of a pool, as the pool knows it: how it is reached, and what it is doing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from phi4mm_cli.schema import Request


class Line(Protocol):
    """Carries messages, each a kind and its content, to a worker and back."""

    def send(self, message: tuple[str, Any], /) -> None:
        """Raises OSError where the worker is known to be lost."""

    def recv(self) -> tuple[str, Any]:
        """The next message, once there is one. Raises EOFError or OSError where the worker is lost."""

    def close(self) -> None:
        """No more is sent or heard."""


@dataclass(eq=False, slots=True)
class Worker:
    """A place for a local engine, and what is known of the one that is there."""

    device: str
    memory: str  # workers of one memory load the model one after the other, so that each sees what is left
    connection: Line | None = None  # None until there is work for it, and when it is lost
    ready: bool = False  # it can be given work
    lost: bool = False  # and not to be replaced
    rows: int = 0  # of its batches; 0 until it has run one
    in_hand: list[Request] = field(default_factory=list)
    streams: bool = False
    read: tuple[int, int] = (0, 0)  # bytes of the model, and of how many

    @property
    def unstarted(self) -> bool:
        """It has to be started before it can be given work."""
        return self.connection is None and not self.lost

    @property
    def starting(self) -> bool:
        """It will be ready, unless it is lost first."""
        return self.connection is not None and not self.ready

    @property
    def idle(self) -> bool:
        """It can be given work now."""
        return self.ready and self.connection is not None and not (self.in_hand or self.streams)

    @property
    def loaded(self) -> bool:
        """It has the model."""
        done, total = self.read
        return 0 < total <= done

    @property
    def loads(self) -> bool:
        """It reads the model."""
        return bool(self.in_hand or self.streams) and not self.loaded
