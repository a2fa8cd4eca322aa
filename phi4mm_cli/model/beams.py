"""Beam search over one prompt: the answer that is most likely as a whole, as transformers searches for it.

Its settings are transformers' own: a length penalty of 1, so that answers are compared by their mean log-probability,
and no early stop but where no answer that is still being written can beat those that have ended.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phi4mm_cli.cancel import is_dropped
from phi4mm_cli.model.composing import Prompt
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.rows import Rows
from phi4mm_cli.model.sampling import rules


def search(model: Model, rows: Rows, prompt: Prompt, banned: Tensor) -> list[int]:
    """The best answer to the one prompt in `rows`; its end token included, but where it is dropped meanwhile."""
    ids, sampling = prompt.ids, prompt.sampling
    beams = sampling.num_beams
    process = rules(sampling, banned)
    seen = torch.tensor([ids], device=model.device)  # (rows, length): the prompt and what the beams have written
    scores = torch.zeros(1, 1, device=model.device)  # (rows, 1): the log-probability of each beam
    ended: list[tuple[float, list[int]]] = []  # the best answers that have ended, by their mean log-probability
    for length in range(1, sampling.max_new_tokens + 1):
        totals = process(seen, rows.read().float().log_softmax(-1)) + scores
        places, tokens, totals = _best(totals, beams * max(2, 1 + len(model.end_tokens)))
        last = length == sampling.max_new_tokens or is_dropped(prompt.key)
        ends = [last or token in model.end_tokens for token in tokens.tolist()]
        for rank in range(min(beams, len(ends))):
            if ends[rank]:
                answer = [*seen[places[rank], len(ids) :].tolist(), int(tokens[rank])]
                ended.append((float(totals[rank]) / length, answer))
        ended = sorted(ended, key=lambda one: -one[0])[:beams]
        going = [rank for rank, end in enumerate(ends) if not end][:beams]
        if not going or (len(ended) == beams and float(totals[going[0]]) / length <= ended[-1][0]):
            break
        places, tokens, scores = places[going], tokens[going], totals[going, None]
        seen = torch.cat((seen[places], tokens[:, None]), dim=1)
        rows.select(places)
        rows.append(tokens)
    return ended[0][1]


def _best(totals: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Beam, token and log-probability of the `count` best continuations, best first.

    There are so many that enough are left to go on with when every beam's end tokens are among them.
    """
    best = totals.flatten().topk(min(count, totals.numel()))
    return best.indices // totals.shape[1], best.indices % totals.shape[1], best.values
