"""Imports of the package run one way: from the command line down to the records that all of it shares."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import phi4mm_cli

ROOT = Path(phi4mm_cli.__file__).parent
# From the bottom. What stands in none of them is between engines and commands: flows, and the work over many files.
BELOW = (("errors", "schema"), ("cancel", "closing", "paths", "prompt", "timing"), ("media",), ("model",), ("engines",))
ABOVE = (("commands", "demo", "serving"), ("cli",), ("__main__",))
LEVELS = {name: level for level, names in enumerate((*BELOW, (), *ABOVE)) for name in names}
# What flows go through knows nothing of files in and out, of the terminal and of the model that answers.
OF_FLOWS = ("flow", "flows", "hearing", "healing", "looking", "passages", "reading", "summaries", "text_translation")
NOT_OF_FLOWS = {"batch", "console", "desk", "display", "driver", "engines", "journal", "report", "task"}


def imports() -> Iterator[tuple[Path, str, str]]:
    """Every import of the package's own: the file, the part of the package that it is in, and the part imported."""
    for path in sorted(ROOT.rglob("*.py")):
        inside = path.relative_to(ROOT).with_suffix("").parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "phi4mm_cli":
                for name in (
                    [node.module] if "." in str(node.module) else [f"{node.module}.{n.name}" for n in node.names]
                ):
                    yield path, inside[0], str(name).split(".")[1]


def level(part: str) -> int:
    return LEVELS.get(part, len(BELOW))


def test_no_part_imports_one_above_it() -> None:
    found = list(imports())
    assert len(found) > 1000
    assert [(str(path), part) for path, own, part in found if level(part) > level(own) and part != "__version__"] == []


def test_commands_are_only_the_command_lines() -> None:
    assert {own for _, own, part in imports() if part == "commands" and own != "commands"} == {"cli"}


def test_flows_know_neither_files_nor_terminals_nor_engines() -> None:
    assert [(str(path), part) for path, own, part in imports() if own in OF_FLOWS and part in NOT_OF_FLOWS] == []
