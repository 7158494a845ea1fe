"""`rerank status`: whether a deployed reranker is well, and why not."""

import dataclasses
from typing import Annotated

import typer

from rerank import deployed
from rerank.command.out import FAILED, UNREACHED, show_json
from rerank.command.target import Stack, Where, resolve

app = typer.Typer(add_completion=False)


@app.command()
def status(
    where: Where = "", stack: Stack = "", as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False
) -> None:
    """Whether a deployed reranker is well, and why not, as its own /health says. Status 0 healthy, 1 not, 3 not reached. `rerank serve status` is for servers without Docker."""
    found = deployed.look(resolve(where, stack))
    if as_json:
        show_json(dataclasses.asdict(found))
    else:
        print(
            f"{found.state}: {found.where}"
            + (f"\n  {found.reason}" if found.reason else "")
            + (f"\n  restarts: {found.restarts}" if found.restarts else "")
        )
    raise typer.Exit(code(found))


def code(found: deployed.State) -> int:
    return {deployed.HEALTHY: 0, deployed.UNREACHED: UNREACHED}.get(found.state, FAILED)
