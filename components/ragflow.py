"""RAGFlow's containers on the reranker's network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_command as command

from host import labels
from host.labels import Deployment
from host.observe import Container


@dataclass(frozen=True, kw_only=True)
class RagflowArgs:
    """`containers`: as the host shows them now. `observed_network`: the network's name where it exists already, else ''. `needs` come first."""

    containers: Sequence[Container]
    network_name: pulumi.Input[str]
    observed_network: str
    owner: Deployment
    needs: Sequence[pulumi.Resource] = ()
    environment: Mapping[str, str]


class RagflowAttachment(pulumi.ComponentResource):
    """Each RAGFlow container attached to the network; one that was re-created or cut off since shows in the preview and is attached again."""

    attached: pulumi.Output[list[str]]

    def __init__(self, name: str, args: RagflowArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:RagflowAttachment", name, None, opts)
        names: list[pulumi.Output[str]] = []
        for container in args.containers:
            incarnation = labels.attachment(container.networks.get(args.observed_network), args.owner.id, args.owner.known)
            attachment = command.local.Command(
                f"{name}-{container.name}",
                create=CONNECT,
                delete=DISCONNECT,
                environment={
                    **args.environment,
                    "ATTACHMENT": incarnation,
                    "CONTAINER": container.id,
                    "NAME": container.name,
                    "NETWORK": args.network_name,
                    "OWNER": args.owner.owner,
                },
                triggers=[container.id, incarnation, args.network_name],
                opts=pulumi.ResourceOptions(parent=self, depends_on=[*args.needs]),
            )
            names.append(pulumi.Output.all(container.name, attachment.id).apply(lambda both: str(both[0])))
        self.attached = pulumi.Output.all(*names).apply(list)
        self.register_outputs({"attached": self.attached})


CONNECT = """
set -e
if docker inspect --format '{{json .NetworkSettings.Networks}}' "$CONTAINER" | grep -qF "\\"$NETWORK\\":"; then
  echo "$NAME is on $NETWORK already"
else
  docker network connect --alias "$ATTACHMENT" "$NETWORK" "$CONTAINER"
  echo "$NAME joined $NETWORK"
fi
""".strip()

# By id and alias: never a container that was re-created since, never an attachment that somebody else made, and never one by which another reranker is called.
DISCONNECT = f"""
seen=$(docker inspect --format '{{{{range $name, $end := .NetworkSettings.Networks}}}}{{{{range $end.Aliases}}}}{{{{println $name .}}}}{{{{end}}}}{{{{end}}}}' "$CONTAINER" 2>/dev/null) || exit 0
printf '%s\\n' "$seen" | grep -qxF "$NETWORK $ATTACHMENT" || exit 0
others=$(docker ps --all --filter "network=$NETWORK" --filter "label={labels.OWNER}" --format '{{{{.Label "{labels.OWNER}"}}}} {{{{.Names}}}}' | grep -vF "$OWNER " | cut -d ' ' -f 2)
if [ -n "$others" ]; then
  echo "$NAME stays on $NETWORK, where it calls another deployment's reranker:" $others
else
  docker network disconnect --force "$NETWORK" "$CONTAINER"
fi
""".strip()
