"""What is kept of a conversation, so that its next answer costs no more than what is new.

That is what the encoders made of its sound and pictures, and the KV cache of the last prompt with its answer: the next
prompt goes on where the two begin to differ. Only one cache is kept, of whichever prompt was streamed last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformers import DynamicCache

from phi4mm_cli.model.composing import Prompt, adapter_of, is_long
from phi4mm_cli.model.encoder import Projection
from phi4mm_cli.model.encoding import Encoded, Medium, encode, read
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.rows import Rows
from phi4mm_cli.schema import Clip, Picture


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """A KV cache, and what it depends on."""

    ids: Sequence[int]  # of the tokens; for a position of sound or a picture, a number below 0 of its own
    adapter: str | None
    long: bool  # by which of LongRoPE's angles its positions are turned
    cache: DynamicCache


class Kept:
    """For one model, whose weights stay as they are."""

    def __init__(self) -> None:
        self._past: _Past | None = None
        self._encoded: dict[Clip | Picture, Encoded] = {}  # the last used is the last one
        self._numbers: dict[tuple[Clip | Picture, Projection], int] = {}

    def medium(self, part: Clip | Picture) -> Medium:
        """What an encoder has made of `part`; where that is not kept, it is read. Raises InputError."""
        return self._encoded.get(part) or read(part)

    def encode(self, model: Model, prompt: Prompt, start: int) -> Prompt:
        """The prompt with its media encoded, from position `start` on. They are kept.

        As many positions of them are kept as a prompt may have: what no longer fits is that which was not used longest.
        """
        wanted = [one for one in prompt.media if one.places.stop > start]
        for one, values in zip(wanted, encode(model, [one.medium for one in wanted]), strict=True):
            self._encoded.pop(one.part, None)
            self._encoded[one.part] = Encoded(values)
        media = tuple(replace(one, medium=self._encoded.get(one.part, one.medium)) for one in prompt.media)
        room = model.context
        for part in reversed([*self._encoded]):
            room -= len(self._encoded[part].values)
            if room < 0:
                del self._encoded[part]
        return replace(prompt, media=media)

    def resume(self, model: Model, prompt: Prompt) -> tuple[DynamicCache, int] | None:
        """A cache with the beginning of `prompt`, and how many positions it has; never all, for the last is answered.

        It is given away: nobody else can go on with it.
        """
        past, self._past = self._past, None
        if past is None or past.adapter != _adapter(model, prompt) or past.long != is_long(model, len(prompt.ids)):
            return None
        ids = self._ids(prompt)[:-1]
        differing = (at for at, (before, now) in enumerate(zip(past.ids, ids, strict=False)) if before != now)
        common = next(differing, min(len(past.ids), len(ids)))
        return (past.cache, common) if common and _cut(past.cache, common) else None

    def keep(self, model: Model, prompt: Prompt, answer: Sequence[int], rows: Rows) -> None:
        """Keep what `rows` has read of the one prompt and of its answer, however that ended."""
        ids = [*self._ids(prompt), *answer][: rows.length]
        if ids and prompt.sampling.num_beams == 1 and _cut(rows.cache, len(ids)):
            self._past = _Past(ids, _adapter(model, prompt), is_long(model, len(ids)), rows.cache)

    def clear(self) -> bool:
        """Forget all; False where there was nothing."""
        kept = self._past is not None or bool(self._encoded)
        self._past = None
        self._encoded.clear()
        return kept

    def _ids(self, prompt: Prompt) -> list[int]:
        ids = [*prompt.ids]
        for one in prompt.media:
            number = self._numbers.setdefault((one.part, prompt.projection), -1 - len(self._numbers))
            ids[one.places.start : one.places.stop] = [number] * len(one.places)
        return ids


def _adapter(model: Model, prompt: Prompt) -> str | None:
    return adapter_of(prompt) if model.adapters else None


def _cut(cache: DynamicCache, length: int) -> bool:
    """Leave the first `length` positions; False where a layer no longer has them, as one with a sliding window.

    Layers may differ in length, as when an interrupt came while they were written.
    """
    layers: list[Any] = cache.layers
    if any(min(layer.keys.shape[-2], layer.values.shape[-2]) < length for layer in layers):
        return False
    for layer in layers:
        layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]
        if layer.is_sliding:
            layer.cumulative_length = length
    return True
