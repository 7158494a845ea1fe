"""One server of this machine by its name: what was started, where its log is, and its end."""

import dataclasses
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank.serve import processes
from rerank.serve.processes import Process

FOLDER = "ragflow-reranker"
NAME = "server.json"


class Busy(Exception):
    """Another command is at work on this instance."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was started. `mark` is in the environment of its processes; `settings` and `key_file` are the command's own, to start it again with."""

    name: str
    process: Process
    mark: str
    url: str
    model: str
    log: str
    key_file: str
    stopped: bool = False
    settings: dict[str, Any]

    @property
    def alive(self) -> bool:
        return self.process.alive

    def told(self) -> dict[str, Any]:
        """The settings as they were before JSON made lists of their tuples."""
        return {key: tuple(value) if isinstance(value, list) else value for key, value in self.settings.items()}


@dataclass(frozen=True)
class Instance:
    """The folder of one server: its record, lock, key file and scratch files."""

    name: str
    folder: Path

    @property
    def key_file(self) -> Path:
        return self.folder / "key"

    @property
    def scratch(self) -> Path:
        return self.folder / "scratch"

    def record(self) -> Record | None:
        """The last that was started, or None; one that cannot be read counts as none."""
        try:
            found = json.loads((self.folder / NAME).read_text(encoding="utf-8"))
            return Record(**{**found, "process": Process(**found["process"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def running(self) -> Record | None:
        record = self.record()
        return record if record and record.alive else None

    def write(self, record: Record) -> None:
        """In one step: a reader sees the old record or the new one."""
        fresh = self.folder / f"{NAME}.{os.getpid()}"
        fresh.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")
        os.replace(fresh, self.folder / NAME)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One command at a time starts or stops it; Busy where another is at it. The lock dies with its process."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"another rerank serve is at work on {self.name!r}: let it end, then try again") from None
            yield


def home(environment: dict[str, str] | None = None) -> Path:
    """Where the instances are: XDG_STATE_HOME/ragflow-reranker/serve."""
    known = os.environ if environment is None else environment
    return Path(known.get("XDG_STATE_HOME") or Path.home() / ".local/state", FOLDER, "serve")


def every() -> list[Instance]:
    """All instances that were ever started here and not forgotten, by name."""
    return [Instance(path.parent.name, path.parent) for path in sorted(home().glob(f"*/{NAME}"))]


def named(name: str) -> Instance:
    return Instance(name, home() / name)


def end(record: Record, grace: float, say: Callable[[str], None] = lambda _: None) -> bool:
    """Ends the server and what belongs to it: TERM, up to `grace` seconds, then KILL. Returns whether the TERM was enough. A recycled number is left alone."""
    leader, clean = record.process, True
    if leader.alive:
        _signal(leader.pid, signal.SIGTERM)
        if not _gone(lambda: leader.alive, grace):
            clean = False
            say(f"{record.name} did not end within {grace:g} s of SIGTERM: it is killed")
            if leader.alive:
                _signal(leader.pid, signal.SIGKILL)
    rest = list(processes.belonging(leader, record.mark))
    if rest and _gone(lambda: any(True for _ in processes.belonging(leader, record.mark)), min(grace, 5.0)):
        rest = []
    for pid in list(processes.belonging(leader, record.mark)) if rest else []:
        clean = False
        _signal(pid, signal.SIGKILL)
    _gone(lambda: leader.alive or any(True for _ in processes.belonging(leader, record.mark)), 10.0)
    return clean


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _gone(there: Callable[[], bool], seconds: float) -> bool:
    """Waits until `there` is false; whether it was within `seconds`."""
    until = time.monotonic() + seconds
    while there():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
