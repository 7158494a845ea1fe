"""What somebody did by hand: the next preview shows it, up heals it, and the preview after that is empty."""

from tests.engine.test_deployed import model_names
from tests.support.engine import Project, docker, inspect, make_standin

CONTAINER_ALONE = {"reranker-container", "reranker-healthy"}


def test_a_container_that_was_removed_is_made_again(stack: Project) -> None:
    docker("rm", "-f", stack.container)
    seen = stack.settle()
    assert set(seen) == CONTAINER_ALONE
    assert seen["reranker-container"] == "replace"
    assert model_names(stack)


def test_a_container_that_was_stopped_runs_again(stack: Project) -> None:
    docker("stop", "-t", "1", stack.container)
    assert set(stack.settle()) == CONTAINER_ALONE
    assert inspect(stack.container)["State"]["Health"]["Status"] == "healthy"


def test_a_network_that_was_removed_is_made_again_with_everybody_on_it(stack: Project) -> None:
    members = [stack.container, f"{stack.token}-ragflow-a", f"{stack.token}-ragflow-b"]
    for member in members:
        docker("network", "disconnect", "-f", stack.network, member)
    docker("network", "rm", stack.network)
    seen = stack.settle()
    assert seen["network-bridge"] == "replace"
    assert set(seen) == {"network-bridge", "network-released", *CONTAINER_ALONE, f"ragflow-{members[1]}", f"ragflow-{members[2]}"}
    network = inspect(stack.network, "network")["Id"]
    assert {inspect(member)["NetworkSettings"]["Networks"][stack.network]["NetworkID"] for member in members} <= {network, ""}


def test_a_key_volume_that_was_removed_is_written_again(stack: Project) -> None:
    docker("rm", "-f", stack.container)
    docker("volume", "rm", f"{stack.container}-key")
    seen = stack.settle()
    assert set(seen) == {"reranker-key", "reranker-key-released", "reranker-key-file", *CONTAINER_ALONE}
    assert model_names(stack)


def test_a_ragflow_that_was_made_anew_is_attached_again(stack: Project, base_image: str) -> None:
    name = f"{stack.token}-ragflow-a"
    docker("rm", "-f", name)
    make_standin(name, image=base_image)
    assert set(stack.settle()) == {f"ragflow-{name}"}
    assert stack.network in inspect(name)["NetworkSettings"]["Networks"]


def test_a_ragflow_that_was_disconnected_is_attached_again(stack: Project) -> None:
    name = f"{stack.token}-ragflow-a"
    docker("network", "disconnect", stack.network, name)
    assert set(stack.settle()) == {f"ragflow-{name}"}
    answer = docker("exec", name, "curl", "-fsS", "-m", "30", "-H", f"Authorization: Bearer {stack.key}", f"http://{stack.container}:8000/v1/models")
    assert "qwen3-reranker-0.6b" in answer
