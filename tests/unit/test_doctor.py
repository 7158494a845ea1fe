"""The doctor on hosts that are made of answers: what each broken one is told, and that nothing is asked of it but questions."""

import dataclasses
import http.server
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from host import rows
from host.rows import Row
from rerank.command import app
from rerank.command import doctor as command
from rerank.doctor import estimate, machine, sent
from rerank.doctor.gather import Check, gather
from rerank.doctor.look import Doctor, Report
from rerank.doctor.sent import Place, Unsent
from rerank.doctor.stacks import NoStack, Stack, read
from serving.launch.machine import read_machine
from serving.rank.speed import FIRST_GUESS
from setup.edge import Edge, Result
from tests.support.hub import Reply, serving
from tests.support.recording import ROOT

GIB = 1 << 30
INFO = {
    "ServerVersion": "28.2.2",
    "Architecture": "x86_64",
    "OSType": "linux",
    "NCPU": 8,
    "MemTotal": 32 * GIB,
    "DockerRootDir": "/",
    "Driver": "overlay2",
    "Name": "nas",
    "Runtimes": {"runc": {}},
}
VERSION = {"Client": {"ApiVersion": "1.50"}, "Server": {"ApiVersion": "1.50", "Arch": "amd64"}}
FLAGS = ["avx2", "avx512_bf16", "avx512f"]
MACHINE = {
    "architecture": "x86_64",
    "cpu_flags": FLAGS,
    "cpus": [{"id": number, "core": number, "node": 0} for number in range(8)],
    "quota": 2.0,
    "memory": 8 * GIB,
    "libraries": [],
    "preloaded": "",
    "compiler": True,
    "server_module": "",
    "every_address": "::",
    "free": 100 * GIB,
}
SERVED = {"control": "", "data": "", "kind": "", "through": "cdn.example", "bytes": 1_200_000_000}
ANSWERS: dict[str, Any] = {
    "machine": MACHINE,
    "product": {"gflops": 900.0, "dtype": "bfloat16"},
    "learned": {"tokens_per_second": 640.0},
    "mirror": SERVED,
    "address": {"failure": "", "status": 200, "ahead": 0.4},
}


class Host(Edge):
    """A machine of answers: programs that are `installed`, `answers` by the words of a command line."""

    def __init__(self, tmp_path: Path, **env: str) -> None:
        root = tmp_path / "checkout"
        (root / ".venv/bin").mkdir(parents=True)
        (root / ".venv/bin/python").touch()
        for name in ("requirements.lock",):
            (root / name).write_text((ROOT / name).read_text())
        for folder in ("system/etc", "system/var/run", "system/proc", "home", "bin"):
            (tmp_path / folder).mkdir(parents=True)
        self.pulumi = tmp_path / "bin/pulumi"
        for name in ("pulumi", "pulumi-language-python"):
            (tmp_path / "bin" / name).touch()
        super().__init__(root=root, home=tmp_path / "home", env=dict(env), system=tmp_path / "system")
        self.installed = {"docker", "pulumi", "pulumi-resource-docker", "pulumi-resource-command"}
        self.info: dict[str, Any] = dict(INFO)
        self.containers: list[dict[str, Any]] = []
        self.answers: dict[str, Result | Callable[[], Result]] = {
            "docker info": lambda: Result(0, json.dumps(self.info)),
            "docker version": Result(0, json.dumps(VERSION)),
            "context inspect": Result(0, json.dumps({"Name": "default", "Endpoints": {"docker": {"Host": "unix:///var/run/docker.sock"}}})),
            "network ls": Result(0, "n1\n"),
            "network inspect": Result(0, json.dumps([{"Name": "bridge", "Id": "n1", "Driver": "bridge", "Labels": {}}])),
            "container ls": lambda: Result(0, "c1\n" if self.containers else ""),
            "container inspect": lambda: Result(0, json.dumps(self.containers)),
            "volume ls": Result(0, ""),
            "image ls": Result(0, "1 vllm-cpu:0.32.0\n2 <none>:<none>\n3 postgres:16\n"),
            "image inspect": Result(1, "", "no such image"),
            "pulumi version": Result(0, "v3.260.0\n"),
        }
        self.ran: list[str] = []

    def run(self, argv: Sequence[str], timeout: float, stdin: str = "") -> Result:
        line = " ".join(argv)
        self.ran.append(line)
        plain = line.replace(" --format {{json .}}", "").replace(" --host ssh://root@nas", "")
        return next((answer if isinstance(answer, Result) else answer() for key, answer in self.answers.items() if key in plain), Result(0))

    def which(self, program: str) -> str | None:
        return (str(self.pulumi) if program == "pulumi" else f"/bin/{program}") if program in self.installed else None

    @property
    def uid(self) -> int:
        return 1000


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def a_stack(**keys: Any) -> Stack:
    """Pulumi.yaml's defaults and `keys`, in snake case."""
    stack = read(ROOT, ROOT, "")
    return dataclasses.replace(stack, settings=dataclasses.replace(stack.settings, **keys))


def looked(
    host: Host,
    stack: Stack | None = None,
    *,
    answers: dict[str, Any] | None = None,
    registry: tuple[int, str] = (200, "{}"),
    port: str = "",
    seconds: float = 20,
) -> tuple[Report, dict[str, Row]]:
    """The report, and its rows by name."""
    told = {**ANSWERS, **(answers or {})}

    def send(_edge: Edge, place: Place, questions: Sequence[dict[str, Any]], **_: Any) -> list[Any]:
        if isinstance(told.get("places"), str):
            raise Unsent(told["places"])
        return [told[question["what"]](question) if callable(told[question["what"]]) else told[question["what"]] for question in questions]

    doctor = Doctor(host, stack or a_stack(), host.root, send=send, registry_get=lambda _path: registry, port=lambda *_, **__: port)
    report = doctor.report(seconds)
    assert [row for row in report.rows if "itself broke" in row.text] == []
    return report, {row.name: row for row in report.rows}


def test_a_good_host_has_nothing_in_the_way_and_every_fault_would_have_its_row(host: Host) -> None:
    report, found = looked(host)
    assert report.right, [row for row in report.rows if row.level == "fail"]
    assert list(found) == [
        *("settings", "daemon", "cpus", "memory", "buildkit", "cpu", "cores", "model memory", "disk", "base image"),
        *(
            "pypi.org",
            "download.pytorch.org",
            "hf-mirror.com",
            "huggingface.co",
            "caBundle",
            "proxy",
            "clock",
            "container",
            "hostPort",
            "network",
            "RAGFlow",
        ),
        *(".venv", "pulumi", "plugins", "passphrase", "RAGFlow's call"),
    ]
    assert found["cpu"].text.endswith("(seen in a container of vllm-cpu:0.32.0): the model runs in bfloat16, since the CPU has avx512_bf16")
    assert report.estimate is not None
    assert report.estimate["documents"] == 66
    assert 0 < int(str(report.estimate["documentsScored"])) <= 66


def test_nothing_is_run_that_changes_the_host(host: Host) -> None:
    looked(host)
    asking = (
        "info",
        "version",
        "context inspect",
        "network ls",
        "network inspect",
        "container ls",
        "container inspect",
        "volume ls",
        "volume inspect",
        "image ls",
        "image inspect",
    )
    assert [line for line in host.ran if line.startswith("docker ") and not line.removeprefix("docker ").startswith(asking)] == []


BROKEN: dict[str, tuple[Callable[[Host], object], dict[str, Any], dict[str, Any], str, str, str]] = {
    # what is wrong: (the host, keys of the stack, the probe's answers) -> (the row, what it says, what to do)
    "no docker program": (lambda h: h.installed.discard("docker"), {}, {}, "docker", "no docker program on PATH", "install"),
    "daemon down": (
        lambda h: h.answers.update({"docker info": Result(1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.")}),
        *({}, {}, "daemon", "Cannot connect", "start it"),
    ),
    "not allowed": (
        lambda h: h.answers.update({"docker info": Result(1, "", "permission denied while trying to connect to the Docker daemon socket")}),
        *({}, {}, "daemon", "permission denied", "docker group"),
    ),
    "ssh that asks": (
        lambda h: h.answers.update({"docker info": Result(1, "", "Host key verification failed.")}),
        *({"docker_host": "ssh://root@nas"}, {}, "daemon", "Host key verification failed", "without a password"),
    ),
    "podman": (
        lambda h: h.answers.update({"docker info": Result(0, json.dumps({"host": {"arch": "amd64", "cpus": 8, "memTotal": GIB}, "version": {"Version": "4.3"}}))}),
        *({}, {}, "docker", "Podman answers here", "install Docker's own engine"),
    ),
    "windows containers": (lambda h: h.info.update(OSType="windows"), {}, {}, "docker", "runs windows containers", "switch Docker Desktop"),
    "old Docker": (
        lambda h: h.answers.update({"docker version": Result(0, json.dumps({"Server": {"ApiVersion": "1.38", "Version": "18.06"}}))}),
        *({}, {}, "buildkit", "older than 18.09", "upgrade Docker"),
    ),
    "32-bit ARM": (lambda h: h.info.update(Architecture="armv7l"), {}, {}, "architecture", "32-bit system", "64-bit"),
    "no memory controller": (lambda h: h.info.update(MemoryLimit=False), {}, {}, "memoryGiB", "cannot limit a container's memory", "cgroup_enable=memory"),
    "no AVX2": (lambda h: None, {}, {"machine": {**MACHINE, "cpu_flags": ["sse4_2"]}}, "cpu", "dies of an illegal instruction", "CPU type to 'host'"),
    "bfloat16 asked of a CPU without it": (lambda h: None, {"dtype": "bfloat16"}, {"machine": {**MACHINE, "cpu_flags": ["avx2"]}}, "cpu", "no instructions for it", "dtype to auto"),
    "2 GiB of memory": (lambda h: h.info.update(MemTotal=2 * GIB), {}, {}, "model memory", "8 is more than the 2.0 GiB", "smaller model"),
    "a limit too small for the model": (lambda h: None, {"memory_gib": 2}, {"machine": {**MACHINE, "memory": 2 * GIB}}, "model memory", "of 2.0", "raise memoryGiB to 5"),
    "more CPUs than there are": (lambda h: h.info.update(NCPU=1), {}, {}, "cpus", "2 is more than the 1", "set it to 1"),
    "gpu without its runtime": (lambda h: None, {"backend": "gpu"}, {}, "gpu", "Failed to infer device type", "nvidia-container-toolkit"),
    "gpu without a driver": (
        lambda h: h.__dict__.update(info={**INFO, "Runtimes": {"nvidia": {}}}, installed={*h.installed, "nvidia-smi"}),
        *({"backend": "gpu"}, {}, "gpu", "the driver shows 0", "nvidia-smi"),
    ),
    "Pulumi missing": (lambda h: h.installed.difference_update({"pulumi"}), {}, {}, "pulumi", "no Pulumi program", "make setup"),
    "Pulumi old": (lambda h: h.answers.update({"pulumi version": Result(0, "v3.100.0")}), {}, {}, "pulumi", "older than 3.231.0", "make setup"),
    "a plugin missing": (lambda h: h.installed.difference_update({"pulumi-resource-docker"}), {}, {}, "plugins", "no plugin docker 5.2.0", "make setup"),
    "no .venv": (lambda h: (h.root / ".venv/bin/python").unlink(), {}, {}, ".venv", "there is none", "make setup"),
    "index dead": (
        lambda h: None,
        *({}, {"address": {"failure": "gaierror: Name or service not known", "status": 0, "ahead": None}}, "pypi.org", "Name or service not known", "packageIndex"),
    ),
    "index behind a strange CA": (
        lambda h: None,
        {},
        {"address": {"failure": "SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1)", "status": 0, "ahead": 0.0}},
        *("pypi.org", "its certificate is not believed (self-signed certificate)", "caBundle"),
    ),
    "clock two days off": (lambda h: None, {}, {"address": {"failure": "", "status": 200, "ahead": -2 * 86400.0}}, "clock", "2 days ahead of", "set-ntp"),
    "every mirror dead": (lambda h: None, {}, {"mirror": {**SERVED, "control": "does not answer (timeout)", "kind": "blocked"}}, "hf-mirror.com", "does not answer", "modelMirrors"),
    "mirrors without their CDN": (lambda h: None, {}, {"mirror": {**SERVED, "data": "redirects to cdn.example, which answered 403"}}, "huggingface.co", "cdn.example, which answered 403", "let this host reach it too"),
    "a gated model": (lambda h: None, {}, {"mirror": {**SERVED, "control": "answered 401: it is gated there", "kind": "gated"}}, "huggingface.co", "gated", "modelToken"),
    "a revision that is nowhere": (lambda h: None, {}, {"mirror": {**SERVED, "control": "answered 404: it has no revision", "kind": "revision"}}, "huggingface.co", "no revision", "modelRevision"),
    "proxy on the loopback": (lambda h: None, {"https_proxy": "http://127.0.0.1:3128"}, {}, "proxy", "the container's own loopback", "buildNetwork"),
    "CA that is not there": (lambda h: None, {"ca_bundle": "corp.pem"}, {}, "caBundle", "is not there", "certs/README.md"),
    "a container of that name": (
        lambda h: h.containers.append(described("ragflow-vllm-reranker")),
        *({}, {}, "container", "did not make it", "docker rm -f"),
    ),
    "RAGFlow's proxy": (
        lambda h: h.containers.append(described("docker-ragflow-cpu-1", env=["http_proxy=http://proxy:3128", "no_proxy=localhost"])),
        *({}, {}, "its proxy", "the proxy would answer", "localhost,ragflow-vllm-reranker"),
    ),
    "RAGFlow in the host's network": (
        lambda h: h.containers.append(described("docker-ragflow-cpu-1", mode="host")),
        *({}, {}, "ragflowMode", "network_mode: host", "set ragflowMode to none"),
    ),
    "a named RAGFlow that is not there": (lambda h: None, {"ragflow_containers": ("other",)}, {}, "ragflowContainers", "no container 'other'", "docker ps -a"),
}  # fmt: skip


def described(
    name: str, *, env: Sequence[str] = (), labels: dict[str, str] | None = None, mode: str = "docker_ragflow", running: bool = True
) -> dict[str, Any]:
    """A container as `docker container inspect` describes it."""
    return {
        "Name": f"/{name}",
        "Id": f"id-of-{name}",
        "Config": {"Image": "any:1", "Labels": labels or {}, "Env": list(env)},
        "State": {"Running": running},
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": {}, "Ports": {}},
    }


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_host_has_a_row_that_fails_with_its_remedy(host: Host, what: str) -> None:
    break_, keys, answers, name, text, remedy = BROKEN[what]
    break_(host)
    report, found = looked(host, a_stack(**keys), answers=answers)
    assert not report.right
    assert found[name].level == "fail", found[name]
    assert text in found[name].text
    assert remedy in found[name].remedy
    assert [row for row in report.rows if row.level == "fail" and not row.remedy] == []


@pytest.mark.parametrize("free", [0.5, 5.0])
def test_a_disk_without_room_for_image_and_model_is_told(host: Host, free: float, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 4096
    stat = type("Disk", (), {"f_bavail": int(free * GIB / size), "f_frsize": size, "f_flag": 0})
    monkeypatch.setattr("host.observe.os.statvfs", lambda _path: stat)
    report, found = looked(host)
    assert (found["disk"].level, report.right) == (("fail", False) if free < 1 else ("warn", True))
    assert "20 GiB" in found["disk"].remedy


def test_a_disk_of_another_host_is_seen_through_a_container(host: Host) -> None:
    _, found = looked(host, a_stack(docker_host="ssh://root@nas"), answers={"machine": {**MACHINE, "free": GIB // 2}})
    assert found["disk"].level == "fail"
    assert "0.5 GiB free" in found["disk"].text


def test_a_taken_port_is_told_with_who_has_it(host: Host) -> None:
    _, found = looked(host, port="taken by nginx (process 812)")
    assert (found["hostPort"].level, "nginx (process 812)" in found["hostPort"].text) == ("fail", True)
    assert "another" in found["hostPort"].remedy


@pytest.mark.parametrize("from_packages", [False, True])
def test_a_base_image_that_the_daemon_does_not_get_is_told_in_its_own_words(host: Host, from_packages: bool) -> None:
    refused = (500, json.dumps({"message": "proxyconnect tcp: dial tcp: i/o timeout"}))
    stack = a_stack(image_from_packages=from_packages, image_registries=("docker.io", "mirror.gcr.io"))
    _, found = looked(host, stack, registry=refused)
    assert (found["base image"].level, found["base image"].text.count("i/o timeout")) == ("warn" if from_packages else "fail", 2)
    assert "imageRegistries" in found["base image"].remedy
    host.answers["image inspect"] = Result(1, "sha256:1\n", "no such image: the others")
    assert looked(host, stack, registry=refused)[1]["base image"].level == "ok"


def test_one_mirror_that_serves_is_enough(host: Host) -> None:
    def mirror(question: dict[str, Any]) -> dict[str, Any]:
        return SERVED if "huggingface.co" in question["endpoint"] else {**SERVED, "control": "answered 403: it refuses this host", "kind": "blocked"}

    report, found = looked(host, answers={"mirror": mirror})
    assert report.right
    assert found["hf-mirror.com"].level == "warn"
    assert "the next one is asked" in found["hf-mirror.com"].text


def test_a_container_of_another_stack_is_not_taken_for_ours(host: Host) -> None:
    host.containers.append(described("ragflow-vllm-reranker", labels={"io.ragflow-reranker.owner": "ragflow-reranker/other/1a2b"}))
    _, found = looked(host, dataclasses.replace(a_stack(), name="laptop"))
    assert (found["container"].level, "ragflow-reranker/other/1a2b" in found["container"].text) == ("fail", True)
    assert looked(host, dataclasses.replace(a_stack(), name="other"))[1]["container"].level == "ok"


def test_an_index_that_torch_can_do_without_is_not_in_the_way(host: Host) -> None:
    def address(question: dict[str, Any]) -> dict[str, Any]:
        dead = {"failure": "TimeoutError: timed out", "status": 0, "ahead": None}
        return dead if "pytorch" in question["url"] else ANSWERS["address"]

    report, found = looked(host, answers={"address": address})
    assert (report.right, found["download.pytorch.org"].level) == (True, "warn")
    assert "3.4 GB" in found["download.pytorch.org"].text


def test_what_a_deployed_stack_no_longer_needs_is_not_in_the_way(host: Host) -> None:
    host.containers.append(described("ragflow-vllm-reranker", labels={"io.ragflow-reranker.owner": "ragflow-reranker/laptop"}))
    dead = {"failure": "TimeoutError: timed out", "status": 0, "ahead": None}
    report, found = looked(host, answers={"mirror": {**SERVED, "control": "does not answer (timeout)"}, "address": dead}, registry=(500, "{}"))
    assert report.right, [row for row in report.rows if row.level == "fail"]
    assert (found["pypi.org"].level, found["huggingface.co"].level) == ("warn", "warn")
    assert "as the running reranker has learned" in found["RAGFlow's call"].text


def test_where_no_container_can_be_started_the_cpu_is_seen_from_the_host_and_says_so(host: Host) -> None:
    host.answers["image ls"] = Result(0, "")
    _, found = looked(host)
    assert "not in a container" in found["cpu"].text
    assert "nothing was measured here" in found["RAGFlow's call"].text


def test_what_cannot_be_seen_is_not_called_right(host: Host) -> None:
    report, found = looked(host, a_stack(docker_host="ssh://root@nas"), answers={"places": "python3: not found"})
    assert report.right
    assert {found[name].level for name in ("cpu", "mirrors", "disk", "RAGFlow's call")} == {"not seen"}
    assert "python3: not found" in found["cpu"].text


def test_a_daemon_that_tells_nothing_of_its_containers_is_one_row(host: Host) -> None:
    host.answers["network ls"] = Result(1, "", "Error response from daemon: context deadline exceeded")
    report, found = looked(host)
    assert (found["RAGFlow"].level, "context deadline exceeded" in found["RAGFlow"].text) == ("not seen", True)
    assert found["cpu"].level == "ok"
    assert report.right


def test_the_host_that_docker_is_set_to_by_the_shell_is_asked_itself(tmp_path: Path) -> None:
    host = Host(tmp_path, DOCKER_HOST="ssh://root@nas")
    host.answers["image ls"] = Result(0, "")
    assert looked(host)[1]["huggingface.co"].text.endswith("(asked from nas, the Docker host)")


def test_a_remote_host_is_asked_itself_and_not_this_machine(host: Host) -> None:
    _, found = looked(host, a_stack(docker_host="ssh://root@nas"))
    assert found["huggingface.co"].text.endswith("(asked from a container of vllm-cpu:0.32.0 on the Docker host)")
    host.answers["image ls"] = Result(0, "")
    _, found = looked(host, a_stack(docker_host="ssh://root@nas"))
    assert found["huggingface.co"].text.endswith("(asked from nas, the Docker host)")


def test_a_sealed_token_leaves_a_gated_mirror_open(host: Host) -> None:
    stack = dataclasses.replace(a_stack(), sealed=frozenset({"model_token"}))
    report, found = looked(host, stack, answers={"mirror": {**SERVED, "control": "answered 401: it is gated there", "kind": "gated"}})
    assert (report.right, found["huggingface.co"].level) == (True, "not seen")


def test_a_proxy_of_this_shell_that_the_build_does_not_get_is_told_without_its_password(tmp_path: Path) -> None:
    _, found = looked(Host(tmp_path, HTTPS_PROXY="http://me:secret@proxy:3128"))
    assert (found["proxy"].level, found["proxy"].remedy) == (
        "warn",
        "if nothing is reached without it: pulumi config set httpsProxy http://proxy:3128",
    )
    assert "secret" not in found["proxy"].text


def test_a_lost_passphrase_is_told_and_none_is_made(host: Host) -> None:
    _, found = looked(host, dataclasses.replace(a_stack(), salted=True))
    assert (found["passphrase"].level, "A lost passphrase" in found["passphrase"].remedy) == ("fail", True)
    assert not (host.home / ".config").exists()


def test_an_external_service_needs_no_docker(host: Host) -> None:
    host.installed.clear()
    external = a_stack(backend="external", external_url="http://gpu-box:8000/v1", external_model="qwen3-reranker-0.6b")
    assert looked(host, external)[1]["externalUrl"].level == "ok"
    _, found = looked(host, external, answers={"address": {"failure": "", "status": 404, "ahead": None}})
    assert (found["externalUrl"].level, found["externalUrl"].remedy) == ("fail", "correct externalUrl: it ends in /v1")


def test_a_mock_has_neither_model_nor_speed(host: Host) -> None:
    report, found = looked(host, a_stack(backend="mock", memory_gib=1, cpus=1))
    assert report.right
    assert {"hf-mirror.com", "pypi.org", "RAGFlow's call", "cpu"} & found.keys() == set()


# -- late, and broken checks ----------------------------------------------------------------------------------------------


def test_a_check_that_breaks_or_hangs_is_a_row_and_holds_up_no_other() -> None:
    forever = threading.Event()

    def breaks() -> list[Row]:
        raise KeyError("x")

    def hangs() -> list[Row]:
        forever.wait()
        return []

    began = time.monotonic()
    found = gather(
        [Check("one", breaks, 20), Check("two", hangs, 0.2, "ask again"), Check("three", lambda: [Row("three", "ok", "fine")], 20)], seconds=20
    )
    forever.set()
    assert time.monotonic() - began < 10
    assert [(row.name, row.level) for row in found] == [("one", "not seen"), ("two", "not seen"), ("three", "ok")]
    assert found[0].text == "this check itself broke: KeyError: 'x'"
    assert (found[1].text, found[1].remedy) == ("no answer in 0.2 s", "ask again")


def test_a_daemon_that_hangs_leaves_what_does_not_need_it(host: Host) -> None:
    forever = threading.Event()

    def hangs() -> Result:
        forever.wait()
        return Result(1)

    host.answers["docker info"] = hangs
    try:
        report, found = looked(host, seconds=1)
    finally:
        forever.set()
    assert found["daemon"].text == "no answer in 1 s"
    assert found["pulumi"].level == "ok"
    assert report.right


# -- asked for real ------------------------------------------------------------------------------------------------------


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    return Edge(root=tmp_path, home=tmp_path, env=dict(os.environ))


def asked(edge: Edge, *questions: dict[str, Any], seconds: float = 30, **more: Any) -> list[Any]:
    return sent.ask(edge, sent.here(), questions, seconds=seconds, **more)


def test_the_probe_reads_the_machine_as_the_launcher_does(edge: Edge) -> None:
    (answer,) = asked(edge, {"what": "machine", "disk": "/"})
    found, free = machine.of_answer(answer)
    assert dataclasses.replace(found, libraries=(), server_module="", preloaded="") == dataclasses.replace(
        read_machine(), libraries=(), server_module="", preloaded=""
    )
    assert free > 0


REPO, REVISION = "Qwen/Qwen3-Reranker-0.6B", "6e9e69830b95c52b5fd889b7690dda3329508de3"


@pytest.mark.parametrize(
    ("fault", "control", "data"),
    [
        ({}, "", ""),
        ({"dead": True}, "does not answer", None),
        ({"status": 403}, "refuses this host", None),
        ({"status": 503}, "answered 503", None),
        ({"gated": True}, "", "answered 401"),
        ({"replies": [Reply(200, {"Content-Type": "text/html"}, b"<html>log in</html>", times=-1)]}, "a web page in its place", None),
        ({"replies": [Reply(403, of="/lfs/", times=-1)]}, "", "answered 403"),
    ],
    ids=["well", "dead", "403", "503", "gated", "login page", "CDN 403"],
)
def test_a_mirror_is_asked_for_its_list_and_for_first_bytes(
    edge: Edge, tmp_path: Path, fault: dict[str, Any], control: str, data: str | None
) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"x" * 5000)
    with serving(directory, REPO, REVISION) as served:
        for name, value in fault.items():
            setattr(served.faults, name, value)
        (answer,) = asked(edge, {"what": "mirror", "source": "hub", "endpoint": served.url, "repo": REPO, "revision": REVISION})
        assert control in answer["control"] if control else answer["control"] == ""
        assert answer["data"] == data if not data else data in answer["data"]
        if not control and data == "":
            assert (answer["bytes"], answer["through"]) == (5002, served.url.removeprefix("http://"))


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes calls and says nothing."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}/"  # nobody accepts


def test_a_silent_mirror_costs_its_own_answer_alone(edge: Edge, silent: str) -> None:
    first, second = asked(edge, {"what": "address", "url": silent}, {"what": "machine", "disk": "/"}, seconds=3)
    assert first is None
    assert second["free"] > 0


def test_a_clock_is_read_off_any_answer(edge: Edge, tmp_path: Path) -> None:
    with serving(tmp_path, REPO, REVISION) as served:
        (answer,) = asked(edge, {"what": "address", "url": f"{served.url}/none"})
    assert answer["status"] in (401, 404)
    assert abs(answer["ahead"]) < 60


def test_the_probe_goes_by_the_stacks_proxy_and_by_no_other(tmp_path: Path, silent: str) -> None:
    with serving(tmp_path, REPO, REVISION) as served:
        edge = Edge(root=tmp_path, home=tmp_path, env={**os.environ, "HTTP_PROXY": silent, "http_proxy": silent})
        (direct,) = asked(edge, {"what": "address", "url": f"{served.url}/none"})
        assert direct["status"]
        (through,) = asked(edge, {"what": "address", "url": "http://nowhere.invalid/"}, proxies={"http_proxy": served.url})
        assert through["status"]


def test_a_place_without_python_is_told_with_its_own_words(edge: Edge) -> None:
    with pytest.raises(Unsent, match="no-such-python"):
        sent.ask(edge, Place(words=("no-such-python", "-c", sent.BOOT), where="there"), [{"what": "machine", "disk": "/"}], seconds=5)


def test_what_is_asked_over_ssh_survives_the_shell_there() -> None:
    words = sent.by_ssh("ssh://me@nas:2222").words
    assert words[:8] == ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-p", "2222", "--")
    assert words[8] == "me@nas"
    assert words[9].startswith("python3 -c '")


# -- speed -----------------------------------------------------------------------------------------------------------------


def test_the_estimate_is_the_committed_figure_on_the_machine_of_the_figures() -> None:
    held = estimate.measured(861, "bfloat16", "qwen3-reranker-0.6b")
    assert held is not None
    assert held.tokens_per_second == pytest.approx(695, rel=0.05)
    held = estimate.measured(414, "float32", "qwen3-reranker-0.6b")
    assert held is not None
    assert held.tokens_per_second == pytest.approx(387, rel=0.05)


def test_a_larger_model_is_slower_by_its_weights() -> None:
    speeds = [estimate.of_class(FLAGS, "auto", 2, f"qwen3-reranker-{size}") for size in ("0.6b", "4b", "8b")]
    small, middle, large = (speed.tokens_per_second for speed in speeds if speed)
    assert small > 5 * middle > 5 * large


def test_a_guess_is_not_taken_for_a_speed_and_an_unknown_cpu_gets_none() -> None:
    assert estimate.learned(FIRST_GUESS) is None
    assert estimate.of_class({"asimd"}, "auto", 8, "qwen3-reranker-0.6b") is None
    assert estimate.row(a_stack().settings, None).level == "not seen"


# -- stacks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["laptop", "home-server", "mock"])
def test_a_stack_is_read_as_the_program_reads_it(name: str) -> None:
    from tests.unit.builders import a_settings

    stack = read(ROOT, ROOT, name)
    assert stack.settings == a_settings(stack_file=name)
    assert stack.refused == ()


def stacked(tmp_path: Path, text: str) -> Stack:
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/Pulumi.own.yaml").write_text(text)
    return read(ROOT, tmp_path, "own")


def test_secrets_stay_sealed_and_the_rules_hold_all_the_same(tmp_path: Path) -> None:
    stack = stacked(
        tmp_path,
        "encryptionsalt: v1:abc\nconfig:\n  ragflow-reranker:apiKey:\n    secure: v1:xyz\n  ragflow-reranker:cpus: '3'\n"
        "  ragflow-reranker:page: 'false'\n  ragflow-reranker:modelMirrors: '[\"http://one\"]'\n  other:thing: 1\n",
    )
    assert (stack.refused, stack.sealed, stack.salted) == ((), frozenset({"api_key"}), True)
    assert (stack.settings.cpus, stack.settings.page, stack.settings.model_mirrors) == (3, False, ("http://one",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ragflow-reranker:cpu: 2", "cpu: no such key"),
        ("ragflow-reranker:cpus: many", "cpus: 'many' is no whole number"),
        ("ragflow-reranker:cpus: 0", "cpus: 0 must be from 1 to 1024 CPUs"),
        ("ragflow-reranker:page: maybe", "page: 'maybe' is neither true nor false"),
        ("ragflow-reranker:modelMirrors: {a: b}", "modelMirrors: {'a': 'b'} is not a list of strings"),
        ("ragflow-reranker:apiKey: in-plain-text", "apiKey: the value (not shown) stands in the stack's file in plain text"),
    ],
)
def test_a_value_that_a_preview_would_refuse_is_a_row_that_fails(host: Host, tmp_path: Path, text: str, said: str) -> None:
    stack = stacked(tmp_path, f"config:\n  {text}\n")
    assert any(said in refused for refused in stack.refused), stack.refused
    report, _ = looked(host, stack)
    assert not report.right
    assert "in-plain-text" not in rows.render(report.rows)


@pytest.mark.parametrize(("text", "said"), [("a: [", "is no YAML"), ("- a", "is no YAML of keys"), ("config: 3", "config is no list of keys")])
def test_a_stack_file_that_is_none_is_refused_with_its_name(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(NoStack, match=said):
        stacked(tmp_path, text)


def test_a_checkout_of_another_release_is_refused_with_what_reads_it(tmp_path: Path) -> None:
    text = (ROOT / "Pulumi.yaml").read_text()
    (tmp_path / "Pulumi.yaml").write_text(text.replace("  cpus:\n", "  processors:\n"))
    with pytest.raises(NoStack, match=r"of another release than this command \(cpus, processors\)"):
        read(tmp_path, tmp_path, "")


def test_a_stack_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(NoStack, match="choose one of home-server, laptop, mock"):
        read(ROOT, ROOT, "nowhere")
    with pytest.raises(NoStack, match="needs the checkout"):
        read(ROOT, None, "laptop")


# -- the command -----------------------------------------------------------------------------------------------------------

RIGHT = Report(rows=(Row("daemon", "ok", "fine"), Row("disk", "not seen", "is elsewhere")))
WRONG = Report(rows=(Row("daemon", "fail", "gone [bold]away", "start it"),), estimate={"documents": 66})


@pytest.mark.parametrize(("report", "code"), [(RIGHT, 0), (WRONG, 1)])
def test_the_exit_status_and_the_json_say_whether_something_is_in_the_way(monkeypatch: pytest.MonkeyPatch, report: Report, code: int) -> None:
    monkeypatch.setattr(command, "Doctor", lambda *_: type("Look", (), {"report": lambda self, _seconds: report})())
    done = CliRunner().invoke(app, ["doctor", "--json", "--stack", "mock"])
    assert done.exit_code == code, done.output
    told = json.loads(done.stdout)
    assert told["right"] is (code == 0)
    assert told["rows"] == [dataclasses.asdict(row) for row in report.rows]
    plain = CliRunner().invoke(app, ["doctor", "--stack", "mock"])
    assert plain.exit_code == code
    assert ("1 in the way: daemon" if code else "Nothing is in the way.") in plain.stdout
    assert "\x1b" not in plain.stdout


def test_a_terminal_gets_one_table_in_which_words_of_others_are_no_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    command._table(WRONG.rows)
    assert "gone [bold]away" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stack", "nowhere"], "choose one of home-server, laptop, mock"),
        (["--seconds", "0"], "'--seconds'"),
        (["stray"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    done = CliRunner().invoke(app, ["doctor", *words])
    assert done.exit_code == 2
    assert said in done.output


def test_a_docker_host_of_ones_own_stands_for_the_stacks() -> None:
    assert read(ROOT, ROOT, "home-server", "").settings.docker_host == ""
    assert read(ROOT, ROOT, "laptop", "ssh://a@b").settings.docker_host == "ssh://a@b"


def test_what_make_shows_before_there_is_an_environment_needs_the_standard_library_alone(edge: Edge) -> None:
    code = "import sys; import setup.preflight; print([n for n in sys.modules if n.split('.')[0] in ('yaml', 'rich', 'typer', 'requests', 'rerank', 'pulumi')])"
    done = Edge(root=ROOT, home=edge.home, env=edge.env).run([edge.python, "-S", "-c", code], 60)
    assert (done.out.strip(), done.err) == ("[]", "")
