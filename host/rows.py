"""What was looked at, a row each: how it is, in words, and what to do about it. For `make`'s look at the host and for `rerank doctor`.

Python's standard library only: `make` uses it before there is an environment.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from host import facts
from host.facts import GIB, MIN_DISK_GIB, Facts, Use
from serving import memory

MIN_CPUS = 2
# the smallest model in the widest format, with the smallest cache
MIN_MEMORY_GIB = math.ceil(memory.KNOWN_MODELS["qwen3-reranker-0.6b"].footprint.needed_bytes("float32", GIB, forks=True) / GIB)
Level = Literal["ok", "warn", "fail", "not seen"]


@dataclass(frozen=True)
class Row:
    """One thing that was looked at. Only `fail` stands in the way; `not seen` could not be looked at from here, and the text says why."""

    name: str
    level: Level
    text: str
    remedy: str = ""


def of_daemon(said: Facts, *, where: str, use: Use) -> list[Row]:
    """The Docker daemon that answered: itself, its CPUs and memory, and whatever else of it stands in the way or should be known; `disk` is a row of its own."""
    api = f", API {said.api[0]}.{said.api[1]}" if said.api else ""
    kept = f", {said.driver} in {said.root}" if said.driver else ""
    few, small = said.cpus < MIN_CPUS, said.memory < MIN_MEMORY_GIB * GIB
    return [
        Row("daemon", "ok", f"Docker {said.version} {said.architecture} at {where or 'this machine'}{api}{kept}"),
        Row("cpus", "warn" if few else "ok", str(said.cpus), f"a rerank is slow on less than {MIN_CPUS}" if few else ""),
        Row(
            "memory",
            "warn" if small else "ok",
            f"{said.memory / GIB:.1f} GiB",
            f"the 0.6B model wants {MIN_MEMORY_GIB} GiB: give Docker more memory, or look around with make demo" if small else "",
        ),
        *of_verdicts(verdict for verdict in facts.verdicts(said, use) if verdict.subject != "disk"),
    ]


def disk(said: Facts, use: Use, *, room: bool) -> Row:
    """The free disk under Docker's folder. `room`: image and model may still be to come."""
    if verdict := next((verdict for verdict in facts.verdicts(said, use) if verdict.subject == "disk"), None):
        return Row("disk", verdict.level, verdict.text, verdict.remedy)
    if said.free is None:
        return Row("disk", "not seen", f"{said.root or 'its folder'} is the Docker host's, and not seen from here")
    small = room and said.free < MIN_DISK_GIB * GIB
    cure = f"image and model want {MIN_DISK_GIB} GiB: free some with docker system prune, or move Docker's data-root" if small else ""
    return Row("disk", "warn" if small else "ok", f"{said.free / GIB:.0f} GiB free under {said.root}", cure)


def of_verdicts(verdicts: Iterable[facts.Verdict]) -> list[Row]:
    return [Row(verdict.subject, verdict.level, verdict.text, verdict.remedy) for verdict in verdicts]


def render(rows: Sequence[Row]) -> str:
    """The rows as text, a remedy on a line of its own."""
    levels, width = max((len(row.level) for row in rows), default=4), max(7, *(len(row.name) for row in rows))
    lines = []
    for row in rows:
        lines.append(f"  {row.level:<{levels}}  {row.name:<{width}}  {row.text}")
        if row.remedy:
            lines.append(f"{'':{width + levels + 6}}-> {row.remedy}")
    return "\n".join(lines)
