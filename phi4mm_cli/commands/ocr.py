"""`phi4mm ocr`: pages of pictures and documents to Markdown, text, JSON and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import paging, reading, tables, writers
from phi4mm_cli.batch import STDOUT, run_files
from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.engine_options import EngineName, EngineOptions
from phi4mm_cli.errors import UsageError
from phi4mm_cli.files import NUMBER
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows.ocr import Options, flow
from phi4mm_cli.media import DOCUMENT_SUFFIXES
from phi4mm_cli.options import BatchOptions, LogOptions, SamplingOptions, named_inputs, option, with_shared
from phi4mm_cli.output_options import Format, PageOutputOptions
from phi4mm_cli.outputs import Body, Document, Pages
from phi4mm_cli.paging import ALL_PAGES, Detail, Selection
from phi4mm_cli.prompt import CountTokens
from phi4mm_cli.reading import Reading, TextLayer
from phi4mm_cli.schema import Profile, Source
from phi4mm_cli.task import Edition, Task

EXAMPLES = """
[b]Examples[/b]

phi4mm ocr receipt.jpg

phi4mm ocr report.pdf --pages 1-3,7 --json -o out/

phi4mm ocr scans/ -o text/ --table csv
"""


PROMPT_TOKENS = 32  # more than the instruction and the markers around it


class TableFormat(StrEnum):
    """In what files of their own tables are written."""

    CSV = "csv"


@dataclass(frozen=True, slots=True)
class PageEditions:
    """An edition for each format, Markdown unless asked for otherwise, and where they are wanted one for each table."""

    with_tables: bool

    def names(self, path: Path, asked: tuple[str, ...]) -> Sequence[str]:
        """The formats, and tables of whatever number."""
        return [*(asked or (Format.MD,)), *([f"table{NUMBER}.csv"] if self.with_tables else [])]

    def of(
        self, path: Path, document: Document, asked: tuple[str, ...], rules: PresetName, together: bool
    ) -> Iterator[Edition]:
        """The text, and the tables numbered through the document."""
        assert isinstance(document.body, Pages)
        for name in asked or (Format.MD,):
            yield Edition(name, name, writers.writer(name, rules))
        found = [table.rows for page in document.body.pages for table in page.tables if self.with_tables]
        for number, rows in enumerate(found, 1):
            yield Edition("csv", f"table{number}.csv", _csv_writer(rows))


def _csv_writer(rows: tables.Table) -> writers.Writer:
    return lambda document, file: tables.write_csv(rows, file)


@with_shared
def command(
    inputs: Annotated[list[Path], named_inputs("Pictures, TIFF, PDF, folders of them; [b]-[/b] is stdin.")],
    batch: BatchOptions,
    engine: EngineOptions,
    sampling: SamplingOptions,
    output: PageOutputOptions,
    log: LogOptions,
    pages: Annotated[
        str | None, option("--pages", metavar="1-3,7,10-", help="Only these pages, counted from 1.", show_default="all")
    ] = None,
    detail: Annotated[
        Detail, option("--detail", help="How finely a page is shown: tokens against small print.")
    ] = Detail.AUTO,
    text_layer: Annotated[
        TextLayer,
        option("--text-layer", help="Text that a PDF carries: [b]prefer[/b] it to reading, or take [b]only[/b] it."),
    ] = TextLayer.IGNORE,
    table: Annotated[TableFormat | None, option("--table", help="Write each table to a file of its own too.")] = None,
) -> None:
    """Turn pages of pictures and documents into Markdown, text, JSON and tables."""
    if table and output.jsonl:
        raise UsageError("--table writes files, and --jsonl lines, which have the tables too", "Leave one out")
    if table and output.output_dir == STDOUT:
        raise UsageError("--table writes files, and stdout is asked for", "Leave out '-o -'")
    selected = ALL_PAGES if pages is None else paging.selection(pages)
    if text_layer is TextLayer.ONLY:
        engine = replace(engine, engine=EngineName.ECHO)  # the model is asked nothing, so none need be there

    def prepare(profile: Profile, _: CountTokens) -> Callable[[Source], Flow[Body]]:
        # An answer may take as many tokens as its picture, and the two have to fit.
        most = paging.crops_within((profile.context - reading.BASE_TOKENS) // 2 - PROMPT_TOKENS)
        options = Options(selected, Reading(detail, text_layer, most, sampling))
        return lambda source: flow(source, options)

    recorded = {"pages": pages, "detail": detail.value, "text_layer": text_layer.value, **sampling.recorded()}
    task = Task(
        "ocr",
        DOCUMENT_SUFFIXES,
        partial(_probe, selected=selected),
        prepare,
        recorded,
        unit="pages",
        editions=PageEditions(table is not None),
        writing={"table": table},
        to_files=table is not None,
    )
    raise typer.Exit(run_files(task, inputs, batch, engine, output, log))


def _probe(path: Path, selected: Selection) -> float:
    """How many of the pages are to be read. Raises InputError where there is none of them."""
    from phi4mm_cli.media import document

    count = document.page_count(path)
    pages = selected.of(count)
    if not pages:
        raise document.no_page(selected.first, count)
    return len(pages)
