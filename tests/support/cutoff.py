"""A machine that no network reaches: a network and a mount namespace of its own, with its own /run and its own dockerd."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.engine import wait_until

# What stands on standard input ends it, and its dockerd with it.
SCRIPT = """
ip link set lo up && mount -t tmpfs tmpfs /run && mkdir -p /run/lock || exit 1
dockerd --data-root "$1/data" --exec-root /run/docker --pidfile /run/docker.pid --host unix:///run/docker.sock > "$1/dockerd.log" 2>&1 &
cat > /dev/null
kill $!
wait $!
"""
NEEDED = ("unshare", "nsenter", "ip", "dockerd", "docker", "make", "git")
START_SECONDS = 60
VERB_SECONDS = 400


class NotPossible(Exception):
    """There can be no such machine here; the message says why."""


@dataclass(frozen=True)
class Machine:
    """`inside` is argv that runs what follows it there; `home` an empty home, `programs` a folder of PATH."""

    inside: list[str]
    home: Path
    programs: Path

    def make(self, checkout: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """`make` in a checkout there, with nothing of this machine's environment; stderr within stdout."""
        given = {"HOME": str(self.home), "PULUMI_HOME": str(self.home / ".pulumi"), "PATH": self.path(), **environment}
        argv = [*self.inside, "env", "-i", *(f"{key}={value}" for key, value in given.items()), "make", "-C", str(checkout), *words]
        return subprocess.run(
            [*argv, f"PYTHON={python()}"],
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=VERB_SECONDS,
            check=False,
        )

    def docker(self, *argv: str) -> str:
        return subprocess.run([*self.inside, "docker", *argv], text=True, capture_output=True, timeout=60, check=True).stdout

    def path(self) -> str:
        """PATH without any folder that holds a pulumi."""
        folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not Path(folder, "pulumi").exists()]
        return os.pathsep.join([str(self.programs), *folders])


def python() -> str:
    """The Python that the environment of these tests was made with."""
    return str(getattr(sys, "_base_executable", sys.executable))


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Such a machine, its files in `folder`, until the block ends. Raises NotPossible."""
    lacking = [name for name in NEEDED if not _which(name)]
    if os.geteuid() != 0 or lacking:
        raise NotPossible(f"a machine without a network takes root and {', '.join(lacking) or 'its namespaces'}")
    argv = [str(_which("unshare")), "--net", "--mount", "--propagation", "private", "sh", "-c", SCRIPT, "cutoff", str(folder)]
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, env={key: value for key, value in environment.items() if key != "DOCKER_HOST"})
    try:
        inside = [str(_which("nsenter")), "--target", str(process.pid), "--net", "--mount", "--", "env", "-u", "DOCKER_HOST"]
        found = Machine(inside, folder / "home", folder / "programs")
        found.home.mkdir()
        found.programs.mkdir()
        (found.programs / "docker").symlink_to(str(_which("docker")))
        log = folder / "dockerd.log"

        def up() -> bool:
            if process.poll() is not None or (log.is_file() and "failed to start daemon" in log.read_text()):
                raise NotPossible(f"no dockerd of its own: {log.read_text().strip().splitlines()[-1:] if log.is_file() else 'no namespaces'}")
            # The log is there once /run is its own: before that, the daemon that answers is this machine's.
            return log.is_file() and subprocess.run([*inside, "docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0

        wait_until(up, seconds=START_SECONDS)
        yield found
    finally:
        process.communicate(timeout=60)
        shutil.rmtree(folder / "data", ignore_errors=True)


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
