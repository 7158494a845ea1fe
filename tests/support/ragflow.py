"""Containers that stand where RAGFlow's would: compose labels and networks as of a real one, curl and python3 inside, and nothing runs but sleep."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import docker
import docker.errors

EXEC_SECONDS = 60


def start(
    client: docker.DockerClient,
    name: str,
    *,
    image: str,
    labels: Mapping[str, str],
    network: str | None = None,
    project: str = "docker",
    service: str = "ragflow-cpu",
    running: bool = True,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> str:
    """Id of a stand-in as compose makes one, anew where the name is taken. `running` False: it ran and stopped. `service` '': no compose labels.

    `arguments` stand in its command line, and nobody reads them.
    """
    remove(client, name)
    compose = {"com.docker.compose.project": project, "com.docker.compose.service": service} if service else {}
    # By its path, so that a stand-in may have a PATH without any program.
    command = ["/bin/sh", "-c", "exec /bin/sleep 86400", *arguments] if arguments else ["/bin/sleep", "86400"]
    made = client.containers.create(
        image, command, name=name, network=network, init=True, labels={**compose, **labels}, environment=dict(environment or {})
    )
    made.start()
    if not running:
        made.stop(timeout=0)
    return str(made.id)


def remove(client: docker.DockerClient, name: str) -> None:
    try:
        client.containers.get(name).remove(force=True, v=True)
    except docker.errors.NotFound:
        pass


def networks(client: docker.DockerClient, name: str) -> set[str]:
    """Names of the networks that the container, running or not, belongs to."""
    return set(client.api.inspect_container(name)["NetworkSettings"]["Networks"])


def curl(name: str, url: str, *, body: Mapping[str, Any] | None = None, key: str = "") -> tuple[int, Any]:
    """Status and JSON (or text) of a request from inside the container. Status 0: no connection."""
    authorization = ["-H", f"Authorization: Bearer {key}"] if key else []
    command = ["curl", "-sS", "-m", str(EXEC_SECONDS // 2), "-w", "\n%{http_code}", *_payload(body), *authorization, url]
    done = subprocess.run(["docker", "exec", name, *command], capture_output=True, text=True, timeout=EXEC_SECONDS, check=False)
    text, _, status = done.stdout.rpartition("\n")
    try:
        return int(status or 0), json.loads(text)
    except ValueError:
        return int(status or 0), text


def rerank(name: str, base_url: str, *, model: str, query: str, documents: Sequence[str], key: str = "") -> list[str]:
    """The documents in the order that the reranker gives them, asked from inside the container. AssertionError where it does not answer 200."""
    status, answer = curl(name, f"{base_url}/rerank", body={"model": model, "query": query, "documents": list(documents)}, key=key)
    assert status == 200, (status, answer)
    return [documents[result["index"]] for result in answer["results"]]


def _payload(body: Mapping[str, Any] | None) -> list[str]:
    return ["-H", "Content-Type: application/json", "-d", json.dumps(body)] if body is not None else []
