"""Tools as JSON: read in any of the ways that people have them, and written in the one that the model was shown.

That one is flat, as on the model card: `{"city": {"description": ..., "type": "str", "default": "London"}}`, with
Python's names for types. It says more than the card shows where a schema does: `enum`, and `properties` of objects.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi4mm_cli.errors import UsageError
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.checking import check_schema, resolved

ADVICE = "It takes the model's own format, OpenAI's 'tools', or JSON Schemas with a title"

OPTIONAL = ", optional"  # behind the type of what may be left out and has no default

# Python's names, as the model writes them, and JSON Schema's.
_KINDS = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "None": "null",
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ALSO = {
    "text": "string",
    "double": "number",
    "tuple": "array",
    "set": "array",
    "none": "null",
    "nonetype": "null",
    "mapping": "object",
}
_FLAT_TYPE = re.compile(r"(?P<name>[A-Za-z]+)(?:\[(?P<inner>.*)\])?")


def read_json(path: Path) -> Iterator[Tool | UsageError]:
    """The tools in a JSON file, one by one, each or what is wrong with it.

    Raises UsageError for what is wrong with the file as a whole.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "Tools are read from files") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {str(error).splitlines()[0]}", ADVICE) from None
    if isinstance(content, dict) and isinstance(content.get("tools"), list):
        content = content["tools"]
    for place, entry in enumerate(content if isinstance(content, list) else [content], 1):
        try:
            yield read_tool(entry)
        except UsageError as error:
            yield UsageError(f"{path}: tool {place}: {error.message}", error.advice)


def offer(tools: Sequence[Tool]) -> str:
    """JSON text of the tools in the model's own format."""
    return json.dumps([flat(tool) for tool in tools], ensure_ascii=False)


def flat(tool: Tool) -> dict[str, Any]:
    """A tool in the model's own format."""
    parameters = _flat_properties(tool.parameters, tool.parameters, ())
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


# ------------------------------------------------------------------------------------------------------- reading


def read_tool(entry: Any) -> Tool:
    """A tool in any of the ways that people have them. Raises UsageError."""
    if not isinstance(entry, dict):
        raise UsageError("it is no object", ADVICE)
    if isinstance(entry.get("function"), dict):
        entry = entry["function"]
    name = entry.get("name", entry.get("title"))
    if not isinstance(name, str):
        raise UsageError("it has no name", ADVICE)
    description = entry.get("description") or ""
    if not isinstance(description, str):
        raise UsageError(f"the description of '{name}' is no text", ADVICE)
    schema = _schema(name, entry)
    check_schema(f"the parameters of '{name}'", schema)
    if schema.get("type", "object") != "object":
        raise UsageError(f"the parameters of '{name}' are of type {schema['type']!r}, not an object", ADVICE)
    return Tool(name, description.strip(), schema)


def _schema(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments, whichever way they are described."""
    if "name" not in entry:
        return {key: value for key, value in entry.items() if key not in ("title", "description")}
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise UsageError(f"the parameters of '{name}' are no object", ADVICE)
    inner = parameters.get("properties")  # of a schema; the model's own format has a parameter of that name, of a type
    is_schema = isinstance(inner, dict) and not isinstance(inner.get("type"), str)
    if is_schema:
        return {"type": "object", **parameters}
    if isinstance(parameters.get("type"), str) or "$ref" in parameters or "$schema" in parameters:
        return parameters
    return _from_flat(name, parameters)


def _from_flat(tool: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of parameters in the model's own format; one without a default is required."""
    properties, required = {}, []
    for name, described in parameters.items():
        if not isinstance(described, dict) or not isinstance(described.get("type", ""), str):
            raise UsageError(f"the parameter '{name}' of '{tool}' is not described by an object with a type", ADVICE)
        schema, optional = _from_type(described.get("type", "Any"))
        if schema is None:
            raise UsageError(f"the parameter '{name}' of '{tool}' has no known type: {described['type']!r}", ADVICE)
        flags = [described.get("required") is False, described.get("optional") is True, "default" in described]
        if not optional and not any(flags):
            required.append(name)
        inside = schema.setdefault("items", {}) if schema.get("type") == "array" else schema
        if isinstance(described.get("properties"), dict):
            inside |= _from_flat(tool, described["properties"])
        if "enum" in described:
            inside["enum"] = described["enum"]
        told = ("type", "required", "optional", "properties", "enum")
        properties[name] = {key: value for key, value in described.items() if key not in told} | schema
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _from_type(written: str) -> tuple[dict[str, Any] | None, bool]:
    """`str`, `list[int]`, `str, optional`, `Optional[int]` or `int | None` as a schema; None where it is none."""
    plain = re.sub(r"\s*,\s*optional$|\s*\|\s*None$", "", written.strip())
    optional = plain != written.strip()
    if len(names := _alternatives(plain)) > 1:
        return _any_of([_from_type(name)[0] for name in names]), optional
    found = _FLAT_TYPE.fullmatch(plain)
    if found is None:
        return None, optional
    if found["name"] == "Optional" and found["inner"]:
        return _from_type(found["inner"])[0], True
    kind = _kind(found["name"])
    if kind is None:
        return ({} if found["name"] == "Any" else None), optional
    schema: dict[str, Any] = {"type": kind}
    if kind == "array" and found["inner"]:
        items, _ = _from_type(found["inner"].split(",")[0])
        schema |= {"items": items or {}}
    return schema, optional


def _any_of(schemas: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    known = [schema for schema in schemas if schema is not None]
    if len(known) < len(schemas):
        return None
    plain = all(schema.keys() == {"type"} and isinstance(schema["type"], str) for schema in known)
    return {"type": [schema["type"] for schema in known]} if plain else {"anyOf": known}


def _alternatives(written: str) -> list[str]:
    """The types between the bars that are in no brackets, each once."""
    names, depth = [""], 0
    for letter in written:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and depth == 0:
            names.append("")
        else:
            names[-1] += letter
    return [*dict.fromkeys(name.strip() for name in names)]


def _kind(name: str) -> str | None:
    lower = name.lower()
    return _KINDS.get(lower) or _ALSO.get(lower) or (lower if lower in _NAMES else None)


# ------------------------------------------------------------------------------------------------------- writing


def _flat_properties(schema: Mapping[str, Any], root: Mapping[str, Any], seen: tuple[str, ...]) -> dict[str, Any]:
    required = schema.get("required", ())
    return {
        name: _flat_parameter(described, root, seen, name in required)
        for name, described in schema.get("properties", {}).items()
    }


def _flat_parameter(described: Any, root: Mapping[str, Any], seen: tuple[str, ...], required: bool) -> dict[str, Any]:
    written, inner = _to_type(described, root, seen)
    own = described if isinstance(described, Mapping) else {}
    default = own.get("default")
    if not required and default is None:
        written = written.removesuffix(" | None") + OPTIONAL
    flat = {"description": own.get("description", ""), "type": written}
    if default is not None:
        flat["default"] = default
    return flat | inner


def _to_type(schema: Any, root: Mapping[str, Any], seen: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Python's name of a schema's type, and what there is to say about its inside."""
    if not isinstance(schema, Mapping):
        return "Any", {}
    if isinstance(reference := schema.get("$ref"), str):
        if reference in seen:  # a tree of itself is told to its first level
            return "dict", {}
        return _to_type(resolved(reference, root), root, (*seen, reference))
    if isinstance(options := schema.get("anyOf", schema.get("oneOf")), list):
        told = [_to_type(option, root, seen) for option in options]
        names = _alternatives(" | ".join(name for name, _ in told))
        return " | ".join(names), {k: v for _, inner in told for k, v in inner.items()}
    if "const" in schema:
        schema = {**schema, "enum": [schema["const"]]}
    inner = {key: schema[key] for key in ("enum", "format") if key in schema}
    kinds = schema.get("type", "Any")
    name = " | ".join(_NAMES.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    if name == "Any" and "enum" in schema:
        name = " | ".join(dict.fromkeys(type(value).__name__ for value in schema["enum"]))
    if name == "list" and "items" in schema:
        item, of_item = _to_type(schema["items"], root, seen)
        return f"list[{item}]", inner | of_item
    if name == "dict" and schema.get("properties"):
        inner |= {"properties": _flat_properties(schema, root, seen)}
    return name, inner
