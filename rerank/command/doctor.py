"""`rerank doctor`: looks at the host that runs a stack, or will, and changes nothing."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rerank import house
from rerank.command.out import FAILED, USAGE, Trouble, colours, say, show_json

house.enter("config", "registration", "setup")

from host.rows import Row, render  # noqa: E402
from rerank.doctor.look import SECONDS, Doctor, Hasty, Report  # noqa: E402
from rerank.doctor.stacks import NoStack, read  # noqa: E402

app = typer.Typer(add_completion=False)
USUAL = "laptop"  # as make's
COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red", "not seen": "dim"}


@app.command()
def doctor(
    stack: Annotated[
        str,
        typer.Option(
            "--stack", "-s", help=f"Stack of the checkout [default: {USUAL}; outside of a checkout the defaults of every key]", show_default=False
        ),
    ] = "",
    docker_host: Annotated[
        str | None,
        typer.Option(help="Look at this Docker host instead of the stack's: ssh://user@host, unix:///path, tcp://host:port; '' is this machine's"),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for all of it; what is late is a row that was not seen", min=1, max=600)] = SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Look at the host that runs a stack, or will, over ssh too: Docker, CPU, memory, disk, mirrors, registries, proxies, port, RAGFlow, Pulumi, clocks. Nothing is changed.
    Status 0 where no row fails, 1 where one does. docs/doctor.md has every row."""
    root = _checkout()
    chosen = stack or os.environ.get("STACK") or (USUAL if root else "")
    try:
        found = read(root or house.root(), root, chosen, docker_host)
    except NoStack as reason:
        raise Trouble(str(reason), USAGE) from None
    edge = Hasty.real()
    if root:
        edge.root = root
    if not as_json:
        say(
            f"Looking at the host of {found.name or 'a stack with the defaults'} ({found.settings.docker_host or 'this machine'}), {seconds:g} s at most …"
        )
    report = Doctor(edge, found, root).report(seconds)
    if as_json:
        show_json(
            {
                "stack": found.name,
                "dockerHost": found.settings.docker_host,
                "right": report.right,
                "rows": [dataclasses.asdict(row) for row in report.rows],
                "estimate": report.estimate,
            }
        )
    else:
        _show(report)
    # What was late is still waited for by threads, and a container of theirs ends by itself.
    sys.stdout.flush()
    raise typer.Exit(0 if report.right else FAILED)


def _checkout() -> Path | None:
    """The checkout that this runs from, or the one that the user is in."""
    here = Path.cwd()
    return house.checkout() or (here if (here / "Pulumi.yaml").is_file() and (here / "stacks").is_dir() else None)


def _show(report: Report) -> None:
    """A table on a terminal, plain lines elsewhere; what fails is told once more at the end, in one line."""
    wrong = [row.name for row in report.rows if row.level == "fail"]
    if sys.stdout.isatty():
        _table(report.rows)
    else:
        print(render(report.rows))
    print(f"\n{len(wrong)} in the way: {', '.join(wrong)}" if wrong else "\nNothing is in the way.", flush=True)


def _table(rows: tuple[Row, ...]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=False, pad_edge=False, box=None)
    for heading in ("", "", "found", "what to do"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "")
    for row in rows:
        table.add_row(Text(row.level, COLOURS[row.level]), row.name, Text(row.text), Text(row.remedy))
    Console(no_color=not colours(sys.stdout)).print(table)
