"""The program, or a single component, without an engine: what it registers is recorded whole, options included.

    result = run_program({"backend": "mock", "apiKey": "k" * 20}, a_host())          # __main__.py with Pulumi.yaml's defaults
    container = result.one("docker:index/container:Container")
    assert container.inputs["readOnly"] is True and container.delete_before_replace
    assert result.exports["internalUrl"] == "http://ragflow-vllm-reranker:8000/v1"

    result = record(lambda: SharedNetwork("network", NetworkArgs(...)))               # one component

Both may run any number of times in one process: each run has a context, an event loop and a monitor of its own.
"""

import asyncio
import contextlib
import contextvars
import json
import logging
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pulumi
import yaml
from google.protobuf import empty_pb2
from pulumi.runtime import mocks, rpc, set_all_config
from pulumi.runtime import stack as pulumi_stack
from pulumi.runtime.proto import callback_pb2, resource_pb2

import deployment
from host import observe, ports

ROOT = Path(__file__).resolve().parents[2]
SECRET_KEYS = ("apiKey", "modelToken", "ragflowApiKey")


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One registered resource. `inputs` has the provider's own names (memorySwap), secrets unwrapped; `secrets` are the names of those that hold one.

    `parent` and `dependencies` are URNs, `before_create` names of hooks; an option that was not given is None or empty.
    """

    urn: str
    type: str
    name: str
    custom: bool
    inputs: Mapping[str, Any] = field(repr=False)
    secrets: frozenset[str] = frozenset()
    parent: str = ""
    provider: str = ""
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    delete_before_replace: bool | None = None
    retain_on_delete: bool = False
    replace_on_changes: tuple[str, ...] = ()
    ignore_changes: tuple[str, ...] = ()
    additional_secret_outputs: tuple[str, ...] = ()
    protect: bool = False
    before_create: tuple[str, ...] = ()


# What a resource turns into: its id, and outputs beside the inputs.
Outcome = tuple[str, dict[str, Any]]


def imagined(item: Registration) -> Outcome:
    """Outputs as a provider might give them: stable, and different for each resource."""
    more: dict[str, Any] = {}
    if item.type == "docker:index/image:Image":
        more = {"repoDigest": f"sha256:{item.name}"}
    if item.type == "pulumi:index:Stash":
        more = {"output": item.inputs["input"]}
    if item.type == "command:local:Command":
        more = {"stdout": f"stdout-of-{item.name}", "stderr": ""}
    return (f"id-of-{item.name}" if item.custom else ""), more


class _Unused(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        raise NotImplementedError

    def call(self, args: mocks.MockCallArgs) -> tuple[dict[str, Any], None]:
        raise NotImplementedError(f"the program called {args.token}: a lookup at preview, which this monitor does not answer")


class Recording(mocks.MockMonitor):
    """A monitor that keeps every registration in order, and gives it the outcome that `apply` says."""

    def __init__(self, apply: Callable[[Registration], Outcome] = imagined, state: Mapping[str, Any] | None = None) -> None:
        super().__init__(_Unused())
        self.state = dict(state or {})
        self.apply = apply
        self.registrations: list[Registration] = []
        self.hooks: dict[str, callback_pb2.Callback] = {}

    def Invoke(self, request: resource_pb2.ResourceInvokeRequest) -> resource_pb2.ResourceInvokeResponse:
        """Answers one lookup: what the stack's `state` lists, outputs by URN."""
        if request.tok != "pulumi:pulumi:readStackResourceOutputs":
            raise NotImplementedError(f"the program called {request.tok}: a lookup at preview, which this monitor does not answer")
        answer = resource_pb2.ResourceInvokeResponse()
        getattr(answer, "return").update({"outputs": self.state})
        return answer

    def RegisterResourceHook(self, request: resource_pb2.RegisterResourceHookRequest) -> empty_pb2.Empty:
        self.hooks[request.name] = request.callback
        return empty_pb2.Empty()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """As the engine spells it: the types of all parents, but not the stack's."""
        parent_type = parent.split("::")[2] if parent else ""
        chain = type_ if parent_type in ("", "pulumi:pulumi:Stack") else f"{parent_type}${type_}"
        return "::".join([f"urn:pulumi:{pulumi.get_stack()}", pulumi.get_project(), chain, name])

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> resource_pb2.RegisterResourceResponse:
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == "pulumi:pulumi:Stack":
            return resource_pb2.RegisterResourceResponse(urn=urn)
        given = rpc.deserialize_properties(request.object)
        item = Registration(
            urn=urn,
            type=request.type,
            name=request.name,
            custom=request.custom,
            inputs={key: rpc.unwrap_rpc_secret(value) for key, value in given.items()},
            secrets=frozenset(key for key, value in given.items() if rpc.is_rpc_secret(value)),
            parent=request.parent,
            provider=request.provider,
            dependencies=tuple(request.dependencies),
            property_dependencies={key: tuple(value.urns) for key, value in request.propertyDependencies.items()},
            delete_before_replace=request.deleteBeforeReplace if request.deleteBeforeReplaceDefined else None,
            retain_on_delete=request.retainOnDelete,
            replace_on_changes=tuple(request.replaceOnChanges),
            ignore_changes=tuple(request.ignoreChanges),
            additional_secret_outputs=tuple(request.additionalSecretOutputs),
            protect=request.protect,
            before_create=tuple(request.hooks.before_create),
        )
        self.registrations.append(item)
        id_, more = self.apply(item)
        # The given Struct keeps secrets secret and unknowns unknown.
        outputs = resource_pb2.RegisterResourceResponse(urn=urn, id=id_).object
        outputs.CopyFrom(request.object)
        outputs.update(more)
        self.resources[urn] = mocks.MockMonitor.ResourceRegistration(urn, id_, dict(item.inputs) | more)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=id_, object=outputs)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What one run left: registrations in order, the stack's outputs (secrets unwrapped), warnings and errors that it logged."""

    resources: tuple[Registration, ...]
    exports: Mapping[str, Any]
    warnings: tuple[str, ...]

    def of(self, type_: str) -> list[Registration]:
        return [item for item in self.resources if item.type == type_]

    def one(self, type_: str, name: str = "") -> Registration:
        """The only resource of the type (and name). LookupError where there are none or several."""
        found = [item for item in self.of(type_) if name in ("", item.name)]
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources of type {type_} {name}, among {[item.name for item in self.resources]}")
        return found[0]

    def named(self, name: str) -> Registration:
        """The resource of that name. LookupError where there are none or several."""
        found = [item for item in self.resources if item.name == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} resources named {name}, among {[item.name for item in self.resources]}")
        return found[0]


def record(
    program: Callable[[], Any],
    *,
    project: str = "ragflow-reranker",
    stack: str = "test",
    config: Mapping[str, str] | None = None,
    secret_keys: Iterable[str] = (),
    preview: bool = False,
    monitor: Recording | None = None,
) -> Recorded:
    """Call `program` under a recording monitor; returns when everything registered has landed. Raises what the program or the monitor raised.

    `config` and `secret_keys` have full names ("project:key") and strings for values, as the engine hands them over.
    """
    recording = monitor or Recording()
    before = len(recording.registrations)
    messages = _Messages()

    async def body() -> dict[str, Any]:
        # One worker: registrations land in the order in which their inputs were known, the same in every run.
        executor = ThreadPoolExecutor(max_workers=1)
        asyncio.get_running_loop().set_default_executor(executor)
        set_all_config(dict(config or {}), list(secret_keys))
        mocks.set_mocks(_Unused(), project=project, stack=stack, preview=preview, logger=messages.logger, monitor=recording)
        await pulumi_stack.run_pulumi_func(program_without_result)
        root = pulumi.runtime.get_root_resource()
        assert isinstance(root, pulumi_stack.Stack)
        return await pulumi.Output.from_input(dict(root.outputs)).future() or {}

    def program_without_result() -> None:
        program()

    exports = contextvars.Context().run(asyncio.run, body())
    return Recorded(resources=tuple(recording.registrations[before:]), exports=exports, warnings=tuple(messages.lines))


class _Messages(logging.Handler):
    """What was logged as warning or error, each line once a call."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []
        self.logger = logging.Logger("pulumi-under-test")
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def config_of(overrides: Mapping[str, Any], *, project: Path = ROOT, stack_file: str = "") -> dict[str, str]:
    """Pulumi.yaml's defaults, then stacks/Pulumi.<stack_file>.yaml, then `overrides` (bare keys are this project's), as the engine spells them."""
    definition = yaml.safe_load((project / "Pulumi.yaml").read_text(encoding="utf-8"))
    name = definition["name"]
    values: dict[str, Any] = {}
    for key, declared in definition["config"].items():
        values[_full(name, key)] = declared["default"] if isinstance(declared, dict) else declared
    if stack_file:
        stack = yaml.safe_load((project / "stacks" / f"Pulumi.{stack_file}.yaml").read_text(encoding="utf-8"))
        values.update(stack.get("config") or {})
    values.update({_full(name, key): value for key, value in overrides.items()})
    return {key: _spelled(value) for key, value in values.items()}


def _full(project: str, key: str) -> str:
    return key if ":" in key else f"{project}:{key}"


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def run_program(
    config: Mapping[str, Any] | None = None,
    host: observe.Host | None = None,
    project: Path = ROOT,
    *,
    stack: str = "test",
    stack_file: str = "",
    secret_keys: Iterable[str] = SECRET_KEYS,
    preview: bool = False,
    monitor: Recording | None = None,
    remembered: str = "",
) -> Recorded:
    """Run __main__.py. `config`: what differs from Pulumi.yaml and the stack file. `host`: what observe() answers; None: it looks at the real one.
    `monitor` has the stack's state, `remembered` is what the backend keeps of a destroyed one.

    `secret_keys`: keys that the stack holds encrypted. Raises pulumi.RunError with the program's own sentence where it refuses.
    """
    name = yaml.safe_load((project / "Pulumi.yaml").read_text(encoding="utf-8"))["name"]

    def program() -> None:
        # The program lets itself be ended in silence; a test run that is interrupted has to clean up.
        observed = contextlib.nullcontext() if host is None else mock.patch.object(observe, "observe", return_value=host)
        # A host of a test has no ports of its own to ask for: no ssh goes to a name that somebody may have.
        asked = contextlib.nullcontext() if host is None else mock.patch.object(ports, "seen", return_value="")
        told = mock.patch.object(deployment, "remembered", return_value=remembered)
        with mock.patch.object(signal, "signal"), mock.patch.object(pulumi.log, "error") as said, observed, asked, told:
            try:
                runpy.run_path(str(project / "__main__.py"))
            except SystemExit as end:
                raise pulumi.RunError(said.call_args.args[0] if end.code == 32 else f"the program ended with status {end.code}") from None

    before = Path.cwd()
    os.chdir(project)  # as the engine does: paths in the configuration are relative to it
    path = list(sys.path)
    sys.path.insert(0, str(project))
    try:
        return record(
            program,
            project=name,
            stack=stack,
            config=config_of(config or {}, project=project, stack_file=stack_file),
            secret_keys=[_full(name, key) for key in secret_keys],
            preview=preview,
            monitor=monitor,
        )
    finally:
        sys.path[:] = path
        os.chdir(before)
