"""The stack: settings -> deployment, host -> plan -> components -> outputs."""

import dataclasses
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import pulumi
import pulumi_docker as docker

from components import Identity, IdentityArgs, ModelVolume, RagflowAttachment, RagflowRegistration, Reranker, RerankerImage, SharedNetwork
from config import fits
from config.read import read_settings
from config.settings import Settings, SettingsError
from deployment import read
from host import bundled, neighbours, ports, registered
from host.external import ExternalArgs, ExternalError, verify
from host.labels import Deployment
from host.observe import Host, HostError, observe, publishes_here
from host.ragflow import NotFound
from host.registered import NotRegistrable
from plan import names, outputs, plan

SAID = 32  # exit status by which the engine knows that the program has said why; with any other it adds "an unhandled error occurred"


def provider(host: Host, identity: pulumi.Resource) -> docker.Provider:
    """The host that the docker program reaches, and none that a variable of the shell names besides: '' keeps DOCKER_CONTEXT and DOCKER_CERT_PATH out.

    Whatever is made on the host waits for this provider, and so for the identity that it carries.
    """
    opts = pulumi.ResourceOptions(depends_on=[identity])
    return docker.Provider("host", host=host.endpoint, cert_path=host.certificates, context="", opts=opts)


def identified(deployment: Deployment, kept: Mapping[str, Any]) -> Identity:
    return Identity("deployment", IdentityArgs(kept=kept, stack=f"{pulumi.get_organization()}/{deployment.stack}"))


def external(s: Settings) -> dict[str, pulumi.Input[object]]:
    """Nothing is deployed: the service that exists is asked, and described."""
    url = verify(ExternalArgs(url=s.external_url, model=s.external_model, api_key=s.api_key))
    return outputs(s, model=s.external_model, internalUrl=url, hostUrl=url)


def deployed(s: Settings) -> dict[str, pulumi.Input[object]]:
    """Network, image, model -> reranker -> RAGFlow's containers and, where asked for, its list of models."""
    deployment, kept = read()
    host = observe(s.docker_host)
    asked = fits.wants_port(s, host, deployment)
    port = ports.seen(host.endpoint, same=publishes_here(host), address=s.bind_address, port=s.host_port) if asked else ""
    warnings = fits.check(s, host, deployment, names(s), port=port)
    planned = plan(s, host, deployment)
    held = registered.observe(planned.place, planned.entry, surroundings=planned.reach) if s.ragflow_url else None
    if not deployment.known and (said := neighbours.shared(host, planned.network_name, deployment)):
        pulumi.log.info(said)
    for sentence in [*warnings, *planned.warnings, *([held.warning] if held and held.warning else [])]:
        pulumi.log.warn(sentence)
    if held and held.note:
        pulumi.log.info(held.note)
    for sentence in planned.notes:
        pulumi.log.info(sentence)
    identity = identified(deployment, kept)
    opts = pulumi.ResourceOptions(providers=[provider(host, identity.written)])

    network = SharedNetwork("network", planned.network(identity.written), opts)
    image = RerankerImage("image", planned.image(), opts)
    model = ModelVolume("model", planned.model(image), opts) if planned.has_model else None
    reranker = Reranker("reranker", planned.reranker(image, network, model), opts)
    ragflow = RagflowAttachment("ragflow", planned.ragflow(network), opts)
    registration = RagflowRegistration("registration", planned.registration(reranker, ragflow, held), opts) if held else None
    return outputs(
        s,
        model=s.model_slug,
        model_id=registration.model_id if registration else "",
        called=planned.base_url(reranker),
        internalUrl=reranker.internal_url,
        hostUrl=reranker.host_url,
        networkName=network.network_name,
        containerName=reranker.container_name,
        imageDigest=image.image_id,
        attachedContainers=ragflow.attached if planned.attached else planned.joined,
        composeOverride=planned.compose_override(),
    )


def packed(s: Settings) -> dict[str, pulumi.Input[object]]:
    """What make bundle packs: image and model, made on this machine's Docker under names of their own."""
    s = dataclasses.replace(s, docker_host="", container_name=f"{s.container_name}-bundle", ragflow_mode="none", ragflow_url="")
    deployment, kept = read()
    host = dataclasses.replace(observe(s.docker_host), bundled=())
    planned = plan(s, host, deployment)
    # Kept in the state of this run: the next one, after a failure, is to know its model's volume.
    opts = pulumi.ResourceOptions(providers=[provider(host, identified(deployment, kept).written)])
    image = RerankerImage("image", planned.image(), opts)
    model = ModelVolume("model", planned.model(image), opts) if planned.has_model and s.model_source in ("hub", "modelscope") else None
    return {"image": image.image_name, "volume": model.mount_source if model else ""}


# The engine interrupts the program when a step failed: a traceback of that would bury the step's own sentence.
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    settings = read_settings()
    run = packed if os.environ.get(bundled.PACK) else external if settings.backend == "external" else deployed
    for name, value in run(settings).items():
        pulumi.export(name, value)
except (SettingsError, HostError, NotFound, NotRegistrable, ExternalError) as refusal:
    pulumi.log.error(str(refusal))
    sys.exit(SAID)
