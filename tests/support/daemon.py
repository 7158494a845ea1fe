"""What the program declares, applied to a real Docker daemon without the engine: registrations become networks, volumes, images, containers.

    stack = Stack("tests/a")
    done = stack.up({"backend": "mock", "containerName": "a-reranker"})      # done.changes == {"reranker-container": "create", ...}
    stack.up(...)                                                            # what stayed the same is left alone, as the engine does
    stack.down()

It does what the engine does with these resource types and no others; an input that it does not know is an error, never ignored.
"""

import copy
import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors
import docker.types
import docker.utils.build
import grpc
from google.protobuf import struct_pb2
from pulumi.runtime.proto import callback_pb2, callback_pb2_grpc, resource_pb2

from components.identity import KEPT
from host import observe
from tests.support import recording
from tests.support.recording import ROOT, Outcome, Recorded, Registration

COMMAND_SECONDS = 300
API_SECONDS = 600
MIB = 1 << 20


class DaemonError(Exception):
    """A registration could not be applied; the message names the resource and has the daemon's or the command's own words."""


class Inputs:
    """The inputs of one resource, each taken once; `close` raises for what nobody took."""

    def __init__(self, item: Registration) -> None:
        self.name, self.rest = item.name, copy.deepcopy(dict(item.inputs))

    def take(self, key: str, default: Any = None) -> Any:
        return self.rest.pop(key, default)

    def close(self) -> None:
        if self.rest:
            unknown = ", ".join(sorted(self.rest))
            raise DaemonError(f"{self.name}: the daemon monitor does not know the inputs {unknown}; teach it in tests/support/daemon.py")


@dataclass
class Applied:
    """One resource that stands on the daemon."""

    item: Registration
    id: str
    outputs: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Done:
    """One up: what the program registered and exported, and what was done, by resource name: create | update | replace | same | delete."""

    recorded: Recorded
    changes: Mapping[str, str]

    @property
    def exports(self) -> Mapping[str, Any]:
        return self.recorded.exports

    @property
    def news(self) -> dict[str, str]:
        """The changes alone. {} is what the engine calls an empty preview."""
        return {name: change for name, change in self.changes.items() if change != "same"}


@dataclass
class Stack:
    """One stack on the local daemon, with its state from up to up. `built`: ids of the images it made, those without a tag by now too; `kept`: the deployment that it is from the start."""

    name: str
    client: docker.DockerClient = field(default_factory=lambda: docker.from_env(timeout=API_SECONDS))
    state: dict[str, Applied] = field(default_factory=dict)
    built: set[str] = field(default_factory=set)
    kept: Mapping[str, Any] = field(default_factory=dict)

    def up(self, config: Mapping[str, Any], *, sees: Callable[[observe.Container], bool] = lambda _: True, project: Path = ROOT) -> Done:
        """Observe the host (with the containers that `sees` lets through), run the program of `project`, apply what it registers.

        Raises DaemonError where something cannot be applied, and pulumi.RunError where the program refuses.
        """
        seen = observe.observe("")
        kept = tuple(container for container in seen.containers if sees(container))
        given = observe.Host(**{**vars(seen), "containers": kept})
        run = _Run(self)
        recorded = recording.run_program(config, given, project, stack=self.name, monitor=run.monitor)
        run.finish(recorded)
        return Done(recorded=recorded, changes=run.changes)

    def down(self) -> None:
        """Destroy: everything in reverse, `delete` commands run, retained resources left. Images stay, as they do with the engine's provider."""
        for urn in reversed(list(self.state)):
            self._delete(self.state.pop(urn))

    def _delete(self, applied: Applied) -> None:
        if applied.item.retain_on_delete:
            return
        match applied.item.type:
            case "docker:index/container:Container":
                _gone(lambda: self.client.api.remove_container(applied.id, force=True, v=True))
            case "docker:index/network:Network":
                _gone(lambda: self.client.api.remove_network(applied.id))
            case "docker:index/volume:Volume":
                _gone(lambda: self.client.api.remove_volume(applied.id))
            case "command:local:Command":
                if script := applied.item.inputs.get("delete"):
                    _shell(applied.item, script)


class _Run:
    """One up of a stack: what was there is kept, changed or replaced; what is no longer declared goes at the end."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.client = stack, stack.client
        listed = {urn: {"outputs": {**applied.item.inputs, **applied.outputs}} for urn, applied in stack.state.items()}
        if stack.kept and not listed:
            listed = {f"urn::{KEPT}": {"outputs": {"input": dict(stack.kept)}}}
        self.monitor = recording.Recording(self.apply, listed)
        self.changes: dict[str, str] = {}
        self.replaced: list[Applied] = []

    def apply(self, item: Registration) -> Outcome:
        """Called for each registration when its inputs are known."""
        if item.type == "pulumi:index:Stash":
            outputs = {"output": item.inputs["input"]}
            self.stack.state[item.urn] = Applied(item, item.name, outputs)
            return item.name, outputs
        if not item.custom or item.type.startswith("pulumi:"):
            return item.name, {}
        old = self.stack.state.get(item.urn)
        change = self._change(old, item)
        self.changes[item.name] = change
        if old and change == "same":
            old.item = item
            return old.id, old.outputs
        if old and change == "replace":
            if item.type == "command:local:Command":
                self.replaced.append(old)  # as the engine: the new one first
            else:
                self.stack._delete(self.stack.state.pop(item.urn))
        if change != "update":
            self._before_create(item)
        id_, outputs = self._create(item)
        self.stack.state[item.urn] = Applied(item, id_, outputs)
        return id_, outputs

    def finish(self, recorded: Recorded) -> None:
        for old in reversed(self.replaced):
            self.stack._delete(old)
        declared = {item.urn for item in recorded.resources}
        for urn in [urn for urn in reversed(list(self.stack.state)) if urn not in declared]:
            gone = self.stack.state.pop(urn)
            self.stack._delete(gone)
            self.changes[gone.item.name] = "delete"

    def _change(self, old: Applied | None, item: Registration) -> str:
        if old is None or not self._exists(old):
            return "create"
        if item.type == "docker:index/image:Image":
            return "same" if self._create(item) == (old.id, old.outputs) else "update"  # the build cache is the comparison
        if dict(old.item.inputs) == dict(item.inputs):
            return "same"
        if item.type == "command:local:Command" and old.item.inputs.get("triggers") == item.inputs.get("triggers"):
            return "update"
        return "replace"

    def _exists(self, old: Applied) -> bool:
        look: Any = {
            "docker:index/container:Container": self.client.api.inspect_container,
            "docker:index/network:Network": self.client.api.inspect_network,
            "docker:index/volume:Volume": self.client.api.inspect_volume,
        }.get(old.item.type)
        try:
            return look is None or bool(look(old.id))
        except docker.errors.NotFound:
            return False

    def _before_create(self, item: Registration) -> None:
        for name in item.before_create:
            callback = self.monitor.hooks[name]
            request = resource_pb2.ResourceHookRequest(urn=item.urn, name=item.name, type=item.type, new_inputs=struct_pb2.Struct())
            with grpc.insecure_channel(callback.target) as channel:
                call = callback_pb2.CallbackInvokeRequest(token=callback.token, request=request.SerializeToString())
                answer = callback_pb2_grpc.CallbacksStub(channel).Invoke(call, timeout=COMMAND_SECONDS)
            error = resource_pb2.ResourceHookResponse.FromString(answer.response).error
            if error:
                raise DaemonError(f"{item.name}: {error}")

    def _create(self, item: Registration) -> Outcome:
        make = {
            "docker:index/container:Container": self._container,
            "docker:index/network:Network": self._network,
            "docker:index/volume:Volume": self._volume,
            "docker:index/image:Image": self._image,
            "command:local:Command": self._command,
        }.get(item.type)
        if make is None:
            raise DaemonError(f"{item.name}: the daemon monitor does not know resources of type {item.type}; teach it in tests/support/daemon.py")
        given = Inputs(item)
        try:
            return make(item, given)
        except docker.errors.DockerException as error:
            raise DaemonError(f"{item.name}: {error}") from error

    def _network(self, item: Registration, given: Inputs) -> Outcome:
        name, driver, ipam = given.take("name"), given.take("driver"), given.take("ipamOptions", {})
        labels = _labels(given.take("labels"))
        given.close()
        if ipam:
            raise DaemonError(f"{item.name}: ipamOptions {ipam} are not known to the daemon monitor")
        return self.client.api.create_network(name, driver=driver, labels=labels, check_duplicate=True)["Id"], {}

    def _volume(self, item: Registration, given: Inputs) -> Outcome:
        name, labels = given.take("name"), _labels(given.take("labels"))
        given.close()
        return self.client.api.create_volume(name, labels=labels)["Name"], {}

    def _image(self, item: Registration, given: Inputs) -> Outcome:
        name, build = given.take("imageName"), dict(given.take("build"))
        given.take("buildOnPreview")
        if given.take("skipPush") is not True:
            raise DaemonError(f"{item.name}: it would be pushed to a registry")
        given.close()
        if build["dockerfile"] == "images/Dockerfile.cpu":
            # Gigabytes and minutes: whoever wants it here has built it before.
            return name, {"repoDigest": self.client.images.get(name).id}
        context, dockerfile = ROOT / build.pop("context"), build.pop("dockerfile")
        arguments, network = build.pop("args", {}), build.pop("network", None)
        build.pop("platform"), build.pop("builderVersion")  # this daemon's own, and its classic builder
        if build:
            raise DaemonError(f"{item.name}: the daemon monitor does not know the build inputs {', '.join(sorted(build))}")
        image = build_image(self.client, context, dockerfile, name, arguments, network)
        self.stack.built.add(image)
        return name, {"repoDigest": image}

    def _container(self, item: Registration, given: Inputs) -> Outcome:
        api = self.client.api
        capabilities = given.take("capabilities", {})
        network, *more = given.take("networksAdvanced")
        ports = given.take("ports", [])
        cpus = float(given.take("cpus", 0))
        given.take("wait"), given.take("mustRun")
        host_config = api.create_host_config(
            network_mode=network["name"],
            nano_cpus=int(cpus * 1e9) or None,
            mem_limit=int(given.take("memory")) * MIB,
            memswap_limit=int(given.take("memorySwap")) * MIB,
            shm_size=int(given.take("shmSize", 0)) * MIB or None,
            read_only=given.take("readOnly", False),
            tmpfs=given.take("tmpfs"),
            cap_drop=capabilities.pop("drops", []),
            cap_add=capabilities.pop("adds", []),
            security_opt=given.take("securityOpts"),
            init=given.take("init"),
            restart_policy={"Name": given.take("restart")},
            log_config=docker.types.LogConfig(type=given.take("logDriver"), config=given.take("logOpts")),
            storage_opt=given.take("storageOpts") or None,
            sysctls=given.take("sysctls") or None,
            mounts=[
                docker.types.Mount(source=mount["source"], target=mount["target"], type=mount["type"], read_only=mount.get("readOnly", False))
                for mount in given.take("mounts", [])
            ],
            port_bindings={f"{int(port['internal'])}/tcp": (port["ip"], int(port["external"])) for port in ports},
            device_requests=[
                docker.types.DeviceRequest(driver=device["driver"], count=int(device["count"]), capabilities=[device["capabilities"]])
                for device in given.take("deviceRequests", [])
            ],
        )
        # the stubs know one network where the library takes a mapping of them
        networking = api.create_networking_config({network["name"]: api.create_endpoint_config()})  # type: ignore[arg-type]
        health = given.take("healthcheck")
        arguments: dict[str, Any] = {
            "name": given.take("name"),
            "image": given.take("image"),
            "command": given.take("command"),
            "hostname": given.take("hostname"),
            "user": given.take("user"),
            "labels": _labels(given.take("labels")),
            "stop_timeout": int(given.take("stopTimeout", 10)),
            "ports": [int(port["internal"]) for port in ports],
            "healthcheck": health
            and {
                "test": health["tests"],
                "interval": _nanoseconds(health["interval"]),
                "timeout": _nanoseconds(health["timeout"]),
                "start_period": _nanoseconds(health["startPeriod"]),
                "retries": int(health["retries"]),
            },
            "networking_config": networking,
            "host_config": host_config,
        }
        given.close()
        unknown = set(network) - {"name", "gwPriority"} | set(capabilities) | {key for port in ports for key in port} - {"internal", "external", "ip"}
        if more or unknown or network.get("gwPriority"):
            raise DaemonError(f"{item.name}: more than one network, or the inputs {sorted(unknown)}, are not known to the daemon monitor")
        made = api.create_container(**arguments)["Id"]
        try:
            api.start(made)
        except docker.errors.DockerException:
            api.remove_container(made, force=True)
            raise
        return made, {}

    def _command(self, item: Registration, given: Inputs) -> Outcome:
        script = given.take("create")
        for key in ("delete", "environment", "stdin", "triggers"):
            given.take(key)
        given.close()
        return item.name, {"stdout": _shell(item, script), "stderr": ""}


def build_image(client: docker.DockerClient, context: Path, dockerfile: str, name: str, arguments: Mapping[str, str], network: str | None) -> str:
    """Id of the image that the classic builder makes of a context narrowed by <dockerfile>.dockerignore, which that builder does not read."""
    ignore = context / f"{dockerfile}.dockerignore"
    patterns = [line.strip() for line in ignore.read_text(encoding="utf-8").splitlines() if line.strip()] if ignore.is_file() else []
    made: Any = docker.utils.build.tar(context, exclude=patterns, dockerfile=(dockerfile, None))
    with made as archive:
        lines = client.api.build(
            fileobj=archive,
            custom_context=True,
            dockerfile=dockerfile,
            tag=name,
            buildargs=dict(arguments),
            network_mode=network,
            rm=True,
            forcerm=True,
            decode=True,
        )
        log = ""
        for line in lines:
            log += line.get("stream", "")
            if "error" in line:
                raise DaemonError(f"{name}: {line['error']}\n{log}")
    return str(client.images.get(name).id)


def _labels(given: list[Mapping[str, str]] | None) -> dict[str, str]:
    return {item["label"]: item["value"] for item in given or []}


def _nanoseconds(duration: str) -> int:
    """A duration as Go writes it: '15m0s'."""
    parts = re.findall(r"(\d+)(h|m|s)", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        raise DaemonError(f"healthcheck: {duration!r} is no duration such as 15m0s")
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts) * 10**9


def _shell(item: Registration, script: str) -> str:
    """stdout of a command resource's script, as the command provider runs it."""
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        input=item.inputs.get("stdin", ""),
        env={**os.environ, **item.inputs.get("environment", {})},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        raise DaemonError(f"{item.name}: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.rstrip("\n")


def _gone(remove: Callable[[], Any]) -> None:
    try:
        remove()
    except docker.errors.NotFound:
        pass
