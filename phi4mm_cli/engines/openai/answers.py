"""Answers of servers in phi4mm's terms, whole or from the events of a stream."""

from __future__ import annotations

import json
import re
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import Any

from phi4mm_cli.engines.openai.wire import Family
from phi4mm_cli.prompt import END, TOOL_CALL
from phi4mm_cli.schema import Finish, Result

Json = dict[str, Any]

_END_TOKENS = (END, "<|endoftext|>")
CALL_TOKEN = 200025  # of the released vocabulary: the marker of tool calls
MOST_TOKENS = 131072  # that a server may say it has counted


class MalformedError(Exception):
    """An answer that is not what the protocol has."""


class Answer:
    """Takes in an answer, whole or piece by piece."""

    def __init__(self, budget: int, family: Family) -> None:
        self._budget, self._family = budget, family
        self._quoted: list[int] = []
        self._text: list[str] = []
        self._tokens: list[int] = []
        self._usage: Json = {}
        self.finish: str | None = None
        self._begun = False  # there has been a message

    def take(self, sent: Json, is_event: bool = False) -> str:
        """A whole answer, or one event of a stream; returns the text that is in it. Raises MalformedError.

        An event may have no choices: it tells of usage, or nothing.
        """
        usage, choices = sent.get("usage"), sent.get("choices")
        if choices is None and is_event:
            choices = []
        if isinstance(usage, dict):
            self._usage = usage
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise MalformedError("there are no choices in it")
        text = ""
        for choice in choices[:1]:
            message = choice.get("message") or choice.get("delta") or {}
            self._begun = self._begun or bool(message)
            text = "" if (piece := _text_of(message)) in _END_TOKENS else piece
            self.finish = choice.get("finish_reason") or self.finish
            self._tokens += _numbers(choice.get("token_ids"))
            self._quoted += _numbers(choice.get("quoted"))
        self._text.append(text)
        return text

    def result(self) -> Result:
        """The answer in phi4mm's terms; token ids that the server does not tell are -1. Raises MalformedError."""
        if self.finish == "content_filter":
            raise MalformedError("the server withholds the answer")
        if not self._begun:
            raise MalformedError("there is no answer in it")
        text = _whole_letters("".join(self._text)).strip()
        for end in _END_TOKENS:
            text = text.removesuffix(end).rstrip()
        counted = self._count("completion_tokens")
        finish: Finish = "stop"
        if self.finish == "length":
            finish = "context" if counted is not None and counted < self._budget else "length"
        tokens = tuple(self._tokens) or (-1,) * (counted or 0)
        return Result(
            text=text,
            tokens=tokens[:-1] if finish == "stop" and self._family is not Family.PHI4MM else tokens,
            finish=finish,
            prompt_tokens=self._count("prompt_tokens") or 0,
            quoted=self._no_calls(text),
        )

    def _no_calls(self, text: str) -> tuple[int, ...] | None:
        """The Result's `quoted`: as phi4mm's server tells it, or by the tokens that vLLM tells.

        Where some of the letters are real markers and some are not, which is which cannot be seen: none is one.
        """
        if self._family is Family.PHI4MM:
            return tuple(self._quoted) or None
        places = tuple(found.start() for found in re.finditer(re.escape(TOOL_CALL), text))
        told = self._family is Family.VLLM and bool(self._tokens)
        return places if told and len(places) != self._tokens.count(CALL_TOKEN) else None

    def _count(self, name: str) -> int | None:
        value = self._usage.get(name)
        return min(value, MOST_TOKENS) if isinstance(value, int) and value >= 0 else None


def _whole_letters(text: str) -> str:
    """JSON may write a letter as two halves: both together are it, and one alone becomes a replacement."""
    return _units(text).decode("utf-16-le", "replace")


def _units(text: str) -> bytes:
    return text.encode("utf-16-le", "surrogatepass")


def _numbers(value: Any) -> list[int]:
    return [item for item in value if isinstance(item, int)] if isinstance(value, list) else []


def _text_of(message: Any) -> str:
    """The text of a message or of what is added to one."""
    if not isinstance(message, dict):
        raise MalformedError("a choice has no message")
    content = message.get("content") or ""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in texts if isinstance(text, str))
    if not isinstance(content, str):
        raise MalformedError("its content is no text")
    return content


def parsed(text: bytes | str) -> Json:
    """A JSON object. Raises MalformedError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedError("it is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("it is no JSON object")
    return value


class Shown:
    """Hands over the text of a stream so that the pieces together are the result's text."""

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._shown = self._held = ""
        self._letters = getincrementaldecoder("utf-16-le")("replace")  # keeps half a letter until its other half comes

    def add(self, text: str) -> None:
        """White space at the start is none of the answer's, and any other only when text follows it."""
        self._held += self._letters.decode(_units(text))
        piece = (self._held if self._shown else self._held.lstrip()).rstrip()
        if piece:
            self._show(piece)
            self._shown, self._held = self._shown + piece, self._held[len(self._held.rstrip()) :]

    def end(self, text: str) -> None:
        """What of the result's text has not been handed over yet."""
        if len(text) > len(self._shown):
            self._show(text[len(self._shown) :])
