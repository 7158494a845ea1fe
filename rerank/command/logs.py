"""`rerank logs`: the log of a deployed reranker, by Docker."""

import os
import subprocess
from typing import Annotated

import typer

from host.docker import environment
from rerank.command.out import FAILED, UNREACHED, USAGE, Trouble
from rerank.command.target import Stack, Where, resolve

app = typer.Typer(add_completion=False)


@app.command()
def logs(
    where: Where = "",
    stack: Stack = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines from the end", min=0)] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C")] = False,
) -> None:
    """The log of a deployed reranker, over ssh too where the stack's Docker host is another machine."""
    target = resolve(where, stack)
    if not target.container:
        raise Trouble(f"{target.url} has no log that HTTP shows: give the outputs of its stack, or look where it runs (rerank serve tail)", USAGE)
    argv = ["docker", "logs", "--tail", str(lines), *(["--follow"] if follow else []), target.container]
    try:
        # Its own streams: what it writes is what `docker logs` writes, line by line.
        done = subprocess.run(argv, env={**os.environ, **environment(target.docker_host)}, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Trouble("docker is not on PATH: install Docker's client (Debian, Ubuntu: apt-get install docker.io)", UNREACHED) from None
    if done.returncode:
        raise Trouble(f"docker logs ended with {done.returncode}, see above: is {target.container} there? rerank status says", FAILED)
