"""components/_leftovers.py: what an interrupted up left is removed just before its name is needed, and nothing else."""

import asyncio
import inspect
import os
from pathlib import Path
from typing import Any

import pytest

from components import _leftovers
from tests.support.recording import record

OWNER = "ragflow-reranker/test"


def clear(folder: Path, monkeypatch: pytest.MonkeyPatch, *, kind: str, found: str, status: int = 0) -> list[list[str]]:
    """Runs the hook against a docker that finds `found`; what it was asked, with the DOCKER_HOST that it saw in front."""
    docker = folder / "docker"
    docker.write_text(
        f'#!/bin/sh\n{{ printf "%s" "$DOCKER_HOST"; printf "\\037%s" "$@"; echo; }} >> {folder}/log\n'
        f'[ "$2" = rm ] || {{ printf "{found}"; exit 0; }}\necho "no can do" >&2\nexit {status}\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def program() -> None:
        bound: Any = _leftovers.cleared("x", kind=kind, called="ragflow-vllm-reranker", owner=OWNER, environment={"DOCKER_HOST": "ssh://box"})
        [hook] = bound.before_create
        answer = hook.callback(None)
        if inspect.isawaitable(answer):
            asyncio.get_running_loop().run_until_complete(answer)

    record(program)
    return [line.split("\037") for line in (folder / "log").read_text().splitlines()]


FILTERS = ["--filter", f"label=io.ragflow-reranker.owner={OWNER}", "--filter", "name=^/?ragflow-vllm-reranker$"]


@pytest.mark.parametrize(("kind", "every", "force"), [("container", ["--all"], ["--force"]), ("network", [], [])])
def test_a_leftover_of_this_stack_is_removed_on_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, every: list[str], force: list[str]
) -> None:
    assert clear(tmp_path, monkeypatch, kind=kind, found="0123\\n") == [
        ["ssh://box", kind, "ls", "--quiet", *every, *FILTERS], ["ssh://box", kind, "rm", *force, "0123"]
    ]  # fmt: skip


def test_where_nothing_was_left_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [call[2] for call in clear(tmp_path, monkeypatch, kind="container", found="")] == ["ls"]


def test_a_leftover_that_cannot_be_removed_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError) as failed:
        clear(tmp_path, monkeypatch, kind="network", found="0123\\n", status=1)
    assert str(failed.value) == (
        "what an interrupted up left could not be removed: docker network rm 0123: no can do; remove it by hand and run pulumi up again"
    )
