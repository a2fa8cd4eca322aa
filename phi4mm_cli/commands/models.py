"""`phi4mm models`: which checkpoints are on this machine, how to get more, and from one layout to the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from phi4mm_cli import console
from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL, cached, download, local_folder, resolve, ways_on
from phi4mm_cli.model.folder import in_gb
from phi4mm_cli.options import option
from phi4mm_cli.report import bytes_bar
from phi4mm_cli.schema import to_json

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")

Model = Annotated[str, typer.Argument(metavar="ID", help="A model on the Hub.")]
Revision = Annotated[str | None, option("--revision", help="Branch, tag or commit on the Hub.")]


class LayoutName(StrEnum):
    """The layouts of a checkpoint."""

    NATIVE = "native"
    ORIGINAL = "original"
    VLLM = "vllm"


@app.callback()
def models() -> None:
    """List, download and convert checkpoints."""


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list, with commits and branches.")] = False,
) -> None:
    """List the models that are here: the demo, and those in the Hugging Face cache."""
    from phi4mm_cli.model.cache import held

    found = list(held())
    with console.results() as stdout:
        if as_json:
            stdout.write(json.dumps([to_json(model) for model in found], indent=2, ensure_ascii=False) + "\n")
            return
        width = max(len(model.model) for model in found)
        for model in found:
            size = in_gb(model.size) + ("" if model.complete else ", incomplete")
            stdout.write(f"{model.model:{width}}  {model.layout:8}  {size:>8}  {model.path}\n")


@app.command("path")
def path(model: Model = DEFAULT_MODEL, revision: Revision = None) -> None:
    """Print the folder of a model that is here. Asks no network."""
    folder = local_folder(model, revision) or cached(model, revision)
    if folder is None:
        raise MissingError(f"{model} is not in the cache", ways_on(model, revision))
    with console.results() as stdout:
        stdout.write(f"{folder}\n")


@app.command("download")
def download_model(model: Model = DEFAULT_MODEL, revision: Revision = None) -> None:
    """Fetch a model into the Hugging Face cache, unless it is there, and print its folder."""
    if local_folder(model, None) is not None:
        raise UsageError(f"{model} is here already; only models on the Hub are downloaded")
    with console.results() as stdout:
        folder = cached(model, revision) or download(model, revision)
        stdout.write(f"{folder}\n")


@app.command("convert")
def convert_model(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder, or a model on the Hub.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The new folder.")],
    to: Annotated[LayoutName, typer.Option("--to", help="[b]native[/b] is transformers' own; [b]vllm[/b] serves it.")],
) -> None:
    """Write a checkpoint in another layout into a new folder: the same weights, whole or not at all."""
    checkpoint = resolve(source)
    if checkpoint.layout == to:
        raise UsageError(f"{source} is in the {to} layout already", "Copy its folder")
    from phi4mm_cli.model import convert

    ways: dict[LayoutName, Callable[..., None]] = {
        LayoutName.NATIVE: convert.write_native,
        LayoutName.ORIGINAL: convert.write_original,
        LayoutName.VLLM: partial(convert.write_vllm, layout=checkpoint.layout),
    }
    with console.results() as stdout:
        with bytes_bar(f"converting {checkpoint.name}") as advance:
            ways[to](source=checkpoint.path, target=target, on_bytes=advance)
        stdout.write(f"{target}\n")
