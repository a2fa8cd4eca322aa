"""The process that a file of tools is imported and called in. Run by its path; see `functions`.

It stands alone, for it is started where phi4mm need not be on Python's path. It reads one JSON object a line and
answers each with one. What the tools print goes to stderr, and they have no stdin.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

# Docstrings as Google and Sphinx write them.
_SECTION = re.compile(r"\s*(Args|Arguments|Parameters|Returns|Raises|Yields|Examples?|Notes?):\s*$")
_GOOGLE = re.compile(r"(\w+)(?: *\([^)]*\))?: *(\S.*)")
_SPHINX = re.compile(r":param (?:[^:]+ )?(\w+): *(\S.*)")


def main() -> None:
    """Serve the file that is named on the command line until stdin ends."""
    asked = os.fdopen(os.dup(0), encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    functions: dict[str, Callable[..., Any]] = {}
    try:
        functions = offered(load(Path(sys.argv[1])))
        answer: dict[str, Any] = {"tools": [described(name, function) for name, function in functions.items()]}
    except BaseException as error:  # noqa: BLE001 - whatever the file raises while it is imported
        answer = {"error": told(error)}
    while True:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        line = asked.readline()
        if not line:
            break
        request = json.loads(line)
        answer = call(functions[request["name"]], request["arguments"], request["most"])


def load(path: Path) -> ModuleType:
    """The module in the file, with its folder on the path, as Python has it for a script."""
    sys.path.insert(0, str(path.resolve().parent))
    name = "phi4mm_tools_" + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def offered(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions that are meant as tools: those of `__all__`, else the public ones that the file itself defines."""
    names = getattr(module, "__all__", None)
    if names is not None:
        return {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }


def described(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """A tool's name, description and JSON Schema, or what is wrong with it."""
    try:
        problem = problem_of(function)
        if problem:
            return {"name": name, "problem": problem}
        from pydantic import TypeAdapter

        adapter: TypeAdapter[Any] = TypeAdapter(function)  # type: ignore[arg-type]  # of its arguments
        schema = untitled(adapter.json_schema())
    except Exception as error:  # noqa: BLE001 - annotations are code, and pydantic's errors are of many classes
        return {"name": name, "problem": f"its types cannot be described: {told(error)}"}
    text = inspect.getdoc(function) or ""
    for parameter, words in parameters(text).items():
        if parameter in schema.get("properties", {}):
            schema["properties"][parameter].setdefault("description", words)
    return {"name": name, "description": summary(text), "parameters": schema}


def problem_of(function: Callable[..., Any]) -> str | None:
    """Why the model cannot be offered the function; None where it can."""
    if not callable(function) or inspect.isclass(function):
        return "it is no function"
    if not summary(inspect.getdoc(function) or ""):
        return "it has no docstring to choose it by (a name that begins with _ keeps it from the model)"
    hints = typing.get_type_hints(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            return f"its parameter {parameter} cannot be given by name"
        if parameter.name not in hints:
            return f"its parameter '{parameter.name}' has no type"
    return None


def summary(text: str) -> str:
    """What a docstring says before it comes to the parameters."""
    lines = text.splitlines()
    ends = (i for i, line in enumerate(lines) if _SECTION.match(line) or line.lstrip().startswith(":"))
    return "\n".join(lines[: next(ends, len(lines))]).strip()


def parameters(text: str) -> dict[str, str]:
    """What a docstring says of each parameter, lines that are further in included."""
    found: dict[str, str] = {}
    name, indent, listed = None, 0, False
    for line in text.splitlines():
        words, depth = line.strip(), len(line) - len(line.lstrip())
        if section := _SECTION.match(line):
            name, listed = None, section[1] in ("Args", "Arguments", "Parameters")
        elif name is not None and words and depth > indent:
            found[name] += f" {words}"
        elif match := _SPHINX.match(words) or (_GOOGLE.match(words) if listed else None):
            name, indent = match[1], depth
            found[name] = match[2]
        else:
            name = None
    return found


def untitled(schema: Any) -> Any:
    """The schema without the titles that pydantic makes of names."""
    if isinstance(schema, list):
        return [untitled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: untitled(item) for name, item in value.items()}
        if key in ("properties", "$defs")
        else untitled(value)
        for key, value in schema.items()
        if key != "title"
    }


def call(function: Callable[..., Any], arguments: dict[str, Any], most: int) -> dict[str, Any]:
    """What the function returned as JSON, of a long result the first `most` characters; or what it raised."""
    from pydantic import validate_call
    from pydantic_core import to_json

    try:
        value = validate_call(function)(**arguments)
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        text = to_json(value, fallback=str, bytes_mode="base64", inf_nan_mode="strings").decode()
    except BaseException as error:  # noqa: BLE001 - sys.exit() ends the call and not the tools
        return {"error": told(error)[:most]}
    value = json.loads(text)
    if isinstance(value, str):
        return {"value": value[:most], "characters": len(value)}
    return {"value": value if len(text) <= most else text[:most], "characters": len(text)}


def told(error: BaseException) -> str:
    """An error in a line or a few, as it is told to the model."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return text.encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main()
