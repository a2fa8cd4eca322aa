"""The translation of a text: its prose goes through the model, its structure and its times do not."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from phi4mm_cli import language_check, prose
from phi4mm_cli.flow import Flow
from phi4mm_cli.outputs import Coverage, Rendering, Translation, Warning, WarningCode
from phi4mm_cli.passages import Asking, Rendered, translated
from phi4mm_cli.texts import Passage
from phi4mm_cli.written import read


def of_text(path: Path, asking: Asking, source: str | None) -> Flow[Translation]:
    """The text in a file, its passages translated with their neighbours; what is no prose in it stays as it is.

    `source` is the code of its language, None where it is not known. Raises InputError where the file cannot be read.
    """
    written = read(path)
    said = [passage.text for passage in written.passages]
    renderings = yield from translated(said, asking)
    if written.kind == "markdown":
        renderings = yield from _with_kept(said, renderings, asking)
    translations = [rendering.text for rendering in renderings]
    spoken = source or written.language or language_check.judge("\n".join(said))
    tokens = sum(map(asking.count, said))
    return Translation(
        text=written.rewritten(translations),
        language=asking.language,
        source_language=spoken,
        segments=tuple(
            Rendering(i, passage.start, passage.end, text, passage.text)
            for i, (text, passage) in enumerate(zip(translations, written.passages, strict=True))
        ),
        coverage=Coverage("tokens", tokens, tokens),
        source_text=written.rewritten(said),
        duration=written.duration,
        warnings=tuple(_text_warnings(written.passages, renderings)),
    )


def _with_kept(said: Sequence[str], renderings: Sequence[Rendered], asking: Asking) -> Flow[list[Rendered]]:
    """The renderings; one that lost a link or code is made anew of the words around these."""
    found = list(renderings)
    astray = [i for i, text in enumerate(said) if prose.kept(text) != prose.kept(found[i].text)]
    templates = [prose.around_kept(said[i]) for i in astray]
    between = [place.text for template in templates for place in prose.places(template)]
    parts = iter((yield from translated(between, asking)))
    for i, template in zip(astray, templates, strict=True):
        own = [next(parts) for _ in prose.places(template)]
        text = prose.filled(template, [part.text for part in own])
        found[i] = Rendered(text, next((part.fault for part in own if part.fault), None))
    return found


_FAULTS: dict[WarningCode, tuple[str, str]] = {
    "untranslated": ("came back empty", "left as it was"),
    "token_limit": ("was cut off by its token budget", "kept as it is"),
    "wrong_language": ("came back in another language", "kept as it is"),
}


def _text_warnings(written: Sequence[Passage], renderings: Sequence[Rendered]) -> Iterator[Warning]:
    """One for each run of neighbours with the same fault."""
    for fault, run in groupby(zip(written, renderings, strict=True), lambda pair: pair[1].fault):
        if fault:
            affected = [passage for passage, _ in run]
            message, action = _FAULTS[fault]
            excerpt = textwrap.shorten(affected[0].text, 40, placeholder="…")
            more = f" and {len(affected) - 1} more" if len(affected) > 1 else ""
            yield Warning(fault, f"'{excerpt}'{more} {message}", action, affected[0].start, affected[-1].end)
