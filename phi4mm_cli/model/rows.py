"""The sequences that are in the network at once, with their KV cache: read, cut down, and continued token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Tensor],
        past: tuple[DynamicCache, int] | None = None,
        whole: Callable[[], Tensor] | None = None,
    ) -> None:
        """`prompts` are embeddings, (tokens, hidden size) each.

        Of a lone prompt, `past` may have read the beginning: so many positions, on the same side of the switch. Then
        `whole` gives the embeddings of all of it.
        """
        self._model = model
        self.cache, self.length = past or (self._new_cache(), 0)  # which has read so many positions, padding included
        self._inputs, mask = _pad_left(prompts)
        self._mask = torch.cat((mask.new_ones(len(mask), self.length), mask), dim=1)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, self.length :]
        self._written = mask.new_empty(len(prompts), 0)
        self._whole: Callable[[], Tensor] | None = None  # while a lone prompt has not crossed the switch
        if len(prompts) == 1 and model.rope_switch is not None and self._mask.shape[1] <= model.rope_switch:
            self._whole = whole or (lambda: prompts[0])

    def __len__(self) -> int:
        return len(self._written)

    def read(self) -> Tensor:
        """The logits (rows, vocabulary) of what comes next, once for every `append`."""
        output = self._model.network(
            inputs_embeds=self._inputs,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.length = self._mask.shape[1]
        logits: Tensor = output.logits[:, -1]
        return logits

    def select(self, places: Tensor) -> None:
        """Go on with the rows at `places`, in this order; one that is named twice is doubled."""
        layers: list[Any] = self.cache.layers
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
        if self._whole is not None and self._mask.shape[1] == self._model.rope_switch + 1:  # type: ignore[operator]
            # The angles of every position change, and the cache is void: all is read again.
            self._inputs = torch.cat((self._whole().expand(len(self), -1, -1), embed(self._written)), dim=1)
            self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)
            self.length, self._whole, self.cache = 0, None, self._new_cache()

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self._model.network.config)


def _pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different length as one (batch, longest, hidden size), and the mask (batch, longest) of what is real."""
    inputs = pad_sequence(list(rows), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows], device=inputs.device)
    longest = inputs.shape[1]
    return inputs, (torch.arange(longest, device=inputs.device) >= longest - lengths[:, None]).long()
