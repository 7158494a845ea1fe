"""What the verbs say: results on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Iterable
from typing import Any

FAILED, USAGE, UNREACHED = 1, 2, 3  # docs/command.md


class Trouble(Exception):
    """What the user must know: one sentence with the remedy, and the exit status."""

    def __init__(self, sentence: str, code: int = FAILED) -> None:
        super().__init__(sentence)
        self.code = code


def complain(line: str) -> None:
    """A line on standard error; red where that is a terminal and NO_COLOR is not set."""
    import typer

    typer.secho(line, err=True, fg=typer.colors.RED if line.startswith("error:") and colours(sys.stderr) else None)


def say(line: str) -> None:
    """Progress: a line on standard error."""
    print(line, file=sys.stderr, flush=True)


def colours(stream: Any) -> bool:
    import os

    return bool(stream.isatty()) and "NO_COLOR" not in os.environ


def show_json(value: Any) -> None:
    """The one JSON document of a verb with --json."""
    print(json.dumps(value, ensure_ascii=False, indent=2), flush=True)


def given(documents: list[str]) -> list[str]:
    """The documents of the command line; of standard input, one a line, where they are '-'. Trouble where there are none."""
    texts = [line.rstrip("\n") for line in sys.stdin] if documents == ["-"] else documents
    if not texts:
        raise Trouble("there is no document on standard input: write one a line", USAGE)
    return texts


def show_items(items: Iterable[Any]) -> None:
    """A line for each item of a rerank: score, place, the beginning of the document."""
    for item in items:
        print(f"{item.score:.4f}  {item.index:>3}  {' '.join(item.document.split())[:100]}")
