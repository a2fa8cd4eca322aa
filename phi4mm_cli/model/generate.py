"""From prompts to answers: tokenises, puts sound and pictures into place, and decodes greedily, several rows at a time.

A row's tokens do not depend on the rows beside it: rows are padded on the left and masked, each has its own token
budget, and it leaves the batch when it ends.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from phi4mm_cli.errors import MissingError, RequestError
from phi4mm_cli.model.encoder import Projection, embed_audio
from phi4mm_cli.model.features import audio_tokens
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.pixels import Crops
from phi4mm_cli.model.vision import embed_pictures
from phi4mm_cli.prompt import Marker, Piece
from phi4mm_cli.schema import Finish, Result


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A request as the model takes it."""

    ids: tuple[int, ...]  # the audio or image token stands in every position that an embedding of media goes to
    clips: tuple[Tensor, ...]  # log-mel features (frames, 80), in the prompt's order
    pictures: tuple[Crops, ...]  # in the prompt's order
    max_new_tokens: int


def compose(model: Model, pieces: Iterable[Piece], media: Iterable[Tensor | Crops], max_new_tokens: int) -> Prompt:
    """The prompt of `pieces`, whose Clips and Pictures are `media`: log-mel features and crops, in order.

    Raises RequestError where it is too long.
    """
    ids: list[int] = []
    clips: list[Tensor] = []
    pictures: list[Crops] = []
    waiting = iter(media)
    for kind, group in groupby(pieces, key=type):
        if kind is str:  # neighbours are joined first, for tokens do not end where pieces do
            ids += model.tokenizer.encode("".join(str(piece) for piece in group), add_special_tokens=False).ids
            continue
        for piece in group:
            if isinstance(piece, Marker):
                ids.append(_marker_id(model, piece.token))
            elif isinstance(medium := next(waiting), Crops):
                pictures.append(medium)
                ids += [model.image_token] * medium.tokens
            else:
                clips.append(medium)
                ids += [model.audio_token] * audio_tokens(len(medium))
    if len(ids) > model.context:
        message = f"the prompt is {len(ids)} tokens long, and the model takes {model.context}"
        raise RequestError(message, "Use a shorter clip or text, or fewer or smaller pictures")
    return Prompt(tuple(ids), tuple(clips), tuple(pictures), min(max_new_tokens, model.context + 1 - len(ids)))


def _marker_id(model: Model, token: str) -> int:
    number = model.tokenizer.token_to_id(token)
    if number is None:
        raise MissingError(f"the model's vocabulary has no {token}", "Its tokenizer.json must have the chat markers")
    return number


def rope_side(model: Model, prompt: Prompt) -> str:
    """Prompts of one side may share a batch; a "crossing" one, whose answer may pass the LongRoPE switch, is alone.

    The angles of all rows follow the longest, so that a long row would change the answers of short ones.
    """
    switch = model.rope_switch
    if switch is None or len(prompt.ids) + prompt.max_new_tokens - 1 <= switch:
        return "short"
    return "long" if len(prompt.ids) > switch else "crossing"


def generate(model: Model, prompts: Sequence[Prompt]) -> list[Result]:
    """The answers, in order, to prompts of one rope side and with media of one kind, whose adapter is at work."""
    tokens: list[list[int]] = [[] for _ in prompts]
    for step in _steps(model, prompts):
        for row, token in step:
            tokens[row].append(token)
    return [_result(model, prompt, row) for prompt, row in zip(prompts, tokens, strict=True)]


def stream(model: Model, prompt: Prompt) -> Generator[str, None, Result]:
    """The answer to one prompt, its text piece by piece; the pieces together are the result's text."""
    decoder = DecodeStream(skip_special_tokens=False)  # holds back the bytes of an unfinished character
    tokens: list[int] = []
    shown = held = ""
    for step in _steps(model, [prompt]):
        for _, token in step:
            tokens.append(token)
            if token not in model.unseen_tokens:
                held += decoder.step(model.tokenizer, token) or ""
        piece = (held if shown else held.lstrip()).rstrip()  # white space counts only when text follows it
        if piece:
            yield piece
            shown, held = shown + piece, held[len(held.rstrip()) :]
    result = _result(model, prompt, tokens)
    if len(result.text) > len(shown):
        yield result.text[len(shown) :]
    return result


def _result(model: Model, prompt: Prompt, tokens: list[int]) -> Result:
    finish: Finish = "length"
    if tokens and tokens[-1] in model.end_tokens:
        finish = "stop"
        tokens = tokens[:-1]
    seen = [token for token in tokens if token not in model.unseen_tokens]
    text = model.tokenizer.decode(seen, skip_special_tokens=False).strip()
    return Result(text=text, tokens=tuple(tokens), finish=finish, prompt_tokens=len(prompt.ids))


# ------------------------------------------------------------------------------------------------------- the loop


@torch.inference_mode()
def _steps(model: Model, prompts: Sequence[Prompt]) -> Iterator[list[tuple[int, int]]]:
    """Greedy decoding: at each step the (row, token) pairs of the rows still at work, end tokens included."""
    embed = model.network.model.embed_tokens
    banned = torch.tensor([model.audio_token, model.image_token], device=model.device)
    rows = _embed(model, prompts)
    inputs, mask = _pad_left(rows)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    live, written, cache = list(range(len(rows))), 0, DynamicCache(config=model.network.config)
    sequence = [inputs]  # all that one row alone has read, to be read again where it crosses the LongRoPE switch
    while True:
        output = model.network(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = output.logits[:, -1].index_fill(1, banned, -torch.inf).argmax(-1)
        tokens = chosen.tolist()
        written += 1
        yield list(zip(live, tokens, strict=True))
        keep = [
            i
            for i, row in enumerate(live)
            if tokens[i] not in model.end_tokens and written < prompts[row].max_new_tokens
        ]
        if not keep:
            return
        if len(keep) < len(live):
            index = torch.tensor(keep, device=model.device)
            cache.batch_select_indices(index)
            live, chosen, mask, positions = [live[i] for i in keep], chosen[index], mask[index], positions[index]
        inputs = embed(chosen)[:, None]
        mask = torch.cat((mask, mask.new_ones(len(live), 1)), dim=1)
        positions = positions[:, -1:] + 1
        if len(rows) == 1 and model.rope_switch is not None:
            sequence.append(inputs)
            if mask.shape[1] == model.rope_switch + 1:  # the angles of every position change: the cache is void
                inputs, cache = torch.cat(sequence, dim=1), DynamicCache(config=model.network.config)
                positions = torch.arange(mask.shape[1], device=model.device)[None]


def _embed(model: Model, prompts: Sequence[Prompt]) -> list[Tensor]:
    """Input embeddings of each prompt, (tokens, hidden size), with sound and pictures in their places."""
    decoder = model.network.model
    modules = decoder.embed_tokens_extend
    clips = [clip for prompt in prompts for clip in prompt.clips]
    # What the model hears beside pictures goes through a projection of its own.
    projection: Projection = "vision" if prompts[0].pictures else "speech"
    audio = iter(embed_audio(modules.audio_embed, clips, projection) if clips else ())
    rows = []
    for prompt in prompts:
        ids = torch.tensor(prompt.ids, device=model.device)
        row = decoder.embed_tokens(ids)
        if prompt.clips:
            row[ids == model.audio_token] = torch.cat([next(audio) for _ in prompt.clips])
        if prompt.pictures:
            row[ids == model.image_token] = torch.cat(embed_pictures(modules.image_embed, prompt.pictures))
        rows.append(row)
    return rows


def _pad_left(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of different length as one (batch, longest, hidden size), and the mask (batch, longest) of what is real."""
    inputs = pad_sequence(list(rows), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows], device=inputs.device)
    longest = inputs.shape[1]
    return inputs, (torch.arange(longest, device=inputs.device) >= longest - lengths[:, None]).long()
