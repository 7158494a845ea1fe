"""A home server over ssh: a real sshd on the loopback of this machine, everything else as on any other host."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.test_deployed import model_names
from tests.support.engine import Project, free_port, standin, wait_until

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of the sshd, and a folder for PATH whose ssh knows its keys: ssh reads ~/.ssh of the account, whatever HOME says."""
    if not SSHD:
        pytest.skip("no sshd on this machine (Debian, Ubuntu: apt-get install openssh-server)")
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / key], check=True, timeout=60)
    port = free_port()
    (tmp_path / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path}/host\nAuthorizedKeysFile {tmp_path}/user.pub\nStrictModes no\n"
        f"UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile {tmp_path}/pid\n"
    )
    public = " ".join((tmp_path / "host.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    (tmp_path / "ssh_config").write_text(f"IdentityFile {tmp_path}/user\nIdentitiesOnly yes\nUserKnownHostsFile {tmp_path}/known\nBatchMode yes\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n')
    (programs / "ssh").chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    daemon = subprocess.Popen([SSHD, "-D", "-E", tmp_path / "log", "-f", tmp_path / "sshd_config"])
    try:
        address = f"{getpass.getuser()}@127.0.0.1"
        asked = [str(programs / "ssh"), "-p", str(port), address, "true"]
        wait_until(lambda: subprocess.run(asked, check=False, timeout=30, capture_output=True).returncode == 0, seconds=30)
        yield f"ssh://{address}:{port}", programs
        # Nothing reached the daemon by the socket of this machine instead.
        assert "Accepted publickey" in (tmp_path / "log").read_text()
    finally:
        daemon.terminate()
        daemon.wait(timeout=30)


def test_a_stack_over_ssh_comes_up_with_an_empty_second_preview_and_goes_away(
    project: Callable[..., Project], server: tuple[str, Path], base_image: str
) -> None:
    address, programs = server
    stack = project("home-server", cpus=1, memoryGiB=1, shmGiB=1, kvCacheGiB=1, healthTimeoutSeconds=60)
    stack.environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    with standin(f"{stack.token}-ragflow", image=base_image) as name:
        stack.set(dockerHost=address, ragflowMode="attach", ragflowContainers=[name])
        stack.set_key("rrt-over-ssh")
        with socket.create_server(("127.0.0.1", stack.port)):
            assert f"hostPort: {stack.port} on 127.0.0.1 is taken" in stack.refusal()
        stack.settle()
        assert "unchanged" in stack.refresh()
        assert model_names(stack)
        found = stack.outputs()
        assert found["attachedContainers"] == [name]
        assert found["verify"][0].startswith(f"docker -H {address} exec -e RERANK_API_KEY {name} ")
        stack.destroy()
        assert set(stack.remains()) == {"container", "image"}


def test_a_home_server_that_does_not_answer_is_refused_with_a_sentence(project: Callable[..., Project], server: tuple[str, Path]) -> None:
    _, programs = server
    stack = project("home-server", cpus=1, memoryGiB=1, shmGiB=1, dockerHost=f"ssh://{getpass.getuser()}@127.0.0.1:9")
    stack.environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    text = stack.refusal()
    assert "does not answer" in text
    assert "check that 'ssh' reaches it without a question" in text
    assert "Traceback" not in text
