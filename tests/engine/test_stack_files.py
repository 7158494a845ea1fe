"""The stack files as they are shipped, previewed down to real resources; nothing is contacted and nothing is made."""

import json
from collections.abc import Callable

import pytest

from tests.support.engine import Project, docker

REAL = {
    "host", "network", "network-bridge", "image", "image-base", "image-serving", "model", "model-volume-qwen3-reranker-0.6b-6e9e69830b95", "model-populate",
    "reranker", "reranker-cache", "reranker-container", "reranker-healthy", "ragflow", "deployment", "deployment-identity", "deployment-remembered",
    "network-released", "model-released-qwen3-reranker-0.6b-6e9e69830b95", "reranker-cache-released",
}  # fmt: skip


@pytest.mark.parametrize("like", ["laptop", "home-server"])
def test_the_stack_of_a_real_host_previews_every_resource(project: Callable[..., Project], like: str) -> None:
    memory = json.loads(docker("info", "--format", "{{.MemTotal}}")) / 2**30
    if memory < 10:
        pytest.skip(f"this Docker host has {memory:.1f} GiB of memory, and the dials of these stacks need 10")
    # Of the dials of the home server those stay that a smaller machine can carry.
    stack = project(like, backend=None, baseImage=None, cpus=1, dockerHost=None, **({"memoryGiB": 10} if like == "home-server" else {}))
    seen = stack.preview()
    assert {name for name in seen if not name.startswith("ragflow-reranker")} == REAL
    assert set(seen.values()) == {"create"}
    assert stack.remains() == {}
