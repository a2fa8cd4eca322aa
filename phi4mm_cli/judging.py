"""What is wrong with an answer that is to be read as it is: a summary, a description."""

from __future__ import annotations

from collections.abc import Iterator

from phi4mm_cli import trust
from phi4mm_cli.outputs import Warning
from phi4mm_cli.schema import Result
from phi4mm_cli.splitting import paragraphs


def warnings(result: Result, what: str, start: float | None = None, end: float | None = None) -> Iterator[Warning]:
    """Whether the answer was cut off, is empty, or goes round and round; `what` messages call it."""
    if result.finish != "stop":
        yield Warning("token_limit", f"{what} was cut off by its token budget", "kept as it is", start, end)
    elif not result.text.strip():
        yield Warning("empty_answer", "the model wrote nothing about what it was given", "left out", start, end)
    elif any(trust.is_looping(paragraph) for paragraph in paragraphs(result.text)):
        yield Warning("looping", f"{what} says one thing over and over", "kept as it is", start, end)
    elif trust.is_retelling(result.text):
        yield Warning("looping", f"{what} says the same things again", "kept as it is", start, end)
