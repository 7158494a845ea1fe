"""What the host has, read and never changed: the quick part of `rerank doctor`, before there is an environment (host/rows.py has the rows)."""

import dataclasses
import platform

from host import facts, rows
from host.rows import Row, render
from setup import daemon
from setup.daemon import Daemon
from setup.edge import GIB, Edge

__all__ = ["Row", "render", "table"]


def table(edge: Edge, found: Daemon) -> tuple[Row, ...]:
    """What the host has: Python, docker program, daemon, CPUs, memory, free disk; and whatever else of the daemon stands in the way or should be known."""
    shown = [Row("python", "ok", platform.python_version())]
    cure = daemon.remedy(edge, found)
    if found.state == "no-cli":
        return (*shown, Row("docker", "fail", found.detail, cure))
    shown.append(Row("docker", "ok", edge.which("docker") or "docker"))
    if found.state != "ready":
        return (*shown, Row("daemon", "fail", found.detail, cure))
    free = edge.free_gib(found.facts.root) if found.local and not found.facts.desktop else None
    said = dataclasses.replace(found.facts, free=None if free is None else int(free * GIB))
    # What depends on the stack's settings is the preview's to judge; a limit that cannot be kept is its choice.
    use = facts.Use(wheels=False, omit=True, deployed=True)
    return (*shown, *rows.of_daemon(said, where=found.host, use=use), rows.disk(said, use, room=True))
