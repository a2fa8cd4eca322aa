"""Tools that the model may ask for: where they come from, how its answers are read, checked and carried out.

`calls` reads what the model writes, `checking` holds it against the tools' schemas, `formats`, `functions` and
`programs` are where tools come from, `loop` is the conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phi4mm_cli.errors import UsageError

SYSTEM = "You are a helpful assistant with some tools."  # the model card's

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the model is told of it. Raises UsageError where its name is none."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON Schema 2020-12 of an object: the arguments

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"'{self.name}' is no name for a tool", "Letters, digits and _ . - make up a name")


def by_name(tools: Sequence[Tool]) -> dict[str, Tool]:
    """The tools by their names. Raises UsageError where there are none, or two of one name."""
    found: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in found:
            raise UsageError(f"two tools are called '{tool.name}'", "Rename one of them")
        found[tool.name] = tool
    if not found:
        raise UsageError("no tools are given", "Name a file with --tools or --functions, or give a --command")
    return found
