"""Two checkouts with one stack name on one daemon: each leaves the other's container, volumes and network alone, in whatever order they come, break off and go."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.test_interrupted import interrupted
from tests.support.engine import Project, inspect, standin

Make = Callable[..., Project]


@pytest.fixture
def twins(tmp_path: Path, base_image: str) -> Iterator[tuple[Project, Project]]:
    """Two copies of the repository with the same stack and the same names on the host, each with a state of its own."""
    first = Project(tmp_path / "first")
    second = Project(tmp_path / "second", token=first.token)
    for one in (first, second):
        one.set(baseImage=base_image, hostPort=0)
    yield first, second
    for one in (first, second):
        one.close()
        assert one.remains() == {}


def identity(stack: Project) -> str:
    return stack.owner.split("/")[-1]


def test_the_second_is_told_whose_it_is_and_either_takes_it_over_or_stands_beside_the_first(twins: tuple[Project, Project], base_image: str) -> None:
    first, second = twins
    with standin(f"{first.token}-ragflow", image=base_image) as ragflow:
        for one in twins:
            one.set(ragflowMode="attach", ragflowContainers=[ragflow])
        first.up()
        made = inspect(first.container)["Id"]
        said = second.refusal("up")
        assert (
            f"container '{first.container}' and volume '{first.container}-cache' exist already, made by another deployment, {identity(first)}" in said
        )
        assert str(first.root) in said
        assert f"TAKE_OVER={identity(first)}" in said
        second.destroy()
        assert (inspect(first.container)["Id"], first.preview()) == (made, {})

        second.environment["TAKE_OVER"] = identity(first)
        second.up()
        del second.environment["TAKE_OVER"]
        assert second.preview() == {}
        assert f"made by another deployment, {identity(second)}" in first.refusal()
        # who made the network goes first: at once, with sentences, and nothing of the other one, nor its way to RAGFlow, is touched
        said = first.destroy()
        assert f"volume {first.container}-cache is left to what uses it: {first.container}" in said
        assert f"network {first.network} is left to what is on it: " in said
        assert f"{ragflow} stays on {first.network}, where it calls another deployment's reranker" in said
        assert second.preview() == {}

        first.set(containerName=f"{first.token}-beside")
        first.up()
        assert (first.preview(), second.preview()) == ({}, {})
        assert f"network {first.network} is left to what is on it" in second.destroy()
        assert first.preview() == {}
        first.destroy()
        assert set(first.remains()) == {"container", "image"}  # RAGFlow's


def test_what_a_killed_up_left_is_its_own_to_clear_and_nobody_elses(twins: tuple[Project, Project]) -> None:
    first, second = twins
    interrupted(first, "container", signal.SIGKILL)
    left = inspect(first.container)["Id"]
    assert f"container '{first.container}'" in second.refusal("up")
    assert inspect(first.container)["Id"] == left
    first.run("cancel", "--yes")
    first.up()
    assert first.preview() == {}


def test_lost_state_is_mended_in_one_step_and_a_kept_model_stays_with_its_own(project: Make, foreign: Callable[..., str]) -> None:
    stack = project(modelKeep=False)
    stack.up()
    lost = identity(stack)
    shutil.rmtree(stack.root / "state")
    (stack.root / "state").mkdir()
    stack.run("stack", "init", stack.stack)
    said = stack.refusal()
    assert f"TAKE_OVER={lost}" in said
    stack.environment["TAKE_OVER"] = lost
    stack.up()
    del stack.environment["TAKE_OVER"]
    assert stack.preview() == {}
    # a destroyed stack is the same deployment when it comes again
    taken = identity(stack)
    stack.destroy()
    stack.up()
    assert identity(stack) == taken
    copy = stack.root.parent / "copy"
    shutil.copytree(stack.root, copy, symlinks=True)
    original, stack.root = stack.root, copy
    try:
        assert re.search(rf"this folder is a copy of {original}", stack.refusal())
    finally:
        stack.root = original
        shutil.rmtree(copy)
