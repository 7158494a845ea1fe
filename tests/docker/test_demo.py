"""The demo, under another name than a person's: what it shows, twice in a row, and that it goes without a trace."""

import secrets
from collections.abc import Iterator

import docker
import pytest

from tests.support import baseimage, demo
from tests.support.place import Place


@pytest.fixture
def corner() -> Iterator[Place]:
    """Where the demo of this test is; emptied in any case."""
    place = Place(baseimage.ensure(), token=f"rrd{secrets.token_hex(4)}-demo")
    yield place
    place.remove()


def test_the_demo_shows_the_best_document_first_and_may_be_called_again(corner: Place) -> None:
    said: list[str] = []
    demo.up(lambda _: None, name=corner.token)
    demo.up(said.append, name=corner.token)
    ranked = [line.split("  ")[1:] for line in said if line.startswith("  0.")]
    assert ranked[0][1] == "The warranty on the battery is two years, on everything else one."
    assert {document for _, document in ranked} == set(demo.DOCUMENTS)
    assert [score for score, _ in ranked] == sorted((score for score, _ in ranked), reverse=True)
    demo.down(said.append, name=corner.token)
    assert "The demo is gone." in said
    assert corner.remains() == []
    with pytest.raises(docker.errors.ImageNotFound):
        corner.client.images.get(f"{corner.container}:mock")


def test_the_demo_down_with_no_demo_says_so(corner: Place) -> None:
    said: list[str] = []
    demo.down(said.append, name=corner.token)
    assert said[0] == "There was no demo."


def test_the_demo_leaves_a_container_of_others_under_its_name_alone(corner: Place) -> None:
    corner.labels = {"somebody": "else"}
    name = corner.standin()
    before = corner.client.api.inspect_container(name)
    with pytest.raises(demo.Refused, match=f"a container '{name}' exists and is not the demo's"):
        demo.up(lambda _: None, name=corner.token)
    assert corner.client.api.inspect_container(name) == before
