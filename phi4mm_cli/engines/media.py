"""Reads what is to be heard and seen in a request, for whichever engine asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from phi4mm_cli.errors import InputError
from phi4mm_cli.schema import Clip, Picture, Request

T = TypeVar("T")


def read_each(request: Request, read: Callable[[Clip | Picture], T]) -> list[T]:
    """What `read` makes of each sound and picture, in order.

    Raises InputError as it does; where the request is about several files, with the name of the one that is wrong.
    """
    found = []
    for part in (part for message in request.messages for part in message.parts):
        if isinstance(part, (Clip, Picture)):
            try:
                found.append(read(part))
            except InputError as error:
                if len(request.sources) == 1:
                    raise
                raise InputError(f"{Path(part.source.path).name}: {error.message}", error.advice) from error
    return found
