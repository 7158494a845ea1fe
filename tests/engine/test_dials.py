"""A changed dial replaces what it must and touches nothing else."""

import urllib.error
import urllib.request

from tests.support.engine import Project, free_port, inspect

CONTAINER_ALONE = {"reranker-container": "replace", "reranker-healthy": "replace"}


def test_another_number_of_cpus_replaces_the_container_alone(stack: Project) -> None:
    before = inspect(stack.container)["HostConfig"]["NanoCpus"]
    assert before == 1_000_000_000
    stack.set(cpus=2)
    assert stack.settle() == CONTAINER_ALONE
    assert inspect(stack.container)["HostConfig"]["NanoCpus"] == 2_000_000_000


def test_another_port_replaces_the_container_alone_and_shows_in_the_outputs(stack: Project) -> None:
    stack.port = free_port()
    stack.set(hostPort=stack.port)
    assert stack.settle() == CONTAINER_ALONE
    assert stack.outputs()["hostUrl"] == f"http://127.0.0.1:{stack.port}/v1"


def test_a_changed_serving_file_rebuilds_the_image_and_replaces_the_container(stack: Project) -> None:
    before = stack.outputs()["imageDigest"]
    with (stack.root / "serving" / "mock.py").open("a") as source:
        source.write("# changed\n")
    seen = stack.settle()
    assert set(seen) == {"image-serving", *CONTAINER_ALONE}
    after = stack.outputs()["imageDigest"]
    assert after != before
    assert inspect(stack.container)["Image"] == after


def test_a_file_that_the_image_does_not_hold_changes_nothing(stack: Project) -> None:
    (stack.root / "README.md").write_text("changed\n")
    (stack.root / "serving" / "__pycache__").mkdir(exist_ok=True)
    (stack.root / "serving" / "__pycache__" / "mock.cpython-311.pyc").write_bytes(b"changed")
    assert stack.preview() == {}


def test_a_rotated_key_rewrites_the_key_file_and_replaces_the_container(stack: Project) -> None:
    former = stack.key
    stack.set_key(f"{former}-rotated")
    assert set(stack.settle()) == {"reranker-key-file", *CONTAINER_ALONE}
    assert status(stack, stack.key) == 200
    assert status(stack, former) == 403


def status(stack: Project, key: str) -> int:
    """HTTP status of the list of models with that key."""
    request = urllib.request.Request(f"http://127.0.0.1:{stack.port}/v1/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
