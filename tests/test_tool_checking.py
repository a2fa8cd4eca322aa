"""Calls held against schemas: what is mended because it says the same, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.calls import CallError
from phi4mm_cli.tools.checking import check, mended

STRING, INTEGER, NUMBER, BOOLEAN = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
INTEGERS = {"type": "array", "items": INTEGER}
PLACE = {"type": "object", "properties": {"lat": NUMBER, "name": STRING}, "required": ["lat"]}


def checked(schema: Any, value: Any, required: bool = True) -> Any:
    parameters = {
        "type": "object",
        "$defs": {"place": PLACE},
        "properties": {"x": schema},
        "required": ["x"] if required else [],
        "additionalProperties": False,
    }
    call = check(ToolCall("f", {"x": value}), {"f": Tool("f", "", parameters)})
    return call.arguments.get("x", "left out")


@pytest.mark.parametrize(
    ("schema", "value", "mended"),
    [
        (STRING, "a", "a"),
        (STRING, 5, "5"),
        (INTEGER, "5", 5),
        (INTEGER, " -5 ", -5),
        (INTEGER, 5.0, 5),
        (NUMBER, "1.5", 1.5),
        (NUMBER, "-2e3", -2000.0),
        (NUMBER, "7", 7),
        (NUMBER, 7, 7),
        (BOOLEAN, "true", True),
        (BOOLEAN, "False", False),
        (INTEGERS, ["1", 2], [1, 2]),
        (INTEGERS, '["1", 2]', [1, 2]),
        (PLACE, {"lat": "48.5", "name": 7}, {"lat": 48.5, "name": "7"}),
        (PLACE, '{"lat": 48.5}', {"lat": 48.5}),
        ({"$ref": "#/$defs/place"}, {"lat": "1"}, {"lat": 1}),
        ({"anyOf": [INTEGER, {"type": "null"}]}, "3", 3),
        ({"anyOf": [INTEGER, {"type": "null"}]}, None, None),
        ({"anyOf": [STRING, INTEGER]}, 5, 5),
        ({"type": ["integer", "null"]}, "3", 3),
        ({"enum": ["a", "b"]}, "b", "b"),
        ({"type": "integer", "enum": [1, 2]}, "2", 2),
        ({}, {"any": "thing"}, {"any": "thing"}),
        (STRING, "05", "05"),
    ],
)
def test_what_says_the_same_is_mended(schema: Any, value: Any, mended: Any) -> None:
    found = checked(schema, value)
    assert found == mended
    assert type(found) is type(mended)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (INTEGER, "five"),
        (INTEGER, "5.5"),
        (INTEGER, 5.5),
        (INTEGER, True),
        (INTEGER, "٥"),
        (INTEGER, None),
        (NUMBER, "1e999"),
        (NUMBER, "nan"),
        (BOOLEAN, 1),
        (BOOLEAN, "yes"),
        (STRING, True),
        (STRING, 1.5),
        (STRING, ["a"]),
        (INTEGERS, 5),
        (INTEGERS, "[1, 'a']"),
        (PLACE, {"name": "x"}),
        (PLACE, "Paris"),
        ({"enum": ["a", "b"]}, "A"),
        ({"type": "integer", "minimum": 3}, "2"),
    ],
)
def test_what_would_be_a_guess_is_refused(schema: Any, value: Any) -> None:
    with pytest.raises(CallError, match=r"f: x"):
        checked(schema, value)


def test_what_has_no_end_is_wrong_and_no_bug() -> None:
    assert mended(10**400, {"type": "integer", "multipleOf": 0.1})[1] is not None
    tree = {"$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}, "$ref": "#/$defs/A"}
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    assert mended(deep, tree)[1] is not None


def test_null_leaves_out_what_may_be_left_out() -> None:
    assert checked(INTEGER, None, required=False) == "left out"
    assert checked({"type": ["integer", "null"]}, None, required=False) is None


def test_the_model_is_told_what_is_wrong() -> None:
    tool = Tool(
        "f", "", {"type": "object", "properties": {"x": INTEGER}, "required": ["x"], "additionalProperties": False}
    )
    with pytest.raises(CallError, match="no tool 'g'; the tools are f"):
        check(ToolCall("g", {}), {"f": tool})
    with pytest.raises(CallError, match="f: 'x' is a required property"):
        check(ToolCall("f", {}), {"f": tool})
    with pytest.raises(CallError, match="y"):
        check(ToolCall("f", {"x": 1, "y": 2}), {"f": tool})
    with pytest.raises(CallError, match="f: x: 'many' is not of type 'integer'"):
        check(ToolCall("f", {"x": "many"}), {"f": tool})
