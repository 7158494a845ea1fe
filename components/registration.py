"""The reranker as a model in RAGFlow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_command as command

from registration import handed


@dataclass(frozen=True, kw_only=True)
class RegistrationArgs:
    """`url`: of RAGFlow's API, called from here, or inside `container` where that is not empty. `instance`, `model`, `base_url`, `max_tokens`: what is entered;
    `default`: none | tenant. `found`: what RAGFlow holds instead, new in every run that finds something; '' where it holds what is wanted. `needs` come first: the
    service must answer RAGFlow while it is entered. `environment` reaches the stack's Docker host.
    """

    url: str
    container: str
    instance: str
    model: str
    base_url: pulumi.Input[str]
    max_tokens: int
    default: str
    found: str = ""
    ragflow_key: pulumi.Input[str] = field(repr=False)
    reranker_key: pulumi.Input[str] = field(repr=False)
    needs: Sequence[pulumi.Resource] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


class RagflowRegistration(pulumi.ComponentResource):
    """One model under RAGFlow's provider VLLM, put right again where somebody changed or removed it, and taken out when the stack goes."""

    model_id: pulumi.Output[str]

    def __init__(self, name: str, args: RegistrationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:RagflowRegistration", name, None, opts)
        entry = command.local.Command(
            f"{name}-entry",
            create=RUN.format(verb="register"),  # an update runs it too: it puts right whatever stands there
            delete=RUN.format(verb="unregister"),
            stdin=pulumi.Output.all(pulumi.Output.secret(args.ragflow_key), pulumi.Output.secret(args.reranker_key)).apply(
                lambda both: handed.keys(*both)
            ),
            environment={
                **args.environment,
                **handed.environment(
                    url=args.url,
                    container=args.container,
                    instance=args.instance,
                    model=args.model,
                    base_url=args.base_url,
                    max_tokens=args.max_tokens,
                    default=args.default,
                ),
                "FOUND": args.found,
            },
            # Another RAGFlow, another name or (before v0.26) another model is another entry: the old one goes first, for the new one may be the same place.
            triggers=[args.url, args.container, args.instance, args.model],
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                depends_on=[*args.needs],
                # What was found last stays in the state: the next thing found differs from it, and nothing found is no change.
                ignore_changes=[] if args.found else ["environment.FOUND"],
            ),
        )
        self.model_id = pulumi.Output.unsecret(entry.stdout)
        self.register_outputs({"model_id": self.model_id})


# The project's own Python: the one on PATH may be older. The working directory is the project's.
RUN = 'python=.venv/bin/python; [ -x "$python" ] || python=python3; exec "$python" -m registration {verb}'
