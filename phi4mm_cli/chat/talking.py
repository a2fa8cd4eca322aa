"""Asks the model within a conversation: makes room for the question, streams the answer, lets tools be called."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from typing import TypeVar

from phi4mm_cli import cancel, prompt, structured
from phi4mm_cli.asking import Asking
from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.chat import Conversation, Dropped, Event, Turn
from phi4mm_cli.errors import AnswerError, InputError
from phi4mm_cli.flow import Flow
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Warning
from phi4mm_cli.schema import Finish, Message, Picture, Piece, Reply, Request, Result, Sampling, ToolCall
from phi4mm_cli.tools import Tool, loop
from phi4mm_cli.tools.records import Step, ToolResult

T = TypeVar("T")
Show = Callable[[str], None]

BUDGET = 2048  # tokens of an answer
SEEN = 0.75  # of the room, that the pictures of one question may take
KEPT = 0.75  # of the room, once turns have to be dropped: not one each time, for then all would be read anew each time
NEAR = 0.9  # of the room, from which on the user is told


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer, and the turn that it makes with its question."""

    turn: Turn
    text: str
    finish: Finish | None  # None: the user stopped it
    steps: tuple[Step, ...] = ()

    @property
    def warnings(self) -> tuple[Warning, ...]:
        """Why it may not be all."""
        if self.finish == "length":
            return (Warning("token_limit", "the answer was cut off by its token budget", "kept as it is"),)
        if self.finish == "context":
            return (Warning("token_limit", "the answer was cut off where the context is full", "kept as it is"),)
        if self.finish == "stop" and not self.text:
            return (Warning("empty_answer", "the model says nothing", "kept as it is"),)
        return ()


@dataclass(frozen=True, slots=True)
class Acting:
    """The tools that may be called."""

    tools: Mapping[str, Tool]
    act: Callable[[ToolCall], ToolResult]
    max_steps: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """A conversation in which there is room for a question and its answer."""

    conversation: Conversation
    tokens: int  # of the prompt
    room: int  # most tokens that it may have
    dropped: Dropped | None = None

    @property
    def events(self) -> tuple[Event, ...]:
        """What has to happen in the conversation before the question."""
        return () if self.dropped is None else (self.dropped,)

    @property
    def notice(self) -> str | None:
        """What the user should know of it: turns are left out, or soon may be."""
        if self.dropped is not None:
            return f"the conversation was too long for the model: its {self.dropped.turns} oldest turns are left out"
        if self.tokens > NEAR * self.room:
            taken = f"{self.tokens} of the {self.room} tokens"
            return f"the conversation takes {taken} that there are; then its oldest turns are left out"
        return None


class Talker:
    """Answers questions in conversations, with one model in one manner."""

    def __init__(
        self, model: Asking, sampling: SamplingOptions, private: bool | None = None, acting: Acting | None = None
    ) -> None:
        self._model, self._options, self._private, self._acting = model, sampling, private, acting

    @property
    def may_ask(self) -> bool:
        """Whether the user may be asked something before there is an answer: whether a tool may be called."""
        return self._acting is not None

    @property
    def context(self) -> int:
        """How many tokens there may be in a prompt and its answer together."""
        return self._model.profile.context

    @property
    def sampling(self) -> Sampling:
        """How the tokens of an answer are chosen."""
        return self._options.sampling(min(BUDGET, self.context // 4))

    @property
    def room(self) -> int:
        """Most tokens of a prompt: what an answer leaves."""
        return self.context - min(self.sampling.max_new_tokens, self.context // 4)

    @property
    def room_for_pictures(self) -> int:
        """Most tokens of the pictures in a question."""
        return int(SEEN * self.room)

    def fit(self, conversation: Conversation, said: Message) -> Fitted:
        """The conversation with room for `said`: where there is too little, the oldest turns are dropped.

        The system prompt and the question always stay. Raises InputError where these alone are too much.
        """
        room = self.room
        tokens, dropped = self.tokens(self.messages(conversation, said)), 0
        if tokens > room:
            for turn in conversation.turns:
                if tokens <= KEPT * room:
                    break
                tokens -= self.tokens((turn.said, *turn.replies)) - 1
                dropped += 1
        if tokens > room:
            message = f"the question is {tokens} tokens long, and with its answer the model takes {self.context}"
            raise InputError(message, "Give fewer or shorter documents, recordings or pictures")
        event = Dropped(dropped) if dropped else None
        return Fitted(conversation.after(event) if event else conversation, tokens, room, event)

    def messages(self, conversation: Conversation, said: Message) -> tuple[Message, ...]:
        """What the model is told."""
        return conversation.asked(said, self._private)

    def tokens(self, messages: tuple[Message, ...]) -> int:
        """How many tokens the prompt of these messages is."""
        pictures = [part for message in messages for part in message.parts if isinstance(part, Picture)]
        return prompt.size(messages, self._model.count_tokens) + sum(_tokens(picture) - 1 for picture in pictures)

    def answer(
        self,
        conversation: Conversation,
        said: Message,
        show: Show,
        again: int = 0,
        form: structured.Schema | None = None,
    ) -> Spoken:
        """The model's answer, told to `show` as it is written. `again` counts how often it was asked before.

        With `form` it is JSON of that form. Raises RequestError, and AnswerError where there is no such JSON, or where
        tools are called to no end.
        """
        messages = self.messages(conversation, said)
        sampling = _other(self.sampling, again) if again else self.sampling
        if form is not None:
            return self._structured(form, messages, sampling, show)
        if self._acting is not None:
            return self._with_tools(self._acting, messages, sampling, show)
        written: list[str] = []

        def write(piece: str) -> None:
            written.append(piece)
            show(piece)

        try:
            result = self._stream(Request(messages, sampling), write)
        except Cancelled:
            reply = _broken_off(written)
            return Spoken(Turn(said, (Message("assistant", (reply,)),)), reply.text, None)
        return Spoken(Turn(said, (_said(result),)), result.text, result.finish)

    def _structured(
        self, form: structured.Schema, messages: tuple[Message, ...], sampling: Sampling, show: Show
    ) -> Spoken:
        answer = self._run(structured.ask(messages, form, sampling))
        text = json.dumps(answer.value, ensure_ascii=False)
        show(text)
        return Spoken(Turn(messages[-1], (_said(answer.result),)), text, answer.result.finish)

    def _with_tools(self, acting: Acting, messages: tuple[Message, ...], sampling: Sampling, show: Show) -> Spoken:
        """Not streamed: whether an answer is a call shows when it ends."""
        turns: list[loop.Turn] = []

        def ask(flow: Flow[loop.Turn]) -> loop.Turn:
            turns.append(self._run(flow))
            return turns[-1]

        run = loop.converse(messages, acting.tools, sampling, acting.max_steps, ask, acting.act)
        if run.problem is not None:
            raise AnswerError(run.problem)
        show(run.text)
        last = turns[-1]
        replies = last.messages[len(messages) :]
        return Spoken(Turn(messages[-1], replies), run.text, last.result.finish, run.steps)

    def _run(self, flow: Flow[T]) -> T:
        """The value of a flow, whose requests are answered one by one: what the model has read before is kept."""
        try:
            requests = next(flow)
            while True:
                requests = flow.send([self._stream(request, _unseen) for request in requests])
        except StopIteration as end:
            value: T = end.value
            return value

    def _stream(self, request: Request, show: Show) -> Result:
        answer = self._model.stream(request)
        try:
            while True:
                cancel.check()
                show(next(answer))
        except StopIteration as end:
            result: Result = end.value
            return result
        finally:
            answer.close()


def _broken_off(written: Sequence[str]) -> Reply:
    """What there is of an answer, in the model's own tokens where the engine tells them."""
    tokens = [piece.tokens for piece in written if isinstance(piece, Piece)]
    known = len(tokens) == len(written)
    return Reply("".join(written), tuple(chain.from_iterable(tokens)) if known else ())


def _said(result: Result) -> Message:
    return Message("assistant", (result.reply,))


def _unseen(_: str) -> None:
    """Shows nothing."""


def _other(sampling: Sampling, again: int) -> Sampling:
    """Settings that draw another answer: the best tokens would be the same ones again."""
    return replace(sampling, temperature=sampling.temperature or 0.7, seed=sampling.seed + again, num_beams=1)


@lru_cache(maxsize=4096)  # of what was seen once: its file may be gone by now
def _tokens(picture: Picture) -> int:
    """How many positions of the prompt a picture takes. Raises InputError."""
    from phi4mm_cli.media import document
    from phi4mm_cli.model.grid import MOST_CROPS, image_tokens

    try:
        width, height = document.shown_size(picture)
    except InputError as error:
        raise InputError(f"{picture.source.path}: {error.message}", error.advice) from None
    return image_tokens(width, height, picture.most_crops or MOST_CROPS)
