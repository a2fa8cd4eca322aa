"""Programs as tools: `wc -l {path}  # Count the lines of a file` becomes a tool with one parameter.

The words of the command are split once, as a shell would, and are an argument vector from then on: no shell is ever
started, and what the model puts in the place of `{path}` stays one argument, whatever is in it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools import Tool
from phi4mm_cli.tools.process import Process, TimeLimitError, how
from phi4mm_cli.tools.results import Limits, Returned, ToolError

SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "busybox", "pwsh"))
MOST_BYTES = 4  # of a character in UTF-8

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.+)", re.DOTALL)
_CODE = re.compile(r"-[a-z]*c[a-z]*", re.IGNORECASE)  # -c, -ec, -Command
_PLAIN = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True)
class Program:
    """A program with places in its arguments that the model fills."""

    tool: Tool
    words: tuple[str, ...]

    def show(self, call: ToolCall) -> str:
        """The command as a shell would take it."""
        return shlex.join(self._filled(call))

    def argv(self, call: ToolCall) -> list[str]:
        """The argument vector of a call that has been checked.

        Raises ToolError where a value would begin an argument with `-`, unless the command has `--` before it: then
        its author says that the program takes no options from there on.
        """
        filled = self._filled(call)
        options_end = self.words.index("--") if "--" in self.words else len(self.words)
        for word, made in zip(self.words[:options_end], filled, strict=False):
            if made.startswith("-") and not word.startswith("-"):
                raise ToolError(f"{made!r} begins with '-' and would be an option of {self.words[0]}")
        return filled

    def _filled(self, call: ToolCall) -> list[str]:
        return [_PLACE.sub(lambda place: str(call.arguments[place[1]]), word) for word in self.words]

    def call(self, call: ToolCall, limits: Limits) -> Returned:
        """What the program writes to stdout and stderr. Raises ToolError, also for an exit code that is not 0."""
        deadline = time.monotonic() + limits.seconds
        try:
            with Process(self.argv(call), merged=True) as process:
                output = process.read(deadline, MOST_BYTES * limits.characters)
                code = process.wait(deadline)
        except TimeLimitError:
            raise ToolError(f"it took more than {limits.seconds:g} seconds and was ended", "time_limit") from None
        except (OSError, ValueError) as error:
            raise ToolError(f"{self.words[0]} cannot be started: {error}") from None
        whole = output.content.decode("utf-8", "replace")
        text = whole[: limits.characters]
        if code != 0:
            raise ToolError(f"{how(code)}: {text.strip()}")
        return Returned(text, len(whole) + output.size - len(output.content))


def read_program(text: str) -> Program:
    """The tool that `--command TEXT` describes. Raises UsageError, and MissingError where there is no such program.

    `[NAME=]PROGRAM WORD...  [# DESCRIPTION]`: without a name, it is made of the program's and of the plain words
    behind it (`git log {path}` is `git_log`). Every `{parameter}` is a required string.
    """
    typed, _, description = text.partition(" # ")
    try:
        words = shlex.split(typed)
    except ValueError as error:
        raise UsageError(f"--command {text!r}: {error}", "Close the quotation mark") from None
    if not words:
        raise UsageError("--command is empty", "Give it a program, such as 'wc -l {path}'")
    named = _NAMED.fullmatch(words[0])
    program = named[2] if named else words[0]
    if _PLACE.search(program):
        raise UsageError(f"--command {text!r}: the model may not choose the program", "Write its name")
    if shutil.which(program) is None:
        raise MissingError(f"--command {text!r}: there is no program '{program}'", "Install it, or give its path")
    words = [program, *words[1:]]
    if PurePath(program).name in SHELLS:
        _require_no_code(text, words)
    name = named[1] if named else _name(words)
    told = description.strip() or f"Runs: {shlex.join(words)}"
    return Program(Tool(name, told, _schema(words)), tuple(words))


def _require_no_code(text: str, words: list[str]) -> None:
    """Raise UsageError where the model would write, or add to, what a shell runs."""
    advice = "Write $1 in the shell's code, and behind it: NAME {path}"
    code = next((n + 1 for n, word in enumerate(words) if _CODE.fullmatch(word)), len(words))
    if code < len(words) and words[code].startswith(("-", "+")):  # shells take more options there, then the code
        raise UsageError(f"--command {text!r}: the shell's code must stand right behind -c", advice)
    for number, (before, word) in enumerate(pairwise(words), 1):
        is_code = before.startswith("-") or (
            number > code and PurePath(words[0]).name == "pwsh"
        )  # it takes all as code
        if _PLACE.search(word) and (is_code or not _PLACE.fullmatch(word)):
            raise UsageError(f"--command {text!r}: the model would write shell code", advice)


def _schema(words: list[str]) -> dict[str, object]:
    places = dict.fromkeys(place for word in words for place in _PLACE.findall(word))
    shown = shlex.join(words)
    properties = {
        place: {"type": "string", "description": f"What stands for {{{place}}} in: {shown}"} for place in places
    }
    return {"type": "object", "properties": properties, "required": [*places], "additionalProperties": False}


def _name(words: list[str]) -> str:
    first = re.sub(r"[^A-Za-z0-9_]", "_", PurePath(words[0]).name)
    plain: list[str] = []
    for word in words[1:]:
        if not _PLAIN.fullmatch(word):
            break
        plain.append(word)
    return "_".join([first if not first[:1].isdigit() else f"_{first}", *plain])[:64]
