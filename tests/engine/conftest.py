"""Stacks of the real engine on this machine's daemon. `deployed` is up once for all tests that only look or put back what they change."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import baseimage
from tests.support.engine import Project, docker, standin

API_KEY = "sk-rrt-4f1d9e0c7ab2"
MODEL_TOKEN = "hf_rrt9b3e27d5c816"


@pytest.fixture(scope="session")
def base_image() -> str:
    return baseimage.ensure()


@pytest.fixture
def project(tmp_path: Path, base_image: str) -> Iterator[Callable[..., Project]]:
    """Makes projects of the mock backend (or `like` another stack file), removed with all they made when the test ends."""
    made: list[Project] = []

    def make(like: str = "mock", **dials: object) -> Project:
        built = Project(tmp_path / f"project{len(made)}", like=like)
        made.append(built)
        built.set(**{"backend": "mock", "baseImage": base_image, **dials})
        return built

    yield make
    for built in made:
        built.close()
        assert built.remains() == {}


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Project]:
    """A mock stack with a key, and two RAGFlow stand-ins, one of them stopped. A test that changes it puts it back."""
    stack = Project(tmp_path_factory.mktemp("deployed") / "project")
    try:
        with standin(f"{stack.token}-ragflow-a", image=base_image), standin(f"{stack.token}-ragflow-b", image=base_image, stopped=True):
            stack.set(baseImage=base_image, ragflowMode="attach", ragflowContainers=[f"{stack.token}-ragflow-a", f"{stack.token}-ragflow-b"])
            stack.set_key(API_KEY)
            stack.settle()
            yield stack
    finally:
        stack.close()
    assert stack.remains() == {}


@pytest.fixture
def stack(deployed: Project) -> Project:
    """`deployed`, as its settings say even where the test before broke off half way."""
    if not deployed.settled:
        deployed.up()
        deployed.settled = True
    return deployed


@pytest.fixture
def foreign() -> Iterator[Callable[..., str]]:
    """Runs docker commands that make something by hand, and removes it: foreign('network', name) or foreign('container', name, image)."""
    made: list[tuple[str, ...]] = []

    def make(kind: str, name: str, image: str = "") -> str:
        if kind == "network":
            made.append(("network", "rm", name))
            return docker("network", "create", "--label", "io.ragflow-reranker.test=foreign", name).strip()
        made.append(("rm", "-f", name))
        return docker("run", "-d", "--name", name, "--label", "io.ragflow-reranker.test=foreign", image, "sleep", "3600").strip()

    yield make
    for removal in reversed(made):
        docker(*removal, check=False)
