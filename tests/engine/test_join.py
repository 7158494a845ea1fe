"""The reranker on RAGFlow's own network: nothing of RAGFlow is touched, and RAGFlow may come and go."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.engine import Project, docker, inspect, make_standin
from tests.support.ragflow import rerank

DOCUMENTS = ["Bananas are yellow.", "Paris is the capital of France."]


@pytest.fixture
def joined(project: Callable[..., Project], base_image: str) -> Iterator[tuple[Project, Callable[[], None]]]:
    """A stack that joined the network of a RAGFlow stand-in, and what makes that network and stand-in anew, as 'docker compose down' and 'up' do."""
    stack = project(ragflowMode="join")
    ragflow, network = f"{stack.token}-ragflow-cpu-1", f"{stack.token}_ragflow"
    compose = {"com.docker.compose.service": "ragflow-cpu", "com.docker.compose.project": stack.token}

    def down() -> None:
        docker("rm", "-f", ragflow, check=False)
        if stack.container in docker("ps", "-a", "--format", "{{.Names}}"):
            docker("network", "disconnect", "-f", network, stack.container, check=False)
        docker("network", "rm", network, check=False)

    def anew() -> None:
        down()
        docker("network", "create", "--label", "io.ragflow-reranker.test=standin", network)
        make_standin(ragflow, image=base_image, network=network, labels=compose)

    try:
        anew()
        stack.set(ragflowContainers=[ragflow], networkName=f"{stack.token}-unused")
        stack.up()
        yield stack, anew
    finally:
        stack.close()
        down()


def test_the_reranker_joins_ragflows_network_survives_its_re_creation_and_leaves_it_behind(
    joined: tuple[Project, Callable[[], None]], base_image: str
) -> None:
    stack, anew = joined
    ragflow, network = f"{stack.token}-ragflow-cpu-1", f"{stack.token}_ragflow"

    def ranked() -> list[str]:
        return rerank(ragflow, stack.outputs()["internalUrl"], model="qwen3-reranker-0.6b", query="capital of France", documents=DOCUMENTS)

    assert stack.preview() == {}
    assert set(inspect(stack.container)["NetworkSettings"]["Networks"]) == {network}
    assert (stack.outputs()["networkName"], stack.outputs()["attachedContainers"], stack.outputs()["composeOverride"]) == (network, [ragflow], "")
    assert ranked() == DOCUMENTS[::-1]

    # compose up --force-recreate: another container on the same network
    docker("rm", "-f", ragflow)
    make_standin(
        ragflow, image=base_image, network=network, labels={"com.docker.compose.service": "ragflow-cpu", "com.docker.compose.project": stack.token}
    )
    assert stack.preview() == {}
    assert ranked() == DOCUMENTS[::-1]

    # compose down and up: another network of that name
    anew()
    assert set(stack.settle()) == {"network-released", "reranker-container", "reranker-healthy"}
    assert ranked() == DOCUMENTS[::-1]

    stack.destroy()
    assert network in docker("network", "ls", "--format", "{{.Name}}").split()
    assert inspect(ragflow)["State"]["Running"]
