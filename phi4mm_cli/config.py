"""Defaults from TOML files: the user's, then the project's; the environment and the command line win over both.

language = "de"            # for every command that has the option

[transcribe]
format = ["srt", "json"]   # for one command
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from phi4mm_cli.errors import UsageError
from phi4mm_cli.options import PERSONAL, dashed
from phi4mm_cli.paths import is_file

USER_FILE_VARIABLE = "PHI4MM_CONFIG"  # another path for the user's file; empty for none
PROJECT_FILE = Path("phi4mm.toml")


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command."""

    parameter: str  # of the command, which it sets
    takes_several: bool  # values


Options = Mapping[str, Mapping[str, Option]]  # of each command, by their names without the first dashes
Defaults = dict[str, dict[str, Any]]


def defaults(options: Options) -> Defaults:
    """The defaults that the files set for each command of `options`. Raises UsageError for what they may not say."""
    merged: Defaults = {command: {} for command in options}
    for path, personal in ((_user_file(), True), (PROJECT_FILE, False)):
        if path is not None and is_file(path):
            for command, values in _read(path, options, personal).items():
                merged[command] |= values
    return merged


def _user_file() -> Path | None:
    if (named := os.environ.get(USER_FILE_VARIABLE)) is not None:
        if named and not is_file(named):
            raise UsageError(
                f"{USER_FILE_VARIABLE} names {named}, where there is no file", "Set it to nothing for none"
            )
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
    _check(path, everywhere, {name: one for own in options.values() for name, one in own.items()}, personal)
    for command, section in sections.items():
        if command not in options:
            raise UsageError(f"{path}: [{command}] is no command", f"The commands are {', '.join(options)}")
        _check(path, section, options[command], personal)
    merged: Defaults = {}
    for command, known in options.items():
        own = {**everywhere, **sections.get(command, {})}
        values = [(known[dashed(name)], value) for name, value in own.items() if dashed(name) in known]
        merged[command] = {
            one.parameter: [value] if one.takes_several and isinstance(value, str) else value for one, value in values
        }
    return merged


def _check(path: Path, table: Mapping[str, Any], known: Mapping[str, Option], personal: bool) -> None:
    for name in table:
        if dashed(name) not in known:
            raise UsageError(f"{path}: '{name}' is no option here", "phi4mm COMMAND --help lists the options")
        if known[dashed(name)].parameter in PERSONAL and not personal:
            raise UsageError(
                f"{path}: a project's file may not set '{name}'", "Set it in your own file or on the command line"
            )
