"""An up that was broken off: the next one ends it, whatever was made meanwhile and could not be written down."""

import signal
from collections.abc import Callable

import pytest

from tests.support.engine import Project, docker, inspect

WATCHED = {"network": ("network", "ls", "-q", "--filter", "name=^{0.network}$"), "container": ("ps", "-aq", "--filter", "name=^/{0.container}$")}


def interrupted(stack: Project, thing: str, how: signal.Signals) -> None:
    """An up ended by the signal as soon as the thing is on the host."""
    watch = [word.format(stack) for word in WATCHED[thing]]
    stack.interrupt(lambda: bool(docker(*watch).strip()), how)


def check_whole(stack: Project) -> None:
    assert stack.preview() == {}
    assert inspect(stack.container)["State"]["Health"]["Status"] == "healthy"
    assert stack.network in inspect(stack.container)["NetworkSettings"]["Networks"]


def test_an_up_that_was_broken_off_politely_is_ended_by_the_next(project: Callable[..., Project]) -> None:
    stack = project()
    interrupted(stack, "container", signal.SIGINT)
    stack.up()
    check_whole(stack)


@pytest.mark.parametrize("thing", WATCHED)
def test_an_up_that_was_killed_is_ended_by_the_next_once_its_lock_is_given_up(project: Callable[..., Project], thing: str) -> None:
    stack = project()
    interrupted(stack, thing, signal.SIGKILL)
    assert "pulumi cancel" in stack.refusal("up")
    stack.run("cancel", "--yes")
    stack.up()
    check_whole(stack)
    stack.destroy()
    assert set(stack.remains()) == {"image"}
