"""A second reranker on the same network: other dials, the same image and the same model."""

from dataclasses import replace

import pulumi

from components import ModelVolume, Reranker, RerankerImage, SharedNetwork
from config import fits
from config.settings import Settings
from host.labels import Deployment
from host.observe import Host
from plan import names, plan


def second_reranker(
    s: Settings,
    host: Host,
    deployment: Deployment,
    image: RerankerImage,
    network: SharedNetwork,
    model: ModelVolume | None,
    opts: pulumi.ResourceOptions,
) -> Reranker:
    """RAGFlow reaches it as http://<containerName>-code:8000/v1, with the model name and the key of the first one.

    It needs CPUs and memory of its own: each reranker is checked against the host by itself, not the sum. For another model set `model` and `model_revision` too,
    and give it a volume of its own: `ModelVolume("second-model", planned.model(image), opts)`.
    """
    other = replace(
        s,
        container_name=f"{s.container_name}-code",
        instruction="Given a question about a program, retrieve code that answers it",
        deadline_seconds=min(5, s.deadline_seconds),
        host_port=0,
    )
    fits.check(other, host, deployment, names(other))
    planned = plan(other, host, deployment)
    return Reranker("second", planned.reranker(image, network, model), opts)
