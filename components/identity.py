"""The deployment's identity, in its state before anything else is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_command as command

KEPT = "deployment-identity"
TAG = "ragflow-reranker:deployment"


@dataclass(frozen=True, kw_only=True)
class IdentityArgs:
    """`kept`: what the state holds of the deployment: id, heirOf, and where and when it was made. `stack`: organization/project/stack."""

    kept: Mapping[str, Any]
    stack: str


class Identity(pulumi.ComponentResource):
    """An identity that is written down before anything on the host carries it, and that the backend remembers when the stack is destroyed: a model may be kept."""

    written: pulumi.Resource

    def __init__(self, name: str, args: IdentityArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:Identity", name, None, opts)
        self.written = pulumi.Stash(f"{name}-identity", input=dict(args.kept), opts=pulumi.ResourceOptions(parent=self))
        command.local.Command(
            f"{name}-remembered",
            create=":",
            delete=REMEMBER,
            environment={"IDENTITY": " ".join([args.kept["id"], *args.kept["heirOf"]]), "STACK": args.stack, "TAG": TAG},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[self.written]),
        )
        self.register_outputs({})


REMEMBER = """
pulumi stack tag set "$TAG" "$IDENTITY" --stack "$STACK" >/dev/null 2>&1 </dev/null ||
  echo "the backend does not remember this deployment: the next up takes a model volume that is kept with TAKE_OVER=${IDENTITY%% *}"
""".strip()
