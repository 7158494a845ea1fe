"""The stack: settings -> host -> components -> outputs."""

import signal
from collections.abc import Mapping

import pulumi
import pulumi_docker as docker

import labels
import plan
import preflight
from components import (
    ImageArgs,
    ModelArgs,
    ModelVolume,
    NetworkArgs,
    RagflowArgs,
    RagflowAttachment,
    Reranker,
    RerankerArgs,
    RerankerImage,
    SharedNetwork,
)
from components import _ragflow as ragflow
from components.external import ExternalArgs, ExternalError, verify
from components.model import volume_name
from host import Host, HostError, environment, observe
from settings import Settings, SettingsError


def external(s: Settings) -> None:
    """Nothing is deployed: the service that exists is verified and described."""
    url = verify(ExternalArgs(url=s.external_url, model=s.external_model, api_key=s.api_key))
    export(
        s,
        internalUrl=url,
        hostUrl=url,
        modelName=s.external_model,
        networkName="",
        containerName="",
        imageDigest="",
        attachedContainers=[],
        composeOverride="",
    )


def deployed(s: Settings) -> None:
    """Network, image, model -> reranker -> RAGFlow, on the stack's Docker host."""
    owner = labels.owner(pulumi.get_project(), pulumi.get_stack())
    host = observe(s.docker_host)
    preflight.check(s, host, owner)
    found = [] if s.ragflow_mode == "none" else ragflow.find(host.containers, named=s.ragflow_containers, own=s.container_name)
    if not found and s.ragflow_mode == "attach":
        pulumi.log.warn("no RAGFlow container on this host: start RAGFlow and run pulumi up again, or list its containers in ragflowContainers")
    provider = docker.Provider("host", host=host.endpoint)
    opts = pulumi.ResourceOptions(providers=[provider])
    reach = environment(s.docker_host)

    network_name = (s.ragflow_network or ragflow.own_network(found, shared=s.network_name)) if s.ragflow_mode == "join" else s.network_name
    network = SharedNetwork("network", network_args(network_name, host, owner, reach, joins=s.ragflow_mode == "join"), opts)
    image = RerankerImage(
        "image",
        ImageArgs(
            base=plan.image_base(s),
            image_name=plan.image_name(s),
            platform=host.platform,
            build_network=s.build_network,
            ca_bundle=s.ca_bundle,
            environment=reach,
        ),
        opts,
    )
    model = ModelVolume("model", model_args(s, host, owner, image), opts) if s.backend != "mock" else None
    reranker = Reranker(
        "reranker",
        RerankerArgs(
            container_name=s.container_name,
            image_name=image.image_name,
            image_id=image.image_id,
            arguments=plan.arguments(s),
            network_name=network.network_name,
            network_id=network.network_id,
            model_mount_type=model.mount_type if model else "",
            model_mount_source=model.mount_source if model else None,
            model_target=plan.model_target(s),
            model_populated=model.populated if model else None,
            api_key=pulumi.Output.secret(s.api_key) if s.api_key else None,
            generation=labels.generation(container_labels(s.container_name, network_name, host)),
            cache_generation=labels.generation(host.volumes.get(f"{s.container_name}-cache")),
            key_generation=labels.generation(host.volumes.get(f"{s.container_name}-key")),
            bind_address=s.bind_address,
            host_port=s.host_port,
            cpus=s.cpus,
            memory_mib=s.memory_gib * 1024,
            shm_mib=s.shm_gib * 1024,
            gpus=s.gpu_count if s.backend == "gpu" else 0,
            restart=s.restart_policy,
            log_max_mib=s.log_max_mib,
            health_timeout_seconds=s.health_timeout_seconds,
            owner=owner,
            environment=reach,
        ),
        opts,
    )
    attachment = RagflowAttachment(
        "ragflow",
        RagflowArgs(
            containers=found if s.ragflow_mode == "attach" else [],
            network_name=network.network_name,
            observed_network=network_name,
            owner=owner,
            environment=reach,
        ),
        opts,
    )
    export(
        s,
        internalUrl=reranker.internal_url,
        hostUrl=reranker.host_url,
        modelName=s.model_slug,
        networkName=network.network_name,
        containerName=reranker.container_name,
        imageDigest=image.image_id,
        attachedContainers=attachment.attached
        if s.ragflow_mode == "attach"
        else [container.name for container in found if network_name in container.networks],
        composeOverride="" if s.ragflow_mode == "join" else ragflow.compose_override(found, s.network_name),
    )


def network_args(name: str, host: Host, owner: str, reach: dict[str, str], *, joins: bool) -> NetworkArgs:
    """Ours to make where nobody made it, or where we did."""
    seen = host.networks.get(name)
    if joins and seen is None:
        raise ragflow.NotFound(f"ragflowNetwork: no network {name!r} on this host; start RAGFlow first, 'docker network ls' shows the names")
    adopt = seen is not None and not labels.owned(seen.labels, owner)
    return NetworkArgs(
        network_name=name,
        adopt=adopt,
        adopted_id=seen.id if seen else "",
        owner=owner,
        generation=labels.generation(seen.labels if seen else None),
        environment=reach,
    )


def container_labels(name: str, network_name: str, host: Host) -> Mapping[str, str] | None:
    """Labels of our container, or None where it does not serve: gone, stopped, or cut off from its network."""
    own = host.container(name)
    return own.labels if own and own.running and network_name in own.networks else None


def model_args(s: Settings, host: Host, owner: str, image: RerankerImage) -> ModelArgs:
    """The model of these settings, filled in by a container of the image."""
    return ModelArgs(
        source=s.model_source,
        repo=s.model,
        revision=s.model_revision,
        slug=s.model_slug,
        mirrors=s.model_mirrors,
        endpoint=s.modelscope_endpoint,
        path=s.model_path,
        token=s.model_token,
        keep=s.model_keep,
        network=s.model_network,
        image_name=image.image_name,
        prefix=s.container_name,
        generation=labels.generation(host.volumes.get(volume_name(s.container_name, s.model_slug, s.model_revision))),
        owner=owner,
        proxies=plan.proxies(s),
        environment=environment(s.docker_host),
    )


def export(s: Settings, **seen: pulumi.Input[object]) -> None:
    """The documented outputs (docs/outputs.md), the same names for every backend."""
    for name, value in seen.items():
        pulumi.export(name, value)
    model = s.external_model or s.model_slug
    pulumi.export("ragflow", pulumi.Output.from_input(seen["internalUrl"]).apply(lambda url: plan.ragflow_form(s, str(url), model)))
    pulumi.export(
        "verify",
        pulumi.Output.all(seen["attachedContainers"], seen["internalUrl"], seen["hostUrl"]).apply(
            lambda values: plan.verify_commands(s, attached=values[0], base_url=values[1], host_url=values[2], model=model)
        ),
    )


# The engine interrupts the program when a step failed: a traceback of that would bury the step's own sentence.
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    settings = Settings.from_config()
    (external if settings.backend == "external" else deployed)(settings)
except (SettingsError, HostError, ragflow.NotFound, ExternalError) as refusal:
    # RunError: the sentence alone, without a traceback around it.
    raise pulumi.RunError(str(refusal)) from None
