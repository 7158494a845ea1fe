"""The network on which RAGFlow finds the reranker by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from components import _leftovers
from host import labels


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """`adopt`: the network is somebody else's (made by hand, by RAGFlow, by another stack): used as it is and never deleted by us.

    `generation`: the incarnation of the network (labels.generation). `environment` reaches the stack's Docker host.
    """

    network_name: str
    adopt: bool
    adopted_id: str = ""
    generation: str = ""
    owner: str
    environment: Mapping[str, str] = field(default_factory=dict)


class SharedNetwork(pulumi.ComponentResource):
    """A bridge network with names, created or adopted."""

    network_name: pulumi.Output[str]
    network_id: pulumi.Output[str]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:SharedNetwork", name, None, opts)
        if args.adopt:
            self.network_name = pulumi.Output.from_input(args.network_name)
            self.network_id = pulumi.Output.from_input(args.adopted_id)
        else:
            network = docker.Network(
                f"{name}-bridge",
                name=args.network_name,
                driver="bridge",
                ipam_options={},  # said although empty: a refresh reads it back as news otherwise
                labels=[
                    docker.NetworkLabelArgs(label=labels.OWNER, value=args.owner),
                    docker.NetworkLabelArgs(label=labels.GENERATION, value=args.generation),
                ],
                opts=pulumi.ResourceOptions(
                    parent=self,
                    delete_before_replace=True,
                    hooks=_leftovers.cleared(
                        f"{name}-bridge", kind="network", called=args.network_name, owner=args.owner, environment=args.environment
                    ),
                ),
            )
            self.network_name = network.name
            self.network_id = network.id
        self.register_outputs({"network_name": self.network_name, "network_id": self.network_id})
