"""The options of what is written, in groups like those of `options.py`: one for each set of formats."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.errors import UsageError
from phi4mm_cli.options import option


class Format(StrEnum):
    """Output formats, by their file extension."""

    TXT = "txt"
    MD = "md"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"
    TSV = "tsv"


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Which files are written, and where. A command writes the formats that its group of these has a switch for."""

    output_dir: Annotated[
        Path | None,
        option("--output-dir", "-o", panel="Output", help="Folder for the output files; [b]-[/b] is stdout."),
    ] = None
    format: Annotated[
        list[str] | None,
        option("--format", "-f", panel="Output", help="Formats, with commas: those of the switches below."),
    ] = None
    txt: Annotated[bool, option("--txt", panel="Output", help="Write text.")] = False
    json: Annotated[bool, option("--json", panel="Output", help="Write JSON ([b]phi4mm schema[/b] describes it).")] = (
        False
    )
    jsonl: Annotated[
        bool, option("--jsonl", panel="Output", help="One line of JSON an input: on stdout, or in the file of -o.")
    ] = False
    name: Annotated[
        str | None,
        option("--name", panel="Output", help="What the output is called that no file lends its name to, as of stdin."),
    ] = None
    overwrite: Annotated[
        bool, option("--overwrite/--no-overwrite", panel="Output", help="Replace outputs that exist, or refuse.")
    ] = True
    force: Annotated[
        bool,
        option("--force/--no-force", panel="Output", help="With -o DIR: do again what an earlier run has done there."),
    ] = False
    strict: Annotated[
        bool, option("--strict/--no-strict", panel="Output", help="Exit with 7 where a result has warnings.")
    ] = False

    def formats(self) -> tuple[Format, ...]:
        """The formats asked for, each once, in the order of `Format`. Raises UsageError."""
        offered = [f for f in Format if hasattr(self, f)]
        named = {name.strip().lower() for names in self.format or () for name in names.split(",")} - {""}
        if unknown := sorted(named - set(offered)):
            message = "this command does not write" if unknown[0] in set(Format) else "unknown format"
            raise UsageError(f"{message} '{unknown[0]}'", f"Its formats are {', '.join(offered)}")
        return tuple(f for f in offered if f in named or getattr(self, f))


CaptionRules = Annotated[
    PresetName,
    option(
        "--captions",
        panel="Output",
        help="Whose rules SRT and VTT keep to: [b]netflix[/b], [b]bbc[/b], or [b]plain[/b], a caption a sentence.",
    ),
]


@dataclass(frozen=True, slots=True)
class CaptionOutputOptions(OutputOptions):
    """... of commands whose results have times."""

    srt: Annotated[bool, option("--srt", panel="Output", help="Write SubRip captions.")] = False
    vtt: Annotated[bool, option("--vtt", panel="Output", help="Write WebVTT captions.")] = False
    tsv: Annotated[bool, option("--tsv", panel="Output", help="Write a table of times and text.")] = False
    captions: CaptionRules = PresetName.NETFLIX


Markdown = Annotated[bool, option("--md", panel="Output", help="Write Markdown.")]


@dataclass(frozen=True, slots=True)
class PageOutputOptions(OutputOptions):
    """... of commands whose results are pages to read."""

    md: Markdown = False


@dataclass(frozen=True, slots=True)
class TranslationOutputOptions(CaptionOutputOptions):
    """... of what is translated: what has times, and pages to read."""

    md: Markdown = False
