"""RAGFlow's containers on the reranker's network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_command as command

import labels
from components import _ragflow
from host import Container


@dataclass(frozen=True, kw_only=True)
class RagflowArgs:
    """`containers`: as the host shows them now. `observed_network`: the network's name where it exists already, else ''."""

    containers: Sequence[Container]
    network_name: pulumi.Input[str]
    observed_network: str
    owner: str
    environment: Mapping[str, str]


class RagflowAttachment(pulumi.ComponentResource):
    """Each RAGFlow container attached to the network; one that was re-created or cut off since shows in the preview and is attached again."""

    attached: pulumi.Output[list[str]]

    def __init__(self, name: str, args: RagflowArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:RagflowAttachment", name, None, opts)
        names: list[pulumi.Output[str]] = []
        for container in args.containers:
            incarnation = labels.attachment(container.networks.get(args.observed_network), args.owner)
            attachment = command.local.Command(
                f"{name}-{container.name}",
                create=_ragflow.CONNECT,
                delete=_ragflow.DISCONNECT,
                environment={
                    **args.environment,
                    "ATTACHMENT": incarnation,
                    "CONTAINER": container.id,
                    "NAME": container.name,
                    "NETWORK": args.network_name,
                },
                triggers=[container.id, incarnation, args.network_name],
                opts=pulumi.ResourceOptions(parent=self),
            )
            names.append(pulumi.Output.all(container.name, attachment.id).apply(lambda both: str(both[0])))
        self.attached = pulumi.Output.all(*names).apply(list)
        self.register_outputs({"attached": self.attached})
