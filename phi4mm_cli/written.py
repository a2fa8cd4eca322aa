"""Texts that are to be translated, and the same texts with a translation in the place of their words."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phi4mm_cli import captions, languages, prose, subtitles, texts
from phi4mm_cli.captions import PRESETS, Preset, PresetName
from phi4mm_cli.prose import Place, Template
from phi4mm_cli.subtitles import Cue, Subtitles
from phi4mm_cli.texts import Kind, Passage

_ELEMENT = re.compile(r"<(/?)([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Written:
    """A text with all that is in it."""

    kind: Kind
    template: tuple[str | Place, ...]  # of a text without times
    passages: tuple[Passage, ...]  # what is to be translated, in order
    language: str | None = None  # code; None where it does not say
    duration: float | None = None  # seconds; None without times

    def rewritten(self, translations: Sequence[str]) -> str:
        """The text with a translation in the place of each passage; one a line where it has times."""
        return prose.filled([*self.template], translations) if self.template else "\n".join(translations)

    def bilingual(self, translations: Sequence[str]) -> str:
        """The text with each passage and its translation: below it where paragraphs may stand, else behind it."""
        both = []
        blank = "\r\n\r\n" if any("\r\n" in part for part in self.template if isinstance(part, str)) else "\n\n"
        for place, said in zip(prose.places([*self.template]), translations, strict=True):
            between = blank if place.is_alone else " / "
            both.append(place.text if said == place.text else f"{place.text}{between}{said}")
        return self.rewritten(both)


def read(path: Path) -> Written:
    """The text in a file. Raises InputError where it cannot be read."""
    kind, data = texts.load(path)
    if kind == "subtitles":
        cues = tuple(_of_cues(texts.subtitles_in(data)))
        return Written(kind, (), cues, duration=_last(cues))
    text = texts.decoded(data)
    language = None
    if kind == "json":
        passages = tuple(texts.of_json(text))
        content = json.loads(text)
        named = content.get("language")
        language = named if isinstance(named, str) and named in languages.TEXT else None
        if passages and passages[0].start is not None:
            told, last = content.get("duration"), _last(passages)
            is_longer = isinstance(told, (int, float)) and last < told < math.inf
            return Written(kind, (), passages, language, told if is_longer else last)
        text = "\n\n".join(passage.text for passage in passages)
    template = prose.of_markdown(text) if kind == "markdown" else prose.of_plain(text)
    return Written(kind, tuple(template), tuple(Passage(place.text) for place in prose.places(template)), language)


def _last(passages: Sequence[Passage]) -> float:
    """When the last of passages with times ends."""
    return max((passage.end for passage in passages if passage.end is not None), default=0.0)


# ---------------------------------------------------------------------------------------------- subtitles


def _of_cues(found: Subtitles) -> Iterator[Passage]:
    for cue in found.cues:
        for text in _said(cue, found):
            yield Passage(text, cue.start / 1000, cue.end / 1000)


def _said(cue: Cue, found: Subtitles) -> list[str]:
    """What stands in the places of a caption; of one without a letter, which has none, all that can be read."""
    plain = " ".join(subtitles.plain(cue.text, found.kind).split())
    return [place.text for place in prose.places(_of_cue(cue, found))] or [plain] * bool(plain)


def _of_cue(cue: Cue, found: Subtitles) -> Template:
    """A caption as a template: tags around its words stay; where several people speak, each line is a place."""
    plain = subtitles.plain(cue.text, found.kind)
    if not prose.says_something(plain):
        return [cue.text]
    tags = list(subtitles.markup(cue.text, found.kind))
    opening: list[str] = []
    closing: list[str] = []
    at, until = 0, len(cue.text)
    while tags and not cue.text[at : tags[0].start()].strip():
        at = tags[0].end()
        opening.append(tags.pop(0)[0])
    while tags and not cue.text[tags[-1].end() : until].strip():
        until = tags[-1].start()
        closing.insert(0, tags.pop()[0])
    opening, closing = _whole(opening, [tag[0] for tag in tags], closing)
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    spoken = [line.lstrip("-–—") for line in lines]
    if len(lines) > 1 and all(line != said for line, said in zip(lines, spoken, strict=True)):
        parts: Template = []
        for line, said in zip(lines, spoken, strict=True):
            parts += ["\n" if parts else "", line[: len(line) - len(said.lstrip())], Place(said.strip())]
    else:
        parts = [Place(" ".join(lines))]
    return ["".join(opening), *parts, "".join(closing)]


def _whole(opening: list[str], amid: list[str], closing: list[str]) -> tuple[list[str], list[str]]:
    """The tags around a caption's words, without those whose other half stands amid the words."""

    def names(tags: list[str], slash: str) -> set[str]:
        return {found[2] for tag in tags if (found := _ELEMENT.match(tag)) and found[1] == slash}

    torn = names(amid, "/") - names(closing, "/")
    opening = [tag for tag in opening if not names([tag], "") & torn]
    return opening, [tag for tag in closing if names([tag], "/") <= names(opening, "")]


def subtitled(
    path: Path,
    kind: subtitles.Kind,
    translations: Sequence[str],
    beside: bool,
    rules: Preset = PRESETS[PresetName.NETFLIX],
    language: str | None = None,
) -> Subtitles:
    """The subtitles in a file with a translation in the place of each passage, or `beside` it; all times are kept.

    Raises InputError where the file cannot be read.
    """
    found = texts.subtitles_in(texts.load(path)[1])
    rest = iter(translations)
    cues = []
    for cue in found.cues:
        template = _of_cue(cue, found)
        said = [next(rest) for _ in _said(cue, found)]
        if kind != found.kind:  # tags and settings mean nothing there
            template = [part if isinstance(part, Place) or not part.strip(" \n-–—") else "" for part in template]
        broken = [captions.broken(text, rules, language) for text in said[: len(prose.places(template))]]
        spoken = [subtitles.escaped("\n".join(map(subtitles.directed, rows)), kind) for rows in broken]
        own = cue.text if kind == found.kind else subtitles.escaped(subtitles.plain(cue.text, found.kind), kind)
        text = prose.filled(template, spoken) if spoken else own
        both = f"{own}\n{text}" if beside and spoken else text
        cues.append(replace(cue, text=both, settings=cue.settings if kind == found.kind else ""))
    if kind != found.kind:
        return Subtitles(kind, tuple(replace(cue, before="", name="") for cue in cues))
    return replace(found, cues=tuple(cues))
