"""Processes of this machine as /proc shows them: whether one is still the one that was meant, who holds a port, what belongs to a server."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with its number: `started` is in ticks after the boot `boot`."""

    pid: int
    started: int
    boot: str

    @property
    def alive(self) -> bool:
        found = find(self.pid)
        return found == self and _state(self.pid) != "Z"


def find(pid: int) -> Process | None:
    """The process with this number now, if there is one."""
    fields = _stat(pid)
    return Process(pid, int(fields[19]), (PROC / "sys/kernel/random/boot_id").read_text().strip()) if fields else None


def command(pid: int) -> str:
    """Its command line in one line, cut to what a message can hold; "" where it cannot be read."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
    return words if len(words) <= 100 else words[:99] + "…"


def belonging(leader: Process, mark: str) -> Iterator[int]:
    """Other processes of the server that `leader` is or was: its session, as far as it is ours.

    `mark` is in the environment that they were started with. vLLM's own overwrite theirs with a title, and are known by that.
    """
    if (found := find(leader.pid)) is not None and found != leader:
        return  # the number is another's now, and so is the session
    for pid in _pids():
        fields = _stat(pid)
        if pid == leader.pid or not fields or int(fields[3]) != leader.pid or fields[0] == "Z":
            continue
        try:
            ours = mark.encode() in (PROC / str(pid) / "environ").read_bytes() or command(pid).startswith("VLLM")
        except OSError:
            continue
        if ours:
            yield pid


def listener(port: int) -> str:
    """Who listens on a TCP port: "python3 … (pid 12)", or "" where nobody does or it may not be known."""
    sockets = {
        f"socket:[{fields[9]}]"
        for table in ("net/tcp", "net/tcp6")
        for line in _lines(PROC / table)[1:]
        if (fields := line.split())[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port
    }
    for pid in _pids() if sockets else ():
        try:
            if any(os.readlink(entry) in sockets for entry in (PROC / str(pid) / "fd").iterdir()):
                return f"{command(pid)} (pid {pid})"
        except OSError:
            continue
    return ""


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def _stat(pid: int) -> list[str]:
    """/proc/PID/stat after the name, which may hold anything: state first."""
    lines = _lines(PROC / str(pid) / "stat")
    return lines[0].rpartition(")")[2].split() if lines else []


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
