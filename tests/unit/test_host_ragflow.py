"""host/ragflow.py against the containers that RAGFlow's releases make (docs/ragflow.md), and their look-alikes."""

from typing import Any

import pytest
import yaml

from host import ragflow
from host.observe import Container
from host.ragflow import NotFound
from tests.unit.builders import a_container, a_ragflow

OWN = "ragflow-vllm-reranker"
ONE_OFF = "com.docker.compose.oneoff"


def compose(service: str, project: str = "docker") -> dict[str, str]:
    return {"com.docker.compose.project": project, "com.docker.compose.service": service}


RAGFLOWS: list[tuple[str, Container]] = [
    ("v0.21 and before", a_container("ragflow-server", image="infiniflow/ragflow:v0.21.1", labels=compose("ragflow"))),
    ("slim image", a_container("ragflow-server", image="infiniflow/ragflow:v0.20.5-slim", labels=compose("ragflow"))),
    ("v0.22 and later on a CPU", a_container("docker-ragflow-cpu-1", image="infiniflow/ragflow:v0.27.0", labels=compose("ragflow-cpu"))),
    ("v0.22 and later on a GPU", a_container("docker-ragflow-gpu-1", image="infiniflow/ragflow:v0.27.0", labels=compose("ragflow-gpu"))),
    ("compose v1", a_container("docker_ragflow-cpu_1", image="infiniflow/ragflow:v0.22.0", labels=compose("ragflow-cpu"))),
    ("a project of another name", a_container("kb-ragflow-cpu-1", image="infiniflow/ragflow:v0.27.0", labels=compose("ragflow-cpu", "kb"))),
    ("built locally, known by its service", a_container("docker-ragflow-cpu-1", image="ragflow-nightly", labels=compose("ragflow-cpu"))),
    ("its image retagged to an id, known by its service", a_container("docker-ragflow-cpu-1", image="sha256:0123", labels=compose("ragflow-cpu"))),
    ("docker run", a_container("kb", image="infiniflow/ragflow:v0.27.0")),
    ("docker run without a tag", a_container("kb", image="infiniflow/ragflow")),
    ("by digest", a_container("kb", image="infiniflow/ragflow@sha256:" + "0" * 64)),
    ("Docker Hub by its full name", a_container("kb", image="docker.io/infiniflow/ragflow:v0.27.0")),
    ("Huawei's mirror", a_container("kb", image="swr.cn-north-4.myhuaweicloud.com/infiniflow/ragflow:v0.27.0")),
    ("Alibaba's mirror", a_container("kb", image="registry.cn-hangzhou.aliyuncs.com/infiniflow/ragflow:v0.27.0")),
    ("a registry with a port", a_container("kb", image="registry.example:5000/infiniflow/ragflow:v0.27.0")),
    ("a registry with a port, without a tag", a_container("kb", image="registry.example:5000/infiniflow/ragflow")),
    ("built by hand, known by its old name", a_container("ragflow-server", image="mine:1")),
    ("built by hand, known by its name", a_container("docker-ragflow-cpu-1", image="mine:1")),
    ("built by hand, known by compose v1's name", a_container("docker_ragflow_1", image="mine:1")),
    ("stopped", a_ragflow(running=False)),
    ("a service that compose started, not one-off", a_ragflow(labels={**compose("ragflow-cpu"), ONE_OFF: "False"})),
    ("a proxy that caches Docker Hub", a_container("kb", image="harbor.example/hub/docker.io/infiniflow/ragflow:v0.27.0")),
    ("the build for OpenCloudOS", a_container("kb", image="edwardelric233/ragflow:oc9")),
    ("that build by a mirror", a_container("kb", image="docker.m.example/edwardelric233/ragflow:oc9")),
    ("somebody's fork", a_container("kb", image="ghcr.io/somebody/ragflow:main", command=("./entrypoint.sh",), folder="/ragflow")),
    (
        "a build of one's own under any name",
        a_container("kb", image="kb-prod:7", command=("./entrypoint.sh", "--enable-adminserver"), folder="/ragflow"),
    ),
    ("one that serves and reads in", a_ragflow(command=("./entrypoint.sh", "--workers=4", "--host-id=a"), folder="/ragflow")),
    ("one that only serves", a_ragflow(command=("./entrypoint.sh", "--disable-taskexecutor"), folder="/ragflow")),
]

OTHERS: list[tuple[str, Container]] = [
    ("MySQL", a_container("ragflow-mysql", image="mysql:8.0.39", labels=compose("mysql"))),
    ("MySQL of v0.22 and later", a_container("docker-mysql-1", image="mysql:8.0.39", labels=compose("mysql"))),
    ("Elasticsearch", a_container("ragflow-es-01", image="elasticsearch:8.11.3", labels=compose("es01"))),
    ("MinIO", a_container("ragflow-minio", image="quay.io/minio/minio:RELEASE.2025-06-13T11-33-47Z", labels=compose("minio"))),
    ("Redis", a_container("ragflow-redis", image="valkey/valkey:8", labels=compose("redis"))),
    ("Infinity", a_container("ragflow-infinity", image="infiniflow/infinity:v0.6.0", labels=compose("infinity"))),
    ("TEI", a_container("docker-tei-cpu-1", image="infiniflow/text-embeddings-inference:cpu-1.8", labels=compose("tei-cpu"))),
    (
        "the sandbox",
        a_container(
            "docker-sandbox-executor-manager-1", image="infiniflow/sandbox-executor-manager:latest", labels=compose("sandbox-executor-manager")
        ),
    ),
    ("MySQL without labels", a_container("ragflow-mysql", image="mysql:8.0.39")),
    ("Elasticsearch without labels, whose name ends in a number", a_container("ragflow-es-01", image="elasticsearch:8.11.3")),
    ("a registry with a port in front of something else", a_container("kb", image="registry.example:5000/ragflow/plugins:v1")),
    ("somebody's fork of another thing", a_container("kb", image="notinfiniflow/ragflow-tools:v1")),
    ("an owner whose name only ends so", a_container("kb", image="notinfiniflow/ragflow:v1")),
    ("a sidecar", a_container("ragflow-server-backup", image="backup:1")),
    ("another stack's reranker", a_container("ragflow-mock-reranker", image="sha256:1")),
    (
        "docker compose run",
        a_container("docker-ragflow-cpu-run-1f2e3d", image="infiniflow/ragflow:v0.27.0", labels={**compose("ragflow-cpu"), ONE_OFF: "True"}),
    ),
    (
        "docker compose run with a name of its own",
        a_container("docker-ragflow-cpu-1", image="infiniflow/ragflow:v0.27.0", labels={**compose("ragflow-cpu"), ONE_OFF: "True"}),
    ),
    (
        "a task executor as the example in RAGFlow's compose file starts it",
        a_container(
            "docker-executor-1",
            image="infiniflow/ragflow:v0.27.0",
            labels=compose("executor"),
            command=("/ragflow/entrypoint_task_executor.sh", "1", "3"),
            folder="/ragflow",
        ),
    ),
    ("that one by a shell", a_container("kb", image="infiniflow/ragflow:v0.21.1", command=("sh", "entrypoint_task_executor.sh"), folder="/ragflow")),
    (
        "a task executor by today's flags",
        a_ragflow("docker-ragflow-cpu-2", command=("./entrypoint.sh", "--disable-webserver", "--workers=2"), folder="/ragflow"),
    ),
    ("somebody's other image of the same last name", a_container("kb", image="mcp/ragflow:latest", command=("python3", "server.py"), folder="/app")),
    ("an image that starts such a script elsewhere", a_container("kb", image="kb:1", command=("./entrypoint.sh",), folder="/app")),
    ("a shell in RAGFlow's folder", a_container("kb", image="kb:1", command=("bash",), folder="/ragflow")),
    ("RAGFlow's base image", a_container("kb", image="infiniflow/ragflow-base:v2.1", command=("bash",), folder="/ragflow")),
    ("RAGFlow's vision service", a_container("docker-deepdoc-1", image="deepdoc_oss:latest", labels=compose("deepdoc"))),
    ("MySQL in a namespace called ragflow", a_container("kb", image="registry.example/ragflow/mysql:8")),
]


def test_ragflow_is_found_by_an_image_with_tag_and_digest() -> None:
    container = a_container("kb", image="registry.example:5000/infiniflow/ragflow:v0.27.0@sha256:" + "0" * 64)
    assert ragflow.find([container], named=[], own=OWN) == [container]


def test_ragflow_is_found_by_its_image_where_people_call_the_service_otherwise() -> None:
    container = a_container("kb-web-1", image="infiniflow/ragflow:v0.27.0", labels=compose("web", "kb"))
    assert ragflow.find([container], named=[], own=OWN) == [container]


def test_a_container_that_is_named_twice_is_taken_once() -> None:
    assert ragflow.find([a_ragflow()], named=["docker-ragflow-cpu-1", "docker-ragflow-cpu-1"], own=OWN) == [a_ragflow()]


@pytest.mark.parametrize(("what", "container"), RAGFLOWS, ids=[what for what, _ in RAGFLOWS])
def test_ragflow_is_found(what: str, container: Container) -> None:
    assert ragflow.find([container], named=[], own=OWN) == [container], what


@pytest.mark.parametrize(("what", "container"), OTHERS, ids=[what for what, _ in OTHERS])
def test_what_only_looks_like_ragflow_is_not(what: str, container: Container) -> None:
    assert ragflow.find([container], named=[], own=OWN) == [], what


def test_our_own_container_is_never_found_even_where_its_name_or_image_fits() -> None:
    own = a_container("my-ragflow-1", image="infiniflow/ragflow:v1")
    assert ragflow.find([own], named=[], own="my-ragflow-1") == []


def test_all_of_them_are_found_by_name_in_order() -> None:
    host = [a_ragflow("kb-ragflow-cpu-1"), a_container("ragflow-mysql"), a_ragflow(), a_container(OWN), a_container("ragflow-server", running=False)]
    assert [container.name for container in ragflow.find(host, named=[], own=OWN)] == ["docker-ragflow-cpu-1", "kb-ragflow-cpu-1", "ragflow-server"]


def test_two_ragflows_of_projects_of_any_name_are_both_found() -> None:
    host = [
        a_ragflow("team-a-ragflow-cpu-1", labels=compose("ragflow-cpu", "team-a")),
        a_ragflow("legal_ragflow_1", labels=compose("ragflow", "legal")),
    ]
    assert [container.name for container in ragflow.find(host, named=[], own=OWN)] == ["legal_ragflow_1", "team-a-ragflow-cpu-1"]


def test_an_executor_that_is_named_is_taken_all_the_same() -> None:
    executor = a_ragflow("executor", command=("./entrypoint.sh", "--disable-webserver"))
    assert ragflow.find([executor, a_ragflow()], named=["executor"], own=OWN) == [executor]


def test_named_containers_are_taken_instead_of_found_ones_whatever_they_are() -> None:
    mine, found = a_container("my-own-build"), a_ragflow()
    assert ragflow.find([found, mine], named=["my-own-build"], own=OWN) == [mine]


def test_a_named_container_that_does_not_exist_is_refused_with_the_way_out() -> None:
    with pytest.raises(NotFound) as refused:
        ragflow.find([a_ragflow()], named=["ragflow-server"], own=OWN)
    assert (
        str(refused.value) == "ragflowContainers: no container 'ragflow-server' on this host; 'docker ps -a' shows the names, [] lets them be found"
    )


def test_none_found_is_no_error() -> None:
    assert ragflow.find([], named=[], own=OWN) == []


NETWORKS: list[tuple[str, list[Container], str]] = [
    ("compose's own", [a_ragflow()], "docker_ragflow"),
    ("stopped", [a_ragflow(running=False)], "docker_ragflow"),
    ("of another project", [a_ragflow(labels=compose("ragflow-cpu", "kb"), networks={"kb_ragflow": ()})], "kb_ragflow"),
    ("beside ours", [a_ragflow(networks={"docker_ragflow": (), "docker-ragflow": ()})], "docker_ragflow"),
    ("beside Docker's", [a_ragflow(networks={"docker_ragflow": (), "bridge": ()})], "docker_ragflow"),
    ("beside a proxy's: the one that compose named", [a_ragflow(networks={"docker_ragflow": (), "traefik": ()})], "docker_ragflow"),
    ("of two containers", [a_ragflow(), a_ragflow("docker-ragflow-cpu-2")], "docker_ragflow"),
    ("without compose", [a_container("kb", image="infiniflow/ragflow:v1", networks={"kb-net": ()})], "kb-net"),
]


@pytest.mark.parametrize(("what", "found", "network"), NETWORKS, ids=[what for what, *_ in NETWORKS])
def test_ragflows_own_network_is_read_off_its_containers(what: str, found: list[Container], network: str) -> None:
    assert ragflow.own_network(found, shared="docker-ragflow") == network, what


NOWHERE: list[tuple[list[Container], str]] = [
    ([], "no RAGFlow container was found on a network of its own"),
    ([a_ragflow(networks={"docker-ragflow": (), "bridge": ()})], "no RAGFlow container was found on a network of its own"),
    ([a_ragflow(networks={"one": (), "two": ()})], "RAGFlow's containers are on one, two"),
    ([a_ragflow(), a_ragflow("kb-ragflow-cpu-1", labels=compose("ragflow-cpu", "kb"), networks={"kb_ragflow": ()})],
     "RAGFlow's containers are on docker_ragflow, kb_ragflow"),
]  # fmt: skip


@pytest.mark.parametrize(("found", "seen"), NOWHERE)
def test_a_network_that_cannot_be_told_is_asked_for_with_what_was_seen(found: list[Container], seen: str) -> None:
    with pytest.raises(NotFound) as refused:
        ragflow.own_network(found, shared="docker-ragflow")
    assert str(refused.value) == f"ragflowNetwork: '' cannot be read off, {seen}; start RAGFlow first, or set ragflowNetwork (usually docker_ragflow)"


OVERRIDES: list[tuple[list[Container], list[str]]] = [
    ([], ["ragflow-cpu", "ragflow-gpu"]),
    ([a_container("kb", image="infiniflow/ragflow:v1")], ["ragflow-cpu", "ragflow-gpu"]),
    ([a_ragflow()], ["ragflow-cpu"]),
    ([a_container("ragflow-server", labels=compose("ragflow"))], ["ragflow"]),
    (
        [a_ragflow("docker-ragflow-gpu-1", labels=compose("ragflow-gpu")), a_ragflow(), a_ragflow("docker-ragflow-cpu-2")],
        ["ragflow-cpu", "ragflow-gpu"],
    ),
]


@pytest.mark.parametrize(("found", "services"), OVERRIDES)
def test_the_compose_override_joins_the_services_that_were_found_to_both_networks(found: list[Container], services: list[str]) -> None:
    assert yaml.safe_load(ragflow.compose_override(found, "docker-ragflow")) == {
        "services": {service: {"networks": ["ragflow", "reranker"]} for service in services},
        "networks": {"reranker": {"name": "docker-ragflow", "external": True}},
    }


@pytest.mark.parametrize("network", ["yes", "8080", "1e3", "a.b_c-d"])
def test_a_networks_name_stays_text_in_the_override(network: str) -> None:
    override: dict[str, Any] = yaml.safe_load(ragflow.compose_override([], network))
    assert override["networks"]["reranker"]["name"] == network
