"""components/_leftovers.py: what an interrupted up left is removed just before its name is needed, and nothing of anybody else."""

import asyncio
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components import _leftovers
from host import labels
from tests.support.recording import record
from tests.unit.builders import a_deployment

OURS = {labels.OWNER: a_deployment().owner}
THEIRS = {labels.OWNER: "ragflow-reranker/test/ffffffff"}
NAME = "name=^/?ragflow-vllm-reranker$"


def clear(folder: Path, monkeypatch: pytest.MonkeyPatch, *, kind: str, found: Mapping[str, str] | None, status: int = 0) -> list[list[str]]:
    """Runs the hook against a docker that finds a thing with these labels; what it was asked, with the DOCKER_HOST that it saw in front."""
    seen = json.dumps([{"Id": "0123", "Labels": found, "Config": {"Labels": found}}])
    docker = folder / "docker"
    docker.write_text(
        f'#!/bin/sh\n{{ printf "%s" "$DOCKER_HOST"; printf "\\037%s" "$@"; echo; }} >> {folder}/log\n'
        f"case $2 in ls) echo {'0123' if found is not None else ''}; exit 0 ;; inspect) printf '%s' '{seen}'; exit 0 ;; esac\n"
        f'echo "no can do" >&2\nexit {status}\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def program() -> None:
        bound: Any = _leftovers.cleared(
            "x", kind=kind, called="ragflow-vllm-reranker", ours=a_deployment().runs, environment={"DOCKER_HOST": "ssh://box"}
        )
        [hook] = bound.before_create
        answer = hook.callback(None)
        if inspect.isawaitable(answer):
            asyncio.get_running_loop().run_until_complete(answer)

    record(program)
    return [line.split("\037") for line in (folder / "log").read_text().splitlines()]


@pytest.mark.parametrize(("kind", "every", "force"), [("container", ["--all"], ["--force"]), ("network", [], [])])
def test_a_leftover_of_this_deployment_is_removed_on_its_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, every: list[str], force: list[str]
) -> None:
    assert clear(tmp_path, monkeypatch, kind=kind, found=OURS) == [
        ["ssh://box", kind, "ls", "--quiet", *every, "--filter", NAME], ["ssh://box", kind, "inspect", "0123"], ["ssh://box", kind, "rm", *force, "0123"]
    ]  # fmt: skip


def test_a_volume_of_ours_stays_for_the_daemon_gives_the_same_one_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [call[2] for call in clear(tmp_path, monkeypatch, kind="volume", found=OURS)] == ["ls", "inspect"]


def test_where_nothing_was_left_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [call[2] for call in clear(tmp_path, monkeypatch, kind="container", found=None)] == ["ls"]


@pytest.mark.parametrize("kind", ["container", "network", "volume"])
@pytest.mark.parametrize("found", [THEIRS, {}])
def test_what_somebody_else_made_since_the_preview_is_neither_removed_nor_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, found: Mapping[str, str]
) -> None:
    with pytest.raises(
        RuntimeError, match="was made meanwhile, and not by this deployment: nothing of it was touched; pulumi preview says whose it is"
    ):
        clear(tmp_path, monkeypatch, kind=kind, found=found)
    assert " rm" not in (tmp_path / "log").read_text().replace("\037", " ")


def test_a_leftover_that_cannot_be_removed_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError) as failed:
        clear(tmp_path, monkeypatch, kind="network", found=OURS, status=1)
    assert str(failed.value) == (
        "what an interrupted up left could not be removed: docker network rm 0123: no can do; remove it by hand and run pulumi up again"
    )
