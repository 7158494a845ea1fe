"""The container that answers rerank calls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pulumi
import pulumi_command as command
import pulumi_docker as docker

from components import _containers, _leftovers, _released
from host import labels
from host.labels import Deployment


@dataclass(frozen=True, kw_only=True)
class RerankerArgs:
    """One reranker. `arguments` is the argv after the image's entry point, without the key file; memory and shm in MiB.

    `cpus` and `memory_mib` 0: that limit is left out; `swaps`: swap is not limited, for the host cannot do that.
    `model_mount_source` None: no model (the mock); the container waits for `model_populated`. `api_key` None: none is asked of callers. `generation`: incarnation of the
    container; `cache_marks`, `key_marks`: labels of the volumes (labels.marks); `needs` come first; `network_id`: the network the container was started on; another one replaces it. `environment` reaches the stack's Docker host.
    """

    container_name: str
    image_name: pulumi.Input[str]
    image_id: pulumi.Input[str]
    arguments: Sequence[str]
    network_name: pulumi.Input[str]
    network_id: pulumi.Input[str]
    model_mount_type: str = "volume"
    model_mount_source: pulumi.Input[str] | None = None
    model_target: str = ""
    model_populated: pulumi.Resource | None = None
    api_key: pulumi.Input[str] | None = field(default=None, repr=False)
    generation: str
    cache_marks: Mapping[str, str]
    key_marks: Mapping[str, str] = field(default_factory=dict)
    bind_address: str
    host_port: int
    cpus: int
    memory_mib: int
    shm_mib: int
    swaps: bool = False
    gpus: int = 0
    restart: str
    log_max_mib: int
    health_timeout_seconds: int
    owner: Deployment
    needs: Sequence[pulumi.Resource] = ()
    environment: Mapping[str, str]


class Reranker(pulumi.ComponentResource):
    """A confined container on the shared network that is healthy when it is there at all."""

    container_name: pulumi.Output[str]
    container_id: pulumi.Output[str]
    internal_url: pulumi.Output[str]
    host_url: pulumi.Output[str]
    healthy: pulumi.Resource

    def __init__(self, name: str, args: RerankerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:Reranker", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)

        needs = [*args.needs, *([args.model_populated] if args.model_populated else [])]
        cache, released = self._volume(f"{name}-cache", args, f"{args.container_name}-cache", args.cache_marks)
        needs.append(released)
        mounts = [docker.ContainerMountArgs(type="volume", source=cache.name, target=_containers.HOME)]
        if args.model_mount_source is not None:
            mounts.append(
                docker.ContainerMountArgs(type=args.model_mount_type, source=args.model_mount_source, target=args.model_target, read_only=True)
            )

        key_arguments: list[str] = []
        key_id: pulumi.Input[str] = ""
        if args.api_key is not None:
            key_arguments = ["--api-key-file", _containers.KEY_FILE]
            volume, key_id, released = self._key(name, args, args.api_key)
            needs.append(released)
            mounts.append(docker.ContainerMountArgs(type="volume", source=volume, target=_containers.KEY_DIRECTORY, read_only=True))

        unlimited = ",".join(what for what, there in {"cpus": args.cpus, "memory": args.memory_mib, "swap": not args.swaps}.items() if not there)
        container = docker.Container(
            f"{name}-container",
            name=args.container_name,
            hostname=args.container_name,
            image=args.image_id,
            command=_before_extra(args.arguments, key_arguments),
            labels=[
                docker.ContainerLabelArgs(label=labels.OWNER, value=args.owner.owner),
                docker.ContainerLabelArgs(label=labels.MADE, value=args.owner.made),
                docker.ContainerLabelArgs(label=labels.NETWORK_ID, value=args.network_id),
                docker.ContainerLabelArgs(label=labels.KEY_ID, value=key_id),
                docker.ContainerLabelArgs(label=labels.GENERATION, value=args.generation),
                # Docker takes no limit away from a container that runs: a label makes that a new container.
                *([docker.ContainerLabelArgs(label=labels.UNLIMITED, value=unlimited)] if unlimited else []),
            ],
            networks_advanced=[docker.ContainerNetworksAdvancedArgs(name=args.network_name, gw_priority=0)],
            ports=[docker.ContainerPortArgs(internal=_containers.PORT, external=args.host_port, ip=args.bind_address)] if args.host_port else [],
            mounts=mounts,
            # As the provider reads it back: "2" would be a replacement in every preview.
            cpus=f"{args.cpus}.0" if args.cpus else None,
            memory=args.memory_mib or None,
            memory_swap=(-1 if args.swaps else args.memory_mib) if args.memory_mib else None,
            shm_size=args.shm_mib,
            device_requests=[docker.ContainerDeviceRequestArgs(driver="nvidia", count=args.gpus, capabilities=["gpu"])] if args.gpus else [],
            user=_containers.USER,
            read_only=True,
            tmpfs={"/tmp": "rw,nosuid,nodev,size=1g"},
            capabilities=docker.ContainerCapabilitiesArgs(drops=["ALL"]),
            security_opts=["no-new-privileges:true"],
            init=True,
            restart=args.restart,
            log_driver="json-file",
            log_opts={"max-size": f"{args.log_max_mib}m", "max-file": "3"},
            stop_timeout=30,
            # Said although empty: a refresh reads them back, and would show them as news once.
            storage_opts={},
            sysctls={},
            healthcheck=docker.ContainerHealthcheckArgs(
                tests=["CMD", "python3", "-m", "serving", "health"],
                interval="10s",
                timeout="10s",
                start_period=_duration(args.health_timeout_seconds),
                retries=3,
            ),
            # The wait below fails sooner than the provider's own, and with the log.
            wait=False,
            must_run=True,
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                # The provider would note a change of these and leave the container as it is.
                replace_on_changes=["mounts", "tmpfs", "healthcheck", "init"],
                depends_on=needs,
                hooks=_leftovers.cleared(
                    f"{name}-container", kind="container", called=args.container_name, ours=args.owner.runs, environment=args.environment
                ),
            ),
        )
        # Whoever calls the service waits for this.
        self.healthy = command.local.Command(
            f"{name}-healthy",
            create=_containers.RUN_SCRIPT,
            environment={**args.environment, "SCRIPT": _containers.wait_script(args.container_name, seconds=args.health_timeout_seconds)},
            triggers=[container.id],
            opts=child,
        )
        self.container_name = container.name
        self.container_id = container.id
        self.internal_url = pulumi.Output.from_input(internal_url(args.container_name))
        self.host_url = pulumi.Output.from_input(host_url(args.bind_address, args.host_port))
        self.register_outputs(
            {
                "container_name": self.container_name,
                "container_id": self.container_id,
                "internal_url": self.internal_url,
                "host_url": self.host_url,
            }
        )

    def _volume(self, name: str, args: RerankerArgs, called: str, marks: Mapping[str, str]) -> tuple[docker.Volume, pulumi.Resource]:
        """A volume, and what removes it."""
        volume = docker.Volume(
            name,
            name=called,
            labels=[docker.VolumeLabelArgs(label=label, value=value) for label, value in marks.items()],
            opts=pulumi.ResourceOptions(
                parent=self,
                delete_before_replace=True,
                retain_on_delete=True,
                hooks=_leftovers.cleared(name, kind="volume", called=called, ours=args.owner.holds, environment=args.environment),
            ),
        )
        released = _released.volume(f"{name}-released", called=called, marks=marks, environment=args.environment, parent=self, needs=volume)
        return volume, released

    def _key(self, name: str, args: RerankerArgs, api_key: pulumi.Input[str]) -> tuple[pulumi.Output[str], pulumi.Output[str], pulumi.Resource]:
        """A volume that holds the key file, the id of this writing of it (which says nothing of the key), and what removes the volume."""
        volume, released = self._volume(f"{name}-key", args, f"{args.container_name}-key", args.key_marks)
        owner_label = f"{labels.OWNER}={args.owner.owner}"
        container = f"{args.container_name}-key"

        def script(image: str) -> str:
            argv = _containers.run_argv(
                name=container,
                image=image,
                owner_label=owner_label,
                network="none",
                mounts=[f"type=volume,source={args.container_name}-key,target={_containers.KEY_DIRECTORY}"],
                environment={},
                arguments=["key", "--target", _containers.KEY_FILE],
            )
            return _containers.one_off(argv, name=container, owner_label=owner_label)

        written = command.local.Command(
            f"{name}-key-file",
            create=_containers.RUN_SCRIPT,
            stdin=pulumi.Output.concat(pulumi.Output.secret(api_key), "\n"),
            environment={**args.environment, "SCRIPT": pulumi.Output.from_input(args.image_name).apply(script)},
            triggers=[volume.name, args.key_marks[labels.GENERATION]],
            opts=pulumi.ResourceOptions(parent=self, depends_on=[released]),
        )
        return volume.name, pulumi.Output.unsecret(written.stdout), released


def _before_extra(arguments: Sequence[str], more: Sequence[str]) -> list[str]:
    """argv with `more` put before the '--' that begins vLLM's own arguments."""
    at = list(arguments).index("--") if "--" in arguments else len(arguments)
    return [*arguments[:at], *more, *arguments[at:]]


def _duration(seconds: int) -> str:
    """Seconds as the daemon writes them back ('15m0s'): any other spelling is a difference in every preview."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s" if minutes else f"{rest}s"


def internal_url(container_name: str) -> str:
    """Base URL on the shared network, for RAGFlow."""
    return f"http://{container_name}:{_containers.PORT}/v1"


def host_url(bind_address: str, host_port: int) -> str:
    """Base URL on the Docker host, or '' where no port is published."""
    if not host_port:
        return ""
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(bind_address, f"[{bind_address}]" if ":" in bind_address else bind_address)
    return f"http://{address}:{host_port}/v1"
