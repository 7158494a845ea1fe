"""Docker as it is found: a daemon behind TLS that cannot keep every limit, and hosts on which something is in the way."""

import json
import os
import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import docker_proxy
from tests.support.engine import Project, docker, free_port, inspect


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with an authority (ca.pem), a server's certificate for 127.0.0.1 and a client's, as Docker's own TLS has them."""
    folder = tmp_path / "tls"
    folder.mkdir()

    def openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=folder, check=True, timeout=60, capture_output=True)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=rrt-ca")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return folder


@pytest.fixture
def weak(certificates: Path) -> Iterator[str]:
    """Address of this machine's daemon by TLS, which asks for a client's certificate and says that its kernel has neither CPU quota nor swap accounting."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / "server.pem", certificates / "server-key.pem")
    tls.load_verify_locations(certificates / "ca.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    with docker_proxy.rewritten({"info": {"CpuCfsQuota": False, "SwapLimit": False}}, tls=tls) as address:
        yield address


def test_a_context_with_tls_and_a_daemon_without_all_limits_serve_where_the_stack_leaves_them_out(
    project: Callable[..., Project], certificates: Path, weak: str, tmp_path: Path
) -> None:
    config = {"DOCKER_CONFIG": str(tmp_path / "docker-config")}
    material = f"ca={certificates}/ca.pem,cert={certificates}/client.pem,key={certificates}/client-key.pem"
    create = ["docker", "context", "create", "rrt-weak", "--docker", f"host={weak},{material}"]
    subprocess.run(create, env={**os.environ, **config}, check=True, timeout=60, capture_output=True)
    stack = project()
    stack.environment = {**config, "DOCKER_CONTEXT": "rrt-nowhere"}
    text = stack.refusal()
    assert "rrt-nowhere" in text
    assert "'docker context ls' shows the contexts that there are" in text

    stack.environment = {**config, "DOCKER_CONTEXT": "rrt-weak"}
    text = stack.refusal()
    assert "memoryGiB: this Docker host cannot keep a container out of swap" in text
    assert "cpus: this Docker host cannot limit a container's CPUs" in text
    assert "set missingLimits to omit" in text
    assert stack.remains() == {}

    stack.set(missingLimits="omit", bindAddress="::1")
    stack.set_key("rrt-weak-host")
    stack.settle()
    assert "unchanged" in stack.refresh()
    limits = inspect(stack.container)["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"], limits["MemorySwap"]) == (0, 1 << 30, -1)
    assert "cpus: this Docker host cannot limit a container's CPUs (the kernel has no CFS quota): left out" in stack.shown()
    assert stack.outputs()["hostUrl"] == f"http://[::1]:{stack.port}/v1"
    request = urllib.request.Request(f"http://[::1]:{stack.port}/v1/models", headers={"Authorization": f"Bearer {stack.key}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.load(answer)["data"]
    # On a host that can keep them it is another container, with all limits: an update would not be sure to set them.
    before, stack.environment = inspect(stack.container)["Id"], {}
    stack.up()
    assert inspect(stack.container)["Id"] != before
    limits = inspect(stack.container)["HostConfig"]
    assert (limits["NanoCpus"], limits["Memory"], limits["MemorySwap"]) == (1_000_000_000, 1 << 30, 1 << 30)


def test_what_is_in_the_way_of_a_stack_is_named_in_its_preview(project: Callable[..., Project], foreign: Callable[..., str], base_image: str) -> None:
    stack = project()
    with socket.create_server(("127.0.0.1", stack.port)):
        text = stack.refusal()
    assert f"hostPort: {stack.port} on 127.0.0.1 is taken by " in text
    assert f"(process {os.getpid()})" in text

    holder, port = f"{stack.token}-holder", free_port()
    foreign("network", stack.network)
    again = json.dumps({"Name": stack.network, "Driver": "bridge"})
    raw = [
        "curl",
        "-fsS",
        "--unix-socket",
        docker_proxy.REAL,
        "-H",
        "Content-Type: application/json",
        "-d",
        again,
        "http://docker/v1.41/networks/create",
    ]
    twin = json.loads(subprocess.run(raw, check=True, timeout=60, capture_output=True, text=True).stdout)["Id"]
    try:
        docker("run", "-d", "--name", holder, "-p", f"127.0.0.1:{port}:80", base_image, "sleep", "600")
        stack.set(hostPort=port)
        text = stack.refusal()
        assert f"hostPort: {port} on 127.0.0.1 is published by the container '{holder}'" in text
        assert f"networkName: 2 networks of this Docker host are called '{stack.network}'" in text
        assert twin[:12] in text
    finally:
        docker("rm", "-f", holder, check=False)
        docker("network", "rm", twin, check=False)

    try:
        docker("run", "-d", "--name", holder, "--network", "host", base_image, "sleep", "600")
        stack.set(hostPort=stack.port, ragflowMode="attach", ragflowContainers=[holder])
        text = stack.refusal()
        assert f"RAGFlow's container '{holder}' runs in the host's network" in text
        assert f"set ragflowMode to none, and enter http://127.0.0.1:{stack.port}/v1 as base URL in RAGFlow" in text
    finally:
        docker("rm", "-f", holder, check=False)


FACTS: list[tuple[docker_proxy.Facts, str]] = [
    ({"version": {"Components": [{"Name": "Podman Engine", "Version": "4.3.1"}]}}, "Podman answers here in Docker's place"),
    ({"info": {"Architecture": "armv7l"}, "version": {"Arch": "arm"}}, "is arm on a armv7l kernel, a 32-bit system"),
    ({"info": {"OSType": "windows"}, "version": {"ApiVersion": "1.30"}}, "this daemon runs windows containers"),
]


def test_a_daemon_that_serves_no_stack_is_refused_by_what_it_says_of_itself(project: Callable[..., Project]) -> None:
    stack = project()
    for facts, words in FACTS:
        with docker_proxy.rewritten(facts) as address:
            stack.set(dockerHost=address)
            assert words in stack.refusal()
