"""Which token comes next: the best one or one drawn by chance, after what a request rules out and makes less likely.

The rules are transformers' own. Every row has its own, and its own random numbers, so that what it draws does not
depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from phi4mm_cli.schema import Sampling


def rules(sampling: Sampling, banned: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """What makes of the tokens so far, (rows, length), and scores (rows, vocabulary) the scores to choose by.

    Of the tokens so far those of media have no effect: they are among the `banned` ones anyway.
    """
    found: Any = []  # in transformers' order
    if sampling.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.no_repeat_ngram_size:
        found.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram_size))
    found.append(SuppressTokensLogitsProcessor(banned.tolist(), device=str(banned.device)))
    if sampling.temperature > 0:
        found.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if sampling.top_p < 1:
            found.append(TopPLogitsWarper(sampling.top_p))
    process: Callable[[Any, Any], Tensor] = LogitsProcessorList(found)
    return process


class Chooser:
    """Chooses the tokens of one row that is not plainly greedy."""

    def __init__(self, sampling: Sampling, ids: Sequence[int], banned: Tensor) -> None:
        self._rules = rules(sampling, banned)
        self._seen = torch.tensor([ids], device=banned.device)
        self._random = torch.Generator().manual_seed(sampling.seed) if sampling.temperature > 0 else None

    @staticmethod
    def needed(sampling: Sampling) -> bool:
        """Whether anything but the best token can be chosen."""
        return sampling != Sampling(sampling.max_new_tokens, top_p=sampling.top_p, seed=sampling.seed)

    def next(self, logits: Tensor) -> Tensor:
        """The next token, a number, from its logits (vocabulary,)."""
        scores = self._rules(self._seen, logits[None].float())[0]
        token = scores.argmax() if self._random is None else _draw(scores, self._random)
        self._seen = torch.cat((self._seen, token[None, None]), dim=1)
        return token


def choose(logits: Tensor, choosers: Sequence[Chooser | None], banned: Tensor) -> Tensor:
    """The next token of each row, (rows,), from logits (rows, vocabulary): the best, where a row has no chooser."""
    chosen = logits.index_fill(1, banned, -torch.inf).argmax(-1)
    for row, chooser in enumerate(choosers):
        if chooser is not None:
            chosen[row] = chooser.next(logits[row])
    return chosen


def _draw(scores: Tensor, random: torch.Generator) -> Tensor:
    """A token drawn by its probability: the best after Gumbel noise on every score (the Gumbel-max trick).

    Every token has its own noise, from the CPU, so that the draw is the same on every device, and the last digits of
    the scores matter no more than for the best token: not even where they decide which token top-p leaves out.
    """
    noise = -(-torch.rand(len(scores), generator=random, dtype=torch.float64).log()).log()
    return (scores + noise.to(scores.device, scores.dtype)).argmax()
