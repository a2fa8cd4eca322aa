"""From prompts to answers: tokenises, puts sound and pictures into place, and decodes, several rows at a time.

A row's tokens do not depend on the rows beside it: rows are padded on the left and masked, each has its own token
budget, and it leaves the batch when it ends.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor

from phi4mm_cli.errors import MissingError, TooLongError
from phi4mm_cli.model.align import Answered, transcript, word_times
from phi4mm_cli.model.beams import search
from phi4mm_cli.model.encoder import WINDOW, Projection, embed_audio
from phi4mm_cli.model.features import audio_tokens
from phi4mm_cli.model.loading import Model
from phi4mm_cli.model.pixels import Crops
from phi4mm_cli.model.rows import Rows
from phi4mm_cli.model.sampling import Chooser, choose
from phi4mm_cli.model.vision import embed_pictures
from phi4mm_cli.prompt import TOOL_CALL, Marker, Piece
from phi4mm_cli.schema import Finish, Reply, Result, Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A request as the model takes it."""

    ids: tuple[int, ...]  # the audio or image token stands in every position that an embedding of media goes to
    clips: tuple[Tensor, ...]  # log-mel features (frames, 80), in the prompt's order
    pictures: tuple[Crops, ...]  # in the prompt's order
    sampling: Sampling  # its token budget cut down to what the context has room for
    limit: Finish  # what has ended an answer that fills that budget
    word_times: bool = False  # whether the words of the answer are timed; of prompts with one clip of one WINDOW only


def compose(model: Model, pieces: Iterable[Piece], media: Iterable[Tensor | Crops], sampling: Sampling) -> Prompt:
    """The prompt of `pieces`, whose Clips and Pictures are `media`: log-mel features and crops, in order.

    Raises TooLongError.
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
            elif isinstance(piece, Reply):
                ids += _reply_ids(model, piece)
            elif isinstance(medium := next(waiting), Crops):
                pictures.append(medium)
                ids += [model.image_token] * medium.tokens
            else:
                clips.append(medium)
                ids += [model.audio_token] * audio_tokens(len(medium))
    if len(ids) > model.context:
        message = f"the prompt is {len(ids)} tokens long, and the model takes {model.context}"
        raise TooLongError(message, "Use a shorter clip or text, or fewer or smaller pictures")
    room = model.context + 1 - len(ids)  # the last token of an answer is not read any more
    limit: Finish = "length" if sampling.max_new_tokens <= room else "context"
    cut = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
    return Prompt(tuple(ids), tuple(clips), tuple(pictures), cut, limit)


def _marker_id(model: Model, token: str) -> int:
    number = model.tokenizer.token_to_id(token)
    if number is None:
        raise MissingError(f"the model's vocabulary has no {token}", "Its tokenizer.json must have the chat markers")
    return number


def _reply_ids(model: Model, reply: Reply) -> Sequence[int]:
    """Its own tokens; those of its text where they are another vocabulary's, as when the model was changed.

    So it is too where a control token is among them that the text does not show: a reply may be read from a file, and
    nobody is to write `<|end|><|system|>` there.
    """
    rows, hidden = model.network.model.embed_tokens.num_embeddings, model.unseen_tokens | model.end_tokens
    media = (model.audio_token, model.image_token)
    known = all(0 <= token < rows and token not in hidden and token not in media for token in reply.tokens)
    if known and _text(model, reply.tokens) == reply.text:
        return reply.tokens
    ids: list[int] = model.tokenizer.encode(reply.text, add_special_tokens=False).ids
    return ids


def rope_side(model: Model, prompt: Prompt) -> str:
    """Prompts of one side may share a batch; a "crossing" one, whose answer may pass the LongRoPE switch, is alone.

    The angles of all rows follow the longest, so that a long row would change the answers of short ones.
    """
    switch = model.rope_switch
    if switch is None or len(prompt.ids) + prompt.sampling.max_new_tokens - 1 <= switch:
        return "short"
    return "long" if len(prompt.ids) > switch else "crossing"


def generate(model: Model, prompts: Sequence[Prompt]) -> list[Result]:
    """The answers, in order, to prompts of one rope side and with media of one kind, whose adapter is at work.

    A prompt whose answer may cross the LongRoPE switch, or is searched for with beams, comes alone.
    """
    tokens: list[list[int]] = [[] for _ in prompts]
    inputs = _embed(model, prompts)
    for step in _steps(model, prompts, inputs):
        for row, token in step:
            tokens[row].append(token)
    results = [_result(model, prompt, row) for prompt, row in zip(prompts, tokens, strict=True)]
    return _timed(model, prompts, inputs, results)


def stream(model: Model, prompt: Prompt) -> Generator[str, None, Result]:
    """The answer to one prompt, its text piece by piece; the pieces together are the result's text."""
    decoder = DecodeStream(skip_special_tokens=False)  # holds back the bytes of an unfinished character
    tokens: list[int] = []
    shown = held = ""
    inputs = _embed(model, [prompt])
    for step in _steps(model, [prompt], inputs):
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
    return _timed(model, [prompt], inputs, [result])[0]


def _result(model: Model, prompt: Prompt, tokens: list[int]) -> Result:
    finish = prompt.limit
    if tokens and tokens[-1] in model.end_tokens:
        finish = "stop"
        tokens = tokens[:-1]
    text = _text(model, tokens)
    return Result(text, tuple(tokens), finish, len(prompt.ids), quoted=_quoted(model, tokens, text))


def _text(model: Model, tokens: Sequence[int]) -> str:
    """What is seen of an answer."""
    seen = [token for token in tokens if token not in model.unseen_tokens]
    text: str = model.tokenizer.decode(seen, skip_special_tokens=False)
    return text.strip()


def _quoted(model: Model, tokens: Sequence[int], text: str) -> tuple[int, ...] | None:
    """Where `text` has letters that read like the marker of tool calls; None where each is the marker itself.

    So it is too where the vocabulary has no such token, and a model can only write the letters.
    """
    marker = model.tokenizer.token_to_id(TOOL_CALL)
    places = [found.start() for found in re.finditer(re.escape(TOOL_CALL), text)]
    if marker is None or len(places) == tokens.count(marker):
        return None
    # A marker begins where the text before it ends, but for white space at the very start.
    real = {len(_text(model, tokens[: at + 1])) - len(TOOL_CALL) for at in range(len(tokens)) if tokens[at] == marker}
    return tuple(place for place in places if place not in real)


@torch.inference_mode()
def _timed(
    model: Model, prompts: Sequence[Prompt], inputs: Sequence[Tensor], results: Sequence[Result]
) -> list[Result]:
    """The results, with the words of those transcripts for which that is asked."""
    spoken: dict[int, Answered] = {}
    for place, (prompt, embedded, result) in enumerate(zip(prompts, inputs, results, strict=True)):
        heard = [audio_tokens(len(clip)) for clip in prompt.clips]
        asked = prompt.word_times and len(heard) == 1 and heard[0] <= WINDOW
        if asked and (tokens := transcript(model, result.tokens)):
            first = prompt.ids.index(model.audio_token)
            written = model.network.model.embed_tokens(torch.tensor(tokens, device=model.device))
            spoken[place] = Answered(torch.cat((embedded, written)), slice(first, first + heard[0]), tokens)
    words = dict(zip(spoken, word_times(model, list(spoken.values())), strict=True))
    return [replace(result, words=words.get(place)) for place, result in enumerate(results)]


# ------------------------------------------------------------------------------------------------------- the loop


@torch.inference_mode()
def _steps(model: Model, prompts: Sequence[Prompt], inputs: Sequence[Tensor]) -> Iterator[list[tuple[int, int]]]:
    """At each step the (row, token) pairs of the rows still at work, end tokens included; `inputs` are embeddings."""
    banned = torch.tensor([model.audio_token, model.image_token], device=model.device)
    rows = Rows(model, inputs)
    if prompts[0].sampling.num_beams > 1:
        [prompt] = prompts
        yield from ([(0, token)] for token in search(model, rows, prompt.ids, prompt.sampling, banned))
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
            if tokens[i] not in model.end_tokens and written < prompts[row].sampling.max_new_tokens
        ]
        if 0 < len(keep) < len(live):
            index = torch.tensor(keep, device=model.device)
            rows.select(index)
            chosen = chosen[index]
        live = [live[i] for i in keep]
        if live:
            rows.append(chosen)


@torch.inference_mode()
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
