"""host/observe.py with an injected runner: what is asked of the docker client, what is read from its answers, how a dead daemon is put into words."""

import json
import os
import subprocess
from typing import Any

import pytest

from host import docker
from host.docker import environment
from host.observe import Container, Host, HostError, Network, observe

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
    "network ls -q --no-trunc": "n0\nn1\n",
    "network inspect n0 n1": json.dumps(NETWORKS),
    "container ls -aq --no-trunc": "c1\nc2\n",
    "container inspect c1 c2": json.dumps(CONTAINERS),
    "volume ls -q --filter label=io.ragflow-reranker.owner": "ragflow-vllm-reranker-key\nbare\n",
    "volume inspect ragflow-vllm-reranker-key bare": json.dumps(VOLUMES),
    "image ls --filter reference=*:bundle-* --format {{.Repository}}:{{.Tag}}": "",
    "context inspect --format {{.Endpoints.docker.Host}}": "unix:///home/me/.docker/run/docker.sock\n",
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
    client = Client()
    assert observe("ssh://root@box", run=client).endpoint == "ssh://root@box"
    assert {options["env"]["DOCKER_HOST"] for _, options in client.calls} == {"ssh://root@box"}
    assert all(options["env"].get("PATH") == os.environ.get("PATH") for _, options in client.calls)
    assert not [argv for argv, _ in client.calls if argv[1] == "context"]


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


def test_the_images_of_bundles_are_seen_and_the_one_that_comes_with_this_run_first(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "ragflow-vllm-reranker:bundle-1-1\nanother:bundle-2-2\n"
    assert observe("", run=Client(image_ls=listed)).bundled == ("ragflow-vllm-reranker:bundle-1-1", "another:bundle-2-2")
    monkeypatch.setenv("RERANKER_BUNDLE_IMAGE", "ragflow-vllm-reranker:bundle-3-3")
    assert observe("", run=Client(image_ls=listed)).bundled[0] == "ragflow-vllm-reranker:bundle-3-3"
