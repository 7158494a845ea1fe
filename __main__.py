"""The stack: settings -> host -> plan -> components -> outputs."""

import signal
import sys

import pulumi
import pulumi_docker as docker

from components import ModelVolume, RagflowAttachment, RagflowRegistration, Reranker, RerankerImage, SharedNetwork
from config import fits
from config.read import read_settings
from config.settings import Settings, SettingsError
from host import labels, ports, registered
from host.external import ExternalArgs, ExternalError, verify
from host.observe import Host, HostError, observe, publishes_here
from host.ragflow import NotFound
from host.registered import NotRegistrable
from plan import outputs, plan

SAID = 32  # exit status by which the engine knows that the program has said why; with any other it adds "an unhandled error occurred"


def provider(host: Host) -> docker.Provider:
    """The host that the docker program reaches, and none that a variable of the shell names besides: '' keeps DOCKER_CONTEXT and DOCKER_CERT_PATH out."""
    return docker.Provider("host", host=host.endpoint, cert_path=host.certificates, context="")


def external(s: Settings) -> dict[str, pulumi.Input[object]]:
    """Nothing is deployed: the service that exists is asked, and described."""
    url = verify(ExternalArgs(url=s.external_url, model=s.external_model, api_key=s.api_key))
    return outputs(s, model=s.external_model, internalUrl=url, hostUrl=url)


def deployed(s: Settings) -> dict[str, pulumi.Input[object]]:
    """Network, image, model -> reranker -> RAGFlow's containers and, where asked for, its list of models."""
    owner = labels.owner(pulumi.get_project(), pulumi.get_stack())
    host = observe(s.docker_host)
    asked = fits.wants_port(s, host, owner)
    port = ports.seen(host.endpoint, same=publishes_here(host), address=s.bind_address, port=s.host_port) if asked else ""
    warnings = fits.check(s, host, owner, port=port)
    planned = plan(s, host, owner)
    held = registered.observe(planned.place, planned.entry, surroundings=planned.reach) if s.ragflow_url else None
    for sentence in [*warnings, *planned.warnings, *([held.warning] if held and held.warning else [])]:
        pulumi.log.warn(sentence)
    if held and held.note:
        pulumi.log.info(held.note)
    opts = pulumi.ResourceOptions(providers=[provider(host)])

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
        called=planned.base_url(reranker),
        internalUrl=reranker.internal_url,
        hostUrl=reranker.host_url,
        networkName=network.network_name,
        containerName=reranker.container_name,
        imageDigest=image.image_id,
        attachedContainers=ragflow.attached if planned.attached else planned.joined,
        composeOverride=planned.compose_override(),
    )


# The engine interrupts the program when a step failed: a traceback of that would bury the step's own sentence.
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    settings = read_settings()
    for name, value in (external if settings.backend == "external" else deployed)(settings).items():
        pulumi.export(name, value)
except (SettingsError, HostError, NotFound, NotRegistrable, ExternalError) as refusal:
    pulumi.log.error(str(refusal))
    sys.exit(SAID)
