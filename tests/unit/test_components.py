"""The six components under the recording monitor: names and URNs (a stack's memory), parents, options, inputs, and what never shows."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import rpc

from components import (
    ImageArgs,
    ModelArgs,
    ModelVolume,
    NetworkArgs,
    RagflowArgs,
    RagflowAttachment,
    RagflowRegistration,
    RegistrationArgs,
    Reranker,
    RerankerArgs,
    RerankerImage,
    SharedNetwork,
)
from components._base import Published
from components.image import ArchiveBase, Base, RegistryBase, SourceBase, WheelBase, file_identity
from components.ragflow import CONNECT, DISCONNECT
from components.reranker import host_url
from host import labels
from tests.support.recording import Recorded, Recording, Registration, imagined, record
from tests.unit.builders import a_deployment, a_ragflow

OWNER = a_deployment()
SSH = {"DOCKER_HOST": "ssh://root@box"}
RELEASED = "rerank:index:SharedNetwork$command:local:Command::network-released"
KEY = "sk-a-key-that-nobody-sees"
TOKEN = "hf_a-token-that-nobody-sees"

CONTAINER = "docker:index/container:Container"
VOLUME = "docker:index/volume:Volume"
NETWORK = "docker:index/network:Network"
IMAGE = "docker:index/image:Image"
COMMAND = "command:local:Command"


def marked(generation: str) -> dict[str, str]:
    return {labels.OWNER: OWNER.owner, labels.GENERATION: generation}


def network_args(**changed: Any) -> NetworkArgs:
    return NetworkArgs(**{"network_name": "docker-ragflow", "adopt": False, "owner": OWNER, **changed})


def image_args(base: Base, **changed: Any) -> ImageArgs:
    plain: dict[str, Any] = {
        "base": base,
        "image_name": "ragflow-vllm-reranker:0.32.0",
        "platform": "linux/amd64",
        "build_network": "default",
        "ca_bundle": "",
        "environment": {},
    }
    return ImageArgs(**{**plain, **changed})


def model_args(**changed: Any) -> ModelArgs:
    return ModelArgs(**{
        "source": "hub", "repo": "Qwen/Qwen3-Reranker-0.6B", "revision": "6e9e69830b95c52b5fd889b7690dda3329508de3", "slug": "qwen3-reranker-0.6b",
        "mirrors": ("https://one", "https://two"), "endpoint": "https://modelscope.cn", "path": "", "token": "", "keep": True, "network": "bridge",
        "image_name": "ragflow-vllm-reranker:0.32.0", "prefix": "ragflow-vllm-reranker", "marks": marked("00000001"),
        "owner": OWNER, "proxies": {}, "environment": {},
        **changed,
    })  # fmt: skip


def reranker_args(**changed: Any) -> RerankerArgs:
    return RerankerArgs(**{
        "container_name": "ragflow-vllm-reranker", "image_name": "ragflow-vllm-reranker:0.32.0", "image_id": "sha256:1",
        "arguments": ["launch", "--device", "cpu"],
        "network_name": "docker-ragflow", "network_id": "n1", "model_mount_source": "model-volume", "model_target": "/models/qwen3-reranker-0.6b",
        "bind_address": "127.0.0.1", "host_port": 8123, "cpus": 2, "memory_mib": 8192, "shm_mib": 1024,
        "restart": "unless-stopped", "log_max_mib": 10,
        "health_timeout_seconds": 900, "generation": "00000002", "cache_marks": marked("00000003"), "key_marks": marked("00000002"), "owner": OWNER, "environment": {}, **changed,
    })  # fmt: skip


def ragflow_args(**changed: Any) -> RagflowArgs:
    plain = {"containers": [a_ragflow()], "network_name": "docker-ragflow", "observed_network": "docker-ragflow", "owner": OWNER, "environment": {}}
    return RagflowArgs(**{**plain, **changed})


def urns(recorded: Recorded) -> list[str]:
    """Type chain and name of all that was registered, without the part that every URN begins with."""
    start = "urn:pulumi:test::ragflow-reranker::"
    assert all(item.urn.startswith(start) for item in recorded.resources)
    return sorted(item.urn.removeprefix(start) for item in recorded.resources)


def mounted(container: Registration) -> list[tuple[Any, ...]]:
    return [(item["type"], item["source"], item["target"], item.get("readOnly", False)) for item in container.inputs["mounts"]]


def labelled(item: Registration) -> dict[str, str]:
    return {label["label"]: label["value"] for label in item.inputs["labels"]}


def all_parented(recorded: Recorded, component: str) -> bool:
    [top] = [item for item in recorded.resources if item.type == component]
    return all(item.parent == top.urn for item in recorded.resources if item is not top)


# -- network ------------------------------------------------------------------------------------------------------------


def test_a_network_of_ours_is_a_labelled_bridge_that_is_deleted_before_it_is_replaced() -> None:
    recorded = record(lambda: SharedNetwork("network", network_args(marks=marked("00000004"))))
    assert urns(recorded) == [
        RELEASED,
        "rerank:index:SharedNetwork$docker:index/network:Network::network-bridge",
        "rerank:index:SharedNetwork::network",
    ]
    assert all_parented(recorded, "rerank:index:SharedNetwork")
    bridge = recorded.one(NETWORK)
    assert (bridge.inputs["name"], bridge.inputs["driver"], labelled(bridge)) == (
        "docker-ragflow", "bridge", {labels.OWNER: OWNER.owner, labels.GENERATION: "00000004"}
    )  # fmt: skip
    assert bridge.delete_before_replace is True
    assert bridge.retain_on_delete is True  # network-released removes it


def test_an_adopted_network_is_no_resource_so_that_it_can_never_be_deleted() -> None:
    recorded = record(lambda: SharedNetwork("network", network_args(adopt=True, adopted_id="n7")))
    assert urns(recorded) == [RELEASED, "rerank:index:SharedNetwork::network"]


@pytest.mark.parametrize(("args", "expected"), [
    ({}, {"name": "docker-ragflow", "id": "id-of-network-bridge"}),
    ({"adopt": True, "adopted_id": "n7"}, {"name": "docker-ragflow", "id": "n7"}),
])  # fmt: skip
def test_both_kinds_of_network_give_a_name_and_an_id(args: dict[str, Any], expected: dict[str, str]) -> None:
    def program() -> None:
        network = SharedNetwork("network", network_args(**args))
        pulumi.export("name", network.network_name)
        pulumi.export("id", network.network_id)

    assert record(program).exports == expected


# -- image --------------------------------------------------------------------------------------------------------------

DIGEST = "sha256:" + "ab" * 32
PUBLISHED = Published(reference=f"python:3.12@{DIGEST}", registries=("docker.io", "mirror.example/hub"))
WHEEL = WheelBase(version="0.32.0", image=PUBLISHED, build_args={"VLLM_VERSION": "0.32.0"})
SERVING_URNS = ["rerank:index:RerankerImage$docker:index/image:Image::image-serving", "rerank:index:RerankerImage::image"]
BASES: list[tuple[str, Base, list[str], str]] = [
    ("wheel", WHEEL, ["rerank:index:RerankerImage$docker:index/image:Image::image-base"], "vllm-cpu:0.32.0"),
    ("source by URL", SourceBase(version="0.32.0", context="https://github.com/vllm-project/vllm.git", build_args={}),
     ["rerank:index:RerankerImage$command:local:Command::image-base"], "vllm-cpu:0.32.0"),
    ("source by ssh", SourceBase(version="0.32.0", context="git@github.com:vllm-project/vllm.git", build_args={}),
     ["rerank:index:RerankerImage$command:local:Command::image-base"], "vllm-cpu:0.32.0"),
    ("source of a clone", SourceBase(version="0.32.0", context="../vllm", build_args={}),
    ["rerank:index:RerankerImage$docker:index/image:Image::image-base"],
     "vllm-cpu:0.32.0"),
    ("registry", RegistryBase(image=Published(reference="vllm/cpu:1")), [], "vllm/cpu:1"),
    ("registry, by digest", RegistryBase(image=PUBLISHED), [], "ragflow-reranker-base:abababababab"),
    ("archive", ArchiveBase(path=__file__, reference="vllm:1"), ["rerank:index:RerankerImage$command:local:Command::image-base"], "vllm:1"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "base", "more", "reference"), BASES, ids=[what for what, *_ in BASES])
def test_every_strategy_puts_the_serving_layer_on_top_of_its_base(what: str, base: Base, more: list[str], reference: str) -> None:
    recorded = record(lambda: RerankerImage("image", image_args(base, ca_bundle="company.pem")))
    assert urns(recorded) == sorted([*more, *SERVING_URNS]), what
    assert all_parented(recorded, "rerank:index:RerankerImage")
    serving = recorded.one(IMAGE, "image-serving").inputs
    identity = {"docker:index/image:Image": "sha256:image-base", COMMAND: "stdout-of-image-base"}
    [below] = [identity[item.type] for item in recorded.resources if item.name == "image-base"] or [reference]
    assert serving["imageName"] == "ragflow-vllm-reranker:0.32.0"
    assert serving["skipPush"] is True
    assert serving["build"] == {
        "context": ".", "dockerfile": "images/Dockerfile.serving", "builderVersion": "BuilderBuildKit", "platform": "linux/amd64",
        "args": {"BASE": reference, "BASE_ID": below, "CA_BUNDLE": "company.pem"},
    }  # fmt: skip


def test_the_wheel_is_built_from_our_dockerfile_with_buildkit_and_its_arguments() -> None:
    build = record(lambda: RerankerImage("image", image_args(WHEEL))).one(IMAGE, "image-base").inputs
    assert (build["imageName"], build["skipPush"]) == ("vllm-cpu:0.32.0", True)
    assert build["build"] == {
        "context": ".", "dockerfile": "images/Dockerfile.cpu", "builderVersion": "BuilderBuildKit",
        "platform": "linux/amd64", "args": {"VLLM_VERSION": "0.32.0", "BASE_IMAGE": "ragflow-reranker-base:abababababab"},
    }  # fmt: skip


def test_a_build_on_the_hosts_network_says_so() -> None:
    recorded = record(lambda: RerankerImage("image", image_args(WHEEL, build_network="host")))
    assert recorded.one(IMAGE, "image-base").inputs["build"]["network"] == "host"


def test_a_clone_is_built_with_its_own_dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    recorded = record(lambda: RerankerImage("image", image_args(SourceBase(version="0.32.0", context="~/vllm", build_args={"A": "b"}))))
    build = recorded.one(IMAGE, "image-base").inputs["build"]
    assert (build["context"], build["dockerfile"], build["args"]) == ("vllm", "vllm/docker/Dockerfile.cpu", {"A": "b"})


def test_a_git_url_is_built_at_the_tag_of_the_version_and_again_only_for_another() -> None:
    source = SourceBase(version="0.32.0", context="https://example/vllm.git", build_args={})
    command = record(lambda: RerankerImage("image", image_args(source, environment=SSH))).one(COMMAND).inputs
    assert "https://example/vllm.git#v0.32.0" in command["environment"]["SCRIPT"]
    assert command["triggers"] == ["https://example/vllm.git", "0.32.0"]
    assert command["environment"].items() >= SSH.items()


def test_an_archive_is_loaded_again_when_the_file_changed(tmp_path: Path) -> None:
    tar = tmp_path / "vllm.tar"
    tar.write_text("one")
    before = file_identity(str(tar))
    command = record(lambda: RerankerImage("image", image_args(ArchiveBase(path=str(tar), reference="vllm:1"), environment=SSH))).one(COMMAND).inputs
    assert command["triggers"] == [before]
    assert command["environment"].items() >= SSH.items()
    tar.write_text("another")
    assert file_identity(str(tar)) != before


def test_the_image_is_known_by_name_and_by_id() -> None:
    def program() -> None:
        image = RerankerImage("image", image_args(WHEEL))
        pulumi.export("both", [image.image_name, image.image_id])

    assert record(program).exports == {"both": ["ragflow-vllm-reranker:0.32.0", "sha256:image-serving"]}


# -- model --------------------------------------------------------------------------------------------------------------

FILLED = [
    "rerank:index:ModelVolume$command:local:Command::model-populate",
    "rerank:index:ModelVolume$command:local:Command::model-released-qwen3-reranker-0.6b-6e9e69830b95",
    "rerank:index:ModelVolume$docker:index/volume:Volume::model-volume-qwen3-reranker-0.6b-6e9e69830b95",
    "rerank:index:ModelVolume::model",
]
VOLUME_NAME = "ragflow-vllm-reranker-qwen3-reranker-0.6b-6e9e69830b95"


@pytest.mark.parametrize(("args", "expected"), [
    ({"source": "hub"}, FILLED),
    ({"source": "modelscope"}, FILLED),
    ({"source": "archive", "path": __file__}, FILLED),
    ({"source": "directory", "path": "/srv/m"}, [FILLED[0], FILLED[3]]),
])  # fmt: skip
def test_every_source_but_a_directory_fills_a_volume(args: dict[str, Any], expected: list[str]) -> None:
    recorded = record(lambda: ModelVolume("model", model_args(**args)))
    assert urns(recorded) == expected
    assert all_parented(recorded, "rerank:index:ModelVolume")


@pytest.mark.parametrize("keep", [True, False])
def test_a_destroy_leaves_the_volume_unless_told_otherwise(keep: bool) -> None:
    recorded = record(lambda: ModelVolume("model", model_args(keep=keep)))
    volume = recorded.one(VOLUME)
    assert volume.retain_on_delete is True
    assert recorded.named("model-released-qwen3-reranker-0.6b-6e9e69830b95").inputs["environment"]["KEEP"] == ("yes" if keep else "no")
    # The old revision serves until the new one is whole.
    assert volume.delete_before_replace is None
    assert volume.inputs["name"] == VOLUME_NAME
    assert labelled(volume) == {labels.OWNER: OWNER.owner, labels.GENERATION: "00000001"}


def docker_run(command: Registration) -> str:
    return str(command.inputs["environment"]["SCRIPT"]).splitlines()[-1] if "SCRIPT" in command.inputs["environment"] else ""


def test_the_hub_is_asked_by_a_confined_container_on_the_docker_host() -> None:
    populate = record(lambda: ModelVolume("model", model_args(proxies={"HTTPS_PROXY": "http://p:1"}, environment=SSH))).named("model-populate")
    assert docker_run(populate).endswith(
        f"--mount type=volume,source={VOLUME_NAME},target=/srv/model --env HTTPS_PROXY=http://p:1 ragflow-vllm-reranker:0.32.0 populate --source hub "
        "--repo Qwen/Qwen3-Reranker-0.6B --revision 6e9e69830b95c52b5fd889b7690dda3329508de3 --target /srv/model --mirror "
        "https://one --mirror https://two --token-stdin"
    )
    assert " --network bridge " in docker_run(populate)
    assert populate.inputs["environment"].items() >= SSH.items()


@pytest.mark.parametrize(("source", "network"), [("hub", "host"), ("modelscope", "host"), ("archive", "none"), ("directory", "none")])
def test_only_a_download_has_a_network(source: str, network: str) -> None:
    populate = record(lambda: ModelVolume("model", model_args(source=source, path=__file__, network="host"))).named("model-populate")
    assert f" --network {network} " in docker_run(populate)


def test_a_directory_is_mounted_read_only_where_the_reranker_will_see_it_and_only_checked() -> None:
    populate = record(lambda: ModelVolume("model", model_args(source="directory", path="/srv/my models"))).named("model-populate")
    assert "--mount 'type=bind,source=/srv/my models,target=/models/qwen3-reranker-0.6b,readonly'" in docker_run(populate)
    assert docker_run(populate).endswith("--target /models/qwen3-reranker-0.6b")


def test_an_archive_is_read_from_the_machine_that_runs_pulumi() -> None:
    populate = record(lambda: ModelVolume("model", model_args(source="archive", path=__file__))).named("model-populate")
    assert docker_run(populate).endswith(f" < {__file__}")
    assert populate.inputs["triggers"][-1] == file_identity(__file__)


def test_an_archive_in_the_home_folder_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.tar").write_text("")
    populate = record(lambda: ModelVolume("model", model_args(source="archive", path="~/model.tar"))).named("model-populate")
    assert docker_run(populate).endswith(f" < {tmp_path / 'model.tar'}")


@pytest.mark.parametrize(("args", "kind", "source"), [
    ({}, "volume", VOLUME_NAME), ({"source": "directory", "path": "/srv/m"}, "bind", "/srv/m"),
])  # fmt: skip
def test_whoever_mounts_the_model_waits_until_it_is_whole(args: dict[str, Any], kind: str, source: str) -> None:
    def program() -> None:
        model = ModelVolume("model", model_args(**args))
        Reranker("reranker", reranker_args(model_mount_type=model.mount_type, model_mount_source=model.mount_source, model_populated=model.populated))

    recorded = record(program)
    assert (kind, source, "/models/qwen3-reranker-0.6b", True) in mounted(recorded.one(CONTAINER))
    assert recorded.named("model-populate").urn in recorded.one(CONTAINER).dependencies


def test_the_token_goes_in_by_stdin_alone_and_is_a_secret() -> None:
    recorded = record(lambda: ModelVolume("model", model_args(token=pulumi.Output.secret(TOKEN))))
    assert holding(recorded, TOKEN) == {("model-populate", "stdin")}
    populate = recorded.named("model-populate")
    assert populate.inputs["stdin"] == f"{TOKEN}\n"
    assert populate.secrets == {"stdin"}


# -- reranker -----------------------------------------------------------------------------------------------------------

RERANKER_URNS = [
    "rerank:index:Reranker$command:local:Command::reranker-cache-released", "rerank:index:Reranker$command:local:Command::reranker-healthy",
    "rerank:index:Reranker$docker:index/container:Container::reranker-container",
    "rerank:index:Reranker$docker:index/volume:Volume::reranker-cache", "rerank:index:Reranker::reranker",
]  # fmt: skip
KEY_URNS = [
    "rerank:index:Reranker$command:local:Command::reranker-key-file", "rerank:index:Reranker$command:local:Command::reranker-key-released",
    "rerank:index:Reranker$docker:index/volume:Volume::reranker-key",
]  # fmt: skip


def holding(recorded: Recorded, text: str) -> set[tuple[str, str]]:
    """(resource, input) of every place where the text is."""
    return {(item.name, key) for item in recorded.resources for key, value in item.inputs.items() if text in json.dumps(value, default=str)}


@pytest.mark.parametrize(
    ("args", "expected"), [({}, RERANKER_URNS), ({"api_key": KEY, "key_marks": marked("00000002")}, sorted([*RERANKER_URNS, *KEY_URNS]))]
)
def test_the_parts_of_a_reranker_keep_their_names(args: dict[str, Any], expected: list[str]) -> None:
    recorded = record(lambda: Reranker("reranker", reranker_args(**args)))
    assert urns(recorded) == expected
    assert all_parented(recorded, "rerank:index:Reranker")


def test_the_container_is_confined_limited_and_checked() -> None:
    container = record(lambda: Reranker("reranker", reranker_args())).one(CONTAINER)
    expected = {
        "name": "ragflow-vllm-reranker", "hostname": "ragflow-vllm-reranker", "image": "sha256:1", "command": ["launch", "--device", "cpu"],
        "user": "2000:2000", "readOnly": True, "tmpfs": {"/tmp": "rw,nosuid,nodev,size=1g"}, "capabilities": {"drops": ["ALL"]},
        "securityOpts": ["no-new-privileges:true"], "init": True, "cpus": "2.0", "memory": 8192, "memorySwap": 8192, "shmSize": 1024,
        "restart": "unless-stopped", "logDriver": "json-file", "logOpts": {"max-size": "10m", "max-file": "3"}, "mustRun": True,
        "ports": [{"internal": 8000, "external": 8123, "ip": "127.0.0.1"}],
    }  # fmt: skip
    assert {key: container.inputs[key] for key in expected} == expected
    assert container.inputs["healthcheck"] == {
        "tests": ["CMD", "python3", "-m", "serving", "health"], "interval": "10s", "timeout": "10s", "startPeriod": "15m0s", "retries": 3,
    }  # fmt: skip
    assert [item["name"] for item in container.inputs["networksAdvanced"]] == ["docker-ragflow"]
    assert mounted(container) == [
        ("volume", "ragflow-vllm-reranker-cache", "/var/lib/reranker", False), ("volume", "model-volume", "/models/qwen3-reranker-0.6b", True),
    ]  # fmt: skip
    assert labelled(container) == {
        labels.OWNER: OWNER.owner,
        labels.MADE: OWNER.made,
        labels.NETWORK_ID: "n1",
        labels.GENERATION: "00000002",
        labels.KEY_ID: "",
    }
    # A published port and a name are free only when the old container is gone.
    assert container.delete_before_replace is True
    assert not {"privileged", "envs", "deviceRequests", "networkMode", "pidMode"} & {key for key, value in container.inputs.items() if value}


def test_no_port_is_published_where_none_is_wanted() -> None:
    assert not record(lambda: Reranker("reranker", reranker_args(host_port=0))).one(CONTAINER).inputs.get("ports")


def test_a_mock_mounts_no_model() -> None:
    container = record(lambda: Reranker("reranker", reranker_args(model_mount_source=None, model_mount_type=""))).one(CONTAINER)
    assert mounted(container) == [("volume", "ragflow-vllm-reranker-cache", "/var/lib/reranker", False)]


def test_gpus_are_asked_of_the_nvidia_driver() -> None:
    container = record(lambda: Reranker("reranker", reranker_args(gpus=2))).one(CONTAINER)
    assert container.inputs["deviceRequests"] == [{"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}]


@pytest.mark.parametrize(("seconds", "written"), [(10, "10s"), (60, "1m0s"), (900, "15m0s"), (3600, "1h0m0s"), (7199, "1h59m59s")])
def test_the_grace_period_is_spelled_as_the_daemon_reads_it_back(seconds: int, written: str) -> None:
    container = record(lambda: Reranker("reranker", reranker_args(health_timeout_seconds=seconds))).one(CONTAINER)
    assert container.inputs["healthcheck"]["startPeriod"] == written


def test_waiting_for_health_follows_the_container_on_its_host() -> None:
    waits = record(lambda: Reranker("reranker", reranker_args(environment=SSH, health_timeout_seconds=77))).named("reranker-healthy")
    assert waits.inputs["triggers"] == ["id-of-reranker-container"]
    assert waits.inputs["environment"].items() >= SSH.items()
    assert "+ 77 ))" in waits.inputs["environment"]["SCRIPT"]


def test_a_key_is_in_the_stdin_of_its_writing_and_nowhere_else() -> None:
    recorded = record(lambda: Reranker("reranker", reranker_args(api_key=pulumi.Output.secret(KEY), key_marks=marked("00000002"))))
    assert holding(recorded, KEY) == {("reranker-key-file", "stdin")}
    assert recorded.named("reranker-key-file").secrets == {"stdin"}
    assert recorded.named("reranker-key-file").inputs["stdin"] == f"{KEY}\n"


def test_a_key_that_came_as_plain_text_is_a_secret_all_the_same() -> None:
    recorded = record(lambda: Reranker("reranker", reranker_args(api_key=KEY)))
    assert recorded.named("reranker-key-file").secrets == {"stdin"}


def test_the_key_file_is_written_on_the_docker_host_without_a_network() -> None:
    written = record(lambda: Reranker("reranker", reranker_args(api_key=KEY, key_marks=marked("00000002"), environment=SSH))).named(
        "reranker-key-file"
    )
    assert docker_run(written).endswith(
        "--mount type=volume,source=ragflow-vllm-reranker-key,target=/run/reranker ragflow-vllm-reranker:0.32.0 key --target /run/reranker/api_keys"
    )
    assert " --network none " in docker_run(written)
    assert written.inputs["triggers"] == ["ragflow-vllm-reranker-key", "00000002"]
    assert written.inputs["environment"].items() >= SSH.items()


def test_the_container_reads_the_key_from_a_file_and_is_replaced_when_it_was_written_anew() -> None:
    recorded = record(lambda: Reranker("reranker", reranker_args(api_key=KEY, key_marks=marked("00000002"), arguments=["launch", "--model", "m"])))
    container = recorded.one(CONTAINER)
    assert container.inputs["command"] == ["launch", "--model", "m", "--api-key-file", "/run/reranker/api_keys"]
    assert mounted(container)[-1] == ("volume", "ragflow-vllm-reranker-key", "/run/reranker", True)
    assert labelled(container)[labels.KEY_ID] == "stdout-of-reranker-key-file"
    # What the label says is no secret: a secret label would hide every other label in a preview.
    assert container.secrets == frozenset()
    volume = recorded.named("reranker-key")
    assert labelled(volume) == {labels.OWNER: OWNER.owner, labels.GENERATION: "00000002"}
    assert (volume.delete_before_replace, volume.retain_on_delete) == (True, True)


def test_what_the_writing_of_the_key_printed_is_no_secret_although_the_provider_takes_it_for_one() -> None:
    def apply(item: Registration) -> tuple[str, dict[str, Any]]:
        id_, more = imagined(item)
        secret = {rpc._special_sig_key: rpc._special_secret_sig, "value": "0a0b0c0d"}
        return id_, {**more, "stdout": secret} if item.name == "reranker-key-file" else more

    container = record(lambda: Reranker("reranker", reranker_args(api_key=KEY)), monitor=Recording(apply)).one(CONTAINER)
    assert labelled(container)[labels.KEY_ID] == "0a0b0c0d"
    assert container.secrets == frozenset()


def test_the_key_file_comes_before_the_arguments_that_are_vllms_own() -> None:
    container = record(lambda: Reranker("reranker", reranker_args(api_key=KEY, arguments=["launch", "--eager", "--", "--seed", "1"]))).one(CONTAINER)
    assert container.inputs["command"] == ["launch", "--eager", "--api-key-file", "/run/reranker/api_keys", "--", "--seed", "1"]


def test_no_repr_of_the_arguments_shows_a_secret() -> None:
    assert KEY not in repr(reranker_args(api_key=KEY))
    assert TOKEN not in repr(model_args(token=TOKEN))


@pytest.mark.parametrize(("address", "port", "url"), [
    ("127.0.0.1", 8123, "http://127.0.0.1:8123/v1"), ("0.0.0.0", 8123, "http://127.0.0.1:8123/v1"), ("192.168.1.9", 80, "http://192.168.1.9:80/v1"),
    ("::", 8123, "http://[::1]:8123/v1"), ("fd00::1", 8123, "http://[fd00::1]:8123/v1"), ("127.0.0.1", 0, ""),
])  # fmt: skip
def test_the_hosts_url_can_be_called_as_it_stands(address: str, port: int, url: str) -> None:
    assert host_url(address, port) == url


def test_a_reranker_gives_its_name_id_and_addresses() -> None:
    def program() -> None:
        reranker = Reranker("reranker", reranker_args())
        pulumi.export("seen", [reranker.container_name, reranker.container_id, reranker.internal_url, reranker.host_url])

    assert record(program).exports["seen"] == [
        "ragflow-vllm-reranker", "id-of-reranker-container", "http://ragflow-vllm-reranker:8000/v1", "http://127.0.0.1:8123/v1"
    ]  # fmt: skip


# -- RAGFlow ------------------------------------------------------------------------------------------------------------


def test_each_ragflow_container_has_an_attachment_named_by_it() -> None:
    def program() -> None:
        pulumi.export(
            "attached", RagflowAttachment("ragflow", ragflow_args(containers=[a_ragflow(), a_ragflow("kb", running=False)], environment=SSH)).attached
        )

    recorded = record(program)
    assert urns(recorded) == [
        "rerank:index:RagflowAttachment$command:local:Command::ragflow-docker-ragflow-cpu-1",
        "rerank:index:RagflowAttachment$command:local:Command::ragflow-kb",
        "rerank:index:RagflowAttachment::ragflow",
    ]  # fmt: skip
    assert all_parented(recorded, "rerank:index:RagflowAttachment")
    assert recorded.exports == {"attached": ["docker-ragflow-cpu-1", "kb"]}
    command = recorded.named("ragflow-docker-ragflow-cpu-1").inputs
    alias = command["environment"]["ATTACHMENT"]
    assert alias.startswith("attachment-")
    assert (command["create"], command["delete"]) == (CONNECT, DISCONNECT)
    assert command["environment"] == {
        **SSH, "ATTACHMENT": alias, "CONTAINER": "id-of-docker-ragflow-cpu-1", "NAME": "docker-ragflow-cpu-1", "NETWORK": "docker-ragflow",
        "OWNER": OWNER.owner,
    }  # fmt: skip
    assert command["triggers"] == ["id-of-docker-ragflow-cpu-1", alias, "docker-ragflow"]


def attachment(**facts: Any) -> Registration:
    return record(lambda: RagflowAttachment("ragflow", ragflow_args(containers=[a_ragflow(**facts)]))).one(COMMAND)


def test_an_attachment_that_stands_changes_nothing() -> None:
    made = attachment().inputs["environment"]["ATTACHMENT"]
    standing = {"networks": {"docker_ragflow": (), "docker-ragflow": ("0123", made)}}
    assert attachment(**standing).inputs == attachment(**standing).inputs
    assert attachment(**standing).inputs["triggers"][1] == made


def test_a_ragflow_that_was_made_anew_or_cut_off_is_attached_again() -> None:
    made = attachment().inputs["environment"]["ATTACHMENT"]
    standing = attachment(networks={"docker-ragflow": (made,)}).inputs["triggers"]
    assert attachment(id="another", networks={"docker_ragflow": ()}).inputs["triggers"] != standing
    assert attachment(networks={"docker_ragflow": ()}).inputs["triggers"] != standing


def test_an_attachment_by_others_is_stable_and_never_taken_back() -> None:
    theirs = attachment(networks={"docker-ragflow": ("ragflow-cpu",)}).inputs
    assert theirs["triggers"] == ["id-of-docker-ragflow-cpu-1", labels.BY_OTHERS, "docker-ragflow"]


def test_no_ragflow_means_no_attachment() -> None:
    def program() -> None:
        pulumi.export("attached", RagflowAttachment("ragflow", ragflow_args(containers=[])).attached)

    recorded = record(program)
    assert (urns(recorded), recorded.exports) == (["rerank:index:RagflowAttachment::ragflow"], {"attached": []})


# -- the entry in RAGFlow ------------------------------------------------------------------------------------------------

RAGFLOW_KEY = "ragflow-a-key-that-nobody-sees"


def registration_args(**changed: Any) -> RegistrationArgs:
    return RegistrationArgs(**{
        "url": "http://box:9380", "container": "", "instance": "ragflow-vllm-reranker", "model": "qwen3-reranker-0.6b",
        "base_url": "http://ragflow-vllm-reranker:8000/v1", "max_tokens": 4096, "default": "none", "ragflow_key": RAGFLOW_KEY, "reranker_key": KEY,
        **changed,
    })  # fmt: skip


def entered(**changed: Any) -> Registration:
    return record(lambda: RagflowRegistration("registration", registration_args(**changed))).one(COMMAND)


def test_the_entry_is_one_command_that_enters_changes_and_takes_out() -> None:
    recorded = record(lambda: pulumi.export("id", RagflowRegistration("registration", registration_args(environment=SSH)).model_id))
    assert urns(recorded) == [
        "rerank:index:RagflowRegistration$command:local:Command::registration-entry",
        "rerank:index:RagflowRegistration::registration",
    ]
    assert all_parented(recorded, "rerank:index:RagflowRegistration")
    assert recorded.exports == {"id": "stdout-of-registration-entry"}
    command = recorded.one(COMMAND)
    assert (command.inputs["create"].split(" -m ")[1], command.inputs["delete"].split(" -m ")[1]) == (
        "registration register",
        "registration unregister",
    )
    assert "update" not in command.inputs
    assert command.inputs["environment"] == {
        **SSH, "RAGFLOW_URL": "http://box:9380", "RAGFLOW_CONTAINER": "", "INSTANCE": "ragflow-vllm-reranker", "MODEL": "qwen3-reranker-0.6b",
        "BASE_URL": "http://ragflow-vllm-reranker:8000/v1", "MAX_TOKENS": "4096", "DEFAULT": "none", "FOUND": "",
    }  # fmt: skip


@pytest.mark.parametrize("given", [lambda key: key, pulumi.Output.secret, pulumi.Output.from_input])
def test_both_keys_are_in_the_secret_stdin_and_nowhere_else(given: Any) -> None:
    def program() -> None:
        args = registration_args(ragflow_key=given(RAGFLOW_KEY), reranker_key=given(KEY))
        assert KEY not in repr(args)
        pulumi.export("id", RagflowRegistration("registration", args).model_id)

    recorded = record(program)
    command = recorded.one(COMMAND)
    for key in (RAGFLOW_KEY, KEY):
        assert [name for name, value in command.inputs.items() if key in json.dumps(value)] == ["stdin"]
        assert key not in json.dumps(dict(recorded.exports))
    assert "stdin" in command.secrets
    assert json.loads(command.inputs["stdin"]) == {"ragflow": RAGFLOW_KEY, "reranker": KEY}


def test_what_was_found_is_a_change_and_nothing_found_is_none() -> None:
    assert entered().ignore_changes == ("environment.FOUND",)
    drifted = entered(found="not in RAGFlow (3f2a)")
    assert (drifted.ignore_changes, drifted.inputs["environment"]["FOUND"]) == ((), "not in RAGFlow (3f2a)")


def test_another_place_name_or_model_is_another_entry_and_the_old_one_goes_first() -> None:
    assert entered().delete_before_replace
    triggers = entered().inputs["triggers"]
    change: dict[str, Any]
    for change in ({"url": "http://other"}, {"container": "ragflow"}, {"instance": "mine"}, {"model": "other-reranker"}):
        assert entered(**change).inputs["triggers"] != triggers
    for change in ({"base_url": "http://other/v1"}, {"max_tokens": 1}, {"default": "tenant"}, {"reranker_key": "another-key"}, {"found": "gone"}):
        assert entered(**change).inputs["triggers"] == triggers


def test_the_entry_waits_for_what_it_needs() -> None:
    def program() -> None:
        reranker = Reranker("reranker", reranker_args())
        attachment = RagflowAttachment("ragflow", ragflow_args(containers=[a_ragflow()]))
        RagflowRegistration("registration", registration_args(needs=[reranker.healthy, attachment]))

    recorded = record(program)
    needs = set(recorded.named("registration-entry").dependencies)
    assert {recorded.named("reranker-healthy").urn, recorded.named("ragflow-docker-ragflow-cpu-1").urn} <= needs


# -- two of everything --------------------------------------------------------------------------------------------------


def test_two_instances_share_no_urn_and_no_name_of_a_thing_on_the_host() -> None:
    def stand(name: str, container: str) -> None:
        SharedNetwork(f"{name}-network", network_args(network_name=f"{container}-net"))
        image = RerankerImage(f"{name}-image", image_args(RegistryBase(image=Published(reference="vllm:1")), image_name=f"{container}:1"))
        model = ModelVolume(f"{name}-model", model_args(prefix=container, image_name=image.image_name))
        Reranker(
            f"{name}-reranker",
            reranker_args(container_name=container, api_key=KEY, model_mount_source=model.mount_source, image_name=image.image_name),
        )
        RagflowAttachment(f"{name}-ragflow", ragflow_args())
        RagflowRegistration(f"{name}-registration", registration_args(instance=container))

    def program() -> None:
        stand("one", "ragflow-one")
        stand("two", "ragflow-two")

    recorded = record(program)
    assert len({item.urn for item in recorded.resources}) == len(recorded.resources)
    things = [str(item.inputs.get("name") or item.inputs.get("imageName")) for item in recorded.resources if item.type.startswith("docker:")]
    # network, image, model, cache, key, container - of each
    assert len(things) == len(set(things)) == 12
    one_offs = [line for item in recorded.of(COMMAND) if " --name " in (line := docker_run(item))]
    names = [line.split(" --name ")[1].split()[0] for line in one_offs]
    assert sorted(names) == ["ragflow-one-key", "ragflow-one-populate", "ragflow-two-key", "ragflow-two-populate"]
    for container in recorded.of(CONTAINER):
        other = "ragflow-two" if container.inputs["name"] == "ragflow-one" else "ragflow-one"
        assert other not in json.dumps(dict(container.inputs))


def test_arguments_are_frozen() -> None:
    assert replace(network_args(), network_name="b") != network_args()
    with pytest.raises(AttributeError):
        network_args().network_name = "b"  # type: ignore[misc]
