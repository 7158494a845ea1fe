"""The stack: settings -> host -> plan -> components -> outputs."""

import dataclasses
import os
import signal
import sys

import pulumi
import pulumi_docker as docker

from components import ModelVolume, RagflowAttachment, RagflowRegistration, Reranker, RerankerImage, SharedNetwork
from config import fits
from config.read import read_settings
from config.settings import Settings, SettingsError
from host import bundled, labels, registered
from host.external import ExternalArgs, ExternalError, verify
from host.observe import HostError, observe
from host.ragflow import NotFound
from host.registered import NotRegistrable
from plan import outputs, plan

SAID = 32  # exit status by which the engine knows that the program has said why; with any other it adds "an unhandled error occurred"


def external(s: Settings) -> dict[str, pulumi.Input[object]]:
    """Nothing is deployed: the service that exists is asked, and described."""
    url = verify(ExternalArgs(url=s.external_url, model=s.external_model, api_key=s.api_key))
    return outputs(s, model=s.external_model, internalUrl=url, hostUrl=url)


def deployed(s: Settings) -> dict[str, pulumi.Input[object]]:
    """Network, image, model -> reranker -> RAGFlow's containers and, where asked for, its list of models."""
    owner = labels.owner(pulumi.get_project(), pulumi.get_stack())
    host = observe(s.docker_host)
    fits.check(s, host, owner)
    planned = plan(s, host, owner)
    held = registered.observe(planned.place, planned.entry, surroundings=planned.reach) if s.ragflow_url else None
    for sentence in [*planned.warnings, *([held.warning] if held and held.warning else [])]:
        pulumi.log.warn(sentence)
    if held and held.note:
        pulumi.log.info(held.note)
    for sentence in planned.notes:
        pulumi.log.info(sentence)
    opts = pulumi.ResourceOptions(providers=[docker.Provider("host", host=host.endpoint)])

    network = SharedNetwork("network", planned.network(), opts)
    image = RerankerImage("image", planned.image(), opts)
    model = ModelVolume("model", planned.model(image), opts) if planned.has_model else None
    reranker = Reranker("reranker", planned.reranker(image, network, model), opts)
    ragflow = RagflowAttachment("ragflow", planned.ragflow(network), opts)
    registration = RagflowRegistration("registration", planned.registration(reranker, ragflow, held), opts) if held else None
    return outputs(
        s,
        model=s.model_slug,
        model_id=registration.model_id if registration else "",
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
    s = dataclasses.replace(s, docker_host="", container_name=f"{s.container_name}-bundle", ragflow_mode="none")
    host = dataclasses.replace(observe(s.docker_host), bundled=())
    planned = plan(s, host, labels.owner(pulumi.get_project(), pulumi.get_stack()))
    opts = pulumi.ResourceOptions(providers=[docker.Provider("host", host=host.endpoint)])
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
