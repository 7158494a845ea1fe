"""Settings + host + deployment -> the arguments of every component, and the outputs. Nothing here waits, asks or declares: a value that only the engine knows comes in and goes out as it is."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components import (
    ImageArgs,
    ModelArgs,
    ModelVolume,
    NetworkArgs,
    RagflowArgs,
    RagflowAttachment,
    RegistrationArgs,
    Reranker,
    RerankerArgs,
    RerankerImage,
    SharedNetwork,
)
from components._base import Published
from components.image import ArchiveBase, Base, PythonBase, RegistryBase, SourceBase, WheelBase
from components.model import volume_name
from components.reranker import host_url, internal_url
from config.settings import Settings
from host import labels, ragflow, registered
from host.docker import environment
from host.neighbours import Names
from host.observe import Container, Host, Network
from host.registered import Registered
from registration.entry import KEY_PLACEHOLDER, MODEL_TYPE, PROVIDER, Entry, Place
from serving import dials
from serving.launch import options
from serving.options import ServiceOptions

NO_RAGFLOW = "no RAGFlow container on this host: start RAGFlow and run pulumi up again, or list its containers in ragflowContainers"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A stack on its host. `ragflows`: RAGFlow's containers; `network_name`: the network that they and the reranker share; `deployment`: whose all of it is.

    `hosted`: RAGFlow is left alone in the host's own network, and calls the published port.
    """

    settings: Settings
    host: Host
    deployment: labels.Deployment
    ragflows: Sequence[Container]
    network_name: str
    hosted: bool = False

    @property
    def attached(self) -> Sequence[Container]:
        """RAGFlow's containers that this stack attaches."""
        return self.ragflows if self.settings.ragflow_mode == "attach" else []

    @property
    def joined(self) -> list[str]:
        """Names of those that share the network with the reranker without being attached to it."""
        return [container.name for container in self.ragflows if self.network_name in container.networks]

    @property
    def warnings(self) -> list[str]:
        return [NO_RAGFLOW] if self.settings.ragflow_mode == "attach" and not self.ragflows else []

    @property
    def has_model(self) -> bool:
        return self.settings.backend != "mock"

    @property
    def reach(self) -> dict[str, str]:
        """Environment that reaches the stack's Docker host."""
        return environment(self.settings.docker_host)

    def network(self, *needs: pulumi.Resource) -> NetworkArgs:
        """Ours to make where nobody made it, or where we did; what is left of ours with others on it is taken as it is. Raises ragflow.NotFound where RAGFlow's own is to be joined and is not there."""
        seen = self.host.networks.get(self.network_name)
        if self.settings.ragflow_mode == "join" and seen is None:
            said = f"ragflowNetwork: no network {self.network_name!r} on this host; start RAGFlow first, 'docker network ls' shows the names"
            raise ragflow.NotFound(said)
        if seen and seen.ambiguous:
            raise ragflow.NotFound(f"ragflowNetwork: {seen.ambiguous}")  # read off RAGFlow's container: one that is named was refused before
        return NetworkArgs(
            network_name=self.network_name,
            adopt=seen is not None and not self._ours(seen),
            adopted_id=seen.id if seen else "",
            marks=labels.marks(seen.labels if seen else None, self.deployment),
            owner=self.deployment,
            needs=needs,
            environment=self.reach,
        )

    def image(self) -> ImageArgs:
        s = self.settings
        return ImageArgs(
            base=image_base(s),
            image_name=image_name(s),
            platform=self.host.platform,
            build_network=s.build_network,
            ca_bundle=s.ca_bundle,
            environment=self.reach,
        )

    def model(self, image: RerankerImage) -> ModelArgs:
        """The model of these settings, filled in by a container of the image."""
        s = self.settings
        return ModelArgs(
            source=s.model_source,
            repo=s.model,
            revision=s.model_revision,
            slug=s.model_slug,
            mirrors=s.model_mirrors,
            endpoint=s.modelscope_endpoint,
            path=s.model_path,
            token=s.model_token,
            token_hosts=s.model_token_hosts,
            keep=s.model_keep,
            network=s.model_network,
            image_name=image.image_name,
            prefix=s.container_name,
            marks=self._marks(volume_name(s.container_name, s.model_slug, s.model_revision)),
            owner=self.deployment,
            proxies=proxies(s),
            environment=self.reach,
        )

    def reranker(self, image: RerankerImage, network: SharedNetwork, model: ModelVolume | None) -> RerankerArgs:
        s, lacking = self.settings, self.host.lacking  # config/fits.py has refused these where they are not to be left out
        return RerankerArgs(
            container_name=s.container_name,
            image_name=image.image_name,
            image_id=image.image_id,
            arguments=arguments(s, unlimited="cpu" in lacking),
            network_name=network.network_name,
            network_id=network.network_id,
            model_mount_type=model.mount_type if model else "",
            model_mount_source=model.mount_source if model else None,
            model_target=model_target(s),
            model_populated=model.populated if model else None,
            api_key=s.api_key or None,
            generation=labels.generation(self._serving()),
            cache_marks=self._marks(f"{s.container_name}-cache"),
            key_marks=self._marks(f"{s.container_name}-key"),
            bind_address=s.bind_address,
            host_port=s.host_port,
            cpus=0 if "cpu" in lacking else s.cpus,
            memory_mib=0 if "memory" in lacking else s.memory_gib * 1024,
            swaps="swap" in lacking,
            shm_mib=s.shm_gib * 1024,
            gpus=s.gpu_count if s.backend == "gpu" else 0,
            restart=s.restart_policy,
            log_max_mib=s.log_max_mib,
            health_timeout_seconds=s.health_timeout_seconds,
            owner=self.deployment,
            needs=[network.released],
            environment=self.reach,
        )

    def ragflow(self, network: SharedNetwork) -> RagflowArgs:
        return RagflowArgs(
            containers=self.attached,
            network_name=network.network_name,
            observed_network=self.network_name,
            owner=self.deployment,
            needs=[network.released],
            environment=self.reach,
        )

    @property
    def entry(self) -> Entry:
        """What RAGFlow is to hold of the reranker."""
        s = self.settings
        return Entry(
            instance=s.container_name,
            model=s.model_slug,
            base_url=host_url(s.bind_address, s.host_port) if self.hosted else internal_url(s.container_name),
            max_tokens=s.max_model_len,
            api_key=s.api_key,
            default=s.ragflow_default == "tenant",
        )

    @property
    def place(self) -> Place:
        """Where RAGFlow takes it. Raises ragflow.NotFound where its container is asked for and there is not one alone."""
        running = [container for container in self.ragflows if container.running] or self.ragflows
        return registered.place(self.settings.ragflow_url, self.settings.ragflow_api_key, [container.name for container in running])

    def registration(self, reranker: Reranker, attachment: RagflowAttachment, held: Registered) -> RegistrationArgs:
        place, entry = self.place, self.entry
        return RegistrationArgs(
            url=place.url,
            container=place.container,
            instance=entry.instance,
            model=entry.model,
            base_url=self.base_url(reranker),
            max_tokens=entry.max_tokens,
            default=self.settings.ragflow_default,
            found=held.found,
            ragflow_key=place.key,
            reranker_key=entry.api_key,
            needs=[reranker.healthy, attachment],
            environment=self.reach,
        )

    def base_url(self, reranker: Reranker) -> pulumi.Output[str]:
        """Where RAGFlow calls it."""
        return reranker.host_url if self.hosted else reranker.internal_url

    def compose_override(self) -> str:
        """What attaches RAGFlow for good; empty where the reranker joins its network instead."""
        return "" if self.settings.ragflow_mode == "join" else ragflow.compose_override(self.ragflows, self.settings.network_name)

    def _marks(self, volume: str) -> dict[str, str]:
        return labels.marks(self.host.volumes.get(volume), self.deployment)

    def _ours(self, seen: Network) -> bool:
        """To declare: the state has it, or an interrupted up left it and nothing is on it."""
        listed = seen.labels.get(labels.GENERATION) in self.deployment.known
        return self.deployment.holds(seen.labels) and (listed or not any(seen.name in container.networks for container in self.host.containers))

    def _serving(self) -> Mapping[str, str] | None:
        """Labels of our container, or None where it does not serve: gone, stopped, or cut off from its network."""
        own = self.host.container(self.settings.container_name)
        return own.labels if own and own.running and self.network_name in own.networks and self.deployment.made_it(own.labels) else None


def plan(settings: Settings, host: Host, deployment: labels.Deployment) -> Plan:
    """Raises ragflow.NotFound where RAGFlow's containers, or their network, are not where the settings say."""
    s, found = settings, ragflow.find(host.containers, named=settings.ragflow_containers, own=settings.container_name)
    ragflows = [] if s.ragflow_mode == "none" else found
    hosted = ragflow.in_host_network(found)
    if s.ragflow_mode == "attach" or (s.ragflow_mode == "join" and hosted):
        ragflow.require_networks(ragflows, host.containers, host_url=host_url(s.bind_address, s.host_port))
    hosted = hosted and s.ragflow_mode == "none"
    if hosted and s.ragflow_url and not s.host_port:
        raise ragflow.NotFound(
            f"hostPort: 0 leaves RAGFlow's container {found[0].name!r} no way to the reranker, for it runs in the host's network (network_mode: host); set hostPort "
            "to a free port, such as 8123"
        )
    name = s.network_name
    if s.ragflow_mode == "join":
        name = s.ragflow_network or ragflow.own_network(ragflows, shared=s.network_name)
    return Plan(settings=s, host=host, deployment=deployment, ragflows=ragflows, network_name=name, hosted=hosted)


def names(s: Settings) -> Names:
    """What the stack takes on its host under names of its own."""
    prefix = s.container_name
    downloads = s.backend != "mock" and s.model_source != "directory"
    return Names(
        container=prefix,
        steps=(*([f"{prefix}-populate"] if s.backend != "mock" else []), *([f"{prefix}-key"] if s.api_key else [])),
        volumes=(
            f"{prefix}-cache",
            *([f"{prefix}-key"] if s.api_key else []),
            *([volume_name(prefix, s.model_slug, s.model_revision)] if downloads else []),
        ),
    )


def proxies(s: Settings) -> dict[str, str]:
    """The proxy environment of builds and downloads, in both spellings that programs look for."""
    given = {"HTTP_PROXY": s.http_proxy, "HTTPS_PROXY": s.https_proxy, "NO_PROXY": s.no_proxy}
    return {name: value for key, value in given.items() if value for name in (key, key.lower())}


def image_base(s: Settings) -> Base:
    """The image below the serving layer."""
    match s.backend, s.image_strategy:
        case "mock", _:
            index = {"PACKAGE_INDEX": s.package_index} if s.package_index else {}
            return PythonBase(image=base_image(s), build_args={**index, **proxies(s)})
        case "gpu", _:
            return RegistryBase(image=Published(reference=s.gpu_image, key="gpuImage", registries=s.image_registries))
        case _, "wheel":
            arguments = {
                "PACKAGE_INDEX": s.package_index,
                "EXTRA_INDEX": s.extra_index,
                "TORCH_INDEXES": " ".join(s.torch_indexes),
                "VLLM_PACKAGE": s.vllm_package,
                "VLLM_VERSION": s.vllm_version,
                "TORCH_REQUIREMENT": s.torch_requirement,
                "DEBIAN_MIRROR": s.debian_mirror,
                "CA_BUNDLE": s.ca_bundle,
            }
            return WheelBase(version=s.vllm_version, image=base_image(s), build_args={**arguments, **proxies(s)})
        case _, "source":
            return SourceBase(version=s.vllm_version, context=s.source_context, build_args=proxies(s))
        case _, "registry":
            return RegistryBase(image=Published(reference=s.registry_image, key="registryImage", registries=s.image_registries))
        case _:
            return ArchiveBase(path=s.archive_path, reference=s.archive_image)


def base_image(s: Settings) -> Published:
    """The image under the wheel image and the mock, and the ways to it."""
    return Published(
        reference=s.base_image,
        registries=s.image_registries,
        from_packages=s.image_from_packages,
        debian_mirror=s.debian_mirror,
        build_network=s.build_network,
        proxies=proxies(s),
    )


def image_name(s: Settings) -> str:
    """Tag of the finished image; no two containers share one. No version in it: the steps that run in the image are not to change with it."""
    return f"{s.container_name.lower()}:{s.backend}"


def arguments(s: Settings, *, unlimited: bool = False) -> list[str]:
    """argv of the reranker's container after the entry point. `unlimited`: no limit on CPUs holds it, so its threads must."""
    names = (s.model_slug,)  # the one that RAGFlow lists; web/api.py knows it in other spellings
    if s.backend == "mock":
        return ["mock", *dials.argv(dials.take(ServiceOptions, s, served_model_names=names, model=""))]
    launched = dials.take(
        options.LaunchOptions,
        s,
        served_model_names=names,
        device=s.backend,
        model=model_target(s),
        unverified=s.model_source == "directory",
        extra=s.vllm_extra_args,
        **({"threads": s.threads or s.cpus} if unlimited and s.backend == "cpu" else {}),
        **({} if s.backend == "gpu" else {"gpu_count": 0, "gpu_memory_utilization_percent": 0}),
    )
    return ["launch", *options.written(launched)]


def model_target(s: Settings) -> str:
    """Where the model stands inside the container."""
    return f"/models/{s.model_slug}"


def ragflow_form(s: Settings, base_url: str, model: str, model_id: str = "") -> dict[str, str]:
    """What RAGFlow's 'add model' form wants, field by field, and its older configuration snippet. `model_id`: how it is named where the stack entered it."""
    return {
        "factory": PROVIDER,
        "modelType": MODEL_TYPE,
        "modelName": model,
        "baseUrl": base_url,
        "apiKey": "the value of apiKey (pulumi config get apiKey)" if s.api_key else KEY_PLACEHOLDER,
        "maxTokens": str(s.max_model_len),
        "modelId": model_id,
        "snippet": f"reranker:\n  provider: vllm\n  api_base: {base_url}\n  model: {model}\n",
    }


def verify_commands(s: Settings, *, attached: Sequence[str], base_url: str, host_url: str, model: str) -> list[str]:
    """Shell commands that show the reranker answering: from inside RAGFlow, and from the Docker host where a port is published."""
    # By standard input, from a shell's own printf: a key in curl's argv would show in every list of processes.
    key, header = ("printf 'Authorization: Bearer %s' \"$RERANK_API_KEY\" | ", " -H @-") if s.api_key else ("", "")
    body = json.dumps({"model": model, "query": "capital of France", "documents": ["Paris is the capital of France", "Bananas are yellow"]})
    call = f"{key}curl -fsS -m 60{header} -H 'Content-Type: application/json' -d {shlex.quote(body)}"
    docker = f"docker -H {s.docker_host}" if s.docker_host else "docker"
    inside = f"{docker} exec{' -e RERANK_API_KEY' if s.api_key else ''}"
    commands = [f"{inside} {name} sh -c {shlex.quote(f'{call} {base_url}/rerank')}" for name in attached]
    return commands + ([f"{call} {host_url}/rerank"] if host_url else [])


def outputs(
    s: Settings, *, model: str, model_id: pulumi.Input[str] = "", called: pulumi.Input[str] | None = None, **seen: pulumi.Input[Any]
) -> dict[str, pulumi.Input[Any]]:
    """The documented outputs (docs/outputs.md), the same names for every backend. `seen`: what the components gave; what is not given is empty. `called`: RAGFlow's
    base URL where it is not internalUrl.
    """
    empty: dict[str, pulumi.Input[Any]] = {"networkName": "", "containerName": "", "imageDigest": "", "attachedContainers": [], "composeOverride": ""}
    found = {**empty, **seen, "modelName": model}
    base_url, host_url, attached = found["internalUrl"], found["hostUrl"], found["attachedContainers"]
    return {
        **found,
        "ragflow": pulumi.Output.all(called or base_url, model_id).apply(lambda known: ragflow_form(s, str(known[0]), model, str(known[1]))),
        "dockerHost": s.docker_host,
        "verify": pulumi.Output.all(attached, base_url, host_url).apply(
            lambda known: verify_commands(s, attached=known[0], base_url=known[1], host_url=known[2], model=model)
        ),
    }
