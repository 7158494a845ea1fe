"""Every image strategy but the wheel, from its build to a healthy container, and the backends on top of them.

What stands in for vLLM is tests/support/fakevllm: it takes vLLM's arguments and serves the mock. tests/vllm builds and runs the real one.
"""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.engine.test_deployed import model_names
from tests.support import fakevllm
from tests.support.engine import Project, docker, free_port, inspect, reap, registry, wait_until

Make = Callable[..., Project]
CONTAINER_ALONE = {"reranker-container": "replace", "reranker-healthy": "replace"}


@pytest.fixture
def clone(tmp_path: Path, base_image: str) -> Iterator[fakevllm.Clone]:
    with fakevllm.clone(tmp_path / "vllm", base_image) as made:
        yield made


@pytest.fixture
def model(tmp_path: Path) -> dict[str, object]:
    """Dials of a model that is there already: a directory."""
    return {"modelSource": "directory", "modelPath": str(fakevllm.model(tmp_path / "model"))}


def best(stack: Project, query: str, *documents: str) -> str:
    """The document that the deployed reranker puts first."""
    body = json.dumps({"model": fakevllm.SLUG, "query": query, "documents": documents}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {stack.key}"}
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{stack.port}/v1/rerank", body, headers), timeout=30) as answer:
        return json.load(answer)["results"][0]["document"]["text"]


def test_a_local_clone_is_built_and_served_but_not_with_a_flag_that_vllm_does_not_know_and_a_changed_file_replaces_image_and_container_alone(
    project: Make, clone: fakevllm.Clone, model: dict[str, object]
) -> None:
    stack = project(**clone.dials, **model, vllmExtraArgs=["--no-such-flag"])
    stack.set_key("sk-rrt-behind-the-launcher")
    text = stack.refusal("up")
    assert "unrecognized arguments: --no-such-flag" in text
    assert f"{stack.container}: keeps stopping" in text
    stack.set(vllmExtraArgs=["--seed", "7"])
    stack.up()
    assert inspect(stack.container)["Args"][-2:] == ["--seed", "7"]
    assert model_names(stack) == {fakevllm.SLUG}
    assert best(stack, "capital of France", "Bananas are yellow", "Paris is the capital of France") == "Paris is the capital of France"
    with pytest.raises(urllib.error.HTTPError, match="403") as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{stack.port}/v1/models", timeout=30)
    refused.value.close()
    before = stack.outputs()["imageDigest"]
    clone.change()
    assert set(stack.settle()) == {"image-base", "image-serving", *CONTAINER_ALONE}
    after = stack.outputs()["imageDigest"]
    assert after != before
    assert inspect(stack.container)["Image"] == after


# -- a git URL ------------------------------------------------------------------------------------------------------------------------------------


def has_buildkit(cli: str) -> bool:
    """Whether `docker build` of this client can use BuildKit: up to 20.10 it has it inside, later it calls buildx."""
    if subprocess.run([cli, "buildx", "version"], capture_output=True, timeout=30, check=False).returncode == 0:
        return True
    version = subprocess.run([cli, "version", "--format", "{{.Client.Version}}"], capture_output=True, text=True, timeout=30, check=False)
    return version.stdout.startswith(("19.", "20."))


@pytest.fixture
def buildkit(tmp_path: Path) -> str:
    """PATH on which `docker` is a client with BuildKit."""
    for cli in (shutil.which("docker"), "/usr/bin/docker"):
        if cli and Path(cli).exists() and has_buildkit(cli):
            (tmp_path / "bin").mkdir()
            (tmp_path / "bin" / "docker").symlink_to(cli)
            return f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    pytest.skip("no docker client with BuildKit on this machine (apt-get install docker-buildx, or docker-buildx-plugin from docker.com)")


@pytest.fixture
def repository(tmp_path: Path, clone: fakevllm.Clone) -> Iterator[str]:
    """git URL of the clone with a tag of its version. As with vLLM's own file, the build needs the history: vLLM takes its version from the tag."""
    with (clone.folder / "docker" / "Dockerfile.cpu").open("a") as recipe:
        recipe.write(
            f"RUN --mount=type=bind,source=.git,target=/git test -e /git/refs/tags/v{clone.version} || grep -q refs/tags/v{clone.version} /git/packed-refs\n"
        )
    commit(clone)
    port = free_port()
    daemon = subprocess.Popen(
        ["git", "daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={tmp_path}", str(tmp_path)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    url = f"git://127.0.0.1:{port}/{clone.folder.name}"
    try:
        wait_until(lambda: subprocess.run(["git", "ls-remote", url], capture_output=True, timeout=30, check=False).returncode == 0, seconds=30)
        yield url
    finally:
        reap(daemon)


def commit(clone: fakevllm.Clone) -> None:
    """Commits all there is and sets the tag of its version."""
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    steps = (["init", "-q", "."], ["add", "."], [*identity, "commit", "-q", "-m", "stand-in"], ["tag", f"v{clone.version}"])
    for step in steps:
        subprocess.run(["git", *step], cwd=clone.folder, check=True, timeout=60)


def test_a_git_url_is_built_at_the_tag_of_the_version_with_its_history(
    project: Make, clone: fakevllm.Clone, repository: str, model: dict[str, object], buildkit: str
) -> None:
    stack = project(**{**clone.dials, "sourceContext": repository}, **model)
    stack.environment = {"PATH": buildkit}
    stack.up()
    assert stack.preview() == {}
    assert model_names(stack)
    assert docker("image", "inspect", "--format", "{{.Id}}", clone.tag).strip()


def test_a_git_url_with_a_docker_client_without_buildkit_ends_in_a_sentence_with_the_remedy(
    project: Make, clone: fakevllm.Clone, model: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    script = tmp_path / "old" / "docker"
    script.write_text(
        '#!/bin/sh\n[ "$1" != buildx ] || { echo "docker: unknown command: docker buildx" >&2; exit 1; }\n'
        f'case "$*" in "version --format {{{{.Client.Version}}}}") echo 28.2.2; exit;; esac\nexec {shutil.which("docker")} "$@"\n'
    )
    script.chmod(0o755)
    stack = project(**{**clone.dials, "sourceContext": "git://127.0.0.1:9/vllm"}, **model)
    stack.environment = {"PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}"}
    text = stack.refusal("up")
    assert (
        "imageStrategy source with a git URL needs BuildKit, which this docker client calls buildx and does not have: install docker-buildx" in text
    )
    assert "set sourceContext to the clone's path" in text
    assert "Traceback" not in text


# -- registry -------------------------------------------------------------------------------------------------------------------------------------


def built(clone: fakevllm.Clone, name: str) -> None:
    """The image of the clone under `name`, by hand."""
    docker("build", "-q", "-f", str(clone.folder / "docker" / "Dockerfile.cpu"), "-t", name, str(clone.folder))


def pushed(clone: fakevllm.Clone, name: str) -> str:
    """name:tag@digest of the clone's image, built and pushed and gone from here."""
    built(clone, name)
    docker("push", name)
    digest = json.loads(docker("image", "inspect", name))[0]["RepoDigests"][0].split("@")[1]
    docker("image", "rm", name)
    return f"{name}@{digest}"


def test_a_registrys_image_is_taken_by_digest_another_replaces_image_and_container_alone_and_one_out_of_reach_nothing(
    project: Make, clone: fakevllm.Clone, model: dict[str, object], tmp_path: Path
) -> None:
    with registry(tmp_path) as address:
        first = pushed(clone, f"{address}/stand-in/vllm:1")
        stack = project(**{**clone.dials, "sourceContext": None, "imageStrategy": "registry", "registryImage": first}, **model)
        stack.up()
        assert "image-base" not in stack.resources()
        assert model_names(stack)
        before = stack.outputs()["imageDigest"]
        clone.change()
        stack.set(registryImage=pushed(clone, f"{address}/stand-in/vllm:1"))
        assert set(stack.settle()) == {"image-serving", *CONTAINER_ALONE}
        assert stack.outputs()["imageDigest"] != before
    stands = inspect(stack.container)["Id"]
    stack.set(registryImage=f"{address}/stand-in/vllm:1@sha256:{'0' * 64}")
    text = stack.refusal("up")
    assert f"registryImage: {address}/stand-in/vllm:1@sha256:000" in text
    assert "connection refused" in text
    assert "Traceback" not in text
    assert inspect(stack.container)["Id"] == stands


# -- archive --------------------------------------------------------------------------------------------------------------------------------------


def saved(clone: fakevllm.Clone, name: str, path: Path) -> None:
    """docker save of the clone's image to a file, and the image gone from here."""
    built(clone, name)
    docker("save", "-o", str(path), name, timeout=300)
    docker("image", "rm", name)


def test_an_archive_is_loaded_and_another_tar_replaces_image_and_container_alone(
    project: Make, clone: fakevllm.Clone, model: dict[str, object], tmp_path: Path
) -> None:
    archive = tmp_path / "it's an image.tar"
    saved(clone, clone.tag, archive)
    other = {"sourceContext": None, "imageStrategy": "archive", "archivePath": str(archive), "archiveImage": "vllm-cpu:another"}
    stack = project(**{**clone.dials, **other}, **model)
    text = stack.refusal("up")
    assert "holds no image vllm-cpu:another; set archiveImage to the name:tag that docker load printed above" in text
    assert clone.tag in text
    stack.set(archiveImage=clone.tag)
    stack.up()
    assert model_names(stack)
    before = stack.outputs()["imageDigest"]
    clone.change()
    saved(clone, clone.tag, archive)
    assert set(stack.settle()) == {"image-base", "image-serving", *CONTAINER_ALONE}
    assert stack.outputs()["imageDigest"] != before


# -- gpu ------------------------------------------------------------------------------------------------------------------------------------------


def test_a_gpu_on_a_host_without_the_nvidia_runtime_is_refused_before_anything_is_made(
    project: Make, clone: fakevllm.Clone, model: dict[str, object]
) -> None:
    if "nvidia" in json.loads(docker("info", "--format", "{{json .Runtimes}}")):
        pytest.skip("this Docker host has the NVIDIA runtime")
    stack = project(**{**clone.dials, "backend": "gpu"}, **model)
    text = stack.refusal("up")
    assert "backend: 'gpu' needs the NVIDIA runtime" in text
    assert "install nvidia-container-toolkit there, or set backend to cpu" in text
    assert stack.remains() == {}
