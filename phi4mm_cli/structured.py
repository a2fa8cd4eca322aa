"""Answers that are JSON of a form that the user gives as a JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from phi4mm_cli.errors import AnswerError, UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.schema import Message, Request, Result, Sampling
from phi4mm_cli.tools.checking import check_schema, mended

PROMPT = "Answer with JSON alone, of the form that this JSON Schema describes:"  # our own
AGAIN = "This is not it: {problem}. Answer with the JSON alone."

_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?```", re.DOTALL | re.IGNORECASE)

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that holds against the schema."""

    value: Any
    result: Result


def read_schema(path: Path) -> Schema:
    """The schema in a file. Raises UsageError."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{path}: {reason}", "Give a file with a JSON Schema") from None
    if not isinstance(schema, dict):
        raise UsageError(f"{path}: this is no JSON Schema, which is an object", "Mend the file")
    check_schema(str(path), schema)
    return schema


def ask(messages: tuple[Message, ...], schema: Schema, sampling: Sampling) -> Flow[Answer]:
    """The model's answer to the last of `messages`, as JSON. One of another form is asked for again, once.

    Raises AnswerError where that is of another form too.
    """
    asked = messages[-1]
    form = f"\n\n{PROMPT}\n{json.dumps(schema, ensure_ascii=False, separators=(',', ':'))}"
    messages = (*messages[:-1], replace(asked, parts=(*asked.parts, form)))
    problem = ""
    for _ in range(2):
        (result,) = yield [Request(messages, sampling)]
        value, wrong = read(result.text, schema)
        if wrong is None:
            return Answer(value, result)
        problem = "the token budget cut it off" if result.finish == "length" else wrong
        again = Message("user", (AGAIN.format(problem=problem),))
        messages = (*messages, Message("assistant", (result.reply,)), again)
    advice = "Raise --max-new-tokens" if result.finish == "length" else "Say more in the schema's descriptions"
    raise AnswerError(f"the model's answer is not of the schema's form, and so was the one before: {problem}", advice)


def read(text: str, schema: Schema) -> tuple[Any, str | None]:
    """The JSON that an answer is, alone or in a fence, and what is wrong with it."""
    fenced = _FENCED.findall(text)
    try:
        value = json.loads(fenced[0] if len(fenced) == 1 else text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # 1e999, half of a surrogate pair: not writable
    except (ValueError, RecursionError) as error:
        return None, f"it is not JSON: {error}"
    return mended(value, schema)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is none of its numbers")
