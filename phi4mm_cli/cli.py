"""The program's table of contents."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from phi4mm_cli import __version__, config
from phi4mm_cli.commands import (
    captions,
    chat,
    describe,
    models,
    ocr,
    sample,
    schema,
    serve,
    serve_command,
    status,
    summarize,
    tools,
    transcribe,
    translate,
)

app = typer.Typer(
    name="phi4mm",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("transcribe", epilog=transcribe.EXAMPLES)(transcribe.command)
app.command("translate", epilog=translate.EXAMPLES)(translate.command)
app.command("summarize", epilog=summarize.EXAMPLES)(summarize.command)
app.command("ocr", epilog=ocr.EXAMPLES)(ocr.command)
app.command("describe", epilog=describe.EXAMPLES)(describe.command)
app.command("chat", epilog=chat.EXAMPLES)(chat.command)
app.command("serve", epilog=serve.EXAMPLES)(serve.command)
app.command("serve-command", epilog=serve_command.EXAMPLES)(serve_command.command)
app.add_typer(tools.app, name="tools")
app.add_typer(captions.app, name="captions")
app.add_typer(models.app, name="models")
app.command("status", epilog=status.EXAMPLES)(status.command)
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
    commands: dict[str, Any] = getattr(context.command, "commands", {})
    groups = {name: getattr(command, "commands", {}) for name, command in commands.items()}
    options = {
        name: {
            long.removeprefix("--"): config.Option(str(p.name), getattr(p, "multiple", False))
            for part in (command, *groups[name].values())
            for p in part.params
            for long in p.opts
            if long.startswith("--")
        }
        for name, command in commands.items()
    }
    defaults: dict[str, Any] = config.defaults(options)
    for name, parts in groups.items():  # a section for a group is for each of its commands
        defaults[name] |= dict.fromkeys(parts, defaults[name])
    context.default_map = defaults
