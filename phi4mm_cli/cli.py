"""The program's table of contents."""

from __future__ import annotations

from typing import Annotated

import typer

from phi4mm_cli import __version__, config
from phi4mm_cli.commands import models, sample, schema, transcribe

app = typer.Typer(
    name="phi4mm",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("transcribe", epilog=transcribe.EXAMPLES)(transcribe.command)
app.add_typer(models.app, name="models")
app.command("sample")(sample.command)
app.command("schema")(schema.command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"phi4mm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Recordings, pictures and documents to text, with Phi-4-multimodal-instruct."""
    commands = getattr(context.command, "commands", {})
    options = {name: [str(p.name) for p in command.params] for name, command in commands.items()}
    context.default_map = config.defaults(options)
