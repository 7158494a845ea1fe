"""Which containers are RAGFlow, and on which network it lives: decided from what the host shows, without pulumi. Releases: docs/ragflow.md."""

import json
import re
from collections.abc import Iterable, Sequence

from host.observe import Container

SERVICES = ("ragflow", "ragflow-cpu", "ragflow-gpu")
SERVICE_LABEL = "com.docker.compose.service"
PROJECT_LABEL = "com.docker.compose.project"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
# RAGFlow's own, and the builds for OpenCloudOS that its compose files name; mirrors put a registry in front.
REPOSITORIES = ("infiniflow/ragflow", "edwardelric233/ragflow")
# What every image of RAGFlow's Dockerfile starts, and where: forks keep it, whatever they call their image.
START, FOLDER = "./entrypoint.sh", "/ragflow"
# A container that only reads documents in: it answers no questions, so it never asks for a rerank.
EXECUTOR = re.compile(r"--disable-webserver|(.*/)?entrypoint_task_executor\.sh( .*)?")
# ragflow-server up to v0.21; <project>-ragflow-cpu-1 (or with '_' by compose v1) since.
_NAME = re.compile(r"ragflow-server|.+[-_]ragflow(-cpu|-gpu)?[-_]\d+")


class NotFound(Exception):
    """RAGFlow, or its network, is not where the configuration says; the message has the remedy."""


def is_ragflow(container: Container) -> bool:
    """By compose service, else by image, else by what it starts, else by name. ragflow-mysql and the like match none of them.

    Two kinds of RAGFlow's containers are left alone, since neither calls a reranker: those of `docker compose run`, gone when their command ends, and task executors.
    """
    if container.labels.get(ONE_OFF_LABEL, "").lower() == "true" or any(EXECUTOR.fullmatch(word) for word in container.command):
        return False
    if container.labels.get(SERVICE_LABEL) in SERVICES:
        return True
    repository = re.sub(r"(:[^:/@]*)?(@sha256:.*)?$", "", container.image)
    if any(repository == known or repository.endswith(f"/{known}") for known in REPOSITORIES):
        return True
    return (container.folder == FOLDER and container.command[:1] == (START,)) or bool(_NAME.fullmatch(container.name))


def find(containers: Iterable[Container], *, named: Sequence[str], own: str) -> list[Container]:
    """RAGFlow's containers, running or stopped, by name. `named`: take just these; `own`: the reranker's own name, never taken.

    Raises NotFound for a name that no container has.
    """
    others = {container.name: container for container in containers if container.name != own}
    for name in named:
        if name not in others:
            raise NotFound(f"ragflowContainers: no container {name!r} on this host; 'docker ps -a' shows the names, [] lets them be found")
    chosen = [others[name] for name in sorted(set(named))] or [container for container in others.values() if is_ragflow(container)]
    return sorted(chosen, key=lambda container: container.name)


def require_networks(found: Sequence[Container], everyone: Iterable[Container], *, host_url: str) -> None:
    """Raises NotFound for a container of RAGFlow that Docker puts on no further network. `everyone`: all containers of the host; `host_url`: the reranker's there."""
    apart = [container for container in found if container.network_mode in ("host", "none") or container.network_mode.startswith("container:")]
    for container in apart:
        others = [item.name for item in found if item not in apart]
        beside = f"; or name only the others in ragflowContainers ({', '.join(others)})" if others else ""
        if container.network_mode == "host":
            by = f"enter {host_url} as base URL in RAGFlow" if host_url else "set hostPort to a free port, such as 8123, which RAGFlow calls then"
            raise NotFound(
                f"ragflowMode: RAGFlow's container {container.name!r} runs in the host's network (network_mode: host), and Docker puts such a one on no other; set "
                f"ragflowMode to none, and {by} (the output hostUrl){beside}"
            )
        if container.network_mode == "none":
            raise NotFound(
                f"ragflowMode: RAGFlow's container {container.name!r} has no network (network_mode: none), and Docker gives it none; start it with one, or set "
                f"ragflowMode to none{beside}"
            )
        number = container.network_mode.partition(":")[2]
        lender = next((item.name for item in everyone if number and (item.id.startswith(number) or item.name == number)), number[:12])
        raise NotFound(
            f"ragflowContainers: RAGFlow's container {container.name!r} uses the network of the container {lender!r} (network_mode: container), and has none of its "
            f"own; name that one in ragflowContainers"
        )


def in_host_network(found: Sequence[Container]) -> bool:
    """Whether RAGFlow calls from the host's own network, where no container's name is known."""
    return bool(found) and all(container.network_mode == "host" for container in found)


def own_network(found: Sequence[Container], *, shared: str) -> str:
    """RAGFlow's own network, read off its containers; `shared` is ours and does not count. Raises NotFound."""
    candidates = sorted({network for container in found for network in container.networks} - {shared, "bridge", "host", "none"})
    composed = [name for name in candidates if any(name == f"{container.labels.get(PROJECT_LABEL)}_ragflow" for container in found)]
    if len(composed or candidates) != 1:
        seen = f"RAGFlow's containers are on {', '.join(candidates)}" if candidates else "no RAGFlow container was found on a network of its own"
        raise NotFound(f"ragflowNetwork: '' cannot be read off, {seen}; start RAGFlow first, or set ragflowNetwork (usually docker_ragflow)")
    return (composed or candidates)[0]


def compose_override(found: Sequence[Container], network: str) -> str:
    """docker-compose.override.yml for RAGFlow's docker/ folder: the lasting alternative to attaching, for the services that were found (or both of today's)."""
    services = sorted({container.labels[SERVICE_LABEL] for container in found if SERVICE_LABEL in container.labels}) or ["ragflow-cpu", "ragflow-gpu"]
    lines = ["services:"]
    for service in services:
        lines += [f"  {service}:", "    networks:", "      - ragflow", "      - reranker"]
    # JSON strings are YAML strings: a name never becomes a number or a boolean.
    lines += ["networks:", "  reranker:", f"    name: {json.dumps(network)}", "    external: true"]
    return "\n".join(lines) + "\n"
