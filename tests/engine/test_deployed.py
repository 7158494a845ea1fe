"""What stands after an up: nothing left to change, and everything that the outputs promise."""

import json
import os
import re
import subprocess
import urllib.request

import pytest

from tests.support.engine import Project, docker, inspect, standin

OUTPUTS = {
    "attachedContainers", "composeOverride", "containerName", "dockerHost", "hostUrl", "imageDigest", "internalUrl", "modelName", "networkName", "ragflow", "verify"
}  # fmt: skip


def test_the_preview_after_an_up_shows_no_change_of_resources_or_outputs(stack: Project) -> None:
    text = stack.shown()
    assert stack.preview() == {}
    assert not re.search(r"^Outputs:", text, re.MULTILINE)
    assert re.search(r"^\s+\d+ unchanged$", text, re.MULTILINE)


def test_an_up_that_has_nothing_to_do_changes_no_container_and_no_output(stack: Project) -> None:
    before, outputs = inspect(stack.container)["Id"], stack.outputs()
    text = stack.up()
    assert inspect(stack.container)["Id"] == before
    assert stack.outputs() == outputs
    assert not re.search(r"^\s+[+~-]+ ?\d+ (created|updated|replaced|deleted)", text, re.MULTILINE)


def test_a_refresh_finds_what_the_up_wrote(stack: Project) -> None:
    assert "unchanged" in stack.refresh()
    assert stack.preview() == {}


def test_the_outputs_are_the_documented_ones_and_say_what_stands(stack: Project) -> None:
    found = stack.outputs()
    assert set(found) == OUTPUTS
    assert found["containerName"] == stack.container
    assert found["networkName"] == stack.network
    assert found["internalUrl"] == f"http://{stack.container}:8000/v1"
    assert found["hostUrl"] == f"http://127.0.0.1:{stack.port}/v1"
    assert found["imageDigest"] == inspect(stack.container)["Image"]
    assert found["attachedContainers"] == [f"{stack.token}-ragflow-a", f"{stack.token}-ragflow-b"]
    assert found["ragflow"]["baseUrl"] == found["internalUrl"]
    assert found["modelName"] in model_names(stack)


def model_names(stack: Project) -> set[str]:
    request = urllib.request.Request(f"http://127.0.0.1:{stack.port}/v1/models", headers={"Authorization": f"Bearer {stack.key}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {item["id"] for item in json.load(answer)["data"]}


@pytest.mark.parametrize("which", ["a", "b"])
def test_ragflow_containers_are_on_the_network_running_or_not(stack: Project, which: str) -> None:
    assert stack.network in inspect(f"{stack.token}-ragflow-{which}")["NetworkSettings"]["Networks"]


def test_every_verify_command_reranks_when_it_is_pasted_into_a_shell(stack: Project) -> None:
    stopped = f"{stack.token}-ragflow-b"
    commands = stack.outputs()["verify"]
    assert [command.split()[0] for command in commands] == ["docker", "docker", "printf"]
    docker("start", stopped)
    try:
        for command in commands:
            done = subprocess.run(
                ["sh", "-c", command], env={**os.environ, "RERANK_API_KEY": stack.key}, capture_output=True, text=True, timeout=90, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stderr}"
            best = max(json.loads(done.stdout)["results"], key=lambda result: result["relevance_score"])
            assert best["document"]["text"] == "Paris is the capital of France"
    finally:
        docker("stop", "-t", "0", stopped)


def test_the_verify_commands_are_refused_without_the_key(stack: Project) -> None:
    command = stack.outputs()["verify"][-1]
    environment = {key: value for key, value in os.environ.items() if key != "RERANK_API_KEY"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode != 0
    assert "403" in done.stderr


def test_a_preview_finds_ragflow_by_the_label_that_compose_gives_it(stack: Project, base_image: str) -> None:
    name = f"{stack.token}-found"
    try:
        with standin(name, image=base_image, labels={"com.docker.compose.service": "ragflow-cpu"}):
            stack.set(ragflowContainers=None)
            assert stack.preview()[f"ragflow-{name}"] == "create"
    finally:
        stack.set(ragflowContainers=[f"{stack.token}-ragflow-a", f"{stack.token}-ragflow-b"])
