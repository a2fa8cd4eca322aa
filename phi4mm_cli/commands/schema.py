"""`phi4mm schema`: the JSON Schema of what `--json`, `--jsonl` and `--report` write."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any, get_args

import typer

from phi4mm_cli import console
from phi4mm_cli.outputs import SCHEMA_VERSION, Body, Document, Failure
from phi4mm_cli.runs import RunReport, Status
from phi4mm_cli.tools.records import ChatReply, Exchange, ToolRun


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of all, told apart by `task`: the envelope with each, and what is said of runs."""
    from pydantic import TypeAdapter

    mode: Any = {"mode": "serialization", "ref_template": "#/$defs/{model}"}
    definitions: dict[str, Any] = {}
    tasks = []
    for envelope, bodies in ((Document, get_args(Body) or (Body,)), (Exchange, (ToolRun, ChatReply))):
        schema = TypeAdapter(envelope).json_schema(**mode)
        definitions |= schema.pop("$defs")
        shared = {name: value for name, value in schema["properties"].items() if name != "body"}
        for kind in bodies:
            body = definitions.pop(kind.__name__)
            required = ["schema_version", "task", *shared, *(r for r in body["required"] if r != "task")]
            version = {"schema_version": {"const": SCHEMA_VERSION}}
            tasks.append({**body, "properties": version | deepcopy(shared) | body["properties"], "required": required})
    for alone in (Failure, RunReport, Status):
        schema = TypeAdapter(alone).json_schema(**mode)
        definitions |= schema.pop("$defs")
        fields = {"schema_version": {"const": SCHEMA_VERSION}} | schema["properties"]
        tasks.append({**schema, "properties": fields, "required": ["schema_version", "task", *schema["required"]]})
    for record in (*definitions.values(), *tasks):
        _close(record)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "phi4mm result",
        "oneOf": tasks,
        "$defs": definitions,
    }


def _close(record: dict[str, Any]) -> None:
    """Admit no other fields, and let those be absent that may be None: they are left out then."""
    if "properties" not in record:
        return
    record["additionalProperties"] = False
    for name, field in record["properties"].items():
        options = [option for option in field.get("anyOf", ()) if option != {"type": "null"}]
        if len(options) == 1:
            del field["anyOf"]
            field.pop("default", None)
            field.update(options[0])
            record["required"] = [required for required in record["required"] if required != name]


def command() -> None:
    """Print the JSON Schema of the results."""
    with console.results() as stdout:
        stdout.write(json.dumps(json_schema(), indent=2) + "\n")
    raise typer.Exit
