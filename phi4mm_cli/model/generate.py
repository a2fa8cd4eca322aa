"""From prompts to answers: tokenises, puts sound and pictures into place, and decodes, several rows at a time.

A row's tokens do not depend on the rows beside it: rows are padded on the left and masked, each has its own token
budget, and it leaves the batch when it ends.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from phi4mm_cli.cancel import is_dropped
from phi4mm_cli.model.align import Answered, transcript, word_times
from phi4mm_cli.model.beams import search
from phi4mm_cli.model.composing import Prompt, answer_text
from phi4mm_cli.model.encoder import WINDOW
from phi4mm_cli.model.encoder import project as project_sound
from phi4mm_cli.model.encoding import encode
from phi4mm_cli.model.kept import Kept
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.memory import ROW_TOKENS, require_room
from phi4mm_cli.model.rows import Rows
from phi4mm_cli.model.sampling import Chooser, choose
from phi4mm_cli.model.vision import project as project_picture
from phi4mm_cli.prompt import TOOL_CALL
from phi4mm_cli.schema import Clip, Piece, Result


def generate(model: Model, prompts: Sequence[Prompt]) -> list[Result]:
    """The answers, in order, to prompts of one rope side and with media of one kind, whose adapter is at work.

    A prompt whose answer may cross the LongRoPE switch, or is searched for with beams, comes alone. The answer to one
    that is dropped meanwhile is cut off. Raises MemoryError where the machine has no room for them.
    """
    require_room(model.device, model.token_bytes * sum(map(_tokens, prompts)))
    tokens: list[list[int]] = [[] for _ in prompts]
    inputs = _embed(model, prompts)
    for step in _steps(model, prompts, Rows(model, inputs)):
        for row, token in step:
            tokens[row].append(token)
    results = [_result(model, prompt, row) for prompt, row in zip(prompts, tokens, strict=True)]
    return _timed(model, prompts, inputs, results)


def stream(model: Model, prompt: Prompt, kept: Kept | None = None) -> Generator[str, None, Result]:
    """The answer to one prompt, its text as one Piece after the other; together they are the result's text.

    It goes on from what is `kept`, and is kept there itself, even when it is broken off. Raises as `generate` does.
    """
    kept = Kept() if kept is None else kept
    decoder = DecodeStream(skip_special_tokens=False)  # holds back the bytes of an unfinished character
    tokens: list[int] = []
    shown = held = ""
    told = 0  # of the tokens
    prompt, rows = _resumed(model, prompt, kept)
    try:
        for step in _steps(model, [prompt], rows):
            for _, token in step:
                tokens.append(token)
                if token not in model.unseen_tokens:
                    held += decoder.step(model.tokenizer, token) or ""
            piece = (held if shown else held.lstrip()).rstrip()  # white space counts only when text follows it
            if piece:
                new, told = tuple(tokens[told:]), len(tokens)
                yield Piece(piece, new)
                shown, held = shown + piece, held[len(held.rstrip()) :]
    finally:
        kept.keep(model, prompt, tokens, rows)
    result = _result(model, prompt, tokens)
    if len(result.text) > len(shown):
        yield Piece(result.text[len(shown) :], result.tokens[told:])
    return _timed(model, [prompt], _embed(model, [prompt]), [result])[0] if prompt.word_times else result


def _result(model: Model, prompt: Prompt, tokens: list[int]) -> Result:
    finish = prompt.limit
    if tokens and tokens[-1] in model.end_tokens:
        finish = "stop"
        tokens = tokens[:-1]
    text = answer_text(model, tokens)
    return Result(text, tuple(tokens), finish, len(prompt.ids), quoted=_quoted(model, tokens, text))


def _quoted(model: Model, tokens: Sequence[int], text: str) -> tuple[int, ...] | None:
    """Where `text` has letters that read like the marker of tool calls; None where each is the marker itself.

    So it is too where the vocabulary has no such token, and a model can only write the letters.
    """
    marker = model.tokenizer.token_to_id(TOOL_CALL)
    places = [found.start() for found in re.finditer(re.escape(TOOL_CALL), text)]
    if marker is None or len(places) == tokens.count(marker):
        return None
    ends = [at + 1 for at, token in enumerate(tokens) if token == marker]
    real = {len(answer_text(model, tokens[:end])) - len(TOOL_CALL) for end in ends}
    return tuple(place for place in places if place not in real)


@torch.inference_mode()
def _timed(
    model: Model, prompts: Sequence[Prompt], inputs: Sequence[Tensor], results: Sequence[Result]
) -> list[Result]:
    """The results, with the words of those transcripts for which that is asked."""
    spoken: dict[int, Answered] = {}
    for place, (prompt, embedded, result) in enumerate(zip(prompts, inputs, results, strict=True)):
        heard = [one.places for one in prompt.media if isinstance(one.part, Clip)]
        asked = prompt.word_times and len(heard) == 1 and len(heard[0]) <= WINDOW
        if asked and (tokens := transcript(model, result.tokens)):
            written = model.network.model.embed_tokens(torch.tensor(tokens, device=model.device))
            spoken[place] = Answered(torch.cat((embedded, written)), slice(heard[0].start, heard[0].stop), tokens)
    words = dict(zip(spoken, word_times(model, list(spoken.values())), strict=True))
    return [replace(result, words=words.get(place)) for place, result in enumerate(results)]


# ------------------------------------------------------------------------------------------------------- the loop


@torch.inference_mode()
def _steps(model: Model, prompts: Sequence[Prompt], rows: Rows) -> Iterator[list[tuple[int, int]]]:
    """At each step the (row, token) pairs of the rows still at work, end tokens included."""
    banned = torch.tensor([model.audio_token, model.image_token], device=model.device)
    if prompts[0].sampling.num_beams > 1:
        [prompt] = prompts
        yield from ([(0, token)] for token in search(model, rows, prompt, banned))
        return
    choosers = [Chooser(p.sampling, p.ids, banned) if Chooser.needed(p.sampling) else None for p in prompts]
    live, written = list(range(len(prompts))), 0
    while live:
        chosen = choose(rows.read(), [choosers[row] for row in live], banned)
        tokens = chosen.tolist()
        written += 1
        yield list(zip(live, tokens, strict=True))
        keep = [
            i
            for i, row in enumerate(live)
            if tokens[i] not in model.end_tokens
            and written < prompts[row].sampling.max_new_tokens
            and not is_dropped(prompts[row].key)
        ]
        if 0 < len(keep) < len(live):
            index = torch.tensor(keep, device=model.device)
            rows.select(index)
            chosen = chosen[index]
        live = [live[i] for i in keep]
        if live:
            rows.append(chosen)


@torch.inference_mode()
def _resumed(model: Model, prompt: Prompt, kept: Kept) -> tuple[Prompt, Rows]:
    """The prompt, with the media encoded that are needed, and its row, with what is kept of its beginning."""
    past = kept.resume(model, prompt)
    start = past[1] if past else 0
    require_room(model.device, model.token_bytes * (_tokens(prompt) - start))
    prompt = kept.encode(model, prompt, start)
    [inputs] = _embed(model, [prompt], start)
    return prompt, Rows(model, [inputs], past, lambda: _embed(model, [prompt])[0])


def _tokens(prompt: Prompt) -> int:
    """How many there are to be at least, in all beams."""
    return (len(prompt.ids) + min(prompt.sampling.max_new_tokens, ROW_TOKENS)) * prompt.sampling.num_beams


@torch.inference_mode()
def _embed(model: Model, prompts: Sequence[Prompt], start: int = 0) -> list[Tensor]:
    """Input embeddings of each prompt from position `start` on, (tokens, hidden size), with media in their places."""
    decoder = model.network.model
    modules = decoder.embed_tokens_extend
    wanted = [one for prompt in prompts for one in prompt.media if one.places.stop > start]
    encoded = encode(model, [one.medium for one in wanted])
    rows = []
    for prompt in prompts:
        row = decoder.embed_tokens(torch.tensor(prompt.ids[start:], device=model.device))
        for one in prompt.media:
            if one.places.stop <= start:
                continue
            if isinstance(one.part, Clip):
                values = project_sound(modules.audio_embed, next(encoded), prompt.projection)
            else:
                values = project_picture(modules.image_embed, next(encoded))
            first = max(start, one.places.start)
            row[first - start : one.places.stop - start] = values[first - one.places.start :]
        rows.append(row)
    return rows
