"""`phi4mm captions`: SRT and VTT files against the rules of captions, with no model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import console, files, languages, subtitles
from phi4mm_cli.captions import PRESETS, Preset, PresetName
from phi4mm_cli.captions.check import Violation, check
from phi4mm_cli.captions.fix import fix
from phi4mm_cli.captions.presets import FRAME_RATE, two_frames
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.files import STDIN, Input
from phi4mm_cli.finding import Rules, Unfound, find, once
from phi4mm_cli.options import LogOptions, option, with_shared
from phi4mm_cli.output_options import CaptionRules
from phi4mm_cli.paths import is_folder
from phi4mm_cli.report import Report
from phi4mm_cli.schema import to_json
from phi4mm_cli.subtitles import Subtitles

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")


@app.callback()
def captions() -> None:
    """Check and mend SRT and VTT files, whoever made them. Needs no model."""


Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="FILE", help="SRT or VTT files, folders; [b]-[/b] is stdin.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """Which rules, and how the files are read."""

    captions: CaptionRules = PresetName.NETFLIX
    fps: Annotated[float, option("--fps", help="Frames a second of the video: captions are two frames apart.")] = (
        FRAME_RATE
    )
    language: Annotated[
        str, option("--language", "-l", help="What is written: a code, a name, or [b]auto[/b], as its words tell.")
    ] = languages.AUTO
    encoding: Annotated[
        str | None, option("--encoding", help="Of the files.", show_default="UTF-8, else Windows-1252")
    ] = None

    def __post_init__(self) -> None:
        self.preset()
        self.code()

    def preset(self) -> Preset:
        """The rules. Raises UsageError."""
        if not 1 <= self.fps <= 1000:
            raise UsageError(f"--fps is 1 to 1000, not {self.fps:g}")
        preset = PRESETS[self.captions]
        return replace(preset, gap=two_frames(self.fps)) if preset.gap else preset

    def code(self) -> str | None:
        """Of the language; None lets the words tell. Raises UsageError."""
        return languages.caption_code(self.language)


@app.command("check", epilog="phi4mm captions check talk.srt --captions bbc")
@with_shared
def check_files(
    inputs: Inputs,
    rules: RuleOptions,
    log: LogOptions,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list, an object for each file.")] = False,
) -> None:
    """Print a line for each rule that a file breaks, FILE:LINE: rule: detail; exit with 7 where there is one."""
    preset, language, report = rules.preset(), rules.code(), Report(True, log)
    reports: list[dict[str, object]] = []

    def work(file: Input, data: bytes) -> None:
        found = subtitles.read(data, rules.encoding, file.path.suffix)
        broken = check(found, preset, language)
        report.counted(len(broken))
        if as_json:
            reports.append({"source": file.label, "cues": len(found.cues), "violations": to_json(broken)})
        else:
            stdout.writelines(f"{_told(file.label, violation)}\n" for violation in broken)

    with console.results() as stdout:
        _each(inputs, report, work)
        if as_json:
            stdout.write(json.dumps(reports, ensure_ascii=False, indent=2) + "\n")
    raise typer.Exit(report.end())


@app.command("fix", epilog="phi4mm captions fix talk.srt -o mended/")
@with_shared
def fix_files(
    inputs: Inputs,
    rules: RuleOptions,
    log: LogOptions,
    output_dir: Annotated[
        Path | None, option("--output-dir", "-o", help="Folder for the mended files; [b]-[/b] is stdout.")
    ] = None,
    in_place: Annotated[bool, typer.Option("--in-place", help="Replace the files.")] = False,
    overwrite: Annotated[
        bool, option("--overwrite/--no-overwrite", help="Replace outputs that exist, or refuse.")
    ] = True,
    strict: Annotated[
        bool, option("--strict/--no-strict", help="Exit with 7 where something could not be mended.")
    ] = False,
) -> None:
    """Mend what breaks a rule: lines, times, captions too long or too short. No word is lost or changed."""
    report = Report(strict, log)
    folder = _folder(inputs, output_dir, in_place)
    if in_place and not overwrite:
        raise UsageError("--in-place replaces files, which --no-overwrite forbids", "Leave one of them out")
    to_stdout = folder is None and not in_place

    def work(file: Input, data: bytes) -> None:
        found = subtitles.read(data, rules.encoding, file.path.suffix)
        text, broken, left = _mended(data, found, rules)
        target = file.path if in_place else folder and files.target_of(file, folder, _extension(file, found.kind))
        if not overwrite and target is not None and target.exists():  # of a file whose name does not tell its kind
            raise InputError(f"{files.label_of(target)} exists", "Remove it, or leave out --no-overwrite")
        if target is None:
            stdout.write(text)
        elif broken or not in_place or text.encode() != data:  # in another encoding
            files.write(target.resolve() if in_place else target, lambda stream: stream.writelines([text]))
        report.counted(len(left))
        if not log.quiet:
            for violation in left:
                console.say(f"could not mend {_told(str(target or file.label), violation)}", "warning")
            if broken:
                console.say(f"{file.label}: {len(broken)} violations, {len(left)} left")

    with console.results() as stdout:
        _each(inputs, report, work, folder, overwrite, to_stdout)
    raise typer.Exit(report.end())


_SEVERAL = ("several files do not go to stdout", "Give -o DIR, or --in-place")


def _folder(inputs: Sequence[Path], output_dir: Path | None, in_place: bool) -> Path | None:
    """Where mended files go; None for stdout, and for where they are. Raises UsageError."""
    if in_place:
        if output_dir is not None or STDIN in inputs:
            raise UsageError("--in-place goes with files, and without -o")
        return None
    if output_dir is not None and output_dir != STDIN:
        files.check_folder_name(output_dir)
        return output_dir
    if any(map(is_folder, inputs)):
        raise UsageError(*_SEVERAL)
    return None


def _each(
    inputs: Sequence[Path],
    report: Report,
    work: Callable[[Input, bytes], None],
    folder: Path | None = None,
    overwrite: bool = True,
    alone: bool = False,
) -> None:
    """Do the work for each file; what fails one is reported, and the others go on."""
    found = [*once(find(inputs, Rules(subtitles.SUFFIXES), "stdin"))]
    if alone and len(found) > 1:
        raise UsageError(*_SEVERAL)
    if folder is not None:
        claims = [(file, (_extension(file),)) for file in found if isinstance(file, Input)]
        files.check_outputs(claims, folder)
        if not overwrite:
            files.check_absent(claims, folder)
    for file in found:
        if isinstance(file, Unfound):
            report.failed(file.label, file.error)
            continue
        try:
            work(file, _bytes(file.path))
        except InputError as error:
            report.failed(file.label, error)


def _bytes(path: Path) -> bytes:
    """What a file holds. Raises InputError."""
    if path == STDIN:
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from None


def _extension(file: Input, kind: str = "srt") -> str:
    """That of the file; of one without, such as stdin, that of what is in it."""
    return file.path.suffix.removeprefix(".") or kind


def _mended(data: bytes, found: Subtitles, rules: RuleOptions) -> tuple[str, list[Violation], list[Violation]]:
    """The text of the mended file, what was broken in it, and what still is; as it was where nothing is."""
    preset, language = rules.preset(), rules.code()
    broken = check(found, preset, language)
    if not broken:
        return subtitles.decoded(data, rules.encoding)[0], [], []
    text = _text(fix(found, preset, language))
    return text, broken, check(subtitles.read(text.encode()), preset, language)


def _text(found: Subtitles) -> str:
    file = io.StringIO()
    subtitles.write(found, file)
    return file.getvalue()


def _told(label: str, violation: Violation) -> str:
    cue = "" if violation.cue is None else f" (cue {violation.cue})"
    return f"{label}:{violation.line}: {violation.rule}: {violation.detail}{cue}"
