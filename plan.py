"""From settings and host to the components' arguments: names, argv and form values, computed without pulumi resources."""

import json
import shlex

from components import _containers
from components.image import ArchiveBase, Base, RegistryBase, SourceBase, WheelBase
from settings import Settings


def proxies(s: Settings) -> dict[str, str]:
    """The proxy environment of builds and downloads, in both spellings that programs look for."""
    given = {"HTTP_PROXY": s.http_proxy, "HTTPS_PROXY": s.https_proxy, "NO_PROXY": s.no_proxy}
    return {name: value for key, value in given.items() if value for name in (key, key.lower())}


def image_base(s: Settings) -> Base:
    """The image below the serving layer."""
    match s.backend, s.image_strategy:
        case "mock", _:
            return RegistryBase(reference=s.base_image)
        case "gpu", _:
            return RegistryBase(reference=s.gpu_image)
        case _, "wheel":
            arguments = {
                "BASE_IMAGE": s.base_image,
                "PACKAGE_INDEX": s.package_index,
                "EXTRA_INDEX": s.extra_index,
                "VLLM_PACKAGE": s.vllm_package,
                "VLLM_VERSION": s.vllm_version,
                "TORCH_REQUIREMENT": s.torch_requirement,
                "DEBIAN_MIRROR": s.debian_mirror,
                "CA_BUNDLE": s.ca_bundle,
            }
            return WheelBase(version=s.vllm_version, build_args={**arguments, **proxies(s)})
        case _, "source":
            return SourceBase(version=s.vllm_version, context=s.source_context, build_args=proxies(s))
        case _, "registry":
            return RegistryBase(reference=s.registry_image)
        case _:
            return ArchiveBase(path=s.archive_path, reference=s.archive_image)


def image_name(s: Settings) -> str:
    """Tag of the finished image; no two containers share one. No version in it: the steps that run in the image are not to change with it."""
    return f"{s.container_name.lower()}:{s.backend}"


def arguments(s: Settings) -> list[str]:
    """argv of the reranker's container after the entry point."""
    if s.backend == "mock":
        return ["mock", *_guard(s)]
    gpu = ["--tensor-parallel-size", str(s.gpu_count), "--gpu-memory-utilization", f"{s.gpu_memory_utilization_percent / 100:.2f}"]
    return [
        "launch", "--device", s.backend, "--model", model_target(s), *_guard(s),
        "--dtype", s.dtype, "--kv-cache-gib", str(s.kv_cache_gib),
        "--max-num-batched-tokens", str(s.max_num_batched_tokens), "--max-num-seqs", str(s.max_num_seqs),
        "--threads", str(s.threads), "--block-size", str(s.block_size), "--prefix-caching", _switch(s.prefix_caching), "--preload", _switch(s.preload),
        "--eager" if s.enforce_eager else "--compiled",
        *(gpu if s.backend == "gpu" else []),
        *(["--unverified"] if s.model_source == "directory" else []),
        *(["--", *s.vllm_extra_args] if s.vllm_extra_args else []),
    ]  # fmt: skip


def _guard(s: Settings) -> list[str]:
    """What the guard is told, the same for every backend (serving/options.py reads it)."""
    names = [item for name in _containers.serving_names(s.model_slug) for item in ("--served-model-name", name)]
    return [
        *names, "--instruction", s.instruction, "--max-model-len", str(s.max_model_len), "--deadline-seconds", str(s.deadline_seconds),
        "--min-document-tokens", str(s.min_document_tokens), "--max-query-tokens", str(s.max_query_tokens), "--max-documents", str(s.max_documents),
        "--max-body-mib", str(s.max_body_mib), "--cache-entries", str(s.cache_entries), "--golden", _switch(s.golden_check),
    ]  # fmt: skip


def _switch(on: bool) -> str:
    return "on" if on else "off"


def model_target(s: Settings) -> str:
    """Where the model stands inside the container."""
    return f"/models/{s.model_slug}"


KEY_PLACEHOLDER = "x"  # RAGFlow's client refuses an empty key, and any other will do where none is asked for


def ragflow_form(s: Settings, base_url: str, model: str) -> dict[str, str]:
    """What RAGFlow's 'add model' form wants, field by field, and its older configuration snippet."""
    return {
        "factory": "VLLM",
        "modelType": "rerank",
        "modelName": model,
        "baseUrl": base_url,
        "apiKey": "the value of apiKey (pulumi config get apiKey)" if s.api_key else KEY_PLACEHOLDER,
        "maxTokens": str(s.max_model_len),
        "snippet": f"reranker:\n  provider: vllm\n  api_base: {base_url}\n  model: {model}\n",
    }


def verify_commands(s: Settings, *, attached: list[str], base_url: str, host_url: str, model: str) -> list[str]:
    """Shell commands that show the reranker answering: from inside RAGFlow, and from the Docker host where a port is published."""
    header = ' -H "Authorization: Bearer $RERANK_API_KEY"' if s.api_key else ""
    body = json.dumps({"model": model, "query": "capital of France", "documents": ["Paris is the capital of France", "Bananas are yellow"]})
    call = f"curl -fsS -m 60{header} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    docker = f"docker -H {s.docker_host}" if s.docker_host else "docker"
    inside = f"{docker} exec{' -e RERANK_API_KEY' if s.api_key else ''}"
    commands = [f"{inside} {name} sh -c {shlex.quote(f'{call} {base_url}/rerank')}" for name in attached]
    return commands + ([f"{call} {host_url}/rerank"] if host_url else [])
