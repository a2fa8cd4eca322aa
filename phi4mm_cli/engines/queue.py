"""The requests that wait for a model, and which of them go through it together."""

from __future__ import annotations

from collections.abc import Container, Iterable

from phi4mm_cli.errors import InputError
from phi4mm_cli.schema import Picture, Reply, Request

ROW_TOKENS = 900  # a prompt of more counts as several rows of a batch; clips of 30 s have less


class Waiting:
    """Requests by key, oldest first."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}
        self._tokens: dict[str, float] = {}  # about how many, of those that have been looked at

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """At the end."""
        self._requests[request.key] = request

    def put_back(self, requests: Iterable[Request]) -> None:
        """Before all others."""
        self._requests = {request.key: request for request in requests} | self._requests

    def drop(self, key: str) -> None:
        """Forget the request, where it waits."""
        self._requests.pop(key, None)
        self._tokens.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._requests.clear()
        self._tokens.clear()

    def take(self, rows: int, leave: Container[str] = ()) -> list[Request]:
        """The oldest request and those of its kind that are nearest to it in length: at most `rows` short ones.

        None with a key that is to be left.
        """
        waiting = {key: request for key, request in self._requests.items() if key not in leave}
        if not waiting:
            return []
        for key in waiting.keys() - self._tokens.keys():
            self._tokens[key] = _tokens(self._requests[key])
        oldest, first = next(iter(waiting.items()))
        alike = (key for key, request in waiting.items() if _kind(request) == _kind(first))
        nearest = sorted(alike, key=lambda key: abs(self._tokens[key] - self._tokens[oldest]))
        batch: list[Request] = []
        filled = 0.0
        for key in nearest:
            filled += max(1.0, self._tokens[key] / ROW_TOKENS)
            if batch and filled > rows:
                break
            batch.append(self._requests[key])
        for request in batch:
            self.drop(request.key)
        return batch


def _kind(asked: Request) -> tuple[bool, bool]:
    """Whether there are pictures, and whether there is sound: what the requests of a batch have in common."""
    return bool(asked.pictures), bool(asked.clips)


def _tokens(request: Request) -> float:
    """About how long the prompt will be, in tokens, from the headers of its media."""
    parts = [part for message in request.messages for part in message.parts]
    texts = [part.text if isinstance(part, Reply) else part for part in parts if isinstance(part, (str, Reply))]
    letters = sum(map(len, texts))
    letters += len(request.tools or "")
    seconds = sum(clip.end - clip.start for clip in request.clips)
    return letters / 4 + 12.5 * seconds + sum(_picture_tokens(picture) for picture in request.pictures)


def _picture_tokens(picture: Picture) -> float:
    from phi4mm_cli.media.document import shown_size
    from phi4mm_cli.model.grid import MOST_CROPS, image_tokens

    try:
        return image_tokens(*shown_size(picture), picture.most_crops or MOST_CROPS)
    except InputError:
        return 0.0  # it is reported when the picture is read
