"""The conversation with tools: the model asks for calls, is told what came of them, and goes on until it answers.

`turn` is a flow of one answer; `converse` runs turns with whatever can run a flow (`ask`) and carry out a call
(`act`), so that a command may do both its own way: in a batch or streamed, asked for or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from phi4mm_cli.errors import AnswerError
from phi4mm_cli.flow import Flow
from phi4mm_cli.outputs import Warning
from phi4mm_cli.schema import Message, Request, Result, Sampling, ToolCall
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.calls import CallError, mentioned, parse
from phi4mm_cli.tools.checking import check
from phi4mm_cli.tools.formats import offer
from phi4mm_cli.tools.records import Step, ToolResult, ToolRun
from phi4mm_cli.tools.results import failure, refused

BUDGET = 1000  # tokens of an answer, as in the model's sample code

Tools = Mapping[str, Tool]


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer of the model."""

    messages: tuple[Message, ...]  # the conversation up to and with it
    result: Result
    calls: tuple[ToolCall, ...]  # checked; none where the answer is text


def turn(messages: tuple[Message, ...], tools: Tools, sampling: Sampling) -> Flow[Turn]:
    """The model's answer to `messages`. One whose calls are invalid is asked for again, once, with what is wrong.

    Raises AnswerError where that is invalid too.
    """
    offered = offer([*tools.values()])
    error = CallError()
    for _ in range(2):
        (result,) = yield [Request(messages, sampling, offered)]
        messages = (*messages, Message("assistant", (result.reply,)))
        try:
            calls = tuple(check(call, tools) for call in parse(result.text, tools, result.quoted or ()))
        except CallError as invalid:
            error = invalid
            messages = (*messages, Message("tool", (failure(str(error)),)))
        else:
            return Turn(messages, result, calls)
    advice = "Raise --max-new-tokens" if result.finish == "length" else "Say more in the tools' descriptions"
    raise AnswerError(f"the model's call is invalid, and so was the one before: {error}", advice)


def converse(
    messages: tuple[Message, ...],
    tools: Tools,
    sampling: Sampling,
    max_steps: int,
    ask: Callable[[Flow[Turn]], Turn],
    act: Callable[[ToolCall], ToolResult],
) -> ToolRun:
    """Turns until the model answers in words, at most `max_steps` of them with calls.

    A call that stands word for word in what a tool returned, or in a question or a document with it, was not thought of
    by the model, and is refused.
    """
    steps: list[Step] = []
    while True:
        try:
            answer = ask(turn(messages, tools, sampling))
        except AnswerError as error:
            return ToolRun("", "no_valid_call", tuple(steps), str(error))
        if not answer.calls:
            return ToolRun(answer.result.text, "answered", tuple(steps), warnings=tuple(_warnings(answer.result)))
        if len(steps) == max_steps:
            problem = f"the model asks for tools for more than {max_steps} steps; --max-steps allows for more"
            return ToolRun("", "too_many_steps", tuple(steps), problem)
        copied = _copied(answer.messages, tools)
        results = tuple(
            refused(call, "it was copied from what was told") if call in copied else act(call) for call in answer.calls
        )
        steps.append(Step(answer.result.text, results))
        messages = (*answer.messages, *(Message("tool", (result.content,)) for result in results))


def _warnings(result: Result) -> Iterator[Warning]:
    if result.finish != "stop":
        yield Warning("token_limit", "the answer was cut off by its token budget", "kept as it is")


def _copied(messages: Sequence[Message], tools: Tools) -> list[ToolCall]:
    """The calls that can be read in what the model was told."""
    told = [message.parts for message in messages if message.role != "assistant"]
    found = mentioned([part for parts in told for part in parts if isinstance(part, str)], tools)
    return [*found, *_mended(found, tools)]


def _mended(calls: Sequence[ToolCall], tools: Tools) -> Iterator[ToolCall]:
    """The calls as they are once their types are mended: so are those that the model makes."""
    for call in calls:
        with suppress(CallError):
            yield check(call, tools)
