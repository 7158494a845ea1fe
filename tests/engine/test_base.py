"""The image below, with the real engine: from a registry on this machine that stands for a mirror, or refused in the preview where none has it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.test_deployed import model_names
from tests.support.engine import Project, docker, free_port, registry

Make = Callable[..., Project]
NOWHERE = "127.0.0.1:9"


@pytest.fixture
def digest(base_image: str, tmp_path: Path) -> Iterator[str]:
    """Digest of an image of this test's own, which nobody but the registry in `tmp_path` has."""
    recipe = f"FROM {base_image}\nLABEL io.ragflow-reranker.test={tmp_path}\n"
    with registry(tmp_path) as address:
        name = f"{address}/library/python:{free_port()}"
        docker("build", "-q", "-t", name, "-", stdin=recipe)
        docker("push", name)
        pushed = json.loads(docker("image", "inspect", name))[0]["RepoDigests"][0].split("@")[1]
        docker("image", "rm", name)
    yield pushed
    docker("image", "rm", f"ragflow-reranker-base:{pushed[7:19]}", check=False)
    for known in docker("image", "ls", "--no-trunc", "--format", "{{.Repository}}@{{.Digest}}").split():
        if known.endswith(pushed):
            docker("image", "rm", known, check=False)


def test_the_base_comes_from_the_first_registry_that_has_it_and_neither_another_order_nor_none_at_all_makes_anything_anew(
    project: Make, digest: str, tmp_path: Path
) -> None:
    stack = project(baseImage=f"python:3.12@{digest}", imageRegistries=[NOWHERE], imageFromPackages=False)
    text = stack.refusal()
    assert "cannot be had on this Docker host. Tried:" in text
    assert f"- {NOWHERE}/library/python: " in text
    assert "connection refused" in text
    assert "imageRegistries: a registry that the Docker host reaches" in text
    assert "Traceback" not in text
    assert stack.remains() == {}
    with registry(tmp_path) as address:
        stack.set(imageRegistries=[NOWHERE, address])
        assert f"would be pulled from {address}/library/python, after {NOWHERE}/library/python" in stack.shown()
        assert stack.remains() == {}
        stack.up()
        assert model_names(stack)
        stack.set(imageRegistries=[address, NOWHERE])
        assert stack.preview() == {}
    stack.set(imageRegistries=[NOWHERE])
    assert stack.preview() == {}


def test_a_build_that_fails_ends_in_a_sentence_with_the_key(project: Make) -> None:
    stack = project(caBundle="company.crt")
    (stack.root / "certs" / "company.crt").write_bytes(b"\x30\x82 not PEM")
    said = stack.root / "said"
    stack.environment["RERANKER_SAID_FILE"] = str(said)
    text = stack.refusal("up")
    sentence = "the image build failed because the file that caBundle names is not PEM: convert it as certs/README.md says"
    assert sentence in text
    assert "Traceback" not in text
    # what make repeats as the last line
    assert said.read_text() == f"{sentence}\n"
