"""The Docker daemon: found, or installed and started on Debian and Ubuntu after asking. An existing daemon is never restarted."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from host import facts
from host.endpoint import Endpoint, Unreached, endpoint_of, remedy_of
from setup.edge import Edge, Refusal, Result, consent

SOCKET = "unix:///var/run/docker.sock"
PACKAGES = ("docker.io", "iptables")
ASK_LIMIT_S = 30
APT_LIMIT_S = 1200
START_LIMIT_S = 60


@dataclass(frozen=True)
class Daemon:
    """What `docker info` and `docker version` said of the daemon at `host` (empty: this machine's own): `info` and `version`, empty unless ready. `certificates`: the
    folder of its TLS material, '' without TLS. `cure`: what to do, where that is known already.
    """

    state: Literal["ready", "no-cli", "denied", "down"]
    host: str = ""
    detail: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    version: Mapping[str, Any] = field(default_factory=dict)
    certificates: str = ""
    cure: str = ""

    @property
    def local(self) -> bool:
        """Whether the daemon's file system is this machine's."""
        return Endpoint(self.host).local

    @property
    def facts(self) -> facts.Facts:
        """What it says of itself."""
        return facts.read(self.info, self.version, now=datetime.now(timezone.utc))


def look(edge: Edge, host: str = "") -> Daemon:
    """Asks the daemon at `host`, else the one that the docker program is set to: by DOCKER_HOST, by DOCKER_CONTEXT or by the context in use."""
    if not edge.which("docker"):
        return Daemon("no-cli", host or edge.env.get("DOCKER_HOST", ""), "no docker program on PATH")
    try:
        at = _endpoint(edge, host)
    except Unreached as error:
        what, _, cure = str(error).partition("; ")
        return Daemon("down", host, what, cure=cure)
    # --host for the stack's own alone: with a context's address in it the docker program would forget the context's certificates.
    docker = ["docker", *(["--host", host] if host else [])]
    answer = edge.run([*docker, "info", "--format", "{{json .}}"], ASK_LIMIT_S)
    info = _json(answer)
    if answer.code == 0 and (info.get("ServerVersion") or "host" in info):
        return Daemon(
            "ready",
            at.host,
            info=info,
            version=_json(edge.run([*docker, "version", "--format", "{{json .}}"], ASK_LIMIT_S)),
            certificates=at.certificates,
        )
    # docker 20.10 exits 0 and lists what the server said
    detail = "; ".join(info.get("ServerErrors") or []) or answer.tail()
    return Daemon("denied" if "permission denied" in detail.lower() else "down", at.host, detail, cure=remedy_of(detail))


def address(edge: Edge, host: str) -> str:
    """Address of the daemon at `host`, else of the one that the docker program is set to; empty for this machine's usual socket."""
    try:
        return _endpoint(edge, host).host
    except Unreached:
        return ""


def remedy(edge: Edge, found: Daemon) -> str:
    """What a person does about a daemon that is not ready; empty where it is."""
    if found.state == "ready":
        return ""
    if found.cure:
        return found.cure
    where = f" at {found.host}" if found.host else ""
    if found.state == "denied" and found.local:
        return "join the docker group: sudo usermod -aG docker $USER, then log in again"
    if not found.local:
        if found.state == "no-cli":
            return "install the docker program: it is the client of the daemon" + where
        if found.host.startswith("ssh://"):
            return f"make `ssh {found.host.removeprefix('ssh://').rsplit(':', 1)[0]} docker info` work without a password first"
        return f"start the Docker daemon{where}, or correct dockerHost (or DOCKER_HOST)"
    if found.state == "down" and _running(edge):
        return f"a dockerd runs here (process {_running(edge)}) but does not answer: read its log; it is not restarted from here"
    if _debian(edge):
        install = f"apt-get install -y {' '.join(PACKAGES)}"
        start = "systemctl start docker" if _systemd(edge) else "dockerd &"
        root = "" if edge.uid == 0 else "sudo "
        again = "; `make up YES=1` as root does it" if edge.uid == 0 else ", then sudo usermod -aG docker $USER and log in again"
        if found.state == "down" and edge.which("dockerd"):
            return f"start it: {root}{start}{again}"
        return f"install and start it: {root}{install} && {root}{start}{again}"
    if found.state == "no-cli":
        return "install Docker: https://docs.docker.com/engine/install/ (Linux) or Docker Desktop"
    return "start it: systemctl start docker (Linux), or open Docker Desktop"


def ensure(edge: Edge, host: str = "") -> Daemon:
    """A daemon that answers; this machine's is installed and started after asking where that is possible, else Refusal with the remedy."""
    found = look(edge, host)
    if found.state == "ready":
        return found
    mine = found.host in ("", SOCKET) and found.state in ("no-cli", "down") and not _running(edge)
    if mine and _debian(edge) and edge.uid == 0:
        complete = found.state == "down" and edge.which("dockerd")
        offer = "Start dockerd?" if complete else f"Install Docker ({' and '.join(PACKAGES)}, by apt-get) and start it?"
        if consent(edge, f"No Docker daemon runs on this machine. {offer}", ci_agrees=True):
            if not complete:
                _install(edge)
            return _start(edge, host)
    raise Refusal(f"Docker does not answer{' at ' + found.host if found.host else ''}: {found.detail}; {remedy(edge, found)}")


def stop(edge: Edge) -> None:
    """Ends the dockerd that `ensure` started, and no other; returns when it has ended. Refusal after START_LIMIT_S."""
    pid_file = _files(edge)[0]
    pid = _pid(pid_file)
    if not _is_dockerd(edge, pid):
        edge.say("No dockerd of ours runs.")
        pid_file.unlink(missing_ok=True)
        return
    edge.end(pid)
    deadline = edge.now() + START_LIMIT_S
    while _is_dockerd(edge, pid):
        if edge.now() > deadline:
            raise Refusal(f"dockerd (process {pid}) has not ended within {START_LIMIT_S} s of SIGTERM; see {_files(edge)[1]}")
        edge.sleep(1)
    pid_file.unlink(missing_ok=True)
    edge.say(f"Stopped dockerd (process {pid}).")


def _install(edge: Edge) -> None:
    edge.env.setdefault("DEBIAN_FRONTEND", "noninteractive")
    for argv in (["apt-get", "update"], ["apt-get", "install", "-y", *PACKAGES]):
        edge.say(f"{' '.join(argv)} …")
        answer = edge.run(argv, APT_LIMIT_S)
        if answer.code:
            raise Refusal(
                f"`{' '.join(argv)}` failed: {answer.tail(3)}; repair that, or install Docker by hand: https://docs.docker.com/engine/install/"
            )


def _start(edge: Edge, host: str) -> Daemon:
    pid_file, log = _files(edge)
    started = False
    # the package's own script may have started it already
    if look(edge, host).state != "ready" and not _running(edge):
        if _systemd(edge):
            edge.say("systemctl start docker …")
            edge.run(["systemctl", "start", "docker"], START_LIMIT_S)
        else:
            pid, started = edge.spawn(["dockerd"], log), True
            pid_file.write_text(f"{pid}\n")
            edge.say(f"Started dockerd (process {pid}), log {log}; `make docker-stop` ends it.")
    deadline = edge.now() + START_LIMIT_S
    while (found := look(edge, host)).state != "ready":
        if edge.now() > deadline:
            hint = "see journalctl -u docker"
            if started:
                hint = "\n".join([f"the end of {log}:", *("  " + line for line in log.read_text(errors="replace").splitlines()[-5:])])
            raise Refusal(f"dockerd does not answer within {START_LIMIT_S} s: {found.detail}; {hint}")
        edge.sleep(1)
    return found


def _endpoint(edge: Edge, host: str) -> Endpoint:
    """Where the docker program finds the daemon, as only that program reads contexts; the usual socket is ''. Raises Unreached."""
    known = host or edge.env.get("DOCKER_HOST", "")
    if known and not known.startswith("tcp://"):
        return Endpoint(known)
    found = _json(edge.run(["docker", *(["--host", host] if host else []), "context", "inspect", "--format", "{{json .}}"], ASK_LIMIT_S))
    at = endpoint_of(found, edge.env) if found else Endpoint(known)
    return Endpoint("") if at.host == SOCKET else at


def _json(answer: Result) -> dict[str, Any]:
    try:
        found = json.loads(answer.out)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _files(edge: Edge) -> tuple[Path, Path]:
    """Process id file and log of the dockerd that we start."""
    folder = edge.system / "var/run"
    if not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    return folder / "ragflow-reranker-dockerd.pid", folder / "ragflow-reranker-dockerd.log"


def _pid(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _running(edge: Edge) -> int:
    """Process id of the dockerd that the usual pid file names, 0 where none lives."""
    pid = _pid(edge.system / "var/run/docker.pid")
    return pid if _is_dockerd(edge, pid) else 0


def _is_dockerd(edge: Edge, pid: int) -> bool:
    try:
        stat = (edge.system / "proc" / str(pid) / "stat").read_text()
    except OSError:
        return False
    # a zombie keeps its entry until its parent looks, which in a container may be never
    return "(dockerd)" in stat and stat.rsplit(")", 1)[-1].split()[:1] != ["Z"]


def _debian(edge: Edge) -> bool:
    try:
        lines = (edge.system / "etc/os-release").read_text().splitlines()
    except OSError:
        return False
    ids = " ".join(line.split("=", 1)[1].strip("\"'") for line in lines if line.startswith(("ID=", "ID_LIKE=")))
    return bool({"debian", "ubuntu"} & set(ids.split()))


def _systemd(edge: Edge) -> bool:
    return (edge.system / "run/systemd/system").is_dir()
