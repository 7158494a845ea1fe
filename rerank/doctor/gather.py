"""Checks side by side, each within its own time and all within one: what is late or breaks is a row, and holds nothing up."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from host.rows import Row


@dataclass(frozen=True)
class Check:
    """`look` gives the rows, named for when it gives none in `seconds`."""

    name: str
    look: Callable[[], Iterable[Row]]
    seconds: float
    remedy: str = ""


def gather(checks: Sequence[Check], *, seconds: float) -> list[Row]:
    """The rows of all checks in their order, after `seconds` at most. A check that goes on is left behind: its thread ends with the process."""
    found: dict[int, list[Row]] = {}
    began = time.monotonic()

    def run(number: int, check: Check) -> None:
        try:
            found[number] = list(check.look())
        except Exception as error:
            found[number] = [_broken(check, error)]

    threads = [threading.Thread(target=run, args=pair, daemon=True, name=f"check {pair[1].name}") for pair in enumerate(checks)]
    for thread in threads:
        thread.start()
    rows: list[Row] = []
    for number, (check, thread) in enumerate(zip(checks, threads, strict=True)):
        limit = min(check.seconds, seconds)
        thread.join(max(0.0, began + limit - time.monotonic()))
        rows += found.get(number) or ([] if number in found else [Row(check.name, "not seen", f"no answer in {limit:g} s", check.remedy)])
    return rows


def _broken(check: Check, error: Exception) -> Row:
    text = f"this check itself broke: {type(error).__name__}: {error}"
    return Row(check.name, "not seen", " ".join(text.split())[:300], "please report it, with the line above")
