"""The model on the Docker host: a volume, and the step that fills it whole or fails."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pulumi
import pulumi_command as command
import pulumi_docker as docker

from components import _containers, _leftovers, _released
from components.image import file_identity
from host import labels
from host.labels import Deployment


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """`source` is hub | modelscope | directory | archive; `path` is the directory's or the archive's; `token` never leaves stdin, and goes to the addresses in `token_hosts` alone.

    `marks` are the labels of the volume (labels.marks), `environment` reaches the stack's Docker host, `proxies` the mirrors.
    """

    source: str
    repo: str
    revision: str
    slug: str
    mirrors: Sequence[str]
    endpoint: str
    path: str
    token: pulumi.Input[str] = field(repr=False)
    token_hosts: Sequence[str] = ()
    keep: bool
    network: str
    image_name: pulumi.Input[str]
    prefix: str
    marks: Mapping[str, str]
    owner: Deployment
    proxies: Mapping[str, str]
    environment: Mapping[str, str]


class ModelVolume(pulumi.ComponentResource):
    """A complete, verified copy of one revision of the model. Another revision is another volume: the old one serves until the new one is whole."""

    mount_type: str
    mount_source: pulumi.Output[str]
    populated: pulumi.Resource

    def __init__(self, name: str, args: ModelArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:ModelVolume", name, None, opts)
        owner_label = f"{labels.OWNER}={args.owner.owner}"
        generation = ""
        ready: list[pulumi.Resource] = []
        if args.source == "directory":
            self.mount_type = "bind"
            source: pulumi.Output[str] = pulumi.Output.from_input(args.path)
            target = f"/models/{args.slug}"
            mount = f"type=bind,source={args.path},target={target},readonly"
        else:
            self.mount_type = "volume"
            generation, called = args.marks[labels.GENERATION], volume_name(args.prefix, args.slug, args.revision)
            target = _containers.POPULATE_TARGET
            # Named after the revision: as one resource that is replaced, the provider would delete the old volume first, and with it the container that serves from it.
            volume = docker.Volume(
                f"{name}-volume-{args.slug}-{args.revision[:12]}",
                name=called,
                labels=[docker.VolumeLabelArgs(label=label, value=value) for label, value in args.marks.items()],
                opts=pulumi.ResourceOptions(
                    parent=self,
                    retain_on_delete=True,
                    hooks=_leftovers.cleared(f"{name}-volume", kind="volume", called=called, ours=args.owner.holds, environment=args.environment),
                ),
            )
            # Gigabytes behind a slow mirror outlive a destroy unless modelKeep says otherwise.
            released = _released.volume(
                f"{name}-released-{args.slug}-{args.revision[:12]}",
                called=called,
                marks=args.marks,
                keep=args.keep,
                environment=args.environment,
                parent=self,
                needs=volume,
            )
            source, ready = volume.name, [released]
            mount = f"type=volume,source={called},target={target}"
        container = f"{args.prefix}-populate"
        arguments = _containers.populate_arguments(
            source=args.source,
            repo=args.repo,
            revision=args.revision,
            mirrors=args.mirrors,
            endpoint=args.endpoint,
            token_hosts=args.token_hosts,
            target=target,
        )
        archive = str(Path(args.path).expanduser()) if args.source == "archive" else ""

        def script(image: str) -> str:
            argv = _containers.run_argv(
                name=container,
                image=image,
                owner_label=owner_label,
                network=args.network if args.source in ("hub", "modelscope") else "none",
                mounts=[mount],
                environment=args.proxies,
                arguments=arguments,
            )
            lacking = (
                f"modelPath: if {args.path} is not on the Docker host, set it to the directory there that holds the model" if not generation else ""
            )
            return _containers.one_off(argv, name=container, owner_label=owner_label, stdin=archive, not_started=lacking)

        populate = command.local.Command(
            f"{name}-populate",
            create=_containers.RUN_SCRIPT,
            # One line: the token, or nothing. argv and environment would show in 'docker inspect'.
            stdin=pulumi.Output.concat(pulumi.Output.secret(args.token), "\n"),
            environment={**args.environment, "SCRIPT": pulumi.Output.from_input(args.image_name).apply(script)},
            triggers=[source, args.repo, args.revision, args.source, generation, file_identity(archive) if archive else ""],
            opts=pulumi.ResourceOptions(parent=self, depends_on=ready),
        )
        self.mount_source = source
        # Whoever mounts the model waits for this. Not by way of mount_source: unknown in a preview, it would hide that the container is replaced.
        self.populated = populate
        self.register_outputs({"mount_source": self.mount_source})


def volume_name(prefix: str, slug: str, revision: str) -> str:
    """Name of the volume of one revision: 'ragflow-vllm-reranker-qwen3-reranker-0.6b-6e9e69830b95'."""
    return f"{prefix}-{slug}-{revision[:12]}"
