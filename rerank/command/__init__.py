"""The command `rerank`: one verb, one module of this folder, imported when the verb is used, so that --help is quick.

A verb's module has `app`, a typer.Typer. It raises Trouble for what the user must know; docs/command.md has the table of exit codes.
"""

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from rerank import house
from rerank.command.out import Trouble, complain
from rerank.version import VERSION

VERBS = {
    "serve": "Run the reranker on this machine without Docker: start, status, tail, stop, restart, run.",
    "fetch": "Download a model, whole and checked, for serve and cold.",
    "rank": "Ask a service once: documents by their relevance to a query.",
    "cold": "Score documents in this process, without a server.",
    "status": "Whether a deployed reranker is well, and why not.",
    "logs": "The log of a deployed reranker.",
    "wait": "Wait until a deployed reranker is healthy.",
    "doctor": "Look at the host that runs a stack, or will: what stands in the way, and what RAGFlow's calls will get.",
    "bench": "Measure a rerank service under load, or two in turn.",
}


class Verbs(TyperGroup):
    """Lists VERBS without importing them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            house.enter()
            command = typer.main.get_command(import_module(f"rerank.command.{name}").app)
            command.name = name
        return name, command, rest

    def main(self, *args: Any, **more: Any) -> Any:
        try:
            return super().main(*args, **more)
        except Trouble as trouble:
            complain(f"error: {trouble}")
            sys.exit(trouble.code)


app = typer.Typer(
    cls=Verbs,
    name="rerank",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(epilog="Exit status: 0 fine, 1 what was asked for does not hold, 2 wrong usage, 3 not reached, 130 interrupted.")
def everything(
    version: bool = typer.Option(False, "--version", help="Show the version and exit.", is_eager=True, callback=lambda wanted: _version(wanted)),
) -> None:
    """Qwen3-Reranker: serve it here, ask it, and look after a deployed one."""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rerank {VERSION}")
        raise typer.Exit


def _listed(name: str, line: str) -> None:
    """A place holder that --help and shell completion show."""
    app.command(name, help=line)(lambda: None)


for _name, _line in VERBS.items():
    _listed(_name, _line)


def main() -> None:
    """Does not return."""
    app(prog_name="rerank")
