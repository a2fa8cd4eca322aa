"""Where tools come from: JSON in every way that people have it, Python files, programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from phi4mm_cli.demo.world.tools import TOOLS
from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools import Tool, by_name
from phi4mm_cli.tools.formats import flat, offer, read_json
from phi4mm_cli.tools.functions import Functions
from phi4mm_cli.tools.programs import read_program

Saved = Callable[[str, str], Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    def save(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return save


def sound(entries: Any) -> list[Tool]:
    found = [*entries]
    assert not [entry for entry in found if isinstance(entry, UsageError)], found
    return found


def problems(entries: Any) -> list[str]:
    return [str(entry) for entry in entries if isinstance(entry, UsageError)]


# --------------------------------------------------------------------------------------------------------- JSON

CITY = {"type": "string", "description": "The city."}
SCHEMA = {
    "type": "object",
    "properties": {"city": CITY, "days": {"type": "integer", "default": 1}},
    "required": ["city"],
}
UNTYPED = {key: value for key, value in SCHEMA.items() if key != "type"}
FLAT = {
    "name": "get_weather",
    "description": "Get the weather.",
    "parameters": {
        "city": {"description": "The city.", "type": "str"},
        "days": {"description": "", "type": "int", "default": 1},
    },
}
TOLD = {"name": "get_weather", "description": "Get the weather."}
INTEGERS = {"type": "array", "items": {"type": "integer"}}
WRITTEN = {
    "the model's own": [FLAT],
    "one alone": FLAT,
    "OpenAI": [{"type": "function", "function": {**TOLD, "parameters": SCHEMA}}],
    "OpenAI, in a request": {"model": "x", "tools": [{"type": "function", "function": {**TOLD, "parameters": SCHEMA}}]},
    "OpenAI, responses": [{"type": "function", **TOLD, "parameters": SCHEMA}],
    "OpenAI, of no type": {"type": "function", "function": {**TOLD, "parameters": UNTYPED}},
    "JSON Schema": {"title": "get_weather", "description": "Get the weather.", **SCHEMA},
}


@pytest.mark.parametrize("content", WRITTEN.values(), ids=WRITTEN)
def test_every_way_of_writing_is_offered_alike(saved: Saved, content: Any) -> None:
    [tool] = sound(read_json(saved("tools.json", json.dumps(content))))
    assert json.loads(offer([tool])) == [FLAT]
    assert tool.parameters["required"] == ["city"]


def test_the_demo_is_offered_tools_as_it_was_taught(saved: Saved) -> None:
    taught = json.dumps([*TOOLS.values()])
    assert offer(sound(read_json(saved("tools.json", taught)))) == taught


@pytest.mark.parametrize(
    ("written", "schema", "required"),
    [
        ("str", {"type": "string"}, True),
        ("string", {"type": "string"}, True),
        ("integer", {"type": "integer"}, True),
        ("float, optional", {"type": "number"}, False),
        ("Optional[bool]", {"type": "boolean"}, False),
        ("int | None", {"type": "integer"}, False),
        ("str | int", {"type": ["string", "integer"]}, True),
        ("List[int]", {"type": "array", "items": {"type": "integer"}}, True),
        ("list[dict]", {"type": "array", "items": {"type": "object"}}, True),
        ("Dict[str, int]", {"type": "object"}, True),
        ("Any", {}, True),
        ("str | list[int]", {"anyOf": [{"type": "string"}, INTEGERS]}, True),
        ("list[int] | dict[str, int]", {"anyOf": [INTEGERS, {"type": "object"}]}, True),
        ("list[list[int] | None], optional", {"type": "array", "items": INTEGERS}, False),
        ("str | str | dict", {"type": ["string", "object"]}, True),
    ],
)
def test_types_in_the_models_own_format(saved: Saved, written: str, schema: dict[str, Any], required: bool) -> None:
    entry = {"name": "f", "description": "", "parameters": {"x": {"description": "An x.", "type": written}}}
    [tool] = sound(read_json(saved("tools.json", json.dumps([entry]))))
    given = {key: value for key, value in tool.parameters["properties"]["x"].items() if value != {}}
    assert given == {"description": "An x.", **schema}
    assert ("x" in tool.parameters["required"]) == required
    again = sound(read_json(saved("again.json", offer([tool]))))
    assert [flat(tool) for tool in again] == [flat(tool)]


def test_what_schemas_say_beside_types_is_kept(saved: Saved) -> None:
    schema = {
        "type": "object",
        "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}},
        "properties": {
            "unit": {"enum": ["c", "f"]},
            "day": {"type": "string", "format": "date"},
            "places": {"type": "array", "items": {"$ref": "#/$defs/place"}},
        },
        "required": ["unit"],
    }
    [tool] = sound(read_json(saved("tools.json", json.dumps([{"name": "f", "parameters": schema}]))))
    assert flat(tool)["parameters"] == {
        "unit": {"description": "", "type": "str", "enum": ["c", "f"]},
        "day": {"description": "", "type": "str, optional", "format": "date"},
        "places": {
            "description": "",
            "type": "list[dict], optional",
            "properties": {"lat": {"description": "", "type": "float"}},
        },
    }
    again = sound(read_json(saved("again.json", offer([tool]))))
    assert [flat(tool) for tool in again] == [flat(tool)]


def test_a_schema_that_holds_itself_ends(saved: Saved) -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}}
    schema = {"type": "object", "$defs": {"tree": tree}, "properties": {"root": {"$ref": "#/$defs/tree"}}}
    [tool] = sound(read_json(saved("tools.json", json.dumps([{"name": "f", "parameters": schema}]))))
    assert flat(tool)["parameters"]["root"]["properties"]["left"]["type"] == "dict, optional"


NESTED = '{"properties": {"x": ' * 60 + "{}" + "}}" * 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "tool 1: it is no object"),
        ('[{"description": "x"}]', "has no name"),
        ('[{"name": "a b"}]', "'a b' is no name"),
        ('[{"name": "f", "description": 1}]', "description of 'f'"),
        ('[{"name": "f", "parameters": []}]', ""),
        ('[{"name": "f", "parameters": [1]}]', "no object"),
        ('[{"name": "f", "parameters": {"x": "str"}}]', "'x' of 'f' is not described"),
        ('[{"name": "f", "parameters": {"x": {"type": "strange"}}}]', "no known type: 'strange'"),
        ('[{"name": "f", "parameters": {"type": "array"}}]', "not an object"),
        ('[{"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "str"}}}}]', "no JSON Schema"),
        ('[{"name": "f", "parameters": {"$ref": "http://127.0.0.1:9/x"}}]', "refer to 'http://127.0.0.1:9/x'"),
        ('[{"name": "f", "parameters": {"$ref": "#/$defs/x"}}]', "refer to '#/$defs/x'"),
        ('[{"name": "f", "parameters": {"$ref": "#"}}]', "leads back to itself"),
        ('[{"name": "f", "parameters": {"$ref": "#/title", "title": "x"}}]', "or no schema"),
        ('[{"name": "f", "parameters": {"properties": {"x": {"anyOf": [{"$ref": "#/properties/x"}]}}}}]', "leads back"),
        ('[{"name": "f", "parameters": {"properties": {"x": {"$id": "http://a.b/"}}}}]', "$id inside"),
        (f'[{{"name": "f", "parameters": {NESTED}}}]', "more than 100 levels"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(saved: Saved, content: str, message: str) -> None:
    found = problems(read_json(saved("tools.json", content)))
    assert len(found) == (1 if message else 0)
    assert all(message in each for each in found)


def test_references_go_through_lists_and_odd_names(saved: Saved) -> None:
    known = {"B": {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a b": {"type": "string"}}
    places = {"x": {"$ref": "#/$defs/B/anyOf/0"}, "y": {"$ref": "#/$defs/a%20b"}}
    content = [{"name": "f", "parameters": {"$defs": known, "properties": places, "required": ["x", "y"]}}]
    [tool] = sound(read_json(saved("tools.json", "\ufeff" + json.dumps(content))))
    assert [parameter["type"] for parameter in flat(tool)["parameters"].values()] == ["int", "str"]


def test_one_bad_entry_does_not_hide_the_others(saved: Saved) -> None:
    entries = [*read_json(saved("tools.json", json.dumps([FLAT, {"name": "a b"}, 1, FLAT | {"name": "g"}])))]
    assert [type(entry).__name__ for entry in entries] == ["Tool", "UsageError", "UsageError", "Tool"]


@pytest.mark.parametrize("text", ["", "[", "NaN[", "[" * 100000])
def test_what_is_not_json_is_said(saved: Saved, text: str) -> None:
    with pytest.raises(UsageError, match="is not JSON"):
        [*read_json(saved("tools.json", text))]


def test_files_only() -> None:
    with pytest.raises(UsageError, match="are read from files"):
        [*read_json(Path("http://example.org/tools.json"))]
    with pytest.raises(UsageError, match="there is no such file"):
        Functions(Path("x" * 300))


def test_two_tools_of_one_name() -> None:
    tool = Tool("f", "", {"type": "object"})
    with pytest.raises(UsageError, match="two tools are called 'f'"):
        by_name([tool, tool])
    with pytest.raises(UsageError, match="no tools"):
        by_name([])


# ------------------------------------------------------------------------------------------------------- Python

FUNCTIONS = '''
import datetime
from os.path import join
from typing import Annotated, Literal
from pydantic import BaseModel, Field

class Place(BaseModel):
    lat: float
    lon: float = 0.0

def weather(city: str, day: datetime.date, unit: Literal["c", "f"] = "c", where: Place | None = None) -> dict[str, str]:
    """Get the weather in a city.

    It is from the archive.

    Args:
        city: The city, which may
            have: colons.
        day (date): The day.

    Returns:
        city: not of the parameter.
    """
    return {"weather": f"sunny in {city} on {day:%d %B}"}

def other(count: Annotated[int, Field(description="How many.", ge=1)], tags: list[str] = []) -> int:
    """Do the other thing.

    :param count: not this one
    :param tags: What to look for.
    """
    return count

async def later() -> str:
    """Come later."""
    return "here"

def _hidden(x): ...
'''


def test_functions_are_described_by_their_types_and_docstrings(saved: Saved) -> None:
    with Functions(saved("my tools.py", FUNCTIONS)) as functions:
        weather, other, later = sound(functions.tools())
    assert weather.description == "Get the weather in a city.\n\nIt is from the archive."
    assert flat(weather)["parameters"] == {
        "city": {"description": "The city, which may have: colons.", "type": "str"},
        "day": {"description": "The day.", "type": "str", "format": "date"},
        "unit": {"description": "", "type": "str", "default": "c", "enum": ["c", "f"]},
        "where": {
            "description": "",
            "type": "dict, optional",
            "properties": {
                "lat": {"description": "", "type": "float"},
                "lon": {"description": "", "type": "float", "default": 0.0},
            },
        },
    }
    assert other.parameters["properties"]["count"] == {"description": "How many.", "minimum": 1, "type": "integer"}
    assert other.parameters["properties"]["tags"]["description"] == "What to look for."
    assert later.parameters.get("properties", {}) == {}
    for tool in (weather, other, later):
        Draft202012Validator.check_schema(tool.parameters)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(x: int) -> int: return x", "'f': it has no docstring"),
        ("def f(x):\n '''Do.'''", "parameter 'x' has no type"),
        ("def f(*x: int):\n '''Do.'''", "cannot be given by name"),
        ("def f(x: int, /):\n '''Do.'''", "cannot be given by name"),
        ("def f(x: 'Nothing'):\n '''Do.'''", "types cannot be described"),
        ("class C: ...\ndef f(x: C):\n '''Do.'''", "types cannot be described"),
        ("class C:\n '''A class.'''\n__all__ = ['C']", "it is no function"),
    ],
)
def test_what_is_wrong_with_a_function_is_said(saved: Saved, text: str, message: str) -> None:
    with Functions(saved("tools.py", text)) as functions:
        [problem] = problems(functions.tools())
    assert message in problem
    assert "tools.py" in problem


def test_all_names_the_tools(saved: Saved) -> None:
    text = "from math import floor\n__all__ = ['f']\ndef f():\n '''Do.'''\ndef g(x): return x"
    with Functions(saved("tools.py", text)) as functions:
        assert [tool.name for tool in sound(functions.tools())] == ["f"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError"),
        ("def f(:", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("import os; os._exit(3)", "its process ended with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended with signal 11"),
        ("__all__ = ['nothing']", "AttributeError"),
    ],
)
def test_a_file_that_cannot_be_imported(saved: Saved, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Functions(saved("tools.py", text))


def test_modules_beside_the_file_are_found_and_those_of_the_current_folder_are_not(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "json.py").write_text("raise SystemExit('hijacked')", encoding="utf-8")
    monkeypatch.chdir(tmp_path / "here")
    saved("beside.py", "text = 'beside'")
    path = saved("tools.py", "import beside\ndef f():\n '''Do.'''\n return beside.text")
    with Functions(path) as functions:
        assert [tool.name for tool in sound(functions.tools())] == ["f"]


# ----------------------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize(
    ("text", "name", "description", "parameters"),
    [
        ("wc -l {path} # Count the lines of a file's text", "wc", "Count the lines of a file's text", ["path"]),
        ("wc -l {path}", "wc", "Runs: wc -l '{path}'", ["path"]),
        ("env cat {path}", "env_cat", "Runs: env cat '{path}'", ["path"]),
        ("lines=wc -l {path}", "lines", "Runs: wc -l '{path}'", ["path"]),
        ("ls", "ls", "Runs: ls", []),
        ("cat {a} {b} {a}", "cat", "Runs: cat '{a}' '{b}' '{a}'", ["a", "b"]),
        ("awk '{print $1}' {path}", "awk", "Runs: awk '{print $1}' '{path}'", ["path"]),
        ("sh -c 'wc -l \"$1\"' wc {path}", "sh", None, ["path"]),
    ],
)
def test_a_command_describes_itself(text: str, name: str, description: str | None, parameters: list[str]) -> None:
    tool = read_program(text).tool
    assert tool.name == name
    assert description is None or tool.description == description
    assert tool.parameters["required"] == parameters
    assert [*tool.parameters["properties"]] == parameters


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", UsageError, "is empty"),
        ("wc 'open", UsageError, "quotation"),
        ("{program} x", UsageError, "choose the program"),
        ("no_such_program {x}", MissingError, "no program 'no_such_program'"),
        ("sh -c 'wc {path}'", UsageError, "shell code"),
        ("/bin/sh -c {code}", UsageError, "shell code"),
        ("sh -ec {code}", UsageError, "shell code"),
        ("bash -c -o pipefail {code}", UsageError, "right behind -c"),
        ("sh -c +e {code}", UsageError, "right behind -c"),
    ],
)
def test_commands_that_are_refused(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_program(text)


def test_what_the_model_gives_stays_one_argument() -> None:
    command = read_program("cat --flag={a} x{b}y {a}")
    values = {"a": "$(touch /tmp/x); `id` && rm -rf * {b} 'q\"", "b": "  \n"}
    assert command.argv(ToolCall("cat", values)) == ["cat", f"--flag={values['a']}", "x  \ny", values["a"]]
