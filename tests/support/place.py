"""A corner of the local daemon for one test or group of tests: every name in it begins with one token, and all of it is removed at the end."""

import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import docker
import docker.errors

from host import observe
from tests.support import daemon, ragflow

TEST_LABEL = "io.ragflow-reranker.test"


@dataclass
class Place:
    """`base` is the image under mock and stand-ins. `config` is the stack that `up` brings up; a real RAGFlow on this machine is out of its sight."""

    base: str
    token: str = field(default_factory=lambda: f"rrd{secrets.token_hex(4)}")

    def __post_init__(self) -> None:
        self.stack = daemon.Stack(self.token)
        self.client: docker.DockerClient = self.stack.client
        self.labels = {TEST_LABEL: self.token}
        self.container, self.network = f"{self.token}-reranker", f"{self.token}-net"
        self.config: dict[str, Any] = {
            "backend": "mock", "baseImage": self.base, "containerName": self.container, "networkName": self.network, "hostPort": 0,
            "cpus": 1, "memoryGiB": 2, "shmGiB": 1, "healthTimeoutSeconds": 120,
        }  # fmt: skip

    def sees(self, container: observe.Container) -> bool:
        return container.name.startswith(self.token)

    def up(self, **overrides: Any) -> daemon.Done:
        return self.stack.up({**self.config, **overrides}, sees=self.sees)

    def standin(self, suffix: str = "ragflow-cpu-1", **options: Any) -> str:
        """Name of a stand-in of this place, made anew where it exists. `options` as of ragflow.start; its labels come beside this place's."""
        name = f"{self.token}-{suffix}"
        labels = {**self.labels, **options.pop("labels", {})}
        ragflow.start(self.client, name, image=self.base, labels=labels, **{"project": self.token, **options})
        return name

    def made_by_hand(self, network: str) -> str:
        """Id of a network that somebody made with docker network create."""
        return str(self.client.networks.create(network, driver="bridge", labels=self.labels).id)

    def remains(self) -> list[str]:
        """Names of the containers, networks and volumes that are here now."""
        api = self.client.api
        found = [name.lstrip("/") for item in api.containers(all=True) for name in item["Names"][:1]]
        found += [item["Name"] for item in api.networks()] + [item["Name"] for item in api.volumes()["Volumes"] or []]
        return sorted(name for name in found if name.startswith(self.token))

    def remove(self) -> None:
        """Whatever is left, images included."""
        api = self.client.api
        for item in api.containers(all=True):
            if item["Names"][0].lstrip("/").startswith(self.token):
                _quietly(api.remove_container, item["Id"], force=True, v=True)
        for item in api.networks():
            if item["Name"].startswith(self.token):
                _quietly(api.remove_network, item["Id"])
        for item in api.volumes()["Volumes"] or []:
            if item["Name"].startswith(self.token):
                _quietly(api.remove_volume, item["Name"])
        for image in self.client.images.list():
            for tag in image.tags:
                if tag.startswith(self.token):
                    _quietly(api.remove_image, tag)
        for id_ in self.stack.built:
            _quietly(self._remove_untagged, id_)
        self.client.close()

    def _remove_untagged(self, id_: str) -> None:
        api = self.client.api
        if not api.inspect_image(id_)["RepoTags"]:
            api.remove_image(id_)


def _quietly(remove: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    try:
        remove(*arguments, **options)
    except docker.errors.NotFound:
        pass  # it went meanwhile


def free_port() -> int:
    """A port of the loopback that nothing listens on now, outside the range that the kernel hands out by itself."""
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
