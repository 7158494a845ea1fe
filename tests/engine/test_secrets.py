"""apiKey and modelToken are in no state, no log, no inspect, and in nobody's list of processes; and what destroy leaves is what it promised."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.conftest import API_KEY, MODEL_TOKEN
from tests.support.engine import Project, docker, inspect, standin

Make = Callable[..., Project]


class Processes:
    """Every command line on this machine while it watches, by looking all the time."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Processes":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=30)

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue  # ended meanwhile


def docker_knows(stack: Project) -> str:
    """All that the daemon tells of the stack's things, their logs and images included."""
    told = []
    for kind, names in stack.remains().items():
        for name in names:
            told.append(docker(kind, "inspect", name))
            told.append(docker("logs", name) if kind == "container" else docker("history", "--no-trunc", name) if kind == "image" else "")
    return "\n".join(told)


def files_with(root: Path, text: str) -> list[str]:
    """Files below a folder that hold the text; links are not followed."""
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink() and ".venv" not in path.parts)
    return [str(path) for path in files if text.encode() in path.read_bytes()]


def test_the_key_is_nowhere_to_be_read(project: Make) -> None:
    stack = project()
    stack.set_key(API_KEY)
    with Processes() as processes:
        told = stack.up() + stack.shown() + stack.refresh()
    assert any(" key --target /run/reranker/api_keys" in line for line in processes.seen)
    assert not [line for line in processes.seen if API_KEY in line]
    assert API_KEY not in told
    assert API_KEY not in stack.export()
    known = docker_knows(stack)
    assert stack.container in known
    assert API_KEY not in known
    # state, its history and backups, and the engine's own logs
    assert files_with(stack.root, API_KEY) == []
    assert API_KEY not in json.dumps(stack.outputs())


@pytest.fixture
def downloading(project: Make, base_image: str, tmp_path: Path) -> Project:
    """A stack with a model from a mirror that is dead, on an image without vLLM: its up gets as far as the download."""
    archive = tmp_path / "image.tar"
    docker("save", "-o", str(archive), base_image, timeout=300)
    stack = project(
        backend="cpu", imageStrategy="archive", archivePath=str(archive), archiveImage=base_image, baseImage=None, memoryGiB=7,
        modelMirrors=["http://127.0.0.1:9"], modelTokenHosts=["http://127.0.0.1:9"],
    )  # fmt: skip
    stack.set_secret("modelToken", MODEL_TOKEN)
    return stack


def test_the_token_is_nowhere_to_be_read_and_destroy_keeps_the_model_volume_unless_told_otherwise(downloading: Project) -> None:
    stack = downloading
    with Processes() as processes:
        told = stack.refusal("up")
    assert any(" populate --source hub" in line for line in processes.seen)
    assert not [line for line in processes.seen if MODEL_TOKEN in line]
    assert "http://127.0.0.1:9" in told
    assert MODEL_TOKEN not in told
    assert MODEL_TOKEN not in stack.export()
    assert files_with(stack.root, MODEL_TOKEN) == []
    assert MODEL_TOKEN not in docker_knows(stack)
    # the reranker never starts on a model that is not whole
    assert not stack.remains().get("container")
    stack.destroy()
    kept = stack.remains()
    assert set(kept) == {"volume", "image"}
    assert [name for name in kept["volume"] if not name.startswith(f"{stack.container}-qwen3-reranker-0.6b-")] == []

    stack.set(modelKeep=False)
    stack.refusal("up")
    assert set(stack.remains()["volume"]) > set(kept["volume"])
    stack.destroy()
    assert set(stack.remains()) == {"image"}


def test_destroy_leaves_the_image_alone_and_lets_ragflow_go(project: Make, base_image: str) -> None:
    stack = project()
    with standin(f"{stack.token}-ragflow", image=base_image) as name:
        stack.set(ragflowMode="attach", ragflowContainers=[name])
        stack.up()
        assert stack.network in inspect(name)["NetworkSettings"]["Networks"]
        stack.destroy()
        assert list(inspect(name)["NetworkSettings"]["Networks"]) == ["bridge"]
        assert stack.remains() == {"container": [name], "image": [f"{stack.container}:mock"]}
        assert stack.resources() == []
