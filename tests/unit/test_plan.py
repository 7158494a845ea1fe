"""plan.py: from settings to names, argv, form values and commands, compared whole."""

import dataclasses
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

import plan
from components._base import Published
from components.image import ArchiveBase, Base, PythonBase, RegistryBase, SourceBase, WheelBase
from config.settings import camel
from host.observe import Container
from host.ragflow import NotFound
from registration.entry import Entry, Place
from serving import dials
from serving.launch.mock import MockOptions
from serving.launch.options import LaunchDials, LaunchOptions, parse
from serving.options import ServiceDials
from tests.unit.builders import DECLARED, a_container, a_deployment, a_host, a_network, a_ragflow, a_settings

PROXY = "http://10.0.0.1:3128"
DIGEST = "@sha256:" + "0" * 64
INTERNAL = "http://ragflow-vllm-reranker:8000/v1"
NAMES = ("qwen3-reranker-0.6b",)
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
SERVICE = [
    "--max-model-len", "4096", "--instruction", INSTRUCTION, "--deadline-seconds", "10", "--min-document-tokens", "192", "--unscored", "typical", "--max-query-tokens", "1024",
    "--max-documents", "1000", "--max-body-mib", "16", "--cache-entries", "50000", "--golden-check", "on", "--page", "on",
    "--served-model-names", NAMES[0],
]  # fmt: skip


def default(key: str) -> str:
    return str(DECLARED[key]["default"])


def test_a_proxy_is_told_in_both_spellings_and_only_where_there_is_one() -> None:
    assert plan.proxies(a_settings()) == {}
    assert plan.proxies(a_settings(httpsProxy=PROXY, noProxy="localhost")) == {
        "HTTPS_PROXY": PROXY, "https_proxy": PROXY, "NO_PROXY": "localhost", "no_proxy": "localhost"
    }  # fmt: skip


def published(reference: str, key: str, **more: Any) -> Published:
    return Published(reference=reference, key=key, registries=tuple(DECLARED["imageRegistries"]["default"]), **more)


def based(reference: str, **more: Any) -> Published:
    return published(reference, "baseImage", from_packages=True, **more)


BASES: list[tuple[dict[str, Any], Base]] = [
    (
        {"imageStrategy": "source", "httpProxy": PROXY},
        SourceBase(version="0.32.0", context="https://github.com/vllm-project/vllm.git", build_args={"HTTP_PROXY": PROXY, "http_proxy": PROXY}),
    ),
    ({"imageStrategy": "registry", "registryImage": f"vllm/cpu:1{DIGEST}"}, RegistryBase(image=published(f"vllm/cpu:1{DIGEST}", "registryImage"))),
    ({"imageStrategy": "archive", "archivePath": __file__, "archiveImage": "vllm:1"}, ArchiveBase(path=__file__, reference="vllm:1")),
    ({"backend": "gpu", "gpuImage": "vllm/vllm-openai:v0.33.0"}, RegistryBase(image=published("vllm/vllm-openai:v0.33.0", "gpuImage"))),
    ({"backend": "mock", "baseImage": "python:3.12"}, PythonBase(image=based("python:3.12"), build_args={})),
    (
        {"backend": "mock", "baseImage": "python:3.12", "packageIndex": "https://pypi.example/simple", "httpProxy": PROXY},
        PythonBase(
            image=based("python:3.12", proxies={"HTTP_PROXY": PROXY, "http_proxy": PROXY}),
            build_args={"PACKAGE_INDEX": "https://pypi.example/simple", "HTTP_PROXY": PROXY, "http_proxy": PROXY},
        ),
    ),
    # what only a CPU reads leaves the others alone
    ({"backend": "mock", "imageStrategy": "source", "baseImage": "python:3.12"}, PythonBase(image=based("python:3.12"), build_args={})),
    ({"backend": "gpu", "imageStrategy": "source"}, RegistryBase(image=published(default("gpuImage"), "gpuImage"))),
]


@pytest.mark.parametrize(("overrides", "base"), BASES)
def test_backend_and_strategy_choose_the_image_below_the_serving_layer(overrides: dict[str, Any], base: Base) -> None:
    assert plan.image_base(a_settings(**overrides)) == base


def test_every_dial_of_the_wheel_reaches_its_dockerfile() -> None:
    wanted: dict[str, Any] = {
        "baseImage": "debian:bookworm", "packageIndex": "https://pypi.example/simple",
        "extraIndex": "https://extra.example/simple", "vllmPackage": "vllm",
        "vllmVersion": "0.31.0", "torchRequirement": "torch==2.12.0+cpu", "debianMirror": "http://deb.example/debian", "httpsProxy": PROXY,
        "torchIndexes": ["https://torch.example/cpu", "https://other.example/cpu"], "imageFromPackages": False, "buildNetwork": "host",
    }  # fmt: skip
    base = plan.image_base(a_settings(**wanted))
    proxies = {"HTTPS_PROXY": PROXY, "https_proxy": PROXY}
    image = published("debian:bookworm", "baseImage", debian_mirror="http://deb.example/debian", build_network="host", proxies=proxies)
    assert base == WheelBase(version="0.31.0", image=image, build_args={
        "TORCH_INDEXES": "https://torch.example/cpu https://other.example/cpu", "PACKAGE_INDEX": "https://pypi.example/simple",
        "EXTRA_INDEX": "https://extra.example/simple", "VLLM_PACKAGE": "vllm",
        "VLLM_VERSION": "0.31.0", "TORCH_REQUIREMENT": "torch==2.12.0+cpu", "DEBIAN_MIRROR": "http://deb.example/debian", "CA_BUNDLE": "",
        "HTTPS_PROXY": PROXY, "https_proxy": PROXY,
    })  # fmt: skip


def test_every_argument_of_the_wheel_is_one_of_its_dockerfiles() -> None:
    base = plan.image_base(a_settings())
    assert isinstance(base, WheelBase)
    lines = (Path(plan.__file__).parent / "images" / "Dockerfile.cpu").read_text(encoding="utf-8").splitlines()
    declared = {line.split()[1].split("=")[0] for line in lines if line.startswith("ARG ")}
    # The proxies' names are predefined in every Dockerfile.
    assert set(base.build_args) <= declared


@pytest.mark.parametrize(("overrides", "name"), [
    ({}, "ragflow-vllm-reranker:cpu"), ({"backend": "mock"}, "ragflow-vllm-reranker:mock"), ({"containerName": "My-Box"}, "my-box:cpu"),
])  # fmt: skip
def test_the_image_is_named_after_its_only_container(overrides: dict[str, Any], name: str) -> None:
    assert plan.image_name(a_settings(**overrides)) == name


def test_the_mock_gets_what_its_service_needs_and_nothing_of_a_model() -> None:
    assert plan.arguments(a_settings(backend="mock", enforceEager=False, vllmExtraArgs=["--seed", "1"])) == ["mock", *SERVICE]


def test_a_cpu_reranker_is_launched_with_every_dial() -> None:
    assert plan.arguments(a_settings()) == [
        "launch", *SERVICE, "--model", "/models/qwen3-reranker-0.6b", "--kv-cache-gib", "1",
        "--max-num-batched-tokens", "0", "--max-num-seqs", "0", "--threads", "0", "--block-size", "0", "--prefix-caching", "on", "--preload", "on",
        "--dtype", "auto", "--enforce-eager", "on", "--device", "cpu",
    ]  # fmt: skip


def test_a_gpu_reranker_is_launched_with_its_share_of_the_memory() -> None:
    assert plan.arguments(a_settings(backend="gpu", gpuCount=2, enforceEager=False, dtype="float16", prefixCaching=False, preload=False)) == [
        "launch", *SERVICE, "--model", "/models/qwen3-reranker-0.6b", "--kv-cache-gib", "1",
        "--max-num-batched-tokens", "0", "--max-num-seqs", "0", "--threads", "0", "--block-size", "0", "--prefix-caching", "off", "--preload", "off",
        "--dtype", "float16", "--enforce-eager", "off", "--device", "gpu", "--gpu-count", "2", "--gpu-memory-utilization-percent", "85",
    ]  # fmt: skip


def test_the_users_own_arguments_come_last_behind_two_dashes() -> None:
    argv = plan.arguments(a_settings(vllmExtraArgs=["--seed", "1"], modelSource="directory", modelPath="/srv/m"))
    assert argv[-5:] == ["--unverified", "on", "--", "--seed", "1"]


def test_only_a_directory_goes_without_a_manifest() -> None:
    assert "--unverified" not in plan.arguments(a_settings())


CALLS: dict[str, Any] = {
    "deadlineSeconds": 7, "minDocumentTokens": 32, "unscored": "below", "maxQueryTokens": 99, "maxDocuments": 5, "maxBodyMiB": 2, "cacheEntries": 0, "goldenCheck": False, "page": False,
    "maxModelLen": 2048,
}  # fmt: skip
DIALS: list[dict[str, Any]] = [
    {}, {"backend": "gpu"}, {"instruction": "Find 'it' and $HOME \"so\"\nthen stop"}, {"vllmExtraArgs": ["--seed", "1"]}, CALLS,
    {"threads": 2, "blockSize": 64, "prefixCaching": False, "preload": False, "maxNumSeqs": 8, "maxNumBatchedTokens": 512, "enforceEager": False},
]  # fmt: skip


@pytest.mark.parametrize("overrides", DIALS)
def test_the_launcher_reads_what_the_plan_writes(overrides: dict[str, Any]) -> None:
    s = a_settings(**overrides)
    gpu = s.backend == "gpu"
    assert parse(plan.arguments(s)[1:]) == LaunchOptions(
        device=s.backend, model="/models/qwen3-reranker-0.6b", served_model_names=NAMES, instruction=s.instruction, max_model_len=s.max_model_len,
        deadline_seconds=s.deadline_seconds, min_document_tokens=s.min_document_tokens, unscored=s.unscored, max_query_tokens=s.max_query_tokens, max_documents=s.max_documents,
        max_body_mib=s.max_body_mib, cache_entries=s.cache_entries, golden_check=s.golden_check, page=s.page, dtype=s.dtype, kv_cache_gib=s.kv_cache_gib,
        max_num_batched_tokens=s.max_num_batched_tokens, max_num_seqs=s.max_num_seqs, threads=s.threads, block_size=s.block_size,
        prefix_caching=s.prefix_caching, preload=s.preload, enforce_eager=s.enforce_eager, gpu_count=1 if gpu else 0,
        gpu_memory_utilization_percent=85 if gpu else 0, unverified=False, extra=s.vllm_extra_args, api_key_file="", tokens_per_pass=0, number_format="",
    )  # fmt: skip


@pytest.mark.parametrize("overrides", [{}, CALLS])
def test_the_mock_reads_what_the_plan_writes(overrides: dict[str, Any]) -> None:
    s = a_settings(backend="mock", **overrides)
    read = dials.read(MockOptions, plan.arguments(s)[1:], prog="mock")
    assert read == dials.take(MockOptions, s, served_model_names=NAMES, model="")


def test_every_dial_of_the_container_that_is_set_arrives_there() -> None:
    """Whatever is added to the dials is covered by itself: each is given another value than its default."""
    changed: dict[str, Any] = {"instruction": "Find it", "dtype": "float32", "deadlineSeconds": 7, "maxModelLen": 2048, "minDocumentTokens": 32, "unscored": "below", "maxQueryTokens": 99,
               "maxDocuments": 5, "maxBodyMiB": 2, "cacheEntries": 0, "goldenCheck": False, "page": False, "kvCacheGiB": 2, "maxNumBatchedTokens": 512, "maxNumSeqs": 8,
               "threads": 2, "blockSize": 64, "prefixCaching": False, "preload": False, "enforceEager": False}  # fmt: skip
    s = a_settings(**changed)
    arrived = parse(plan.arguments(s)[1:])
    for item in (*dataclasses.fields(ServiceDials), *dataclasses.fields(LaunchDials)):
        assert getattr(s, item.name) != DECLARED[camel(item.name)]["default"], f"give {item.name} another value in this test"
        assert getattr(arrived, item.name) == getattr(s, item.name)


def test_ragflows_form_is_filled_in() -> None:
    assert plan.ragflow_form(a_settings(), INTERNAL, "qwen3-reranker-0.6b") == {
        "factory": "VLLM",
        "modelType": "rerank",
        "modelName": "qwen3-reranker-0.6b",
        "baseUrl": INTERNAL,
        "apiKey": "x",
        "maxTokens": "4096",
        "modelId": "",
        "snippet": f"reranker:\n  provider: vllm\n  api_base: {INTERNAL}\n  model: qwen3-reranker-0.6b\n",
    }


def test_the_form_has_the_id_where_the_stack_entered_the_model() -> None:
    assert plan.ragflow_form(a_settings(), INTERNAL, "m", "m@ragflow-vllm-reranker@VLLM")["modelId"] == "m@ragflow-vllm-reranker@VLLM"


def registered(*containers: Container, **overrides: Any) -> plan.Plan:
    return plan.plan(a_settings(ragflowApiKey="ragflow-key", **overrides), a_host(containers=containers), a_deployment())


def test_ragflow_is_told_what_its_form_would_be() -> None:
    planned = registered(ragflowUrl="http://box:9380/", apiKey="hunter2-hunter2", ragflowDefault="tenant", containerName="mine", maxModelLen=2048)
    assert planned.entry == Entry(
        instance="mine", model="qwen3-reranker-0.6b", base_url="http://mine:8000/v1", max_tokens=2048, api_key="hunter2-hunter2", default=True
    )
    assert planned.place == Place(url="http://box:9380", key="ragflow-key")


def test_ragflow_is_asked_from_inside_its_container_where_that_is_said() -> None:
    stopped = a_ragflow("old-ragflow-cpu-1", running=False)
    for containers in ((a_ragflow(),), (a_ragflow(), stopped)):
        assert registered(*containers, ragflowUrl="container").place == Place(
            url="http://127.0.0.1:9380", container="docker-ragflow-cpu-1", key="ragflow-key"
        )
    # it may start again before the up, and is looked for there
    assert registered(stopped, ragflowUrl="container").place.container == "old-ragflow-cpu-1"


@pytest.mark.parametrize(
    ("containers", "seen"), [((), "none"), ((a_ragflow("a-ragflow-cpu-1"), a_ragflow("b-ragflow-cpu-1")), "a-ragflow-cpu-1, b-ragflow-cpu-1")]
)
def test_a_container_that_is_not_there_or_not_alone_is_not_guessed(containers: tuple[Container, ...], seen: str) -> None:
    with pytest.raises(NotFound) as refused:
        _ = registered(*containers, ragflowUrl="container").place
    assert str(refused.value) == (
        f"ragflowUrl: 'container' needs one RAGFlow container on this host, and there is {seen}; start RAGFlow, name one in ragflowContainers, or set "
        "the address of its API"
    )


def test_the_snippet_of_the_form_is_yaml_with_a_true_base_url() -> None:
    snippet = yaml.safe_load(plan.ragflow_form(a_settings(), INTERNAL, "qwen3-reranker-0.6b")["snippet"])
    assert snippet == {"reranker": {"provider": "vllm", "api_base": INTERNAL, "model": "qwen3-reranker-0.6b"}}


def test_the_form_says_where_the_key_is_and_not_what_it_is() -> None:
    form = plan.ragflow_form(a_settings(apiKey="hunter2-hunter2"), INTERNAL, "m")
    assert form["apiKey"] == "the value of apiKey (pulumi config get apiKey)"
    assert "hunter2" not in json.dumps(form)


BODY = {"model": "m", "query": "capital of France", "documents": ["Paris is the capital of France", "Bananas are yellow"]}


def verified(s: Any, **changed: Any) -> list[str]:
    return plan.verify_commands(
        s, **{"attached": ["docker-ragflow-cpu-1"], "base_url": INTERNAL, "host_url": "http://127.0.0.1:8123/v1", "model": "m", **changed}
    )


def test_it_is_verified_from_inside_ragflow_and_from_the_host() -> None:
    inside, outside = (shlex.split(command) for command in verified(a_settings()))
    assert inside[:5] == ["docker", "exec", "docker-ragflow-cpu-1", "sh", "-c"]
    assert len(inside) == 6
    curl = shlex.split(inside[5])
    assert curl[:6] == ["curl", "-fsS", "-m", "60", "-H", "Content-Type: application/json"]
    assert json.loads(curl[curl.index("-d") + 1]) == BODY
    assert curl[-1] == f"{INTERNAL}/rerank"
    assert outside == [*curl[:-1], "http://127.0.0.1:8123/v1/rerank"]


def test_what_is_not_there_is_not_verified() -> None:
    assert verified(a_settings(), attached=[], host_url="") == []


def test_a_remote_host_is_named_in_the_command() -> None:
    assert verified(a_settings(dockerHost="ssh://root@box"))[0].startswith("docker -H ssh://root@box exec docker-ragflow-cpu-1 sh -c ")


def test_a_key_is_read_from_the_environment_when_the_command_runs(tmp_path: Path) -> None:
    inside, outside = verified(a_settings(apiKey="hunter2-hunter2"))
    assert "hunter2" not in inside + outside
    assert inside.startswith("docker exec -e RERANK_API_KEY docker-ragflow-cpu-1 ")
    for name, body in {"docker": 'shift 4; exec "$@"', "curl": 'for item in "$@"; do echo "$item"; done; cat >&2'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for command in (inside, outside):
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={"PATH": f"{tmp_path}:/usr/bin:/bin", "RERANK_API_KEY": "the key"},
        )
        assert "the key" not in done.stdout
        assert "@-" in done.stdout.splitlines()
        assert done.stderr == "Authorization: Bearer the key"


def test_a_model_name_with_quotes_breaks_no_command() -> None:
    [outside] = verified(a_settings(), attached=[], model="""it's"so""")
    curl = shlex.split(outside)
    assert json.loads(curl[curl.index("-d") + 1])["model"] == """it's"so"""


# -- the host as it is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacking", "cpus", "memory_mib", "swaps"),
    [
        ((), 2, 8192, False),
        (("swap",), 2, 8192, True),
        (("memory", "swap"), 2, 0, True),
        (("cpu",), 0, 8192, False),
        (("cpu", "memory", "swap"), 0, 0, True),
    ],
)
def test_a_limit_that_the_host_cannot_keep_is_not_asked_for(lacking: tuple[str, ...], cpus: int, memory_mib: int, swaps: bool) -> None:
    planned = plan.plan(a_settings(missingLimits="omit"), a_host(lacking=frozenset(lacking)), a_deployment())
    args = planned.reranker(*(Mock() for _ in range(3)))
    assert (args.cpus, args.memory_mib, args.swaps) == (cpus, memory_mib, swaps)
    # What no quota holds is held by the number of its threads.
    threads = parse(list(args.arguments)[1:]).threads
    assert threads == (2 if "cpu" in lacking else 0)


def hosted(name: str = "docker-ragflow-cpu-1", mode: str = "host") -> Container:
    return a_ragflow(name, network_mode=mode, networks={})


APART: list[tuple[dict[str, Any], tuple[Container, ...], str]] = [
    ({}, (hosted(),), "ragflowMode: RAGFlow's container 'docker-ragflow-cpu-1' runs in the host's network (network_mode: host), and Docker puts such a one on no other; "
     "set ragflowMode to none, and enter http://127.0.0.1:8123/v1 as base URL in RAGFlow (the output hostUrl)"),
    ({"hostPort": 0}, (hosted(),), "set hostPort to a free port, such as 8123, which RAGFlow calls then"),
    ({"ragflowMode": "join", "ragflowNetwork": "theirs"}, (hosted(),), "runs in the host's network"),
    ({}, (hosted(), a_ragflow("kb-ragflow-cpu-1")), "; or name only the others in ragflowContainers (kb-ragflow-cpu-1)"),
    ({}, (hosted(mode="none"),), "has no network (network_mode: none), and Docker gives it none; start it with one, or set ragflowMode to none"),
    ({}, (hosted(mode="container:id-of-vpn"), a_container("vpn")), "uses the network of the container 'vpn' (network_mode: container), and has none of its own; name "
     "that one in ragflowContainers"),
    ({"ragflowMode": "none", "hostPort": 0, "ragflowUrl": "http://127.0.0.1:9380", "ragflowApiKey": "k" * 9}, (hosted(),), "hostPort: 0 leaves RAGFlow's container"),
]  # fmt: skip


@pytest.mark.parametrize(("dials", "containers", "words"), APART)
def test_a_ragflow_that_no_network_can_be_added_to_is_refused_with_what_to_do(
    dials: dict[str, Any], containers: tuple[Container, ...], words: str
) -> None:
    host = a_host(containers=containers, networks={"theirs": a_network("theirs")})
    with pytest.raises(NotFound) as refused:
        plan.plan(a_settings(**dials), host, a_deployment())
    assert words in str(refused.value)


def test_a_ragflow_in_the_hosts_network_that_is_left_alone_is_entered_with_the_published_port() -> None:
    planned = plan.plan(a_settings(ragflowMode="none"), a_host(containers=(hosted(),)), a_deployment())
    assert (planned.hosted, planned.ragflows, planned.warnings) == (True, [], [])
    assert planned.entry.base_url == "http://127.0.0.1:8123/v1"
    beside = plan.plan(a_settings(ragflowMode="none"), a_host(containers=(hosted(), a_ragflow("kb-ragflow-cpu-1"))), a_deployment())
    assert (beside.hosted, beside.entry.base_url) == (False, INTERNAL)


def test_a_network_to_join_that_there_are_two_of_is_refused_with_both_ids() -> None:
    host = a_host(containers=(a_ragflow(),), networks={"docker_ragflow": a_network("docker_ragflow", id="a" * 64, twins=("b" * 64,))})
    with pytest.raises(NotFound, match=r"^ragflowNetwork: 2 networks of this Docker host are called 'docker_ragflow' \(aaaaaaaaaaaa, bbbbbbbbbbbb\)"):
        plan.plan(a_settings(ragflowMode="join"), host, a_deployment()).network()
