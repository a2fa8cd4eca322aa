"""Reads tool calls out of the model's answers: the one place that knows how they are written.

The model writes `<|tool_call|>[{"name": ..., "arguments": {...}}]<|/tool_call|>` or `functools[...]`; where an engine
leaves special tokens out of its texts, the list stands bare. JSON is decoded as JSON, so that brackets, braces and
markers inside of strings end nothing. Letters of the marker that are no control token, as when a document is quoted,
begin no call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any, NoReturn

from phi4mm_cli.prompt import TOOL_CALL, TOOL_CALL_END
from phi4mm_cli.schema import ToolCall

MOST_LEVELS = 100

# Where a call may begin. "functools[lru_cache]" is talk about Python; a call goes on with an object.
_START = re.compile(rf"(?P<marker>{re.escape(TOOL_CALL)}|\bfunctools\s*(?=\[\s*\{{))|[\[{{]")
_MARKER = re.compile(re.escape(TOOL_CALL))
_BEGUN = re.compile(r'\s*(?:```(?:json)?\s*)?\[?\s*\{\s*"name"')  # an answer that was to be a bare call
_LEAD = re.compile(r"\s*(?:```(?:json)?\s*)?(?:functools\s*(?=\[))?")  # what may stand between a marker and its list
_BETWEEN = re.compile(r"[\s,;]*")  # what may stand between two lists
_JSON_START = re.compile(r"[\[{]")
_END = re.compile(rf"\s*(?:```)?\s*(?:{re.escape(TOOL_CALL_END)})?\s*")


class CallError(ValueError):
    """What the model wrote is meant to be a call, and is none. The message is for the model."""


def parse(answer: str, names: Collection[str], quoted: Collection[int] = ()) -> list[ToolCall]:
    """The calls in `answer`, in order; [] where it is text and nothing else. Raises CallError.

    `names` are those of the tools on offer. Behind a marker, any name is a call, so that the model can be told of one
    that is not on offer. A bare list is a call only where every item has a name on offer and arguments, and where the
    answer ends with it: what is quoted on the way is not taken for one. Nor is what stands in a text of other JSON.
    `quoted` are the Result's: up to the next real marker, nothing behind these letters is a call.
    """
    marked: list[ToolCall] = []
    bare: list[ToolCall] = []
    broken: CallError | None = None
    place = 0
    while start := _START.search(answer, place):
        if start.start() in quoted:
            real = (marker.start() for marker in _MARKER.finditer(answer, start.end()))
            bare, place = [], next((at for at in real if at not in quoted), len(answer))
            continue
        if start["marker"]:
            calls, place = _block(answer, start.end())
            marked += calls
            continue
        together = _BETWEEN.fullmatch(answer, place, start.start())
        try:
            value, place = _decode(answer, start.start())
        except CallError as error:
            broken, bare, place = broken or error, [], start.end()
        else:
            before = bare if together else []
            bare = [*before, *_calls(value)] if _is_call(value, names) else []
    if marked or (bare and _END.fullmatch(answer, place)):
        return marked or bare
    if broken and _BEGUN.match(answer) and any(json.dumps(name) in answer for name in names):
        raise broken
    return []


def mentioned(value: Any, names: Collection[str]) -> list[ToolCall]:
    """Whatever could be read as a call anywhere in a JSON value, its texts included."""
    found: list[ToolCall] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            waiting += _objects(item)
        elif isinstance(item, (dict, list)):
            with suppress(CallError):
                found += _calls(item) if _is_call(item, names) else []
            waiting += item.values() if isinstance(item, dict) else item
    return found


def _objects(text: str) -> Iterator[Any]:
    """The JSON objects that stand in a text."""
    place = text.find("{")
    while place >= 0:
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
        else:
            yield value
        place = text.find("{", place)


def _block(answer: str, place: int) -> tuple[list[ToolCall], int]:
    """The calls behind a marker, and where they end. The marker behind them is often left out."""
    lead = _LEAD.match(answer, place)
    place = lead.end() if lead else place
    calls: list[ToolCall] = []
    while not calls or _JSON_START.match(answer, place):
        value, end = _decode(answer, place)
        calls += _calls(value)
        between = _BETWEEN.match(answer, end)
        place = between.end() if between else end
    return calls, place


def _is_call(value: Any, names: Collection[str]) -> bool:
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(
        isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and item["name"] in names
        and ("arguments" in item or ("parameters" in item and "description" not in item))
        for item in map(_unwrapped, items)
    )


def _calls(value: Any) -> list[ToolCall]:
    items = value if isinstance(value, list) else [value]
    if not items:
        raise CallError("the list of calls is empty")
    return [_call(_unwrapped(item)) for item in items]


def _unwrapped(item: Any) -> Any:
    """What is inside of {"type": "function", "function": {...}}, as OpenAI writes calls."""
    return item["function"] if isinstance(item, dict) and isinstance(item.get("function"), dict) else item


def _call(item: Any) -> ToolCall:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str):
        raise CallError('a call is an object with "name" and "arguments"')
    if "arguments" not in item and "description" in item:
        raise CallError("this is the description of a tool and no call")
    arguments = item.get("arguments", item.get("parameters"))
    if isinstance(arguments, str):
        arguments = _whole(arguments) if arguments.strip() else None
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise CallError(f"the arguments of {item['name']} are not an object with their names")
    return ToolCall(item["name"], arguments)


# -------------------------------------------------------------------------------------------------------- JSON


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse, strict=False)  # models write line breaks into strings


def _decode(text: str, place: int) -> tuple[Any, int]:
    """The JSON value that begins at `place`, and where it ends. Raises CallError."""
    try:
        value, end = _DECODER.raw_decode(text, place)
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair could not be written anywhere
        _require_shallow(value)
    except json.JSONDecodeError as error:
        rest = text[error.pos :]
        if not rest.strip() or error.msg.startswith("Unterminated"):
            raise CallError("the call is cut off") from None
        raise CallError(f"the call is not JSON: {error.msg} at {rest[:20]!r}") from None
    except (ValueError, RecursionError) as error:
        raise CallError(f"the call is not JSON: {_first_line(error)}") from None
    return value, end


def _require_shallow(value: Any) -> None:
    """Raise CallError where `value` is nested so deep that whoever walks it may run out of stack."""
    level = [value]
    for _ in range(MOST_LEVELS):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = [item for items in inner for item in items]
        if not level:
            return
    raise CallError(f"the call is nested more than {MOST_LEVELS} levels deep")


def _whole(text: str) -> Any:
    """The JSON value that is all of `text`. Raises CallError."""
    value, end = _decode(text.strip(), 0)
    if end != len(text.strip()):
        raise CallError("the arguments are more than one JSON value")
    return value


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
