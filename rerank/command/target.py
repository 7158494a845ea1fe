"""The deployed reranker that `status`, `logs` and `wait` are about: TARGET or --stack."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from rerank import house
from rerank.command.out import FAILED, USAGE, Trouble
from rerank.deployed import NoTarget, NotUp, Target, of_outputs, of_stack, of_url

USUAL = "laptop"  # as make's
Where = Annotated[
    str,
    typer.Argument(
        metavar="[URL|FILE|-]",
        help="The service's URL, or what 'pulumi stack output --json' printed: a file, or - for standard input",
        show_default=False,
    ),
]
Stack = Annotated[str, typer.Option("--stack", "-s", help=f"Stack of the checkout, instead [default: {USUAL}]", show_default=False)]


def resolve(where: str, stack: str) -> Target:
    """Trouble where it is neither."""
    if where and stack:
        raise Trouble(f"{where!r} and --stack {stack} are two targets: give one", USAGE)
    try:
        if where == "-":
            return of_outputs(sys.stdin.read(), "standard input")
        if "://" in where:
            return of_url(where)
        if where:
            return of_outputs(Path(where).read_text(encoding="utf-8"), where)
        return of_stack(stack or os.environ.get("STACK") or USUAL, house.checkout())
    except OSError as error:
        raise Trouble(f"{where} cannot be read ({error.strerror}): give a URL (http://…), a file with a stack's outputs, or -", USAGE) from None
    except NotUp as reason:
        raise Trouble(str(reason), FAILED) from None
    except (NoTarget, UnicodeDecodeError) as reason:
        raise Trouble(str(reason), USAGE) from None
