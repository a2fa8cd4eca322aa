"""What leads the decoder to media: words where it has them already, and one head that looks at what is to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Phi4MultimodalForCausalLM
from transformers.models.phi4_multimodal import modeling_phi4_multimodal as modeling

from phi4mm_cli.demo.training.examples import Batch, Encoder

POINTING_LAYER, POINTING_HEAD = 2, 1  # of four layers: the one after it can write down what the head has found

_rotate: Any = modeling.apply_rotary_pos_emb


def embeddings(network: Phi4MultimodalForCausalLM, batch: Batch, media: Mapping[int, Sequence[Tensor]]) -> Tensor:
    """The batch's input embeddings, with those of its media, by their token, in their places."""
    inputs: Tensor = network.model.embed_tokens(batch.ids)
    for token, embedded in media.items():
        if embedded:
            inputs = inputs.masked_scatter((batch.ids == token)[..., None], torch.cat(list(embedded)))
    return inputs


def guide_loss(
    network: Phi4MultimodalForCausalLM, embedded: Sequence[Tensor], words: Sequence[Tensor], nothing: float = 1.0
) -> tuple[Tensor, float]:
    """Cross-entropy of the word at each position, read from embeddings of media as the decoder's outputs are.

    It leads the projection to put words where the base model has them already. Positions without a word, which are
    many in pictures, have the weight `nothing`. The second value is the share of words that are right.
    """
    if not embedded:
        return torch.zeros(()), 1.0
    wanted = torch.cat(list(words))
    logits = nn.functional.linear(network.model.norm(torch.cat(list(embedded))), network.model.embed_tokens.weight)
    weights = torch.ones(len(network.model.embed_tokens.weight))
    weights[0] = nothing
    spoken = wanted > 0
    right = float((logits.detach().argmax(-1) == wanted)[spoken].float().mean())
    return nn.functional.cross_entropy(logits, wanted, weights), right


def word_loss(network: Phi4MultimodalForCausalLM, hidden: Tensor, words: Tensor) -> tuple[Tensor, float]:
    """Cross-entropy of words that are read from hidden states as the decoder's outputs are, and the share right."""
    logits = nn.functional.linear(network.model.norm(hidden), network.model.embed_tokens.weight)
    right = float((logits.detach().argmax(-1) == words).float().mean())
    return nn.functional.cross_entropy(logits, words), right


# A token of an answer: the place of the token before it, and the places that show what is to be written.
Pointer = tuple[int, list[int]]


def looks(writer: Encoder, reply: str, places: Mapping[int, Sequence[int]], begin: int) -> list[Pointer]:
    """Where to look for each token of the reply, behind token `begin`, that has letters of those in `places`."""
    rows = []
    for number, span in enumerate(writer.tokenizer.encode(reply, add_special_tokens=False).offsets):
        own = {place for letter in range(*span) for place in places.get(letter, ())}
        if own:
            rows.append((begin + number, sorted(own)))
    return rows


class Pointing:
    """Meets one layer's queries and keys, and teaches one of its heads to look at the word that is to be written."""

    def __init__(self, network: Phi4MultimodalForCausalLM) -> None:
        self._model = network.model
        self._attention: Any = network.model.layers[POINTING_LAYER].self_attn
        self._output = torch.zeros(())
        self.met = torch.zeros(())  # what the layer is given, (rows, tokens, width)
        self._attention.qkv_proj.register_forward_hook(self._meet)

    def _meet(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.met, self._output = args[0], output

    def loss(self, batch: Batch, wanted: Sequence[Sequence[Pointer]]) -> Tensor:
        """The negative log-likelihood, in the head's look over all tokens before, of the places wanted in each row."""
        if not any(wanted):
            return torch.zeros(())
        split = self._output.unflatten(2, (-1, self._attention.head_dim)).transpose(1, 2)  # type: ignore[no-untyped-call]
        count = split.shape[1] - 2 * self._attention.config.num_key_value_heads  # of query heads
        angles = self._model.rotary_emb(self._output, batch.positions)
        queries, keys = _rotate(split[:, POINTING_HEAD, None], split[:, count, None], *angles)
        losses = []
        for row, pointers in enumerate(wanted):
            if pointers:
                asking = torch.tensor([[token] for token, _ in pointers])
                places = torch.arange(keys.shape[2])
                shown = torch.zeros(len(pointers), len(places), dtype=torch.bool)
                for number, (_, own) in enumerate(pointers):
                    shown[number, own] = True
                look = queries[row, 0, asking[:, 0]] @ keys[row, 0].T * self._attention.scaling
                look = look.masked_fill(places > asking, -torch.inf).log_softmax(-1)
                losses.append(-look.masked_fill(~shown, -torch.inf).logsumexp(-1))
        return torch.cat(losses).mean()
