"""An engine without a model: its answer to a request is a line that says what was asked. For tests and rehearsals."""

from __future__ import annotations

import re
from collections.abc import Generator

from phi4mm_cli import prompt, timing
from phi4mm_cli.closing import Closing
from phi4mm_cli.errors import RequestError
from phi4mm_cli.schema import Clip, Finish, ModelInfo, Part, Picture, Profile, Reply, Request, Result

ROOM = 64


class EchoEngine(Closing):
    """Answers every request at once, in the order of submission."""

    def __init__(self) -> None:
        self._queue: dict[str, Request] = {}

    @property
    def info(self) -> ModelInfo:
        """No model: the name says so."""
        return ModelInfo(id="echo", revision=None, engine="echo")

    @property
    def profile(self) -> Profile:
        """The real model's."""
        return Profile()

    def count_tokens(self, text: str) -> int:
        """A word counts as a token."""
        return len(text.split())

    def room(self) -> int:
        """A fixed number, so that back-pressure is met here too."""
        return ROOM - len(self._queue)

    def submit(self, request: Request) -> None:
        """Take `request` in hand."""
        self._queue[request.key] = request

    def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
        """Answer all that is in hand."""
        answered = [(key, _answer(request)) for key, request in self._queue.items()]
        self._queue.clear()
        return [*answered]

    def cancel(self, key: str) -> None:
        """Drop the request if it is in hand."""
        self._queue.pop(key, None)

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Answer one request word by word."""
        result = _answer(request)
        yield from re.findall(r"\s*\S+|\s+$", result.text)
        return result

    def close(self) -> None:
        """Forget what has not been answered."""
        self._queue.clear()


def _answer(request: Request) -> Result:
    asked = " ".join(_words(part) for message in request.messages for part in message.parts)
    words, most = asked.split(), request.sampling.max_new_tokens
    finish: Finish = "stop" if len(words) <= most else "length"
    text = asked if finish == "stop" else " ".join(words[:most])
    size = prompt.size(request.messages, lambda text: len(text.split()), request.tools)
    timed = None
    if request.word_times and len(request.clips) == 1:
        [clip] = request.clips
        timed = tuple(timing.spread_words(text, [(0.0, clip.end - clip.start)]))
    return Result(text, tokens=tuple(range(len(words[:most]))), finish=finish, prompt_tokens=size, words=timed)


def _words(part: Part) -> str:
    if isinstance(part, Clip):
        return f"[{part.start:.3f}-{part.end:.3f}]"
    if isinstance(part, Picture):
        place = f" page {part.page}" if part.page else f" {part.time:.3f}" if part.time is not None else ""
        return f"[picture{place}]"
    if isinstance(part, Reply):
        return part.text
    return part
