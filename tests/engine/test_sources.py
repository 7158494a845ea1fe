"""Every source of the model, from an empty volume to a healthy container, and what is left of it when a download is killed or a volume lost.

vLLM and model are stand-ins (tests/support/fakevllm); the download, its checks and the launcher are the real ones. tests/vllm has a real vLLM.
"""

import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.engine.test_deployed import model_names
from tests.support import fakevllm, hub
from tests.support.engine import Project, docker, inspect, reap

Make = Callable[..., Project]
WEIGHTS = "model.safetensors"
NOBODY = "http://127.0.0.1:9"
# A hub on this machine's loopback is out of the reach of a bridge.
ON_LOOPBACK = {"modelNetwork": "host"}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[fakevllm.Clone]:
    with fakevllm.clone(tmp_path_factory.mktemp("clone") / "vllm", base_image) as made:
        yield made


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakevllm.model(tmp_path_factory.mktemp("model") / "model")


def mount(stack: Project) -> tuple[str, str, bool]:
    """Type, name or path, and writability of what stands under the served model's name in the container."""
    [found] = [item for item in inspect(stack.container)["Mounts"] if item["Destination"] == f"/models/{fakevllm.SLUG}"]
    return found["Type"], found.get("Name") or found["Source"], found["RW"]


# -- hub ------------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mirror(model: Path) -> Iterator[hub.Hub]:
    with hub.serving(model, fakevllm.REPO, fakevllm.REVISION) as served:
        yield served


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, clone: fakevllm.Clone, mirror: hub.Hub) -> Iterator[tuple[Project, str]]:
    """A stack whose first mirror is dead, and what its up printed. The tests of it leave it as it is, but for the last, which destroys it."""
    stack = Project(tmp_path_factory.mktemp("served") / "project")
    try:
        stack.set(**clone.dials, **ON_LOOPBACK, modelMirrors=[NOBODY, mirror.url])
        yield stack, stack.up()
    finally:
        stack.close()
    assert stack.remains() == {}


def test_a_dead_mirror_is_given_up_and_the_next_one_fills_the_volume(served: tuple[Project, str], mirror: hub.Hub) -> None:
    stack, text = served
    assert f"mirror given up: {NOBODY} does not answer" in text
    assert f"from {mirror.url}: 4 files" in text
    assert "all checksums right" in text
    assert stack.preview() == {}
    assert mount(stack) == ("volume", f"{stack.container}-{fakevllm.SLUG}-{fakevllm.REVISION[:12]}", False)
    assert fakevllm.SLUG in model_names(stack)


def test_a_lost_volume_shows_in_the_preview_and_is_filled_again(served: tuple[Project, str], mirror: hub.Hub) -> None:
    stack, _ = served
    volume = mount(stack)[1]
    mirror.requests.clear()
    docker("rm", "-f", stack.container)
    docker("volume", "rm", volume)
    assert set(stack.settle()) == {
        f"model-volume-{fakevllm.SLUG}-{fakevllm.REVISION[:12]}",
        f"model-released-{fakevllm.SLUG}-{fakevllm.REVISION[:12]}",
        "model-populate",
        "reranker-container",
        "reranker-healthy",
    }
    assert mirror.ranges(WEIGHTS) == [""]
    assert mount(stack)[1] == volume


def test_destroy_keeps_the_volume_so_that_the_next_up_downloads_nothing_and_removes_it_where_model_keep_is_false(
    served: tuple[Project, str], mirror: hub.Hub
) -> None:
    stack, _ = served
    volume = mount(stack)[1]
    stack.destroy()
    assert stack.remains()["volume"] == [volume]
    mirror.requests.clear()
    stack.set(modelKeep=False)
    assert f"{fakevllm.REPO} at {fakevllm.REVISION} is already here, 4 files" in stack.up()
    assert mirror.settled() == []
    assert stack.preview() == {}
    stack.destroy()
    assert set(stack.remains()) == {"image"}


def test_progress_shows_while_it_downloads_and_a_killed_download_goes_on_where_it_was(project: Make, clone: fakevllm.Clone, tmp_path: Path) -> None:
    directory = fakevllm.model(tmp_path / "model", mib=24)
    with hub.serving(directory, fakevllm.REPO, fakevllm.REVISION, faults=hub.Faults(bytes_per_second=1 << 20, only=WEIGHTS)) as slow:
        stack = project(**clone.dials, **ON_LOOPBACK, modelMirrors=[slow.url])
        process = stack.start("up", "--yes", "--skip-preview", "--non-interactive")
        try:
            assert process.stdout
            seen = next((line for line in process.stdout if re.search(rf"{re.escape(WEIGHTS)}: \d+ MiB of 24 MiB, [\d.]+ MiB/s", line)), "")
            assert seen, "the up ended without a line of progress"
            # It was not printed at the end: the file is still on its way.
            assert not [request for request in slow.requests if "/lfs/" in request.path]
        finally:
            reap(process)
            process.communicate(timeout=30)
    port = int(slow.url.rsplit(":", 1)[1])
    with hub.serving(directory, fakevllm.REPO, fakevllm.REVISION, port=port) as quick:
        stack.run("cancel", "--yes")
        stack.up()
        [asked] = quick.ranges(WEIGHTS)
        assert re.fullmatch(r"bytes=[1-9]\d*-", asked)
        assert quick.sent(WEIGHTS) < (directory / WEIGHTS).stat().st_size
        assert stack.preview() == {}
    assert fakevllm.SLUG in model_names(stack)


# -- proxy ----------------------------------------------------------------------------------------------------------------------------------------


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Address of a proxy that reaches nothing, and the URLs that it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def test_a_download_goes_through_the_proxy_but_for_the_hosts_of_no_proxy(project: Make, clone: fakevllm.Clone) -> None:
    with proxy() as (address, asked):
        stack = project(**clone.dials, **ON_LOOPBACK, httpProxy=address, noProxy="127.0.0.1", modelMirrors=["http://hub.invalid", NOBODY])
        text = stack.refusal("up")
    assert asked
    assert all(url.startswith(f"http://hub.invalid/api/models/{fakevllm.REPO}/tree/{fakevllm.REVISION}") for url in asked)
    assert "http://hub.invalid answered 502" in text
    assert f"{NOBODY} does not answer" in text
    assert "check the network, httpsProxy and caBundle, or set modelMirrors" in text


# -- other sources --------------------------------------------------------------------------------------------------------------------------------


def test_modelscope_fills_the_volume_at_a_tag(project: Make, clone: fakevllm.Clone, model: Path) -> None:
    with hub.serving(model, fakevllm.REPO, "v1.0") as scope:
        stack = project(**{**clone.dials, "modelRevision": "v1.0"}, **ON_LOOPBACK, modelSource="modelscope", modelscopeEndpoint=scope.url)
        stack.up()
        assert any(request.path == f"/api/v1/models/{fakevllm.REPO}/repo/files" for request in scope.settled())
        assert stack.preview() == {}
    assert mount(stack) == ("volume", f"{stack.container}-{fakevllm.SLUG}-v1.0", False)
    assert fakevllm.SLUG in model_names(stack)


def test_a_directory_that_is_not_whole_is_refused_and_served_read_only_once_it_is(project: Make, clone: fakevllm.Clone, tmp_path: Path) -> None:
    directory = fakevllm.model(tmp_path / "model")
    whole = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(whole[:-1])
    (directory / "tokenizer.json").unlink()
    stack = project(**clone.dials, modelSource="directory", modelPath=str(directory))
    text = stack.refusal("up")
    assert (
        f"populate: the model in /models/{fakevllm.SLUG} is not whole, tokenizer.json is missing, {WEIGHTS} is cut off or no safetensors file" in text
    )
    assert "put the whole repository into the directory of modelPath" in text
    assert stack.container not in stack.remains().get("container", [])
    fakevllm.model(directory)
    stack.up()
    assert stack.preview() == {}
    assert mount(stack) == ("bind", str(directory), False)
    assert not [name for name in stack.remains()["volume"] if fakevllm.SLUG in name]


def test_an_archive_fills_the_volume_once_for_a_revision_and_one_that_is_not_whole_is_refused(
    project: Make, clone: fakevllm.Clone, model: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "it's a model.tar.gz"
    part = tmp_path / "part"
    shutil.copytree(model, part)
    (part / WEIGHTS).unlink()
    pack(part, archive)
    stack = project(**clone.dials, modelSource="archive", modelPath=str(archive))
    assert f"is not whole, {WEIGHTS} is missing: the archive must hold the whole repository" in stack.refusal("up")
    pack(model, archive)
    stack.up()
    assert stack.preview() == {}
    assert mount(stack)[0] == "volume"
    assert fakevllm.SLUG in model_names(stack)
    # The same revision is the same model, whatever became of the file.
    pack(model, archive)
    assert stack.preview() == {"model-populate": "replace"}
    serves = inspect(stack.container)["Id"]
    assert "for the model of another archive set modelRevision to another name" in stack.up()
    assert inspect(stack.container)["Id"] == serves


def pack(folder: Path, archive: Path) -> None:
    """The folder's files under one folder of a tar.gz, as a person packs a download."""
    with tarfile.open(archive, "w:gz") as made:
        made.add(folder, "Tiny-Reranker")
