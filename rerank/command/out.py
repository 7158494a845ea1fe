"""What the verbs say: results on standard output, everything else on standard error."""

import json
import sys
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
