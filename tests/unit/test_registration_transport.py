"""registration/transport.py: over HTTP on loopback, and through `docker exec` with a docker that runs the tool on this machine instead."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host.docker import Docker
from registration.api import Api
from registration.calls import Call
from registration.entry import Entry, Place
from registration.standing import look
from registration.transport import Http, InContainer, Unreachable, transport
from registration.verbs import register
from tests.support.engine import free_port
from tests.support.ragflow_api import KEY, RagflowApi, served

ENTRY = Entry(instance="mine", model="m-rerank", base_url="http://mine:8000/v1", max_tokens=4096, api_key='sk-"quoted"\\key')


@pytest.fixture
def ragflow() -> RagflowApi:
    return RagflowApi("v0.27.0", verify=lambda *_: "")


@pytest.fixture
def url(ragflow: RagflowApi) -> Iterator[str]:
    with served(ragflow) as address:
        yield address


class Inside:
    """Runs what `docker exec` would, on this machine, with the tools in a folder alone; keeps every argv and environment."""

    def __init__(self, tools: Path) -> None:
        self.tools, self.argvs, self.inputs = tools, list[list[str]](), list[str]()

    def __call__(self, argv: list[str], **options: Any) -> "subprocess.CompletedProcess[str]":
        assert argv[:2] == ["docker", "exec"]
        self.argvs.append(argv)
        self.inputs.append(options.get("input", ""))
        inner = argv[argv.index("ragflow") + 1 :]
        options["env"] = {"PATH": str(self.tools)}
        if inner[0] not in ("sh", *(path.name for path in self.tools.iterdir())):
            return subprocess.CompletedProcess(argv, 126, "", f'exec: "{inner[0]}": executable file not found in $PATH')
        return subprocess.run([shutil.which(inner[0], path=str(self.tools)) or "/bin/sh", *inner[1:]], **options)


@pytest.fixture(params=["python3", "curl"])
def inside(request: pytest.FixtureRequest, tmp_path: Path) -> Inside:
    real = sys.executable if request.param == "python3" else shutil.which("curl")
    if real is None:
        pytest.skip("no curl on this machine")
    (tmp_path / str(request.param)).symlink_to(real)
    return Inside(tmp_path)


def through(run: Inside, url: str) -> InContainer:
    return InContainer(Place(url=url, container="ragflow", key=KEY), Docker(run=run), seconds=10)


def test_the_entry_is_made_over_http(ragflow: RagflowApi, url: str) -> None:
    api = Api(Http(Place(url=url, key=KEY)))
    register(api, ENTRY)
    assert look(api, ENTRY).as_wanted
    assert (ragflow.instances[0].name, ragflow.instances[0].key) == ("mine", ENTRY.api_key)


@pytest.mark.parametrize("version", ["v0.22.1", "v0.23.1", "v0.24.0", "v0.27.0"])
def test_a_status_comes_back_with_what_was_said_under_it(version: str) -> None:
    with served(RagflowApi(version)) as url:
        answer = Http(Place(url=url, key="wrong"))(Call(method="GET", path="/api/v1/chats"))
    assert (answer.status, json.loads(answer.text)["code"]) == (200 if version == "v0.22.1" else 401, 401)


def test_nobody_at_the_address_is_unreachable_with_the_reason() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=rf"^{url} does not answer \(.*refused\)$"):
        Http(Place(url=url, key=KEY))(Call(method="GET", path="/"))


def test_a_proxy_of_the_surroundings_is_not_asked_for_this_machine(ragflow: RagflowApi, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert Api(Http(Place(url=url, key=KEY))).release().version == "v0.27.0"


def test_the_entry_is_made_from_inside_the_container_with_what_is_there(ragflow: RagflowApi, url: str, inside: Inside) -> None:
    api = Api(through(inside, url))
    register(api, ENTRY)
    assert look(api, ENTRY).as_wanted
    assert ragflow.instances[0].key == ENTRY.api_key


def test_no_key_is_in_an_argv_of_docker(url: str, inside: Inside) -> None:
    register(Api(through(inside, url)), ENTRY)
    assert any(KEY in text for text in inside.inputs)
    assert [argv for argv in inside.argvs if KEY in " ".join(argv) or "quoted" in " ".join(argv)] == []
    assert not [name for name, value in os.environ.items() if KEY in value]


def test_a_status_of_a_refusal_comes_out_of_the_container_too(url: str, inside: Inside) -> None:
    answer = through(inside, url)(Call(method="GET", path="/nowhere"))
    assert (answer.status, json.loads(answer.text)["code"]) == (404, 404)


def test_nobody_at_the_address_inside_is_unreachable_with_the_reason(inside: Inside) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=rf"^{url} inside ragflow does not answer \(.+\)$"):
        through(inside, url)(Call(method="GET", path="/"))


def test_a_container_with_neither_tool_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"neither python3 nor curl is in it"):
        through(Inside(tmp_path), "http://127.0.0.1:9380")(Call(method="GET", path="/"))


def test_a_container_that_does_not_run_is_told_in_dockers_words() -> None:
    def stopped(argv: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(argv, 1, "", "Error response from daemon: container ragflow is not running")

    place = Place(url="http://127.0.0.1:9380", container="ragflow", key=KEY)
    with pytest.raises(Unreachable, match=r"inside ragflow does not answer \(Error response from daemon: container ragflow is not running\)"):
        InContainer(place, Docker(run=stopped))(Call(method="GET", path="/"))


def test_the_place_says_which_way_is_taken_and_the_stacks_host_is_reached() -> None:
    assert isinstance(transport(Place(url="http://box", key=KEY)), Http)
    way = transport(Place(url="http://box", container="ragflow", key=KEY), seconds=7, surroundings={"DOCKER_HOST": "ssh://root@box"})
    assert isinstance(way, InContainer)
    assert (way.docker.surroundings, way.seconds) == ({"DOCKER_HOST": "ssh://root@box"}, 7)
