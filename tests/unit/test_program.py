"""__main__.py whole, without an engine: URNs (a stack's memory), exports, what a changed dial touches, and what a second run declares."""

import functools
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
import requests
import yaml

from host import labels
from host.observe import Container, Host, Network
from registration.__main__ import main
from tests.support.ragflow_api import KEY as RAGFLOW_KEY
from tests.support.ragflow_api import RagflowApi, served
from tests.support.recording import ROOT, Recorded, Recording, Registration, config_of, imagined, run_program
from tests.unit.builders import DECLARED, GIB, REFUSED, REFUSED_HERE, a_container, a_deployment, a_host, a_network, a_ragflow, a_state

CONTAINER = "docker:index/container:Container"
COMMAND = "command:local:Command"
OWNER = a_deployment().owner
RELEASED = "model-released-qwen3-reranker-0.6b-6e9e69830b95"
VOLUME = "model-volume-qwen3-reranker-0.6b-6e9e69830b95"
DIGEST = "@sha256:" + "0" * 64
KEY = "sk-a-key-that-nobody-sees"
TOKEN = "hf_a-token-that-nobody-sees"
EXPORTS = {
    "internalUrl", "hostUrl", "modelName", "networkName", "containerName", "imageDigest", "dockerHost", "attachedContainers", "composeOverride",
    "ragflow", "verify"
}  # fmt: skip
GPU_HOST = {"runtimes": frozenset({"nvidia", "runc"})}

Dials = Mapping[str, Any]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An external service that lists the model 'elsewhere'; the URLs that it was asked for."""
    asked: list[str] = []

    def get(_: requests.Session, url: str, **__: Any) -> requests.Response:
        asked.append(url)
        response = requests.Response()
        response.status_code = 200
        response._content = b'{"data": [{"id": "elsewhere"}]}'
        return response

    monkeypatch.setattr(requests.Session, "get", get)
    return asked


EXTERNAL: Dials = {"backend": "external", "externalUrl": "http://box:8000/v1/", "externalModel": "elsewhere"}


def urns(recorded: Recorded) -> set[str]:
    start = "urn:pulumi:test::ragflow-reranker::"
    assert all(item.urn.startswith(start) for item in recorded.resources)
    return {item.urn.removeprefix(start) for item in recorded.resources}


def steps(recorded: Recorded) -> list[str]:
    """Names of the commands that do something when the stack comes up."""
    return [item.name for item in recorded.of(COMMAND) if item.inputs["create"] != ":"]


# -- the names that a stack's state knows -------------------------------------------------------------------------------

COMMON = {
    "pulumi:providers:docker::host", "rerank:index:SharedNetwork::network", "rerank:index:SharedNetwork$docker:index/network:Network::network-bridge",
    "rerank:index:RerankerImage::image", "rerank:index:RerankerImage$docker:index/image:Image::image-serving", "rerank:index:Reranker::reranker",
    "rerank:index:Reranker$docker:index/volume:Volume::reranker-cache", "rerank:index:Reranker$docker:index/container:Container::reranker-container",
    "rerank:index:Reranker$command:local:Command::reranker-healthy", "rerank:index:RagflowAttachment::ragflow",
    "rerank:index:Identity::deployment", "rerank:index:Identity$pulumi:index:Stash::deployment-identity",
    "rerank:index:Identity$command:local:Command::deployment-remembered", "rerank:index:SharedNetwork$command:local:Command::network-released",
    "rerank:index:Reranker$command:local:Command::reranker-cache-released",
}  # fmt: skip
CHECKED = {"rerank:index:ModelVolume::model", "rerank:index:ModelVolume$command:local:Command::model-populate"}
MODEL = CHECKED | {
    "rerank:index:ModelVolume$docker:index/volume:Volume::model-volume-qwen3-reranker-0.6b-6e9e69830b95",
    "rerank:index:ModelVolume$command:local:Command::model-released-qwen3-reranker-0.6b-6e9e69830b95",
}
BUILT = {"rerank:index:RerankerImage$docker:index/image:Image::image-base"}
COMMANDED = {"rerank:index:RerankerImage$command:local:Command::image-base"}
KEYED = {
    "rerank:index:Reranker$docker:index/volume:Volume::reranker-key", "rerank:index:Reranker$command:local:Command::reranker-key-file",
    "rerank:index:Reranker$command:local:Command::reranker-key-released",
}  # fmt: skip
ATTACHED = {"rerank:index:RagflowAttachment$command:local:Command::ragflow-docker-ragflow-cpu-1"}

GOLDEN: list[tuple[str, Dials, set[str]]] = [
    ("mock", {"backend": "mock"}, COMMON),
    ("mock with a key", {"backend": "mock", "apiKey": KEY}, COMMON | KEYED),
    ("cpu, wheel, hub", {}, COMMON | MODEL | BUILT),
    ("cpu with a key", {"apiKey": KEY}, COMMON | MODEL | BUILT | KEYED),
    ("cpu, source by URL", {"imageStrategy": "source"}, COMMON | MODEL | COMMANDED),
    ("cpu, source of a clone", {"imageStrategy": "source", "sourceContext": "../vllm"}, COMMON | MODEL | BUILT),
    ("cpu, registry", {"imageStrategy": "registry", "registryImage": f"vllm/cpu:1{DIGEST}"}, COMMON | MODEL),
    ("cpu, archive", {"imageStrategy": "archive", "archivePath": __file__, "archiveImage": "vllm:1"}, COMMON | MODEL | COMMANDED),
    ("modelscope", {"modelSource": "modelscope", "modelRevision": "v1.0"}, {urn.replace("6e9e69830b95", "v1.0") for urn in COMMON | MODEL | BUILT}),
    ("model from an archive", {"modelSource": "archive", "modelPath": __file__}, COMMON | MODEL | BUILT),
    ("model from a directory", {"modelSource": "directory", "modelPath": "/srv/m"}, COMMON | CHECKED | BUILT),
    ("gpu", {"backend": "gpu"}, COMMON | MODEL),
]


@pytest.mark.parametrize(("what", "dials", "expected"), GOLDEN, ids=[what for what, *_ in GOLDEN])
def test_a_stack_keeps_the_names_that_its_state_knows(what: str, dials: Dials, expected: set[str]) -> None:
    recorded = run_program(dials, a_host(**GPU_HOST))
    assert urns(recorded) == expected, what
    assert len(recorded.resources) == len(expected)


@functools.cache
def remote(what: str) -> Recorded:
    """One of the golden stacks with all that can be in it, on a host that is reached over ssh."""
    [dials] = [dials for name, dials, _ in GOLDEN if name == what]
    host = a_host(**GPU_HOST, endpoint="ssh://root@box", containers=(a_ragflow(),))
    return run_program({**dials, "apiKey": KEY, "dockerHost": "ssh://root@box"}, host)


@pytest.mark.parametrize("what", [what for what, *_ in GOLDEN])
def test_everything_of_docker_lands_on_the_stacks_own_host(what: str) -> None:
    recorded = remote(what)
    provider = recorded.one("pulumi:providers:docker")
    assert provider.inputs["host"] == "ssh://root@box"
    for item in recorded.resources:
        if item.type.startswith("docker:"):
            assert item.provider.startswith(provider.urn), item.name
        if item.type == COMMAND and item.name != "deployment-remembered":
            assert item.inputs["environment"]["DOCKER_HOST"] == "ssh://root@box", item.name


def test_the_provider_gets_the_certificates_of_the_context_and_nothing_of_the_shells_variables() -> None:
    host = a_host(endpoint="tcp://nas:2376", certificates="/tls/ab/docker")
    given = run_program({"backend": "mock"}, host).one("pulumi:providers:docker").inputs
    assert {name: given[name] for name in ("host", "certPath", "context")} == {"host": "tcp://nas:2376", "certPath": "/tls/ab/docker", "context": ""}
    given = run_program({"backend": "mock"}, a_host()).one("pulumi:providers:docker").inputs
    assert (given["certPath"], given["context"]) == ("", "")


def test_a_container_without_a_limit_says_so_in_a_label_and_one_with_all_has_none() -> None:
    host = a_host(lacking=frozenset({"cpu", "memory", "swap"}))
    container = run_program({"backend": "mock", "missingLimits": "omit"}, host).one(CONTAINER).inputs
    assert {"cpus", "memory", "memorySwap"}.isdisjoint(name for name, value in container.items() if value is not None)
    assert {"label": labels.UNLIMITED, "value": "cpus,memory,swap"} in container["labels"]
    container = run_program({"backend": "mock", "missingLimits": "omit"}, a_host(lacking=frozenset({"swap"}))).one(CONTAINER).inputs
    assert (container["memory"], container["memorySwap"]) == (8192, -1)
    container = run_program({"backend": "mock"}, a_host()).one(CONTAINER).inputs
    assert labels.UNLIMITED not in [item["label"] for item in container["labels"]]


def test_a_local_stack_uses_the_daemon_that_the_client_is_set_to() -> None:
    recorded = run_program({"backend": "mock", "apiKey": KEY}, a_host(endpoint="unix:///home/me/docker.sock", containers=(a_ragflow(),)))
    assert recorded.one("pulumi:providers:docker").inputs["host"] == "unix:///home/me/docker.sock"
    assert not [item.name for item in recorded.of(COMMAND) if "DOCKER_HOST" in item.inputs.get("environment", {})]


@pytest.mark.parametrize("what", [what for what, *_ in GOLDEN])
def test_every_part_has_its_component_as_parent(what: str) -> None:
    recorded = remote(what)
    components = {item.urn for item in recorded.resources if not item.custom}
    for item in recorded.resources:
        if item.custom and not item.type.startswith("pulumi:providers:"):
            assert item.parent in components, item.name
            [component] = [found for found in recorded.resources if found.urn == item.parent]
            assert item.name.startswith(f"{component.name}-")


def test_the_reranker_waits_for_the_model_the_image_and_the_network() -> None:
    recorded = run_program({"apiKey": KEY}, a_host())
    needs = set(recorded.one(CONTAINER).dependencies)
    for name in ("network-bridge", "image-serving", "model-populate", "reranker-key-file", "reranker-cache"):
        assert recorded.named(name).urn in needs, name
    assert recorded.one(CONTAINER).urn in recorded.named("reranker-healthy").dependencies


# -- exports ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dials", [{"backend": "cpu"}, {"backend": "gpu"}, {"backend": "mock"}, EXTERNAL], ids=["cpu", "gpu", "mock", "external"])
@pytest.mark.parametrize("more", [{"apiKey": KEY}, {"ragflowMode": "join"}, {"ragflowMode": "none", "hostPort": 0}])
def test_every_backend_has_the_same_outputs(service: list[str], dials: Dials, more: Dials) -> None:
    host = a_host(**GPU_HOST, containers=(a_ragflow(),), networks={"docker_ragflow": a_network("docker_ragflow")})
    exports = run_program({**dials, **more}, host).exports
    assert set(exports) == EXPORTS
    assert {name: type(value) for name, value in exports.items()} == {
        **dict.fromkeys(EXPORTS, str), "attachedContainers": list, "verify": list, "ragflow": dict
    }  # fmt: skip
    assert KEY not in json.dumps(dict(exports))


def test_every_output_is_documented() -> None:
    rows = [line.split("|")[1].strip() for line in (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert {row.strip("`") for row in rows} >= EXPORTS


def test_the_outputs_say_what_to_put_into_ragflow() -> None:
    exports = run_program({}, a_host(containers=(a_ragflow(),))).exports
    url = "http://ragflow-vllm-reranker:8000/v1"
    assert {name: exports[name] for name in EXPORTS - {"verify", "composeOverride", "ragflow"}} == {
        "internalUrl": url, "hostUrl": "http://127.0.0.1:8123/v1", "modelName": "qwen3-reranker-0.6b", "networkName": "docker-ragflow",
        "containerName": "ragflow-vllm-reranker", "imageDigest": "sha256:image-serving", "dockerHost": "", "attachedContainers": ["docker-ragflow-cpu-1"],
    }  # fmt: skip
    assert exports["ragflow"]["baseUrl"] == url
    assert [command.split()[:3] for command in exports["verify"]] == [["docker", "exec", "docker-ragflow-cpu-1"], ["curl", "-fsS", "-m"]]
    assert yaml.safe_load(exports["composeOverride"])["networks"] == {"reranker": {"name": "docker-ragflow", "external": True}}


def test_an_external_service_is_described_and_nothing_is_deployed(service: list[str]) -> None:
    recorded = run_program(EXTERNAL)
    assert recorded.resources == ()
    assert service == ["http://box:8000/v1/models"]
    url = "http://box:8000/v1"
    assert {name: recorded.exports[name] for name in EXPORTS - {"verify", "ragflow"}} == {
        "internalUrl": url, "hostUrl": url, "modelName": "elsewhere", "networkName": "", "containerName": "",
        "imageDigest": "", "dockerHost": "", "attachedContainers": [],
        "composeOverride": "",
    }  # fmt: skip
    assert (recorded.exports["ragflow"]["modelName"], recorded.exports["ragflow"]["baseUrl"]) == ("elsewhere", url)
    [command] = recorded.exports["verify"]
    assert command.endswith(f"{url}/rerank")


# -- network and RAGFlow ------------------------------------------------------------------------------------------------


def test_a_network_that_was_made_by_hand_is_adopted() -> None:
    recorded = run_program({"backend": "mock"}, a_host(networks={"docker-ragflow": a_network("docker-ragflow")}))
    assert recorded.of("docker:index/network:Network") == []
    assert [item["name"] for item in recorded.one(CONTAINER).inputs["networksAdvanced"]] == ["docker-ragflow"]
    assert {"label": labels.NETWORK_ID, "value": "id-of-docker-ragflow"} in recorded.one(CONTAINER).inputs["labels"]


@pytest.mark.parametrize(("owner", "ours"), [(OWNER, True), ("ragflow-reranker/test/ffffffff", False), ("ragflow-reranker/test", False)])
def test_a_network_of_another_stack_is_adopted_and_our_own_is_kept(owner: str, ours: bool) -> None:
    host = a_host(networks={"docker-ragflow": a_network("docker-ragflow", labels={labels.OWNER: owner, labels.GENERATION: "4f2a"})})
    recorded = run_program({"backend": "mock"}, host, monitor=Recording(state=a_state()))
    assert bool(recorded.of("docker:index/network:Network")) is ours


def test_each_ragflow_that_was_found_is_attached_under_its_name() -> None:
    others = (a_container("ragflow-mysql"), a_container("ragflow-es-01"))
    recorded = run_program({"backend": "mock"}, a_host(containers=(a_ragflow(), a_ragflow("kb-ragflow-cpu-1", running=False), *others)))
    assert set(steps(recorded)) == {"reranker-healthy", "ragflow-docker-ragflow-cpu-1", "ragflow-kb-ragflow-cpu-1"}
    assert recorded.exports["attachedContainers"] == ["docker-ragflow-cpu-1", "kb-ragflow-cpu-1"]
    assert recorded.warnings == ()


def test_named_containers_are_attached_instead_of_found_ones() -> None:
    recorded = run_program({"backend": "mock", "ragflowContainers": ["mine"]}, a_host(containers=(a_ragflow(), a_container("mine"))))
    assert recorded.exports["attachedContainers"] == ["mine"]


def test_no_ragflow_is_a_warning_and_no_failure() -> None:
    recorded = run_program({"backend": "mock"}, a_host())
    assert recorded.warnings == (
        "no RAGFlow container on this host: start RAGFlow and run pulumi up again, or list its containers in ragflowContainers",
    )
    assert recorded.exports["attachedContainers"] == []
    assert steps(recorded) == ["reranker-healthy"]


def test_a_ragflow_that_is_to_be_left_alone_is_neither_attached_nor_missed() -> None:
    recorded = run_program({"backend": "mock", "ragflowMode": "none"}, a_host(containers=(a_ragflow(),)))
    assert steps(recorded) == ["reranker-healthy"]
    assert (recorded.warnings, recorded.exports["attachedContainers"]) == ((), [])


@pytest.mark.parametrize("named", ["", "docker_ragflow"])
def test_joining_puts_the_reranker_on_ragflows_own_network_and_touches_no_container_of_it(named: str) -> None:
    host = a_host(containers=(a_ragflow(),), networks={"docker_ragflow": a_network("docker_ragflow")})
    recorded = run_program({"backend": "mock", "ragflowMode": "join", "ragflowNetwork": named}, host)
    assert urns(recorded) == COMMON - {"rerank:index:SharedNetwork$docker:index/network:Network::network-bridge"}
    assert [item["name"] for item in recorded.one(CONTAINER).inputs["networksAdvanced"]] == ["docker_ragflow"]
    assert (recorded.exports["networkName"], recorded.exports["attachedContainers"]) == ("docker_ragflow", ["docker-ragflow-cpu-1"])


# -- refusals -----------------------------------------------------------------------------------------------------------

NOT_DEPLOYED: list[tuple[str, Dials, Host, str]] = [
    ("settings", {"cpus": 0}, a_host(), f"{REFUSED}\n  - cpus: 0 must be from 1 to 1024 CPUs"),
    ("host", {"memoryGiB": 8}, a_host(memory=4 * GIB), f"{REFUSED_HERE}\n  - memoryGiB: 8 is more than the 4.0 GiB of this Docker "
    f"host; lower it, or take a smaller model"),
    ("no GPU", {"backend": "gpu"}, a_host(), f"{REFUSED_HERE}\n  - backend: 'gpu' needs the NVIDIA runtime and this Docker host has runc; install "
     "nvidia-container-toolkit there, or set backend to cpu"),
    ("no such RAGFlow", {"ragflowContainers": ["kb"]}, a_host(),
     "ragflowContainers: no container 'kb' on this host; 'docker ps -a' shows the names, [] lets them be found"),
    ("no RAGFlow to join", {"ragflowMode": "join"}, a_host(), "ragflowNetwork: '' cannot be read off, no RAGFlow container was "
    "found on a network of its own; "
     "start RAGFlow first, or set ragflowNetwork (usually docker_ragflow)"),
    ("no network to join", {"ragflowMode": "join", "ragflowNetwork": "docker_ragflow"}, a_host(),
     "ragflowNetwork: no network 'docker_ragflow' on this host; start RAGFlow first, 'docker network ls' shows the names"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "dials", "host", "sentence"), NOT_DEPLOYED, ids=[what for what, *_ in NOT_DEPLOYED])
def test_what_cannot_be_deployed_is_refused_in_a_sentence(what: str, dials: Dials, host: Host, sentence: str) -> None:
    with pytest.raises(pulumi.RunError) as refused:
        run_program(dials, host)
    assert str(refused.value) == sentence, what


@pytest.mark.parametrize("dials", [{"cpus": 0}, {"cpus": 1000}, {"apiKey": "short"}, {"memoryGiB": 4}, {"typo": 1}])
def test_a_refusal_comes_before_anything_is_declared(dials: Dials) -> None:
    monitor = Recording()
    with pytest.raises(pulumi.RunError):
        run_program(dials, a_host(), monitor=monitor)
    assert monitor.registrations == []


def test_a_machine_without_docker_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pulumi.RunError, match=r"^docker: not on PATH; install Docker's client"):
        run_program({"backend": "mock"})


def test_an_external_service_that_does_not_answer_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(*_: Any, **__: Any) -> requests.Response:
        raise requests.ConnectTimeout("slow")

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(
        pulumi.RunError, match=r"^externalUrl: http://box:8000/v1 does not answer .ConnectTimeout.; start the service, or correct the URL$"
    ):
        run_program(EXTERNAL)


# -- secrets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "holders"), [
    ("cpu", {("reranker-key-file", "stdin", KEY), ("model-populate", "stdin", TOKEN)}),
    ("gpu", {("reranker-key-file", "stdin", KEY), ("model-populate", "stdin", TOKEN)}),
    ("mock", {("reranker-key-file", "stdin", KEY)}),
])  # fmt: skip
def test_key_and_token_are_in_secret_stdins_and_nowhere_else(backend: str, holders: set[tuple[str, str, str]]) -> None:
    recorded = run_program({"backend": backend, "apiKey": KEY, "modelToken": TOKEN}, a_host(**GPU_HOST, containers=(a_ragflow(),)))
    found = {
        (item.name, key, text)
        for item in recorded.resources for key, value in item.inputs.items() for text in (KEY, TOKEN) if text in json.dumps(value, default=str)
    }  # fmt: skip
    assert found == holders
    for name, key, _ in found:
        assert key in recorded.named(name).secrets
    assert not any(text in json.dumps(dict(recorded.exports)) for text in (KEY, TOKEN))


# -- the entry in RAGFlow -----------------------------------------------------------------------------------------------

REGISTERED = {
    "rerank:index:RagflowRegistration::registration", "rerank:index:RagflowRegistration$command:local:Command::registration-entry",
}  # fmt: skip
ENTRY = "registration-entry"


@pytest.fixture
def holding() -> Iterator[tuple[RagflowApi, Dials]]:
    """A RAGFlow that holds nothing yet, and the dials of a mock stack that enters its reranker there."""
    ragflow = RagflowApi("v0.27.0", verify=lambda *_: "")
    with served(ragflow) as url:
        yield ragflow, {"backend": "mock", "ragflowUrl": url, "ragflowApiKey": RAGFLOW_KEY, "apiKey": KEY}


def enter(recorded: Recorded, ragflow: RagflowApi) -> None:
    """What the command of a recorded run would do."""
    command = recorded.named(ENTRY).inputs
    said = io.StringIO(command["stdin"])
    assert main(["register"], command["environment"], said, send=ragflow.send()) == 0


def test_a_stack_that_enters_its_reranker_has_one_component_more_and_all_other_names_as_before(holding: tuple[RagflowApi, Dials]) -> None:
    ragflow, dials = holding
    recorded = run_program(dials, a_host(containers=(a_ragflow(),)))
    assert urns(recorded) == COMMON | KEYED | ATTACHED | REGISTERED
    needs = set(recorded.named(ENTRY).dependencies)
    assert {recorded.named("reranker-healthy").urn, recorded.named("ragflow-docker-ragflow-cpu-1").urn} <= needs
    # a preview reads, and no more
    assert ragflow.writes() == []


def test_both_keys_go_to_ragflow_by_a_secret_stdin_and_are_nowhere_else(holding: tuple[RagflowApi, Dials]) -> None:
    _, dials = holding
    recorded = run_program(dials, a_host(containers=(a_ragflow(),)))
    found = {
        (item.name, key, text)
        for item in recorded.resources for key, value in item.inputs.items() for text in (KEY, RAGFLOW_KEY) if text in json.dumps(value, default=str)
    }  # fmt: skip
    assert found == {("reranker-key-file", "stdin", KEY), (ENTRY, "stdin", KEY), (ENTRY, "stdin", RAGFLOW_KEY)}
    assert "stdin" in recorded.named(ENTRY).secrets
    assert not any(text in json.dumps(dict(recorded.exports)) for text in (KEY, RAGFLOW_KEY))


def test_the_output_has_the_id_that_the_entry_printed(holding: tuple[RagflowApi, Dials]) -> None:
    _, dials = holding
    assert run_program(dials, a_host()).exports["ragflow"]["modelId"] == f"stdout-of-{ENTRY}"
    assert run_program({"backend": "mock"}, a_host()).exports["ragflow"]["modelId"] == ""


def test_an_entry_that_stands_is_no_change_and_one_changed_by_hand_is(holding: tuple[RagflowApi, Dials]) -> None:
    ragflow, dials = holding
    first = run_program(dials, a_host())
    assert first.named(ENTRY).inputs["environment"]["FOUND"].startswith("not in RAGFlow (")
    enter(first, ragflow)
    standing = run_program(dials, a_host()).named(ENTRY)
    assert (standing.inputs["environment"]["FOUND"], standing.ignore_changes) == ("", ("environment.FOUND",))
    ragflow.instances[0].base_url = "http://other/v1"
    drifted = run_program(dials, a_host()).named(ENTRY)
    assert drifted.inputs["environment"]["FOUND"].startswith("base URL http://other/v1 instead of http://ragflow-vllm-reranker:8000/v1 (")
    assert drifted.ignore_changes == ()
    assert ragflow.writes()[-1].startswith("POST ")  # the one that entered it


@pytest.mark.parametrize(("change", "inputs"), [
    ({"apiKey": KEY + "2"}, {"stdin", "environment"}), ({"maxModelLen": 2048}, {"environment"}), ({"ragflowDefault": "tenant"}, {"environment"}),
    ({"containerName": "other-one"}, {"environment", "triggers"}), ({"model": "Qwen/Qwen3-Reranker-4B"}, {"environment", "triggers"}),
    ({"cpus": 4}, set()), ({"deadlineSeconds": 20}, set()),
])  # fmt: skip
def test_a_changed_key_address_name_or_length_is_entered_and_nothing_else(holding: tuple[RagflowApi, Dials], change: Dials, inputs: set[str]) -> None:
    ragflow, dials = holding
    enter(run_program(dials, a_host()), ragflow)
    before, after_it = (dict(run_program({**dials, **more}, a_host()).named(ENTRY).inputs) for more in ({}, change))
    assert {key for key in before if before[key] != after_it[key]} == inputs


def test_a_ragflow_that_does_not_answer_at_the_preview_is_a_warning(holding: tuple[RagflowApi, Dials]) -> None:
    _, dials = holding
    recorded = run_program({**dials, "ragflowUrl": "http://127.0.0.1:9"}, a_host(containers=(a_ragflow(),)))
    [warning] = recorded.warnings
    assert warning.startswith("ragflowUrl: whether RAGFlow still holds the reranker was not looked up: http://127.0.0.1:9 does not answer (")
    assert recorded.named(ENTRY).ignore_changes == ("environment.FOUND",)


def test_a_key_that_ragflow_does_not_take_is_refused_before_anything_is_declared(holding: tuple[RagflowApi, Dials]) -> None:
    _, dials = holding
    monitor = Recording()
    with pytest.raises(pulumi.RunError, match=r"^ragflowApiKey: RAGFlow does not take the value"):
        run_program({**dials, "ragflowApiKey": "ragflow-another"}, a_host(), monitor=monitor)
    assert monitor.registrations == []


# -- what a change touches ----------------------------------------------------------------------------------------------


def lifelike(item: Registration) -> tuple[str, dict[str, Any]]:
    """Ids, digests and outputs that follow the inputs, as those of a thing that was made anew would."""
    digest = hashlib.sha256(json.dumps(dict(item.inputs), sort_keys=True, default=str).encode()).hexdigest()[:12]
    id_, more = imagined(item)
    return (f"{id_}-{digest}" if id_ else "", {name: f"{value}-{digest}" for name, value in more.items()})


def changed(before: Recorded, after: Recorded) -> dict[str, set[str]]:
    """Inputs that differ, by resource; {'gone'} and {'new'} for one that only one of them has."""
    old, new = ({item.urn: item for item in recorded.resources} for recorded in (before, after))
    found = {old[urn].name: {"gone"} for urn in old.keys() - new.keys()} | {new[urn].name: {"new"} for urn in new.keys() - old.keys()}
    for urn in old.keys() & new.keys():
        keys = {key for key in old[urn].inputs.keys() | new[urn].inputs.keys() if old[urn].inputs.get(key) != new[urn].inputs.get(key)}
        if keys:
            found[old[urn].name] = keys
    return found


def after(recorded: Recorded, host: Host) -> Host:
    """The host as that run would have left it."""
    made = {str(item.inputs["name"]): labelled(item.inputs["labels"]) for item in recorded.of("docker:index/volume:Volume")}
    networks = {
        str(item.inputs["name"]): Network(name=str(item.inputs["name"]), id=lifelike(item)[0], labels=labelled(item.inputs["labels"]))
        for item in recorded.of("docker:index/network:Network")
    }
    aliases = {
        item.inputs["environment"]["NAME"]: item.inputs["environment"] for item in recorded.of(COMMAND) if "ATTACHMENT" in item.inputs["environment"]
    }
    containers = tuple(
        Container(
            name=item.name, id=item.id, image=item.image, running=item.running, labels=item.labels,
            networks={**item.networks,
            **({end["NETWORK"]: (end["ATTACHMENT"],)} if (end := aliases.get(item.name)) and end["NETWORK"] not in item.networks else {})},
        )
        for item in host.containers
    )  # fmt: skip
    own = tuple(
        Container(
            name=str(item.inputs["name"]), id=lifelike(item)[0], image="ours", labels=labelled(item.inputs["labels"]),
            networks={end["name"]: () for end in item.inputs["networksAdvanced"]},
        )
        for item in recorded.of("docker:index/container:Container")
    )  # fmt: skip
    return Host(
        cpus=host.cpus, memory=host.memory, architecture=host.architecture, endpoint=host.endpoint, runtimes=host.runtimes,
        networks={**host.networks, **networks}, containers=(*containers, *own), volumes={**host.volumes, **made},
    )  # fmt: skip


def labelled(items: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return {item["label"]: item["value"] for item in items}


def run(dials: Dials, host: Host) -> Recorded:
    return run_program(dials, host, monitor=Recording(lifelike, a_state(host)))


@functools.cache
def stood(spelled: str) -> tuple[Recorded, Host]:
    """A stack with these dials (as JSON) as it declares itself for the second time, and the host on which it stands."""
    dials, bare = json.loads(spelled), a_host(**GPU_HOST, containers=(a_ragflow(),))
    standing = after(run(dials, bare), bare)
    return run(dials, standing), standing


def touched(dials: Dials, change: Dials) -> dict[str, set[str]]:
    """What `change` differs in, on a host where a stack with `dials` stands."""
    before, standing = stood(json.dumps(dict(dials)))
    return changed(before, run({**dials, **change}, standing))


REPLACED = {"reranker-healthy": {"triggers"}}
TOUCHED: list[tuple[Dials, Dials, dict[str, set[str]]]] = [
    ({}, {"cpus": 4}, {"reranker-container": {"cpus"}, **REPLACED}),
    ({}, {"memoryGiB": 9}, {"reranker-container": {"memory", "memorySwap"}, **REPLACED}),
    ({}, {"shmGiB": 2}, {"reranker-container": {"shmSize"}, **REPLACED}),
    ({}, {"hostPort": 8124}, {"reranker-container": {"ports"}, **REPLACED}),
    ({}, {"hostPort": 0}, {"reranker-container": {"ports"}, **REPLACED}),
    ({}, {"bindAddress": "0.0.0.0"}, {"reranker-container": {"ports"}, **REPLACED}),
    ({}, {"restartPolicy": "no"}, {"reranker-container": {"restart"}, **REPLACED}),
    ({}, {"logMaxMiB": 20}, {"reranker-container": {"logOpts"}, **REPLACED}),
    ({}, {"healthTimeoutSeconds": 901}, {"reranker-container": {"healthcheck"}, "reranker-healthy": {"environment", "triggers"}}),
    *[
        ({}, change, {"reranker-container": {"command"}, **REPLACED})
        for change in (
            {"maxModelLen": 2048},
            {"kvCacheGiB": 2},
            {"dtype": "float32"},
            {"enforceEager": False},
            {"instruction": "Find it"},
            {"maxNumSeqs": 8},
            {"maxNumBatchedTokens": 512},
            {"vllmExtraArgs": ["--seed", "1"]},
            {"threads": 1},
            {"blockSize": 64},
            {"prefixCaching": False},
            {"preload": False},
            {"deadlineSeconds": 20},
            {"minDocumentTokens": 64},
            {"unscored": "below"},
            {"maxQueryTokens": 512},
            {"maxDocuments": 100},
            {"maxBodyMiB": 8},
            {"cacheEntries": 0},
            {"goldenCheck": False},
            {"page": False},
        )
    ],
    ({"backend": "gpu"}, {"gpuCount": 2}, {"reranker-container": {"command", "deviceRequests"}, **REPLACED}),
    ({"backend": "gpu"}, {"gpuMemoryUtilizationPercent": 90}, {"reranker-container": {"command"}, **REPLACED}),
    # a build that comes out otherwise is another image and another container, and nothing else
    *[
        ({}, change, {"image-base": {"build"}, "image-serving": {"build"}, "reranker-container": {"image"}, **REPLACED})
        for change in (
            {"torchRequirement": "torch==2.12.0"},
            {"baseImage": "debian:bookworm"},
            {"extraIndex": "https://e/simple"},
            {"debianMirror": "http://d/debian"},
        )
    ],
    ({"backend": "gpu"}, {"gpuImage": "vllm/vllm-openai:v0.33.0"}, {"image-serving": {"build"}, "reranker-container": {"image"}, **REPLACED}),
    # another revision is another volume beside the old one
    (
        {},
        {"modelRevision": "f" * 40},
        {
            VOLUME: {"gone"},
            RELEASED: {"gone"},
            "model-released-qwen3-reranker-0.6b-ffffffffffff": {"new"},
            "model-volume-qwen3-reranker-0.6b-ffffffffffff": {"new"},
            "model-populate": {"environment", "triggers"},
            "reranker-container": {"mounts"},
            **REPLACED,
        },
    ),
    (
        {},
        {"model": "Qwen/Qwen3-Reranker-4B", "memoryGiB": 24, "kvCacheGiB": 2},
        {
            VOLUME: {"gone"},
            RELEASED: {"gone"},
            "model-released-qwen3-reranker-4b-6e9e69830b95": {"new"},
            "model-volume-qwen3-reranker-4b-6e9e69830b95": {"new"},
            "model-populate": {"environment", "triggers"},
            "reranker-container": {"mounts", "command", "memory", "memorySwap"},
            **REPLACED,
        },
    ),
    ({}, {"modelMirrors": ["https://huggingface.co"]}, {"model-populate": {"environment"}}),
    ({}, {"modelToken": TOKEN}, {"model-populate": {"stdin"}}),
    # whether it is kept is an option, not an input
    ({}, {"modelKeep": False}, {RELEASED: {"environment"}}),
    ({"apiKey": KEY}, {"apiKey": KEY + "2"}, {"reranker-key-file": {"stdin"}, "reranker-container": {"labels"}, **REPLACED}),
    (
        {"apiKey": KEY},
        {"apiKey": ""},
        {
            "reranker-key": {"gone"},
            "reranker-key-released": {"gone"},
            "reranker-key-file": {"gone"},
            "reranker-container": {"labels", "mounts", "command"},
            **REPLACED,
        },
    ),
    ({}, {"ragflowMode": "none"}, {"ragflow-docker-ragflow-cpu-1": {"gone"}}),
    (
        {},
        {"networkName": "other"},
        {
            "network-bridge": {"name", "labels"},
            "network-released": {"environment", "triggers"},
            "reranker-container": {"networksAdvanced", "labels"},
            **REPLACED,
            "ragflow-docker-ragflow-cpu-1": {"environment", "triggers"},
        },
    ),
    *[
        ({"backend": "mock"}, change, {"reranker-container": {"command"}, **REPLACED})
        for change in ({"deadlineSeconds": 20}, {"instruction": "Find it"}, {"maxModelLen": 2048})
    ],
    # only the other backends read these
    *[({"backend": "mock"}, change, {}) for change in ({"threads": 2}, {"kvCacheGiB": 2})],
    *[({}, change, {}) for change in ({"gpuCount": 2}, {"modelscopeEndpoint": "https://other"})],
]


def test_another_version_of_vllm_fills_no_volume_and_writes_no_key_again() -> None:
    assert set(touched({"apiKey": KEY}, {"vllmVersion": "0.31.0"})) == {"image-base", "image-serving", "reranker-container", "reranker-healthy"}


@pytest.mark.parametrize(("dials", "change", "expected"), TOUCHED, ids=[",".join(change) for _, change, _ in TOUCHED])
def test_a_changed_dial_changes_what_it_must_and_nothing_else(dials: Dials, change: Dials, expected: dict[str, set[str]]) -> None:
    assert touched(dials, change) == expected


STABLE = [*GOLDEN, ("join", {"backend": "mock", "ragflowMode": "join", "ragflowNetwork": "docker_ragflow"}, set())]


@pytest.mark.parametrize(("what", "dials"), [
    (what, dials) for what, dials, _ in STABLE
])  # fmt: skip
def test_a_second_run_over_what_the_first_one_made_declares_the_same(what: str, dials: Dials) -> None:
    bare = a_host(**GPU_HOST, containers=(a_ragflow(), a_ragflow("kb", running=False)), networks={"docker_ragflow": a_network("docker_ragflow")})
    first = run({**dials, "apiKey": KEY}, bare)
    second = run({**dials, "apiKey": KEY}, after(first, bare))
    assert changed(first, second) == {}, what
    assert {item.urn: item.retain_on_delete for item in first.resources} == {item.urn: item.retain_on_delete for item in second.resources}


def test_a_volume_that_was_lost_is_filled_again() -> None:
    bare = a_host()
    first = run({"apiKey": KEY}, bare)
    standing = after(first, bare)
    emptied = Host(
        cpus=standing.cpus, memory=standing.memory, architecture=standing.architecture, endpoint=standing.endpoint, networks=standing.networks
    )
    assert changed(first, run({"apiKey": KEY}, emptied)) == {
        VOLUME: {"labels"}, "model-populate": {"triggers"}, "reranker-key": {"labels"}, "reranker-key-file": {"triggers"},
        "reranker-cache": {"labels"}, **{name: {"environment", "triggers"} for name in (RELEASED, "reranker-key-released", "reranker-cache-released")},
        "reranker-container": {"labels"}, **REPLACED,
    }  # fmt: skip


def test_a_ragflow_that_was_made_anew_is_attached_again_and_nothing_else_happens() -> None:
    bare = a_host(containers=(a_ragflow(),))
    first = run({"backend": "mock"}, bare)
    standing = after(first, bare)
    anew = Host(
        cpus=standing.cpus, memory=standing.memory, architecture=standing.architecture, endpoint=standing.endpoint, networks=standing.networks,
        volumes=standing.volumes, containers=(a_ragflow(id="another"), *(item for item in standing.containers if item.image == "ours")),
    )  # fmt: skip
    assert changed(first, run({"backend": "mock"}, anew)) == {"ragflow-docker-ragflow-cpu-1": {"environment", "triggers"}}


def test_a_container_that_was_removed_stopped_or_cut_off_by_hand_is_made_anew_without_a_refresh() -> None:
    bare = a_host()
    first = run({"backend": "mock"}, bare)
    standing = after(first, bare)
    [own] = standing.containers
    for left in ((), (replace(own, networks={}),), (replace(own, running=False),)):
        assert changed(first, run({"backend": "mock"}, replace(standing, containers=left))) == {"reranker-container": {"labels"}, **REPLACED}
    assert changed(first, run({"backend": "mock"}, standing)) == {}


# -- options, and more than one stack -----------------------------------------------------------------------------------


def test_what_is_in_the_way_goes_first_and_what_may_be_somebodys_is_never_removed_by_its_name_alone() -> None:
    recorded = run_program({"apiKey": KEY}, a_host())
    assert {item.name for item in recorded.resources if item.delete_before_replace} == {
        "network-bridge",
        "reranker-container",
        "reranker-key",
        "reranker-cache",
    }
    # what they are removed by looks first at whose they are, and who is there
    assert {item.name for item in recorded.resources if item.retain_on_delete} == {VOLUME, "network-bridge", "reranker-key", "reranker-cache"}
    assert set(recorded.named("reranker-container").replace_on_changes) == {"mounts", "tmpfs", "healthcheck", "init"}
    assert {item.name for item in recorded.resources if item.protect or item.ignore_changes} == set()


def test_two_stacks_with_names_of_their_own_share_nothing_on_a_host() -> None:
    def things(stack: str, **dials: Any) -> set[str]:
        recorded = run_program({**dials, "apiKey": KEY}, a_host(), stack=stack)
        named = {
            f"{item.type} {item.inputs.get('name') or item.inputs.get('imageName')}" for item in recorded.resources if item.type.startswith("docker:")
        }
        ports = {f"port {port['external']}" for port in recorded.one(CONTAINER).inputs["ports"]}
        return named | ports

    one = things("one", containerName="ragflow-one", networkName="one-net")
    two = things("two", containerName="ragflow-two", networkName="two-net", hostPort=8124)
    # The image of vLLM alone is the same for both.
    assert one & two == {"docker:index/image:Image vllm-cpu:0.32.0"}


@pytest.mark.parametrize("stack_file", ["laptop", "home-server", "mock"])
def test_every_real_stack_can_be_declared(stack_file: str) -> None:
    recorded = run_program({}, a_host(), stack_file=stack_file)
    assert set(recorded.exports) == EXPORTS
    dials = {key.split(":")[1]: value for key, value in config_of({}, stack_file=stack_file).items()}
    container = recorded.one(CONTAINER).inputs
    assert (container["name"], container["cpus"], container["memory"]) == (
        dials["containerName"],
        f"{dials['cpus']}.0",
        int(dials["memoryGiB"]) * 1024,
    )
    assert container["ports"][0]["external"] == int(dials["hostPort"])


def test_the_table_of_dials_names_declared_keys_alone() -> None:
    assert {key for before, change, _ in TOUCHED for key in {**before, **change}} <= set(DECLARED)
