"""SRT and VTT files as records: read from what people have, written back with all that is not understood kept.

Our own reader, because those in the registries lose what a linter or a translation must keep: counters and line
numbers, VTT's cue settings, names, NOTE and STYLE blocks, and (in one) a last line that is a number.
"""

from __future__ import annotations

import codecs
import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TextIO

from phi4mm_cli.errors import InputError

Kind = Literal["srt", "vtt"]
SUFFIXES = frozenset({".srt", ".vtt"})
GUESSED = "not UTF-8; read as Windows-1252"

_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[,.](\d{1,3}))?"
_TIMES = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s+(.*?))?\s*")
_CLOCKS: dict[Kind, re.Pattern[str]] = {  # as the formats have them
    "srt": re.compile(r"\d{2,}:\d\d:\d\d,\d{3}"),
    "vtt": re.compile(r"(\d{2,}:)?\d\d:\d\d\.\d{3}"),
}
_DAMAGED_TIMES = re.compile(r".*\d:\d\S*\s*-->|.*-->\s*\d+:\S")  # an arrow without a clock is text
_MARKUP: dict[Kind, re.Pattern[str]] = {
    "srt": re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}"),  # SubRip's own, and the position tags of SSA in use there
    "vtt": re.compile(r"<[^<>]*>"),
}
_VTT_BLOCK = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
_RIGHT_TO_LEFT = "\u200f"
_WORD_JOINER = "\u2060"  # of no width: keeps a player from taking text for markup


@dataclass(frozen=True, slots=True)
class Cue:
    """What stands on the screen from `start` to `end` (integer milliseconds)."""

    start: int
    end: int
    text: str  # lines joined by "\n", with the markup and escapes of the file: `plain` has the words alone
    settings: str = ""  # what stands after the times: VTT's position and alignment
    name: str = ""  # VTT's identifier; the counter of SRT is made anew
    before: str = ""  # NOTE, STYLE and other blocks between this cue and the one before it, as they are
    line: int = 0  # of its times in the file, from 1


@dataclass(frozen=True, slots=True)
class Fault:
    """Where a file is not in order, though it could be read; writing it anew mends that."""

    line: int
    detail: str


@dataclass(frozen=True, slots=True)
class Subtitles:
    """A subtitle file."""

    kind: Kind
    cues: tuple[Cue, ...]
    head: str = "WEBVTT"  # of VTT: the first line, and what belongs to it
    tail: str = ""  # blocks after the last cue
    newline: str = "\n"
    byte_order_mark: bool = False
    faults: tuple[Fault, ...] = ()


# ---------------------------------------------------------------------------------------------- reading


def read(data: bytes, encoding: str | None = None, suffix: str = "") -> Subtitles:
    """The subtitles in `data`, which is UTF-8, or UTF-16 with its mark, unless `encoding` names another.

    What is neither is taken for Windows-1252, with a fault that says so; so it is with what should be VTT by its
    `suffix` and does not begin so. Raises InputError where the bytes, the format or the times of a cue cannot be read,
    so that no words are lost.
    """
    text, faults = decoded(data, encoding)
    marked, text = text.startswith("\ufeff"), text.removeprefix("\ufeff")
    lines = re.split(r"\r\n|\r|\n", text)
    if re.match(r"WEBVTT(\s|$)", text):
        found = _vtt(lines, faults)
    elif suffix.lower() == ".vtt" and text.strip():
        faults.append(Fault(1, "no WEBVTT above the cues"))
        found = _vtt(lines, faults, has_head=False)
    else:
        found = _srt(lines, faults)
    times = ((cue.line, lines[cue.line - 1].split("-->")) for cue in found.cues)
    faults += [
        Fault(line, "times that are not as the format has them") for line, both in times if not _exact(both, found.kind)
    ]
    newline = "\r\n" if "\r\n" in text else "\n"
    return replace(
        found, newline=newline, byte_order_mark=marked, faults=tuple(sorted(faults, key=lambda fault: fault.line))
    )


def decoded(data: bytes, encoding: str | None) -> tuple[str, list[Fault]]:
    """The text of a file, with its byte order mark, and what had to be guessed. Raises InputError."""
    if encoding is None and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        return data.decode(codecs.lookup(encoding or "utf-8").name), []
    except LookupError:
        raise InputError(
            f"there is no encoding '{encoding}'", "utf-8, cp1252, shift_jis and gb18030 are some"
        ) from None
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise InputError(f"this is not {encoding}: {error.reason} at byte {error.start}") from None
    try:
        return data.decode("cp1252"), [Fault(1, GUESSED)]
    except UnicodeDecodeError:
        raise InputError("neither UTF-8 nor Windows-1252", "Name its encoding with --encoding") from None


def _times(lines: Sequence[str], at: int) -> tuple[int, int, str] | None:
    """Start, end and settings where line `at` has the times of a cue. Raises InputError where it has damaged ones."""
    match = _TIMES.fullmatch(lines[at])
    if match:
        start, end = (_milliseconds(match.groups()[i : i + 4]) for i in (0, 4))
        return start, end, match[9] or ""
    if _DAMAGED_TIMES.match(lines[at]):
        raise InputError(f"line {at + 1}: these times cannot be read: {lines[at].strip()[:60]}", "Mend the line")
    return None


def _milliseconds(clock: Sequence[str | None]) -> int:
    hours, minutes, seconds = (int(part or 0) for part in clock[:3])
    return ((hours * 60 + minutes) * 60 + seconds) * 1000 + int((clock[3] or "").ljust(3, "0"))


def _srt(lines: Sequence[str], faults: list[Fault]) -> Subtitles:
    timed = [(at, *found) for at in range(len(lines)) if (found := _times(lines, at))]
    if not timed and any(line.strip() for line in lines):
        raise InputError("neither SRT nor VTT: there are no times in it")
    if not timed:
        return Subtitles("srt", ())
    firsts: list[int] = []  # lines where cues begin: at the counter above their times, where they have one
    for i, (at, *_) in enumerate(timed):
        counted = lines[at - 1].strip().isdecimal() and at - 1 > (timed[i - 1][0] if i else -1)
        firsts.append(at - counted)
    before = _verbatim(lines[: firsts[0]])
    if before:
        faults.append(Fault(1, "text that belongs to no cue"))
    cues: list[Cue] = []
    number = 0
    for first, (at, start, end, settings), until in zip(firsts, timed, [*firsts[1:], len(lines)], strict=True):
        counter = int(lines[first]) if first < at else None
        if counter != number + 1:
            faults.append(Fault(at + 1, f"number {counter or 'missing'} where {number + 1} is due"))
        number = number + 1 if counter is None else counter
        if first and lines[first - 1].strip():
            faults.append(Fault(first + 1, "no blank line before this cue"))
        text = _verbatim(lines[at + 1 : until])
        if "\n\n" in text:
            faults.append(Fault(at + 1, "a blank line within the text"))
        cues.append(Cue(start, end, re.sub(r"\n+", "\n", text), settings, before="" if cues else before, line=at + 1))
    return Subtitles("srt", tuple(cues))


def _exact(times: Sequence[str], kind: Kind) -> bool:
    """Whether both sides of an arrow are as the format has them; settings may stand behind."""
    return all(_CLOCKS[kind].fullmatch((side.split() or [""])[0]) for side in times)


def _vtt(lines: Sequence[str], faults: list[Fault], has_head: bool = True) -> Subtitles:
    blocks = list(_blocks(lines))
    head = _verbatim(lines[: blocks[0][1]]) if has_head else "WEBVTT"
    cues: list[Cue] = []
    others: list[str] = []  # blocks since the last cue
    for first, last in blocks[has_head:]:
        times_at, found = _first_times(lines, first, last)
        text = _verbatim(lines[first if found is None else times_at + 1 : last])
        if found is None:
            others.append(text)
            if not _VTT_BLOCK.match(text):
                faults.append(Fault(first + 1, "text that belongs to no cue"))
            continue
        if first and lines[first - 1].strip():
            faults.append(Fault(first + 1, "no blank line before this cue"))
        start, end, settings = found
        name = lines[first].strip() if times_at > first else ""
        cues.append(Cue(start, end, text, settings, name, "\n\n".join(others), times_at + 1))
        others.clear()
    return Subtitles("vtt", tuple(cues), head=head, tail="\n\n".join(others))


def _first_times(lines: Sequence[str], first: int, last: int) -> tuple[int, tuple[int, int, str] | None]:
    """Where a block of VTT has its times, in the first line or below a name, and what they are; None: it is no cue."""
    if not _VTT_BLOCK.match(lines[first]):
        for at in range(first, min(first + 2, last)):
            if found := _times(lines, at):
                return at, found
    return first, None


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First line and end of each block of VTT: blank lines divide them, and so do times where none may stand."""
    first = 0
    for at in range(len(lines) + 1):
        blank = at == len(lines) or not lines[at].strip()
        if not blank and at > first and _TIMES.fullmatch(lines[at]) and not _VTT_BLOCK.match(lines[first]):
            named = at == first + 1 and first > 0 and "-->" not in lines[first]
            blank = not named
            if blank:
                yield first, at
                first = at
        elif blank:
            if at > first:
                yield first, at
            first = at + 1


def _verbatim(lines: Sequence[str]) -> str:
    """The lines without the blank ones around them."""
    return "\n".join(line if line.strip() else "" for line in lines).strip("\n")


# ---------------------------------------------------------------------------------------------- text


def plain(text: str, kind: Kind) -> str:
    """The words of a cue's text, without markup and escapes; its lines stay."""
    words = _MARKUP[kind].sub("", text)
    return html.unescape(words) if kind == "vtt" else re.sub(rf"(?<=[<{{]){_WORD_JOINER}", "", words)


def markup(text: str, kind: Kind) -> Iterator[re.Match[str]]:
    """The tags in a cue's text, in order."""
    return _MARKUP[kind].finditer(text)


def escaped(words: str, kind: Kind) -> str:
    """`words` as the text of a cue, so that nothing in them ends the cue or is taken for markup."""
    words = re.sub(r"\n\s*\n", "\n", words.strip("\n"))
    if kind == "vtt":
        return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"<(?=[A-Za-z/])|\{(?=\\)", rf"\g<0>{_WORD_JOINER}", words.replace("-->", "->"))


def directed(line: str) -> str:
    """`line` between right-to-left marks where it begins in such a script: else players set its full stop at the right.

    A line's direction is that of its first letter, as in the Unicode bidirectional algorithm (rule P2).
    """
    letter = next((way for character in line if (way := unicodedata.bidirectional(character)) in ("L", "R", "AL")), "L")
    return line if letter == "L" else f"{_RIGHT_TO_LEFT}{line.strip(_RIGHT_TO_LEFT)}{_RIGHT_TO_LEFT}"


# ---------------------------------------------------------------------------------------------- writing


def write(subtitles: Subtitles, file: TextIO) -> None:
    """Write a file that is in order: SRT numbered from 1, blank lines between cues, what was kept where it was."""
    parts = [subtitles.head] if subtitles.kind == "vtt" else []
    for number, cue in enumerate(subtitles.cues, 1):
        parts += [cue.before] if cue.before else []
        name = cue.name if subtitles.kind == "vtt" else str(number)
        mark = "." if subtitles.kind == "vtt" else ","
        times = f"{clock(cue.start, mark)} --> {clock(cue.end, mark)} {cue.settings}".rstrip()
        parts.append("\n".join(part for part in (name, times, cue.text) if part))
    parts += [subtitles.tail] if subtitles.tail else []
    text = "".join(f"{part}\n\n" for part in parts).replace("\n", subtitles.newline)
    file.write("\ufeff" * subtitles.byte_order_mark + text)


def clock(milliseconds: int, mark: str = ".") -> str:
    """A time as hours, minutes, seconds and milliseconds: 00:01:02.345."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{mark}{milliseconds:03}"
