"""From the pieces of a prompt to what the network takes: token ids, and the positions of sound and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from phi4mm_cli.errors import MissingError, TooLongError
from phi4mm_cli.model.encoder import Projection
from phi4mm_cli.model.encoding import Medium, positions
from phi4mm_cli.model.loading import Model
from phi4mm_cli.prompt import Marker, Piece
from phi4mm_cli.schema import Clip, Finish, Picture, Reply, Request, Sampling


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A clip or picture of a prompt."""

    part: Clip | Picture
    medium: Medium
    places: range  # its positions


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """A request as the model takes it."""

    ids: tuple[int, ...]  # the audio or image token stands in every position that an embedding of media goes to
    media: tuple[Placed, ...]  # in the prompt's order
    sampling: Sampling  # its token budget cut down to what the context has room for
    limit: Finish  # what has ended an answer that fills that budget
    word_times: bool = False  # whether the words of the answer are timed; of prompts with one clip of one WINDOW only
    key: str = ""  # of the request

    @property
    def clips(self) -> tuple[Medium, ...]:
        """The sound in it."""
        return tuple(one.medium for one in self.media if isinstance(one.part, Clip))

    @property
    def pictures(self) -> tuple[Medium, ...]:
        """The pictures in it."""
        return tuple(one.medium for one in self.media if isinstance(one.part, Picture))

    @property
    def projection(self) -> Projection:
        """That of sound: what the model hears beside pictures goes through one of its own."""
        return "vision" if self.pictures else "speech"


def adapter_of(asked: Request | Prompt) -> str | None:
    """The adapter that the model was trained with on such prompts: vision for pictures, also where there is sound."""
    return "vision" if asked.pictures else "speech" if asked.clips else None


def compose(model: Model, pieces: Iterable[Piece], media: Iterable[Medium], sampling: Sampling) -> Prompt:
    """The prompt of `pieces`; `media` are its Clips and Pictures, in order.

    Raises TooLongError.
    """
    ids: list[int] = []
    placed: list[Placed] = []
    waiting = iter(media)
    for kind, group in groupby(pieces, key=type):
        if kind is str:  # neighbours are joined first, for tokens do not end where pieces do
            ids += _encoded(model, "".join(str(piece) for piece in group))
            continue
        for piece in group:
            if isinstance(piece, Marker):
                ids.append(_marker_id(model, piece.token))
            elif isinstance(piece, Reply):
                ids += _reply_ids(model, piece)
            elif isinstance(piece, (Clip, Picture)):
                medium = next(waiting)
                places = range(len(ids), len(ids) + positions(medium))
                placed.append(Placed(piece, medium, places))
                ids += [model.audio_token if isinstance(piece, Clip) else model.image_token] * len(places)
    if len(ids) > model.context:
        message = f"the prompt is {len(ids)} tokens long, and the model takes {model.context}"
        raise TooLongError(message, "Use a shorter clip or text, or fewer or smaller pictures")
    room = model.context + 1 - len(ids)  # the last token of an answer is not read any more
    limit: Finish = "length" if sampling.max_new_tokens <= room else "context"
    cut = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
    return Prompt(tuple(ids), tuple(placed), cut, limit)


def rope_side(model: Model, prompt: Prompt) -> str:
    """Prompts of one side may share a batch; a "crossing" one, whose answer may pass the LongRoPE switch, is alone.

    The angles of all rows follow the longest, so that a long row would change the answers of short ones.
    """
    if is_long(model, len(prompt.ids)):
        return "long"
    return "crossing" if is_long(model, len(prompt.ids) + prompt.sampling.max_new_tokens - 1) else "short"


def is_long(model: Model, length: int) -> bool:
    """Whether a sequence of so many tokens is beyond the LongRoPE switch: all its positions have other angles."""
    return model.rope_switch is not None and length > model.rope_switch


def answer_text(model: Model, tokens: Sequence[int]) -> str:
    """What is seen of an answer."""
    seen = [token for token in tokens if token not in model.unseen_tokens]
    text: str = model.tokenizer.decode(seen, skip_special_tokens=False)
    return text.strip()


def _encoded(model: Model, text: str) -> list[int]:
    ids: list[int] = model.tokenizer.encode(text, add_special_tokens=False).ids
    return ids


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
    if known and answer_text(model, reply.tokens) == reply.text:
        return reply.tokens
    return _encoded(model, reply.text)
