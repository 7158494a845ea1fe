"""One stack's dials as the program knows them: a frozen record. config/read.py fills it, config/rules.py says what may stand in it."""

from dataclasses import dataclass, field

from serving.launch.options import GpuDials, LaunchDials
from serving.options import ServiceDials

SECRETS = ("api_key", "model_token", "ragflow_api_key")


class SettingsError(Exception):
    """The configuration cannot be deployed; the message lists every refusal, one a line."""


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceDials, LaunchDials, GpuDials):
    """One stack's dials, validated. A field is a key of Pulumi.yaml in snake case; those of what runs in the container are declared there (serving/)."""

    backend: str
    docker_host: str
    container_name: str
    network_name: str
    ragflow_mode: str
    ragflow_containers: tuple[str, ...]
    ragflow_network: str
    ragflow_url: str
    ragflow_api_key: str = field(repr=False)
    ragflow_default: str
    image_strategy: str
    base_image: str
    image_registries: tuple[str, ...]
    image_from_packages: bool
    vllm_package: str
    vllm_version: str
    torch_requirement: str
    torch_indexes: tuple[str, ...]
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
    model_token_hosts: tuple[str, ...]
    model_network: str
    model_keep: bool
    bind_address: str
    host_port: int
    api_key: str = field(repr=False)
    cpus: int
    memory_gib: int
    shm_gib: int
    missing_limits: str
    vllm_extra_args: tuple[str, ...]
    restart_policy: str
    health_timeout_seconds: int
    log_max_mib: int
    gpu_image: str
    external_url: str
    external_model: str

    @property
    def model_slug(self) -> str:
        """Directory and served name of the model: 'qwen3-reranker-0.6b' for 'Qwen/Qwen3-Reranker-0.6B'."""
        return self.model.rsplit("/", 1)[-1].lower()


def camel(name: str) -> str:
    """The key in Pulumi.yaml of a field: 'memory_gib' -> 'memoryGiB'."""
    head, *rest = name.split("_")
    units = {"gib": "GiB", "mib": "MiB"}
    return head + "".join(units.get(part, part.capitalize()) for part in rest)


def refused(what: str, refusals: list[str]) -> SettingsError:
    """All refusals in one error, a line each."""
    return SettingsError("\n".join([f"{what}; nothing was changed:", *(f"  - {text}" for text in refusals)]))
