"""Nonsense ends in one sentence that says what to do, without a traceback, and nothing is created."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.engine import Project, inspect


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Project:
    """A project that is never brought up."""
    built = Project(tmp_path_factory.mktemp("idle") / "project")
    built.set(baseImage=base_image)
    return built


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"cpuz": 2}, "cpuz: no such key; did you mean cpus?"),
    ({"cpus": "many"}, "cpus"),
    ({"cpus": 1000}, "cpus: 1000 is more than the"),
    ({"memoryGiB": 4000}, "memoryGiB: 4000 is more than the"),
    ({"containerName": "reranker"}, "must not start with 'rerank'"),
    ({"networkName": "bridge"}, "networkName: 'bridge' must be a user-defined network"),
    ({"apiKey": "in-plain-text"}, "set it with: pulumi config set --secret apiKey"),
    ({"backend": "external"}, "externalUrl: it is empty, and backend external needs the address"),
    ({"ragflowMode": "attach", "ragflowContainers": ["rrt-nobody"]}, "ragflowContainers: no container 'rrt-nobody' on this host"),
    ({"ragflowMode": "join", "ragflowNetwork": "rrt-nowhere"}, "ragflowNetwork: no network 'rrt-nowhere' on this host"),
    ({"dockerHost": "unix:///rrt/nobody.sock"}, "dockerHost unix:///rrt/nobody.sock does not answer"),
]


@pytest.mark.parametrize(("dials", "sentence"), REFUSED, ids=[" ".join(dials) for dials, _ in REFUSED])
def test_a_setting_that_cannot_be_is_refused_with_a_sentence(idle: Project, dials: dict[str, Any], sentence: str) -> None:
    kept = idle.file.read_text()
    idle.set(**dials)
    try:
        text = idle.refusal("up")
    finally:
        idle.file.write_text(kept)
    assert sentence in text
    assert "Traceback" not in text
    assert "an unhandled error occurred" not in text
    assert "exit code" not in text
    assert "in-plain-text" not in text
    assert idle.remains() == {}


def test_a_name_that_another_container_has_is_refused(idle: Project, base_image: str, foreign: Callable[..., str]) -> None:
    taken = foreign("container", idle.container, base_image)
    text = idle.refusal("up")
    assert f"containerName: a container '{idle.container}' exists already, and this project did not make it" in text
    assert "Traceback" not in text
    assert inspect(idle.container)["Id"] == taken
    assert idle.remains() == {"container": [idle.container]}
