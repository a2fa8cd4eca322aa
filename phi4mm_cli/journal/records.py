"""What the lines of the journal are about: what was asked for, of which input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeVar

T = TypeVar("T")

FOLDER = ".phi4mm"  # hidden, so that what lies in it is no input of a later run
VERSION = 1  # of the layout; a journal of a later one is left alone

Key = tuple[str, str]  # family and name


@dataclass(frozen=True, slots=True)
class Stamp:
    """An input as it was found."""

    size: int  # bytes
    time: int  # of the last change, in nanoseconds since 1970
    hash: str  # of the size and both ends

    def same_content(self, other: Stamp) -> bool:
        """Whether the two have the same content, as far as can be told without reading it all."""
        return (self.size, self.hash) == (other.size, other.hash)


@dataclass(frozen=True, slots=True)
class Order:
    """What a run is to make of each of its inputs."""

    command: str
    tag: str | None  # stands in the names of the outputs
    deciding: Mapping[str, Any]  # the options that decide a result; JSON values
    engine: Mapping[str, Any]  # ... and what was asked for of the model
    writing: Mapping[str, Any]  # those that only shape its writing

    @property
    def family(self) -> str:
        """What tells its results from others of the same input."""
        return f"{self.command} {self.tag}" if self.tag else self.command

    @property
    def task(self) -> str:
        """A hash of what decides a result."""
        return digest([self.command, self.tag, self.deciding, self.engine])

    @property
    def form(self) -> str:
        """A hash of what shapes its writing."""
        return digest(self.writing)


def digest(value: Any) -> str:
    """Hex, equal exactly where two JSON values are."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache(4096)
def file_name(key: Key) -> str:
    """What the files are called that are kept for an input: names of inputs may be too long, or no UTF-8."""
    return hashlib.sha256(_escaped(key)).hexdigest()[:32]


def line(value: Any) -> bytes:
    """JSON values and records as a line of JSON, all as they are. With names that are no UTF-8 it is ASCII."""
    from pydantic_core import PydanticSerializationError, to_json

    try:
        return to_json(value, inf_nan_mode="constants") + b"\n"  # it takes a third of the time of the other
    except PydanticSerializationError:
        return _escaped(value)


def _escaped(value: Any) -> bytes:
    return _ENCODER.encode(value).encode() + b"\n"


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in type(record).__dataclass_fields__}


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain)


def restored(kind: type[T], plain: Any) -> T:
    """The record of which `line` has made this. Raises ValueError where it is none."""
    found: T = _adapter(kind).validate_python(plain)  # type: ignore[arg-type] # mypy takes no class for hashable
    return found


@cache
def _adapter(kind: type) -> Any:
    """It takes hundreds of times as long to make as to use."""
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
