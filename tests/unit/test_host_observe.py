"""host/observe.py with an injected runner: what is asked of the docker client, what is read from its answers, how a dead daemon is put into words."""

import dataclasses
import json
import os
import platform
import subprocess
from typing import Any

import pytest

from host import docker
from host.docker import environment
from host.endpoint import Endpoint
from host.facts import Facts
from host.observe import Container, Host, HostError, Network, observe, publishes_here, read_container, read_networks, with_disk

VERSION = {"Client": {"ApiVersion": "1.50"}, "Server": {"ApiVersion": "1.41", "Arch": "amd64", "Components": [{"Name": "Engine"}]}}
INFO = {"NCPU": 4, "MemTotal": 8_589_934_592, "Architecture": "x86_64", "Runtimes": {"runc": {}, "nvidia": {}}, "Name": "box"}
NETWORKS = [
    {"Name": "bridge", "Id": "n0", "Driver": "bridge", "Labels": None},
    {"Name": "docker-ragflow", "Id": "n1", "Driver": "bridge", "Labels": {"io.ragflow-reranker.owner": "ragflow-reranker/laptop"}},
]
CONTAINERS = [
    {
        "Name": "/docker-ragflow-cpu-1", "Id": "c1", "Image": "sha256:abc", "Config": {
            "Image": "infiniflow/ragflow:v0.27.0", "Labels": {"a": "b"}, "Entrypoint": ["./entrypoint.sh"], "Cmd": ["--workers=2"], "WorkingDir": "/ragflow",
        },
        "State": {"Running": True}, "NetworkSettings": {"Networks": {"docker_ragflow": {"Aliases": ["ragflow-cpu", "c1"]},
        "docker-ragflow": {"Aliases": None}}},
    },
    {"Name": "/old", "Id": "c2", "Config": {"Image": "debian", "Labels": None}, "State": {"Running": False}, "NetworkSettings": {"Networks": None}},
]  # fmt: skip
VOLUMES = [{"Name": "ragflow-vllm-reranker-key", "Labels": {"io.ragflow-reranker.generation": "0a0b0c0d"}}, {"Name": "bare", "Labels": None}]

ANSWERS = {
    "info --format {{json .}}": json.dumps(INFO),
    "version --format {{json .}}": json.dumps(VERSION),
    "network ls -q --no-trunc": "n0\nn1\n",
    "network inspect n0 n1": json.dumps(NETWORKS),
    "container ls -aq --no-trunc": "c1\nc2\n",
    "container inspect c1 c2": json.dumps(CONTAINERS),
    "volume ls -q": "ragflow-vllm-reranker-key\nbare\n",
    "volume inspect ragflow-vllm-reranker-key bare": json.dumps(VOLUMES),
    "context inspect --format {{json .}}": json.dumps(
        {"Name": "desktop", "Endpoints": {"docker": {"Host": "unix:///home/me/.docker/run/docker.sock"}}}
    ),
}


class Client:
    """A docker client that answers from a table, (stdout, stderr, status) or stdout alone, and keeps what it was asked."""

    def __init__(self, **changed: Any) -> None:
        self.answers: dict[str, Any] = {**ANSWERS, **{key.replace("_", " "): value for key, value in changed.items()}}
        self.calls: list[tuple[list[str], dict[str, Any]]] = []

    def __call__(self, argv: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        self.calls.append((argv, options))
        asked = " ".join(argv[1:])
        answer = next(value for key, value in reversed(self.answers.items()) if asked.startswith(key))
        if isinstance(answer, BaseException):
            raise answer
        stdout, stderr, status = answer if isinstance(answer, tuple) else (answer, "", 0)
        return subprocess.CompletedProcess(argv, status, stdout, stderr)


def test_a_host_is_read_whole() -> None:
    assert observe("", run=Client()) == Host(
        cpus=4,
        memory=8_589_934_592,
        architecture="x86_64",
        endpoint="unix:///home/me/.docker/run/docker.sock",
        runtimes=frozenset({"runc", "nvidia"}),
        name="box",
        api=(1, 41),
        build="amd64",
        networks={
            "bridge": Network(name="bridge", id="n0"),
            "docker-ragflow": Network(name="docker-ragflow", id="n1", labels={"io.ragflow-reranker.owner": "ragflow-reranker/laptop"}),
        },
        containers=(
            Container(
                name="docker-ragflow-cpu-1", id="c1", image="infiniflow/ragflow:v0.27.0", labels={"a": "b"},
                command=("./entrypoint.sh", "--workers=2"), folder="/ragflow",
                networks={"docker_ragflow": ("ragflow-cpu", "c1"), "docker-ragflow": ()},
            ),
            Container(name="old", id="c2", image="debian", running=False),
        ),
        volumes={"ragflow-vllm-reranker-key": {"io.ragflow-reranker.generation": "0a0b0c0d"}, "bare": {}},
    )  # fmt: skip


def test_every_call_has_a_deadline_no_input_and_reads_only() -> None:
    client = Client()
    observe("", run=client)
    assert sorted(" ".join(argv) for argv, _ in client.calls) == sorted(f"docker {asked}" for asked in ANSWERS)
    for _, options in client.calls:
        assert options["timeout"] == docker.TIMEOUT_SECONDS
        assert options["stdin"] == subprocess.DEVNULL


def test_a_host_of_its_own_is_reached_by_the_environment_and_is_its_own_endpoint() -> None:
    client = Client(context=json.dumps({"Name": "default", "Endpoints": {"docker": {"Host": "ssh://root@box"}}}))
    assert observe("ssh://root@box", run=client).endpoint == "ssh://root@box"
    assert {options["env"]["DOCKER_HOST"] for _, options in client.calls} == {"ssh://root@box"}
    assert all(options["env"].get("PATH") == os.environ.get("PATH") for _, options in client.calls)


def test_this_machines_own_daemon_is_the_one_that_the_client_is_set_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///elsewhere.sock")
    client = Client()
    observe("", run=client)
    assert {options["env"]["DOCKER_HOST"] for _, options in client.calls} == {"unix:///elsewhere.sock"}
    assert environment("") == {}
    assert environment("ssh://box") == {"DOCKER_HOST": "ssh://box"}


def test_an_empty_daemon_is_not_asked_about_nothing() -> None:
    client = Client(network_ls="", container_ls="", volume_ls="")
    found = observe("", run=client)
    assert (found.networks, found.containers, found.volumes) == ({}, (), {})
    assert not [argv for argv, _ in client.calls if argv[2] == "inspect" and argv[1] != "context"]


def test_what_vanishes_between_list_and_look_is_gone() -> None:
    found = observe("", run=Client(container_inspect=(json.dumps(CONTAINERS[:1]), "Error: No such container: c2", 1)))
    assert [item.name for item in found.containers] == ["docker-ragflow-cpu-1"]


def test_a_client_without_runtimes_in_its_answer_has_none() -> None:
    assert observe("", run=Client(info=json.dumps({**INFO, "Runtimes": None}))).runtimes == frozenset()


TIMEOUT = subprocess.TimeoutExpired(["docker"], 60)
REFUSED = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
DENIED = "permission denied while trying to connect to the Docker daemon socket"
START = "start it (systemctl start docker), or set dockerHost"
SSH = "check that 'ssh' reaches it without a question and that its user may use Docker"

DEAD: list[tuple[str, Any, str]] = [
    ("", FileNotFoundError(), "docker: not on PATH; install Docker's client (Debian, Ubuntu: apt-get install docker.io)"),
    ("", TIMEOUT, f"this machine's Docker does not answer: no answer to 'docker info' in 60 s; {START}"),
    ("ssh://box", TIMEOUT, f"dockerHost ssh://box does not answer: no answer to 'docker info' in 60 s; {SSH}"),
    ("", ("", f"WARNING: something\n{REFUSED}\n", 1), f"this machine's Docker does not answer: {REFUSED}; {START}"),
    ("", ("", "", 125), f"this machine's Docker does not answer: exit 125; {START}"),
    ("", (json.dumps({"ServerErrors": [REFUSED]}), "", 0), f"this machine's Docker does not answer: {REFUSED}; {START}"),
    (
        "",
        (json.dumps({"ServerErrors": [DENIED]}), "", 0),
        f"this machine's Docker does not answer: {DENIED}; add your user to the group docker and log in again",
    ),
    (
        "ssh://box",
        ("", "ssh: Could not resolve hostname box\n", 255),
        f"dockerHost ssh://box does not answer: ssh: Could not resolve hostname box; {SSH}",
    ),
    ("tcp://box:1", ("", REFUSED, 1), f"dockerHost tcp://box:1 does not answer: {REFUSED}; {START}"),
]


@pytest.mark.parametrize(("docker_host", "answer", "sentence"), DEAD)
def test_a_daemon_that_does_not_answer_is_put_into_one_sentence_with_the_remedy(docker_host: str, answer: Any, sentence: str) -> None:
    with pytest.raises(HostError) as refused:
        observe(docker_host, run=Client(info=answer))
    assert str(refused.value) == sentence


def test_a_daemon_that_dies_half_way_is_named_too() -> None:
    with pytest.raises(HostError, match=r"^this machine's Docker does not answer: EOF; "):
        observe("", run=Client(container_inspect=("", "EOF", 1)))


@pytest.mark.parametrize(("architecture", "platform"), [("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("riscv64", "linux/riscv64")])
def test_the_platform_is_spelled_as_docker_build_wants_it(architecture: str, platform: str) -> None:
    assert Host(cpus=1, memory=1, architecture=architecture).platform == platform


def test_a_container_is_found_by_its_whole_name() -> None:
    found = observe("", run=Client())
    assert found.container("old") is found.containers[1]
    assert found.container("ol") is None


def test_the_real_runner_is_the_default(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="not on PATH"):
        observe("")


NET: dict[str, Any] = {
    "Name": "n",
    "Id": "n1",
    "Driver": "bridge",
    "Scope": "local",
    "Internal": False,
    "EnableIPv4": True,
    "Labels": None,
    "Options": {},
}
UNFIT: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"Driver": "overlay", "Scope": "swarm", "Attachable": True}, ""),
    ({"Options": {"com.docker.network.bridge.enable_icc": "true"}}, ""),
    ({"Driver": "macvlan"}, "exists with driver macvlan"),
    ({"Driver": "ipvlan"}, "exists with driver ipvlan"),
    ({"Driver": "overlay", "Scope": "swarm", "Attachable": False}, "without --attachable"),
    ({"ConfigOnly": True}, "one of Swarm's own"),
    ({"Options": {"com.docker.network.bridge.enable_icc": "false"}}, "keeps its containers apart"),
]


@pytest.mark.parametrize(("facts", "words"), UNFIT)
def test_a_network_that_does_not_bring_two_containers_together_says_why(facts: dict[str, Any], words: str) -> None:
    [network] = read_networks([{**NET, **facts}]).values()
    assert (words in network.unfit) if words else network.unfit == ""


def test_two_networks_of_one_name_are_one_that_is_ambiguous() -> None:
    found = read_networks([NET, {**NET, "Id": "n2"}, {**NET, "Id": "n3", "Name": "m", "Internal": True, "EnableIPv4": False}])
    assert (found["n"].id, found["n"].twins, found["m"].ambiguous, found["m"].internal, found["m"].ipv4) == ("n1", ("n2",), "", True, False)
    assert found["n"].ambiguous.startswith("2 networks of this Docker host are called 'n' (n1, n2)")


def test_a_container_has_its_published_ports_and_its_network_mode() -> None:
    told: dict[str, Any] = {**CONTAINERS[1], "HostConfig": {"NetworkMode": "host"}}
    told["NetworkSettings"] = {
        "Networks": {"host": {}},
        "Ports": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8123"}, {"HostIp": "::1", "HostPort": "8123"}], "9/tcp": None},
    }
    seen = read_container(told)
    assert (seen.network_mode, seen.ports) == ("host", (("127.0.0.1", 8123), ("::1", 8123)))


def test_podman_is_refused_by_name_before_its_other_answers_are_read() -> None:
    client = Client(version=json.dumps({"Server": {"Components": [{"Name": "Podman Engine"}]}}))
    with pytest.raises(HostError, match=r"^docker: Podman answers here in Docker's place"):
        observe("", run=client)
    assert [argv[1] for argv, _ in client.calls] == ["info", "version"]


def test_a_context_with_tls_gives_the_provider_its_certificates() -> None:
    told: dict[str, Any] = {
        "Name": "nas", "Endpoints": {"docker": {"Host": "tcp://nas:2376"}}, "TLSMaterial": {"docker": ["ca.pem", "cert.pem", "key.pem"]},
        "Storage": {"TLSPath": "/tls/ab"},
    }  # fmt: skip
    found = observe("", run=Client(context=json.dumps(told)))
    assert (found.endpoint, found.certificates) == ("tcp://nas:2376", "/tls/ab/docker")
    told["Endpoints"] = {"docker": {"Host": "tcp://nas:2376", "SkipTLSVerify": True}}
    with pytest.raises(HostError, match=r"^the Docker context 'nas' .* does not verify"):
        observe("", run=Client(context=json.dumps(told)))


def test_a_full_disk_is_seen_only_where_dockers_folder_is_on_this_machine(tmp_path: Any) -> None:
    said = Facts(cpus=1, memory=1, architecture="x86_64", root=str(tmp_path))
    assert with_disk(said, Endpoint("unix:///var/run/docker.sock")).free
    assert with_disk(said, Endpoint("ssh://nas")).free is None
    assert with_disk(dataclasses.replace(said, system="Docker Desktop"), Endpoint("unix:///d.sock")).free is None
    assert with_disk(dataclasses.replace(said, root="/not/here"), Endpoint("")).free is None


def test_a_port_is_this_machines_where_the_daemon_has_its_name_or_is_desktops() -> None:
    here: dict[str, Any] = {"cpus": 1, "memory": 1, "architecture": "x86_64", "endpoint": "unix:///var/run/docker.sock"}
    assert publishes_here(Host(**here, name=platform.node()))
    assert publishes_here(Host(**here, name="docker-desktop", system="Docker Desktop"))
    assert not publishes_here(Host(**here, name="another"))
    assert not publishes_here(Host(**{**here, "endpoint": "tcp://nas:2375"}, name=platform.node()))
