"""The sequences that are in the network at once, with their KV cache: read, cut down, and continued token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from phi4mm_cli.model.loading import Model


class Rows:
    """Rows of different length, padded on the left and masked, so that each is as it would be alone.

    They are on one side of the LongRoPE switch and stay there, or they come from one prompt: then they may cross it.
    """

    def __init__(self, model: Model, prompts: Sequence[Tensor]) -> None:
        self._model = model
        self._inputs, self._mask = _pad_left(prompts)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
        self._cache = self._new_cache()
        self._start: Tensor | None = None  # what a lone prompt began with, while it has not crossed the switch
        self._written = self._mask.new_empty(len(prompts), 0)
        if len(prompts) == 1 and model.rope_switch is not None and len(prompts[0]) <= model.rope_switch:
            self._start = self._inputs

    def __len__(self) -> int:
        return len(self._written)

    def read(self) -> Tensor:
        """The logits (rows, vocabulary) of what comes next, once for every `append`."""
        output = self._model.network(
            inputs_embeds=self._inputs,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def select(self, places: Tensor) -> None:
        """Go on with the rows at `places`, in this order; one that is named twice is doubled."""
        layers: list[Any] = self._cache.layers
        for layer in layers:
            layer.batch_select_indices(places.to(layer.keys.device))  # which may be another for each layer
        self._written, self._mask, self._positions = (
            part[places] for part in (self._written, self._mask, self._positions)
        )

    def append(self, tokens: Tensor) -> None:
        """Continue every row by its token, (rows,)."""
        embed = self._model.network.model.embed_tokens
        self._inputs = embed(tokens)[:, None]
        self._mask = torch.cat((self._mask, self._mask.new_ones(len(self), 1)), dim=1)
        self._positions = self._positions[:, -1:] + 1
        self._written = torch.cat((self._written, tokens[:, None]), dim=1)
        if self._start is not None and self._mask.shape[1] == self._model.rope_switch + 1:  # type: ignore[operator]
            # The angles of every position change, and the cache is void: all is read again.
            self._inputs = torch.cat((self._start.expand(len(self), -1, -1), embed(self._written)), dim=1)
            self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            self._start, self._cache = None, self._new_cache()

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._model.network.config)


def _pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different length as one (batch, longest, hidden size), and the mask (batch, longest) of what is real."""
    inputs = pad_sequence(list(rows), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows], device=inputs.device)
    longest = inputs.shape[1]
    return inputs, (torch.arange(longest, device=inputs.device) >= longest - lengths[:, None]).long()
