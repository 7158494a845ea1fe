"""The network on which RAGFlow finds the reranker by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_docker as docker

from components import _leftovers, _released
from host import labels
from host.labels import Deployment


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """`adopt`: the network is somebody else's (made by hand, by RAGFlow, by another stack): used as it is and never deleted by us.

    `marks`: the network's labels (labels.marks); `owner`: the deployment. `needs` come first. `environment` reaches the stack's Docker host.
    """

    network_name: str
    adopt: bool
    adopted_id: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)
    owner: Deployment
    needs: Sequence[pulumi.Resource] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class SharedNetwork(pulumi.ComponentResource):
    """A bridge network with names, created or adopted. Whatever goes on it needs `released`, so that it has left when it is seen who else is there."""

    network_name: pulumi.Output[str]
    network_id: pulumi.Output[str]
    released: pulumi.Resource

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
                labels=[docker.NetworkLabelArgs(label=label, value=value) for label, value in args.marks.items()],
                opts=pulumi.ResourceOptions(
                    parent=self,
                    delete_before_replace=True,
                    retain_on_delete=True,  # `released` removes it
                    hooks=_leftovers.cleared(
                        f"{name}-bridge", kind="network", called=args.network_name, ours=args.owner.holds, environment=args.environment
                    ),
                ),
            )
            self.network_name = network.name
            self.network_id = network.id
        self.released = _released.network(
            f"{name}-released",
            called=args.network_name,
            id=self.network_id,
            owner=args.marks.get(labels.OWNER, args.owner.owner),
            environment=args.environment,
            parent=self,
            needs=args.needs,
        )
        self.register_outputs({"network_name": self.network_name, "network_id": self.network_id})
