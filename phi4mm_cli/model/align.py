"""When the words of a transcript are said: the decoder's own attention to the sound, from a second look at the answer.

Some heads of a decoder that writes down what it hears look, for each token, at where that token sounds. Which ones is
not written in a checkpoint, so it is found out in each answer: those whose look tells tokens apart and moves on with
the text. The answer is read once more, in one pass, in which the queries and keys of every layer are met on their way;
attention itself runs as ever (SDPA, flash). Whisper's word times rest on the same idea, with heads from a list.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.models.phi4_multimodal import modeling_phi4_multimodal as modeling

from phi4mm_cli import timing
from phi4mm_cli.model.features import FRAMES_PER_TOKEN
from phi4mm_cli.model.loading import Model
from phi4mm_cli.prompt import SEPARATOR
from phi4mm_cli.schema import Word

TOKENS_AT_ONCE = 4096  # read in one pass, padding included; bounds its memory
MOST_HEADS = 8  # of one answer
GOOD = 0.5  # of the best head's score, and a head counts
EVEN = 1e-3  # of an even look, mixed into every head's
FLOOR = 1e-4  # probability of what no head looks at

FRAME_SECONDS = 0.01
TOKEN_SECONDS = FRAMES_PER_TOKEN * FRAME_SECONDS
BEGIN = 0.0125 - TOKEN_SECONDS / 2  # of an audio token's own stretch: it is centred on its first frame, of 25 ms

_rotate: Any = modeling.apply_rotary_pos_emb


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A prompt with one clip, and the transcript in the answer to it."""

    inputs: Tensor  # embeddings (prompt and answer, hidden size)
    heard: slice  # where the clip's audio tokens lie
    tokens: tuple[int, ...]  # of the transcript, at least one: the last ones of the inputs


@dataclass(slots=True)
class _Look:
    """The best heads that have been met so far."""

    scores: Tensor  # (heads,), the best first
    weights: Tensor  # (heads, tokens, audio tokens), each row a probability


@torch.inference_mode()
def word_times(model: Model, rows: Sequence[Answered]) -> list[tuple[Word, ...]]:
    """The words of each answer, in seconds from the start of its clip; a word lasts until the next one begins.

    Memory is bounded by the longest row. Rows do not change each other's times, but for the rounding of sums.
    """
    found: dict[int, tuple[Word, ...]] = {}
    for group in _groups(rows):
        for place, look in zip(group, _read(model, [rows[place] for place in group]), strict=True):
            row = rows[place]
            seconds = [max(0.0, TOKEN_SECONDS * at + BEGIN) for at in _peaks(look)]
            found[place] = tuple(_words(model, row.tokens, seconds, TOKEN_SECONDS * look.weights.shape[2]))
    return [found[place] for place in range(len(rows))]


def _groups(rows: Sequence[Answered]) -> Iterator[list[int]]:
    """Places of rows that are read together: alike in length."""
    group: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: len(rows[place].inputs)):
        if group and (len(group) + 1) * len(rows[place].inputs) > TOKENS_AT_ONCE:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _read(model: Model, rows: Sequence[Answered]) -> list[_Look]:
    """What the best heads look at in each of `rows`."""
    decoder = model.network.model
    inputs = pad_sequence([row.inputs for row in rows], batch_first=True)  # nothing looks ahead, to where padding is
    angles = decoder.rotary_emb(inputs, torch.arange(inputs.shape[1], device=inputs.device)[None])
    looks: list[_Look | None] = [None] * len(rows)
    with ExitStack() as stack:
        for layer in decoder.layers:
            met = partial(_meet, layer.self_attn, angles, rows, looks)
            stack.callback(layer.self_attn.qkv_proj.register_forward_hook(met).remove)
        decoder(inputs_embeds=inputs, use_cache=False)
    return [look for look in looks if look is not None]


def _meet(
    attention: modeling.Phi4MultimodalAttention,
    angles: tuple[Tensor, Tensor],
    rows: Sequence[Answered],
    looks: list[_Look | None],
    module: nn.Module,
    args: tuple[Tensor, ...],
    output: Tensor,
) -> None:
    """Take in one layer: `output` has its queries, keys and values, (rows, positions, all heads' sizes)."""
    groups = attention.num_key_value_groups
    split = output.view(*output.shape[:2], -1, attention.head_dim).transpose(1, 2)
    pairs = split.shape[1] // (groups + 2)  # of keys and values; `groups` queries for each of them come first
    queries, keys = split[:, : groups * pairs], split[:, groups * pairs : (groups + 1) * pairs]
    queries, keys = _rotate(queries, keys, *(angle.to(output.device) for angle in angles))
    keys = keys.repeat_interleave(groups, dim=1)
    for place, row in enumerate(rows):
        end = len(row.inputs) - 1  # the last token is written by the position before it
        asking = queries[place, :, end - len(row.tokens) : end].float()
        heard = keys[place, :, row.heard].float()
        weights = (asking @ heard.transpose(1, 2) * attention.scaling).softmax(-1)
        scores, before = _scores(weights), looks[place]
        if before is not None:
            scores = torch.cat((before.scores.to(output.device), scores))
            weights = torch.cat((before.weights.to(output.device), weights))
        scores, best = scores.topk(min(MOST_HEADS, len(scores)))
        looks[place] = _Look(scores, weights[best])


def _scores(weights: Tensor) -> Tensor:
    """How well each head of `weights` (heads, tokens, audio tokens) tells where the tokens are said: (heads,).

    The information, in nats, that a look gives about its token, times the correlation of place in the sound with place
    in the text. A head that looks everywhere, or always at the same place, scores nothing.
    """
    _, tokens, heard = weights.shape
    weights = (1 - EVEN) * weights + EVEN / heard
    information = (weights * (weights / weights.mean(1, keepdim=True)).log()).sum(-1).mean(-1)
    places = weights @ torch.arange(heard, dtype=weights.dtype, device=weights.device)
    places = places - places.mean(1, keepdim=True)
    order = torch.arange(tokens, dtype=weights.dtype, device=weights.device) - (tokens - 1) / 2
    scale = (places.square().sum(1) * order.square().sum()).sqrt()
    return information * (places @ order / (scale + 1e-6)).clamp(min=0)


def _peaks(look: _Look) -> list[float]:
    """Where in the sound each token is said, in audio tokens: the likeliest places that never go back."""
    good = look.scores >= GOOD * look.scores[0]
    weights = look.weights[good].mean(0).cpu()
    likely = (weights + FLOOR).log()
    best, origins = likely[0], []
    for row in likely[1:]:
        reached, origin = best.cummax(0)
        origins.append(origin)
        best = reached + row
    path = [int(best.argmax())]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    found, latest = [], 0.0
    for row, at in zip(weights, reversed(path), strict=True):
        near = range(max(0, at - 1), min(len(row), at + 2))
        mass = [float(row[place]) + FLOOR for place in near]
        latest = max(latest, sum(place * share for place, share in zip(near, mass, strict=True)) / sum(mass))
        found.append(latest)
    return found


def transcript(model: Model, tokens: Sequence[int]) -> tuple[int, ...]:
    """The tokens of an answer that come before its translation; all, where there is none."""
    text, begins = _spelled(model, tokens)
    end = text.find(SEPARATOR)
    return tuple(tokens) if end < 0 else tuple(tokens[: bisect_left(begins, end)])


def _words(model: Model, tokens: Sequence[int], seconds: Sequence[float], end: float) -> Iterator[Word]:
    """The words of the text of `tokens`, each from the time of the token that it begins in."""
    text, begins = _spelled(model, tokens)
    starts: list[tuple[float, str]] = []
    at = 0
    for word in timing.words(text):
        at = text.index(word, at)
        token = bisect_right(begins, at) - 1
        token = bisect_left(begins, begins[token])  # the first of several that make up one character
        starts.append((min(seconds[token], end), word))
        at += len(word)
    for (start, word), (following, _) in pairwise([*starts, (end, "")]):
        yield Word(start, following, word)


def _spelled(model: Model, tokens: Sequence[int]) -> tuple[str, list[int]]:
    """The text of `tokens`, and where in it each of them begins."""
    decoder = DecodeStream(skip_special_tokens=False)
    text, begins = "", []
    for token in tokens:
        begins.append(len(text))
        if token not in model.unseen_tokens:
            text += decoder.step(model.tokenizer, token) or ""
    return text, begins
