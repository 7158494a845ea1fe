"""Settings, hosts and containers for the unit tier, each with only what a test is about written out."""

import functools
import json
from collections.abc import Mapping
from typing import Any

import pulumi
import yaml

from components.identity import KEPT
from config.read import read_settings
from config.settings import Settings
from host import labels
from host.labels import Deployment
from host.observe import Container, Host, Network
from tests.support.recording import ROOT, SECRET_KEYS, config_of

PROJECT = "ragflow-reranker"
# Keys of other namespaces (pulumi:disable-default-providers) are the engine's.
DECLARED: dict[str, dict[str, Any]] = {
    key: entry for key, entry in yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"].items() if ":" not in key
}
GIB = 1 << 30
REFUSED = "this configuration cannot be deployed; nothing was changed:"
REFUSED_HERE = "this Docker host cannot take this configuration; nothing was changed:"


def a_settings(*, stack_file: str = "", secret: tuple[str, ...] = SECRET_KEYS, **overrides: Any) -> Settings:
    """Pulumi.yaml's defaults, a stack's file and `overrides` (its keys), read as the program reads them. `secret`: keys held encrypted."""
    given = {key if ":" in key else f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value) for key, value in overrides.items()}
    pulumi.runtime.set_all_config({**_unchanged(stack_file), **given}, [f"{PROJECT}:{key}" for key in secret])
    return read_settings(pulumi.Config(PROJECT))


@functools.cache
def _unchanged(stack_file: str) -> dict[str, str]:
    """Read once: YAML in pure Python takes longer than all that a test of the settings does."""
    return config_of({}, stack_file=stack_file)


def a_host(**facts: Any) -> Host:
    """A Docker host with room for every stack of this repository."""
    return Host(
        **{
            "cpus": 16,
            "memory": 64 * GIB,
            "architecture": "x86_64",
            "endpoint": "unix:///var/run/docker.sock",
            "runtimes": frozenset({"runc"}),
            **facts,
        }
    )


def a_deployment(**facts: Any) -> Deployment:
    """A deployment that was made by the stack `test`."""
    return Deployment(**{"stack": f"{PROJECT}/test", "id": "0a1b2c3d", "made": "2026-11-25 from box:/home/sam/ragflow-reranker", **facts})


def a_state(host: Host | None = None, **kept: Any) -> dict[str, Any]:
    """What the state of a_deployment lists, as the engine shows it: its identity, and the incarnations of all that stands on the host."""
    ours = {"id": "0a1b2c3d", "made": "2026-11-25", "machine": "box", "folder": "/home/sam/ragflow-reranker", "heirOf": [], **kept}
    marked: list[Mapping[str, str]] = []
    if host:
        marked = [*(item.labels for item in host.containers), *(item.labels for item in host.networks.values()), *host.volumes.values()]
    listed = [{"label": labels.GENERATION, "value": found[labels.GENERATION]} for found in marked if labels.GENERATION in found]
    return {f"urn::{KEPT}": {"outputs": {"input": ours, "output": ours}}, "urn::all": {"outputs": {"labels": listed}}}


def a_network(name: str, **facts: Any) -> Network:
    return Network(**{"name": name, "id": f"id-of-{name}", **facts})


def a_container(name: str, **facts: Any) -> Container:
    return Container(**{"name": name, "id": f"id-of-{name}", "image": "debian:bookworm", **facts})


def a_ragflow(name: str = "docker-ragflow-cpu-1", **facts: Any) -> Container:
    """RAGFlow as its compose file of v0.22 and later makes it."""
    labels = {"com.docker.compose.project": "docker", "com.docker.compose.service": "ragflow-cpu"}
    return a_container(name, **{"image": "infiniflow/ragflow:v0.27.0", "labels": labels, "networks": {"docker_ragflow": ()}, **facts})
