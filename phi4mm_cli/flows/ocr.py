"""The text of pages of pictures and documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from phi4mm_cli import reading
from phi4mm_cli.flow import Flow, Gather
from phi4mm_cli.outputs import Coverage, Page, Pages
from phi4mm_cli.paging import ALL_PAGES, Selection
from phi4mm_cli.reading import Reading
from phi4mm_cli.schema import Source


@dataclass(frozen=True, slots=True)
class Options:
    """Which pages are read, and how."""

    pages: Selection = ALL_PAGES
    reading: Reading = field(default_factory=Reading)


def flow(source: Source, options: Options) -> Flow[Pages]:
    """The text of the pages of `source`. Raises InputError where there is none of them; where none can be read, why."""
    from phi4mm_cli.media import document as documents

    with documents.Document(source) as document:
        numbers = options.pages.of(document.page_count)
        if not numbers:
            raise documents.no_page(options.pages.first, document.page_count)
        gather = Gather(reading.read(document, number, options.reading) for number in numbers)
        yield gather
    found = gather.values
    failures = [read.failed for read in found if read.failed is not None]
    if len(failures) == len(found):
        raise failures[0]
    pages = tuple(read.page for read in found)
    warnings = [warning for read in found for warning in read.warnings]
    if any(page.text for page in pages):  # a blank page among others is as it should be
        warnings = [replace(w, healed=True) if w.code == "blank_page" else w for w in warnings]
    return Pages(
        text=_marked(pages),
        pages=pages,
        coverage=Coverage("pages", document.page_count, len(found) - len(failures)),
        warnings=tuple(warnings),
    )


def _marked(pages: Sequence[Page]) -> str:
    """All pages as one Markdown text; where there are several, each under a comment with its number."""
    if len(pages) == 1:
        return pages[0].text
    return "\n\n".join(f"<!-- page {page.page} -->\n\n{page.text}".rstrip("\n") for page in pages)
