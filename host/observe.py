"""The Docker host as it is right now, read before anything is declared: what the program adopts, finds or refuses. Reads only."""

import dataclasses
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from host import facts
from host.docker import Docker, DockerError, NoDocker, Run, environment
from host.endpoint import Endpoint, Unreached, endpoint_of, remedy
from host.facts import Facts


class HostError(Exception):
    """The Docker host cannot be used; the message names what was tried and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network on the host. `twins`: the ids of others with its name; `unfit`: why no container of ours can be reached by RAGFlow on it, '' where it can."""

    name: str
    id: str
    driver: str = "bridge"
    internal: bool = False
    ipv4: bool = True
    unfit: str = ""
    twins: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def ambiguous(self) -> str:
        """Why the name does not say which network is meant; '' where it does."""
        ids = ", ".join(number[:12] for number in (self.id, *self.twins))
        return (
            self.twins
            and (
                f"{1 + len(self.twins)} networks of this Docker host are called {self.name!r} ({ids}), and the name alone tells Docker neither; "
                "'docker network inspect <id>' shows which containers are on which: remove the one that is not used (docker network rm <id>)"
            )
        ) or ""


@dataclass(frozen=True, kw_only=True)
class Container:
    """A container on the host, running or stopped. `networks` maps a network's name to this container's aliases there.

    `command` is what it starts (entry point and arguments), `folder` where it starts it. `network_mode`: 'host', 'none', 'container:<id>' or a network's name;
    `ports`: addresses and ports of the host that it has while it runs.
    """

    name: str
    id: str
    image: str
    running: bool = True
    command: tuple[str, ...] = ()
    folder: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    networks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    network_mode: str = ""
    ports: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Host(Facts):
    """One Docker host: the daemon's facts, and what is on it. `endpoint` is its address and `certificates` the folder of its TLS material ('' without TLS), as
    docker.Provider wants them; `volumes` maps a volume's name to its labels.
    """

    endpoint: str = ""
    certificates: str = ""
    networks: Mapping[str, Network] = field(default_factory=dict)
    containers: tuple[Container, ...] = ()
    volumes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def platform(self) -> str:
        """The host's platform as docker build names it: 'linux/amd64'."""
        return "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(self.architecture, self.architecture)

    def container(self, name: str) -> Container | None:
        return next((item for item in self.containers if item.name == name), None)


def observe(docker_host: str, *, run: Run | None = None) -> Host:
    """Ask the daemon for its facts, networks, containers and volumes. Raises HostError."""
    ask = _Daemon(docker_host, Docker(environment(docker_host), run=run))
    info = json.loads(ask("info", "--format", "{{json .}}"))
    if info.get("ServerErrors"):
        raise HostError(ask.unreachable("; ".join(info["ServerErrors"])))
    version = json.loads(ask("version", "--format", "{{json .}}"))
    said = facts.read(info, version, now=datetime.now(timezone.utc))
    if said.podman:
        raise HostError("\n".join(str(verdict) for verdict in facts.verdicts(said, facts.Use())))  # its other answers have forms of their own
    # Docker Desktop, rootless and colima listen elsewhere than /var/run, some by TLS: the client's context knows, the provider does not.
    try:
        at = endpoint_of(json.loads(ask("context", "inspect", "--format", "{{json .}}")), os.environ)
    except Unreached as error:
        raise HostError(str(error)) from None
    # Whatever vanishes between the list and the look is gone for our purpose too: partial answers are fine.
    networks = ask.look("network", ask("network", "ls", "-q", "--no-trunc").split())
    containers = ask.look("container", ask("container", "ls", "-aq", "--no-trunc").split())
    volumes = ask.look("volume", ask("volume", "ls", "-q").split())
    return Host(
        **_fields(with_disk(said, at)),
        endpoint=at.host,
        certificates=at.certificates,
        networks=read_networks(networks),
        containers=tuple(read_container(item) for item in containers),
        volumes={item["Name"]: item["Labels"] or {} for item in volumes},
    )


def with_disk(said: Facts, at: Endpoint) -> Facts:
    """The facts, with what this machine's file system says of Docker's folder where that is here."""
    try:
        disk = os.statvfs(said.root) if said.root and at.local and not said.desktop else None
    except OSError:
        disk = None
    return said if disk is None else dataclasses.replace(said, free=disk.f_bavail * disk.f_frsize, read_only=bool(disk.f_flag & os.ST_RDONLY))


def publishes_here(host: Host) -> bool:
    """Whether a published port of this daemon is one of this machine's: Docker Desktop's are, and those of a daemon with this machine's name (not one in a container)."""
    return Endpoint(host.endpoint).local and (host.desktop or host.name == platform.node())


def read_networks(found: Sequence[dict[str, Any]]) -> dict[str, Network]:
    """Networks as `docker network inspect` describes them, by name; several of one name are one with twins."""
    networks: dict[str, Network] = {}
    for item in found:
        name = item["Name"]
        if name in networks:
            networks[name] = dataclasses.replace(networks[name], twins=(*networks[name].twins, item["Id"]))
            continue
        networks[name] = Network(
            name=name,
            id=item["Id"],
            driver=item["Driver"],
            internal=bool(item.get("Internal")),
            ipv4=item.get("EnableIPv4") is not False,
            unfit=_unfit(item),
            labels=item["Labels"] or {},
        )
    return networks


def _unfit(item: Mapping[str, Any]) -> str:
    if item["Driver"] not in ("bridge", "overlay"):
        return f"exists with driver {item['Driver']}, and only bridge and overlay networks let containers call each other by name on every host"
    if item.get("ConfigOnly") or item.get("Ingress"):
        return "is one of Swarm's own (a configuration, or its ingress), which takes no containers"
    if item["Driver"] == "overlay" and item.get("Scope") == "swarm" and not item.get("Attachable"):
        return "is an overlay that was made without --attachable, which takes no containers but those of services"
    if (item.get("Options") or {}).get("com.docker.network.bridge.enable_icc") == "false":
        return "keeps its containers apart (com.docker.network.bridge.enable_icc is false), so RAGFlow could not call the reranker"
    return ""


def _fields(said: Facts) -> dict[str, Any]:
    return {item.name: getattr(said, item.name) for item in dataclasses.fields(said)}


def read_container(item: dict) -> Container:  # type: ignore[type-arg]
    """A container as `docker container inspect` describes it."""
    published = [end for ends in (item["NetworkSettings"].get("Ports") or {}).values() for end in ends or ()]
    return Container(
        name=item["Name"].lstrip("/"),
        id=item["Id"],
        image=item["Config"]["Image"],
        running=item["State"]["Running"],
        command=(*(item["Config"].get("Entrypoint") or ()), *(item["Config"].get("Cmd") or ())),
        folder=item["Config"].get("WorkingDir") or "",
        labels=item["Config"]["Labels"] or {},
        networks={name: tuple((end or {}).get("Aliases") or ()) for name, end in (item["NetworkSettings"]["Networks"] or {}).items()},
        network_mode=(item.get("HostConfig") or {}).get("NetworkMode") or "",
        ports=tuple((end.get("HostIp") or "", int(end["HostPort"])) for end in published if end.get("HostPort")),
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
        return f"{where} does not answer: {why}; {remedy(self.host, why)}"
