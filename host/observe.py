"""The Docker host as it is right now, read before anything is declared: what the program adopts, finds or refuses. Reads only."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from host import bundled, labels
from host.docker import Docker, DockerError, NoDocker, Run, environment


class HostError(Exception):
    """The Docker host cannot be used; the message names what was tried and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network on the host."""

    name: str
    id: str
    driver: str = "bridge"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container on the host, running or stopped. `networks` maps a network's name to this container's aliases there.

    `command` is what it starts (entry point and arguments), `folder` where it starts it.
    """

    name: str
    id: str
    image: str
    running: bool = True
    command: tuple[str, ...] = ()
    folder: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Host:
    """Facts of one Docker host. `endpoint` is its address as docker.Provider wants it; `volumes` maps a volume's name to its labels; memory in bytes.

    `bundled`: tags of the images that bundles brought, the newest first.
    """

    cpus: int
    memory: int
    architecture: str
    endpoint: str = ""
    runtimes: frozenset[str] = frozenset()
    networks: Mapping[str, Network] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bundled: tuple[str, ...] = ()

    @property
    def platform(self) -> str:
        """The host's platform as docker build names it: 'linux/amd64'."""
        return "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(self.architecture, self.architecture)

    def container(self, name: str) -> Container | None:
        return next((item for item in self.containers if item.name == name), None)


def observe(docker_host: str, *, run: Run | None = None) -> Host:
    """Ask the daemon for its facts, networks, containers and this project's volumes. Raises HostError."""
    ask = _Daemon(docker_host, Docker(environment(docker_host), run=run))
    info = json.loads(ask("info", "--format", "{{json .}}"))
    if info.get("ServerErrors"):
        raise HostError(ask.unreachable("; ".join(info["ServerErrors"])))
    # Whatever vanishes between the list and the look is gone for our purpose too: partial answers are fine.
    networks = ask.look("network", ask("network", "ls", "-q", "--no-trunc").split())
    containers = ask.look("container", ask("container", "ls", "-aq", "--no-trunc").split())
    volumes = ask.look("volume", ask("volume", "ls", "-q", "--filter", f"label={labels.OWNER}").split())
    brought = ask("image", "ls", "--filter", "reference=*:bundle-*", "--format", "{{.Repository}}:{{.Tag}}").split()
    # What this run's own bundle holds comes between its preview and its up.
    coming = [os.environ[bundled.IMAGE]] if os.environ.get(bundled.IMAGE) else []
    return Host(
        cpus=info["NCPU"],
        memory=info["MemTotal"],
        architecture=info["Architecture"],
        # Docker Desktop, rootless and colima listen elsewhere than /var/run: the client's context knows, the provider does not.
        endpoint=docker_host or ask("context", "inspect", "--format", "{{.Endpoints.docker.Host}}").strip(),
        runtimes=frozenset(info.get("Runtimes") or ()),
        networks={item["Name"]: Network(name=item["Name"], id=item["Id"], driver=item["Driver"], labels=item["Labels"] or {}) for item in networks},
        containers=tuple(read_container(item) for item in containers),
        volumes={item["Name"]: item["Labels"] or {} for item in volumes},
        bundled=(*coming, *brought),
    )


def read_container(item: dict) -> Container:  # type: ignore[type-arg]
    """A container as `docker container inspect` describes it."""
    return Container(
        name=item["Name"].lstrip("/"),
        id=item["Id"],
        image=item["Config"]["Image"],
        running=item["State"]["Running"],
        command=(*(item["Config"].get("Entrypoint") or ()), *(item["Config"].get("Cmd") or ())),
        folder=item["Config"].get("WorkingDir") or "",
        labels=item["Config"]["Labels"] or {},
        networks={name: tuple((end or {}).get("Aliases") or ()) for name, end in (item["NetworkSettings"]["Networks"] or {}).items()},
    )


@dataclass(frozen=True)
class _Daemon:
    """The stack's daemon, asked through the docker program."""

    host: str
    docker: Docker

    def __call__(self, *argv: str, partial: bool = False) -> str:
        try:
            return self.docker(*argv, partial=partial)
        except NoDocker as error:
            raise HostError(str(error)) from None
        except DockerError as error:
            raise HostError(self.unreachable(str(error))) from None

    def look(self, kind: str, ids: Sequence[str]) -> list[dict]:  # type: ignore[type-arg]
        return json.loads(self(kind, "inspect", *ids, partial=True)) if ids else []

    def unreachable(self, why: str) -> str:
        where = f"dockerHost {self.host}" if self.host else "this machine's Docker"
        remedy = (
            "check that 'ssh' reaches it without a question and that its user may use Docker"
            if self.host.startswith("ssh:")
            else (
                "add your user to the group docker and log in again"
                if "permission denied" in why.lower()
                else "start it (systemctl start docker), or set dockerHost"
            )
        )
        return f"{where} does not answer: {why}; {remedy}"
