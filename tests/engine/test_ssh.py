"""A home server over ssh: a real sshd on the loopback of this machine, everything else as on any other host."""

import getpass
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.test_deployed import model_names
from tests.support import sshd
from tests.support.engine import Project, standin


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of the sshd, and a folder for PATH whose ssh knows its keys."""
    if not sshd.PROGRAM:
        pytest.skip("no sshd on this machine (Debian, Ubuntu: apt-get install openssh-server)")
    with sshd.serving(tmp_path) as served:
        yield served.address, served.programs
        # Nothing reached the daemon by the socket of this machine instead.
        assert served.entered


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
