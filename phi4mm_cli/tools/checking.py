"""Holds calls against the schemas of their tools, and mends what can be mended without guessing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from phi4mm_cli.errors import UsageError
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.calls import MOST_LEVELS, CallError

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Schema = Mapping[str, Any]

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?")


def check(call: ToolCall, tools: Mapping[str, Tool]) -> ToolCall:
    """The call with arguments of the right types. Raises CallError, with a message for the model."""
    tool = tools.get(call.name)
    if tool is None:
        raise CallError(f"there is no tool {call.name!r}; the tools are {', '.join(tools)}")
    arguments, problem = mended(call.arguments, tool.parameters)
    if problem is not None:
        raise CallError(f"{call.name}: {problem}")
    return ToolCall(call.name, arguments)


def mended(value: Any, schema: Schema) -> tuple[Any, str | None]:
    """`value` with the types that `schema` wants, and what is wrong with it all the same."""
    from jsonschema.exceptions import best_match

    validator = _validator(schema)
    try:
        found = _Mending(schema, validator).mended(value, schema)
        error = best_match(validator.iter_errors(found))
    except (OverflowError, RecursionError):  # of endless numbers and levels
        return value, "it cannot be held against the schema"
    if error is None:
        return found, None
    where = ".".join(map(str, error.absolute_path))
    return found, f"{where + ': ' if where else ''}{error.message[:500]}"


def check_schema(what: str, schema: Schema) -> None:
    """Raise UsageError where a schema, which messages call `what`, is none, or refers to what is not in it."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    levels = [schema]
    for _ in range(MOST_LEVELS):
        levels = [inner for value in levels for inner in _inside(value)]
    if levels:
        raise UsageError(f"{what}: this is nested more than {MOST_LEVELS} levels deep", "Mend the file")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        message = f"{what}: this is no JSON Schema: {where + ': ' if where else ''}{error.message[:200]}"
        raise UsageError(message, "Mend the file") from None
    for value in _everything(schema):
        for reference in _references(value):
            if not isinstance(resolved(reference, schema), (Mapping, bool)):
                message = f"{what} cannot refer to {reference!r}, which is not there, or no schema"
                raise UsageError(message, "Copy what they refer to into $defs of the same schema")
        if value is not schema and isinstance(value, Mapping) and isinstance(value.get("$id"), str):
            raise UsageError(f"{what} cannot have an $id inside: {value['$id']!r}", "Leave it out")
    if _goes_in_a_circle(schema):
        raise UsageError(f"{what}: a reference leads back to itself", "Mend the file")


def resolved(reference: str, root: Schema) -> Any:
    """What a reference of the form `#/$defs/NAME` or `#/anyOf/0` names; None where it is nowhere in `root`."""
    place: Any = root
    start, *parts = reference.split("/")
    if start != "#":
        return None
    for part in parts:
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(place, list):
            place = place[int(name)] if name.isdecimal() and int(name) < len(place) else None
        else:
            place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _inside(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()


def _everything(value: Any) -> Iterator[Any]:
    yield value
    for inner in _inside(value):
        yield from _everything(inner)


def _references(value: Any) -> list[str]:
    own = value if isinstance(value, Mapping) else {}
    return [own[key] for key in ("$ref", "$dynamicRef") if isinstance(own.get(key), str)]


def _goes_in_a_circle(root: Schema) -> bool:
    """Whether to hold a value against a schema, or one in it, would never come to an end.

    So it is where references lead back to where they came from, and each is about the very same value.
    """
    on_the_way: set[str] = set()
    done: set[str] = set()

    def circles(schema: Any) -> bool:
        if not isinstance(schema, Mapping):
            return False
        for reference in _references(schema):
            if reference in on_the_way:
                return True
            if reference not in done:
                on_the_way.add(reference)
                if circles(resolved(reference, root)):
                    return True
                on_the_way.remove(reference)
                done.add(reference)
        several = [option for key in ("allOf", "anyOf", "oneOf") for option in _inside(schema.get(key))]
        return any(map(circles, [*several, *(schema.get(key) for key in ("not", "if", "then", "else"))]))

    return any(circles(schema) for schema in _everything(root))


def _validator(schema: Schema) -> Draft202012Validator:
    from jsonschema import Draft202012Validator
    from referencing import Registry

    # The registry knows no retriever: nothing is fetched, whatever a schema refers to.
    return Draft202012Validator(schema, registry=Registry())


# ------------------------------------------------------------------------------------------------------ mending


class _Mending:
    """Changes the type of a value where the schema wants another and the value says the same in it."""

    def __init__(self, root: Schema, validator: Draft202012Validator) -> None:
        self._root = root
        self._validator = validator

    def mended(self, value: Any, schema: Any) -> Any:
        if not isinstance(schema, Mapping):
            return value
        if isinstance(schema.get("$ref"), str):
            return self.mended(value, resolved(schema["$ref"], self._root))
        options = schema.get("anyOf", schema.get("oneOf"))
        if isinstance(options, list):
            return self._one_of(value, options)
        for kind in _kinds(schema):
            if _is(value, kind):
                return self._inside(value, schema)
        for kind in _kinds(schema):
            changed = _TO[kind](value) if kind in _TO else None
            if changed is not None:
                return self._inside(changed, schema)
        return value

    def _one_of(self, value: Any, options: list[Any]) -> Any:
        valid = [option for option in options if self._fits(value, option)]
        if valid:
            return value
        return next((m for o in options if self._fits(m := self.mended(value, o), o)), value)

    def _fits(self, value: Any, option: Any) -> bool:
        return bool(self._validator.evolve(schema=option).is_valid(value))

    def _inside(self, value: Any, schema: Schema) -> Any:
        if isinstance(value, dict):
            known, needed = schema.get("properties", {}), schema.get("required", ())
            mended = {name: self.mended(item, known.get(name)) for name, item in value.items()}
            # "null" for what may be left out is how models leave it out.
            absent = {n for n, item in mended.items() if item is None and n in known and n not in needed}
            return {n: item for n, item in mended.items() if n not in absent or self._fits(None, known[n])}
        if isinstance(value, list):
            return [self.mended(item, schema.get("items")) for item in value]
        return value


def _kinds(schema: Schema) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "number":
        return isinstance(value, (int, float))
    return isinstance(value, _TYPES.get(kind, ()))


_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "array": list,
    "object": dict,
    "null": type(None),
}


def _to_integer(value: Any) -> int | None:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 2**53 else None
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) else None


def _to_number(value: Any) -> float | int | None:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value.strip()):
        return None
    whole = _to_integer(value)
    return whole if whole is not None else float(value) if math.isfinite(float(value)) else None


def _to_boolean(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else None


def _to_string(value: Any) -> str | None:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _from_text(kind: type) -> Callable[[Any], Any]:
    """Reads a list or an object that was written into a string."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return None
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, kind) else None

    return read


_TO: dict[str, Callable[[Any], Any]] = {
    "integer": _to_integer,
    "number": _to_number,
    "boolean": _to_boolean,
    "string": _to_string,
    "array": _from_text(list),
    "object": _from_text(dict),
}
