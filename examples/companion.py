"""Another service's container on the reranker's network: a vector store here, an LLM in the same way."""

from collections.abc import Sequence

import pulumi
import pulumi_docker as docker

from components import SharedNetwork
from host import labels
from host.labels import Deployment


def companion(
    network: SharedNetwork,
    deployment: Deployment,
    opts: pulumi.ResourceOptions,
    *,
    name: str = "ragflow-vectors",
    image: str = "qdrant/qdrant:v1.15.5",
    command: Sequence[str] = (),
) -> docker.Container:
    """Reached by its name from everything on that network, and from nowhere else: no port is published."""
    return docker.Container(
        f"companion-{name}",
        name=name,
        image=image,
        command=list(command),
        labels=[
            docker.ContainerLabelArgs(label=labels.OWNER, value=deployment.owner),
            # A network that was made anew has the name of the old one: by its id the container follows.
            docker.ContainerLabelArgs(label=labels.NETWORK_ID, value=network.network_id),
        ],
        networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=network.network_name)],
        memory=2048,
        memory_swap=2048,
        restart="unless-stopped",
        log_driver="json-file",
        log_opts={"max-size": "10m", "max-file": "3"},
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(delete_before_replace=True, depends_on=[network.released])),
    )
