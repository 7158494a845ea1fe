"""Stacks of the mock backend on this machine's daemon, applied by tests/support/daemon.py. Each test leaves the daemon as it found it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support import baseimage
from tests.support.daemon import Done
from tests.support.place import Place, free_port
from tests.support.processes import Watch

API_KEY = "sk-rrd-7d1c0a94be35f268"


@pytest.fixture(scope="session")
def base_image() -> str:
    return baseimage.ensure()


@pytest.fixture
def place(base_image: str) -> Iterator[Place]:
    """An empty place."""
    here = Place(base_image)
    try:
        yield here
        here.stack.down()
    finally:
        here.remove()


@dataclass
class Deployed:
    """A place where a stack with a key is up, beside a running and a stopped RAGFlow. `commands`: argv of every process seen while it came up."""

    place: Place
    key: str
    port: int
    running: str
    stopped: str
    done: Done
    commands: frozenset[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def inside(self) -> str:
        """Base URL as RAGFlow is told it."""
        return str(self.done.exports["internalUrl"])


@pytest.fixture(scope="session")
def deployed(base_image: str) -> Iterator[Deployed]:
    """A test that changes it puts it back."""
    place, port = Place(base_image), free_port()
    try:
        running, stopped = place.standin("ragflow-cpu-1"), place.standin("ragflow-gpu-1", service="ragflow-gpu", running=False)
        place.config.update(apiKey=API_KEY, hostPort=port)
        with Watch() as watch:
            done = place.up()
        yield Deployed(place, API_KEY, port, running, stopped, done, frozenset(watch.seen))
        place.stack.down()
    finally:
        place.remove()
