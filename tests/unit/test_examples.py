"""examples/, pasted into the program as their README says: what they declare beside it, and that no name is taken twice."""

from collections import Counter
from pathlib import Path

import pytest

from tests.support import examples
from tests.support.recording import ROOT, Recorded, run_program
from tests.unit.builders import a_host, a_ragflow

CONTAINER = "docker:index/container:Container"
KEY = "sk-rrd-0123456789"


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return run_program({"apiKey": KEY}, a_host(containers=(a_ragflow(),)), examples.project(tmp_path))


def test_the_readme_has_lines_for_every_example() -> None:
    assert set(examples.lines()) == {"A second reranker", "Another service"}
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"}
    assert {line.split()[1] for text in examples.lines().values() for line in text.splitlines() if line.startswith("from ")} == {
        f"examples.{name}" for name in files
    }


def test_no_name_is_taken_twice_by_the_engine_or_on_the_host(recorded: Recorded) -> None:
    named = [(item.type, item.inputs["name"]) for item in recorded.resources if item.type.startswith("docker:") and item.inputs.get("name")]
    ports = [port["external"] for item in recorded.of(CONTAINER) for port in item.inputs.get("ports") or []]
    for things in ([item.urn for item in recorded.resources], named, ports):
        assert [thing for thing, count in Counter(things).items() if count > 1] == []


def test_what_was_there_without_them_stays_as_it_was(recorded: Recorded) -> None:
    plain = run_program({"apiKey": KEY}, a_host(containers=(a_ragflow(),)))
    beside = {item.urn: item for item in recorded.resources}
    assert {item.urn for item in plain.resources} < beside.keys()
    assert {item.type for item in recorded.resources} == {item.type for item in plain.resources}
    assert {name: value for name, value in recorded.exports.items() if name in plain.exports} == plain.exports


def test_the_second_reranker_shares_image_network_and_model_and_has_its_own_name_key_and_instruction(recorded: Recorded) -> None:
    first, second = (recorded.named(f"{name}-container").inputs for name in ("reranker", "second"))
    assert second["name"] == second["hostname"] == "ragflow-vllm-reranker-code"
    assert (second["image"], second["networksAdvanced"], second["ports"]) == (first["image"], first["networksAdvanced"], [])
    shared = [mount["source"] for mount in second["mounts"] if mount in first["mounts"]]
    assert shared == ["ragflow-vllm-reranker-qwen3-reranker-0.6b-6e9e69830b95"]
    assert {mount["source"] for mount in second["mounts"]} - set(shared) == {"ragflow-vllm-reranker-code-cache", "ragflow-vllm-reranker-code-key"}
    assert [new for old, new in zip(first["command"], second["command"], strict=True) if old != new] == [
        "Given a question about a program, retrieve code that answers it",
        "5",
    ]
    assert recorded.exports["secondUrl"] == "http://ragflow-vllm-reranker-code:8000/v1"


def test_the_companion_is_on_the_network_and_nowhere_else_and_uses_the_stacks_docker_host(recorded: Recorded) -> None:
    companion, reranker = recorded.named("companion-ragflow-vectors"), recorded.named("reranker-container")
    assert [end["name"] for end in companion.inputs["networksAdvanced"]] == ["docker-ragflow"]
    assert not companion.inputs.get("ports")
    assert companion.provider == reranker.provider != ""
    assert {item["value"] for item in companion.inputs["labels"]} < {item["value"] for item in reranker.inputs["labels"]}
    assert recorded.exports["vectorsUrl"] == "http://ragflow-vectors:6333"


def test_the_mock_takes_them_too(tmp_path: Path) -> None:
    recorded = run_program({"backend": "mock"}, a_host(), examples.project(tmp_path))
    assert len(recorded.of(CONTAINER)) == 3
