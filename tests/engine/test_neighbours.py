"""Others on the same daemon: a second stack, and a network that somebody made by hand."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.engine.test_deployed import model_names
from tests.support.engine import Project, docker, inspect

Make = Callable[..., Project]


def test_two_stacks_come_up_on_one_daemon_at_once_and_leave_each_other_alone(project: Make) -> None:
    both = [project(), project()]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Project.up, both))
        assert list(pool.map(Project.preview, both)) == [{}, {}]
    first, second = both
    first.destroy()
    assert not first.remains().get("container")
    assert model_names(second)
    assert second.preview() == {}


def test_a_network_made_by_hand_is_adopted_and_survives_destroy(project: Make, foreign: Callable[..., str]) -> None:
    stack = project()
    made = foreign("network", stack.network)
    assert "network-bridge" not in stack.settle()
    assert stack.network in inspect(stack.container)["NetworkSettings"]["Networks"]
    assert stack.outputs()["networkName"] == stack.network
    stack.destroy()
    assert json.loads(docker("network", "inspect", stack.network))[0]["Id"] == made
    assert stack.remains() == {"network": [stack.network], "image": [f"{stack.container}:mock"]}


def test_an_adopted_network_that_was_made_anew_shows_and_is_taken_again(project: Make, foreign: Callable[..., str]) -> None:
    stack = project()
    foreign("network", stack.network)
    stack.up()
    docker("network", "disconnect", "-f", stack.network, stack.container)
    docker("network", "rm", stack.network)
    made = foreign("network", stack.network)
    assert set(stack.settle()) == {"network-released", "reranker-container", "reranker-healthy"}
    assert inspect(stack.container)["NetworkSettings"]["Networks"][stack.network]["NetworkID"] == made
