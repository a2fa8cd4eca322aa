"""Sharing the inputs of a run among several, that know nothing of each other."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from phi4mm_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of several."""

    number: int  # from 1
    count: int

    def has(self, name: str) -> bool:
        """Whether the input of this name is its own, which hangs on no other input."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse(text: str) -> Shard:
    """The shard that "3/8" means. Raises UsageError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard is like 3/8, the third of eight, not '{text}'")
    return Shard(int(found[1]), int(found[2]))
