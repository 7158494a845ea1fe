"""What the host has, read and never changed: one row a fact, with what to do about it."""

import math
import platform
from dataclasses import dataclass
from typing import Literal

from host import facts
from host.facts import MIN_DISK_GIB
from serving import memory
from setup import daemon
from setup.daemon import Daemon
from setup.edge import GIB, Edge

MIN_CPUS = 2
# the smallest model in the widest format, with the smallest cache
MIN_MEMORY_GIB = math.ceil(memory.KNOWN_MODELS["qwen3-reranker-0.6b"].footprint.needed_bytes("float32", GIB, forks=True) / GIB)


@dataclass(frozen=True)
class Row:
    """One fact of the host."""

    name: str
    level: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""


def rows(edge: Edge, found: Daemon) -> tuple[Row, ...]:
    """What the host has: Python, docker program, daemon, CPUs, memory, free disk; and whatever else of the daemon stands in the way or should be known."""
    table = [Row("python", "ok", platform.python_version())]
    cure = daemon.remedy(edge, found)
    if found.state == "no-cli":
        return (*table, Row("docker", "fail", found.detail, cure))
    table.append(Row("docker", "ok", edge.which("docker") or "docker"))
    if found.state != "ready":
        return (*table, Row("daemon", "fail", found.detail, cure))
    said = found.facts
    table.append(Row("daemon", "ok", f"{said.version} {said.architecture} at {found.host or 'this machine'}"))
    # What depends on the stack's settings is the preview's to judge; a limit that cannot be kept is its choice.
    use = facts.Use(wheels=False, omit=True, deployed=True)
    cpus, memory = said.cpus, said.memory / GIB
    few = cpus < MIN_CPUS
    table.append(Row("cpus", "warn" if few else "ok", str(cpus), f"a rerank is slow on less than {MIN_CPUS}" if few else ""))
    small = memory < MIN_MEMORY_GIB
    table.append(
        Row(
            "memory",
            "warn" if small else "ok",
            f"{memory:.1f} GiB",
            f"the 0.6B model wants {MIN_MEMORY_GIB} GiB: give Docker more memory, or look around with make demo" if small else "",
        )
    )
    table.append(_disk(edge, found))
    return (*table, *(Row(verdict.subject, verdict.level, verdict.text, verdict.remedy) for verdict in facts.verdicts(said, use)))


def render(table: tuple[Row, ...]) -> str:
    """The rows as text, a remedy on a line of its own."""
    lines, width = [], max(7, *(len(row.name) for row in table))
    for row in table:
        lines.append(f"  {row.level:<4}  {row.name:<{width}}  {row.text}")
        if row.remedy:
            lines.append(f"{'':{width + 10}}-> {row.remedy}")
    return "\n".join(lines)


def _disk(edge: Edge, found: Daemon) -> Row:
    root = str(found.info.get("DockerRootDir", ""))
    free = edge.free_gib(root) if found.local and not found.facts.desktop else None
    if free is None:
        return Row("disk", "ok", f"not seen from here ({root} is the Docker host's)")
    small = free < MIN_DISK_GIB
    cure = f"image and model want {MIN_DISK_GIB} GiB: free some with docker system prune, or move Docker's data-root" if small else ""
    return Row("disk", "warn" if small else "ok", f"{free:.0f} GiB free under {root}", cure)
