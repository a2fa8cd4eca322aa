"""Defaults from TOML files: the user's, then the project's; the environment and the command line win over both.

language = "de"            # for every command that has the option

[transcribe]
format = ["srt", "json"]   # for one command
"""

from __future__ import annotations

import keyword
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import typer

from phi4mm_cli.errors import UsageError
from phi4mm_cli.options import PERSONAL

USER_FILE_VARIABLE = "PHI4MM_CONFIG"  # another path for the user's file; empty for none
PROJECT_FILE = Path("phi4mm.toml")

Options = Mapping[str, Mapping[str, bool]]  # the names of each command's options, and whether they take several values
Defaults = dict[str, dict[str, Any]]


def defaults(options: Options) -> Defaults:
    """The defaults that the files set for each command of `options`. Raises UsageError for what they may not say."""
    merged: Defaults = {command: {} for command in options}
    for path, personal in ((_user_file(), True), (PROJECT_FILE, False)):
        if path is not None and path.is_file():
            for command, values in _read(path, options, personal).items():
                merged[command] |= values
    return merged


def _user_file() -> Path | None:
    if (named := os.environ.get(USER_FILE_VARIABLE)) is not None:
        return Path(named) if named else None
    return Path(typer.get_app_dir("phi4mm"), "config.toml")


def _read(path: Path, options: Options, personal: bool) -> Defaults:
    import tomllib

    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {error}", "Mend the file or move it away") from None
    everywhere = {name: value for name, value in table.items() if not isinstance(value, dict)}
    sections = {name: value for name, value in table.items() if isinstance(value, dict)}
    known: set[str] = set().union(*options.values())
    _check(path, everywhere, known, personal)
    for command, section in sections.items():
        if command not in options:
            raise UsageError(f"{path}: [{command}] is no command", f"The commands are {', '.join(options)}")
        _check(path, section, options[command], personal)
    merged: Defaults = {}
    for command, takes_several in options.items():
        own = {**everywhere, **sections.get(command, {})}
        values = {field: value for name, value in own.items() if (field := _field(name)) in takes_several}
        merged[command] = {
            name: [value] if takes_several[name] and isinstance(value, str) else value for name, value in values.items()
        }
    return merged


def _check(path: Path, table: Mapping[str, Any], known: Collection[str], personal: bool) -> None:
    for name in map(_field, table):
        if name not in known:
            raise UsageError(f"{path}: '{name}' is no option here", "phi4mm COMMAND --help lists the options")
        if name in PERSONAL and not personal:
            raise UsageError(
                f"{path}: a project's file may not set '{name}'", "Set it in your own file or on the command line"
            )


def _field(name: str) -> str:
    """The parameter of a command that an option sets; `from` cannot be one's name."""
    field = name.replace("-", "_")
    return f"{field}_" if keyword.iskeyword(field) else field
