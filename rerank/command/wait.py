"""`rerank wait`: until a deployed reranker is healthy."""

import dataclasses
import time
from typing import Annotated, Any

import typer

from rerank import deployed, house
from rerank.command.out import Trouble, say, show_json
from rerank.command.status import code
from rerank.command.target import Stack, Where, resolve

app = typer.Typer(add_completion=False)
DEFAULTS: dict[str, Any] = house.defaults()
LOOK_SECONDS = 2.0
SAY_SECONDS = 10.0


@app.command()
def wait(
    where: Where = "",
    stack: Stack = "",
    timeout: Annotated[int, typer.Option(help="Seconds to wait", min=0)] = DEFAULTS["health_timeout_seconds"],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output")] = False,
) -> None:
    """Wait until a deployed reranker is healthy. Status 0 healthy, 1 not within the time, or stopped for good; 3 not reached."""
    target, begun = resolve(where, stack), time.monotonic()
    said = begun
    while True:
        found, passed = deployed.look(target), time.monotonic() - begun
        # A container that is gone or stopped may be one that pulumi is just replacing, or that Docker starts again.
        if found.state == deployed.HEALTHY or passed >= timeout:
            break
        if time.monotonic() - said >= SAY_SECONDS or passed < LOOK_SECONDS:
            said = time.monotonic()
            say(f"{passed:.0f} s: {found.state}{f', {found.reason}' if found.reason else ''}")
        time.sleep(min(LOOK_SECONDS, timeout - passed))
    if as_json:
        show_json({**dataclasses.asdict(found), "seconds": round(passed, 1)})
    if found.state != deployed.HEALTHY:
        raise Trouble(f"{found.where} was not healthy within {passed:.0f} s: {found.state}{f', {found.reason}' if found.reason else ''}", code(found))
    say(f"healthy: {found.where}")
