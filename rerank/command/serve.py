"""`rerank serve`: the reranker on this machine without Docker."""

import dataclasses
import inspect
import os
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from rerank import house, models
from rerank.command.dialled import dialled
from rerank.command.out import FAILED, USAGE, Trouble, say, show_json
from rerank.serve import instance as instances
from rerank.serve import processes
from rerank.serve import python as pythons
from rerank.serve import start as starting
from rerank.serve.instance import Instance, Record
from serving.keys import BadKeys
from serving.launch.options import GpuDials, LaunchDials
from serving.options import ServiceDials

app = typer.Typer(no_args_is_help=True, help="The reranker on this machine without Docker: the container's own launcher and service.")

Name = Annotated[str, typer.Option(help="Name of the server; by default reranker-PORT", show_default=False)]
Port = Annotated[int, typer.Option(help="Port to listen on", min=1, max=65535)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on standard output")]
Grace = Annotated[float, typer.Option(help="Seconds that a server has to end by itself before it is killed", min=0, max=3600)]
DEFAULTS: dict[str, Any] = house.defaults()
PORT, HOST, WAIT = (DEFAULTS[key] for key in ("host_port", "bind_address", "health_timeout_seconds"))
GRACE = 30.0
PANELS: dict[str, Any] = {"vLLM": LaunchDials, "Calls": ServiceDials, "GPU": GpuDials}


def _options(
    engine: Annotated[str, typer.Option(help="vllm, or mock: the same API without a model")] = "vllm",
    model: Annotated[str, typer.Option(help="Directory of the model, or one that rerank fetch has: its name", show_default="the usual one")] = "",
    device: Annotated[str, typer.Option(help="cpu or gpu")] = "cpu",
    visible_devices: Annotated[str, typer.Option(help="CUDA_VISIBLE_DEVICES of the server", rich_help_panel="GPU")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network of this machine")] = HOST,
    port: Port = PORT,
    served_model_name: Annotated[list[str] | None, typer.Option(help="Name that callers use; repeat it for more", show_default="the model's")] = None,
    api_key_file: Annotated[
        str, typer.Option(help="File with the keys of which callers need one, a line each; else the variable RERANK_API_KEY")
    ] = "",
    python: Annotated[str, typer.Option(help="Python that has vLLM", show_default="this one")] = "",
    extra: Annotated[
        list[str] | None, typer.Argument(metavar="-- VLLM-ARGUMENT…", help="More arguments for vLLM's server, as they are", show_default=False)
    ] = None,
) -> None:
    """The parameters that start and run share."""


def _settings(given: dict[str, Any], told: dict[str, Any], log_folder: str = "") -> starting.Settings:
    extra = tuple(given["extra"] or ())
    for key, known in (("engine", ("vllm", "mock")), ("device", ("cpu", "gpu"))):
        if given[key] not in known:
            raise typer.BadParameter(f"{given[key]!r} must be {' or '.join(known)}", param_hint=f"--{key}")
    if extra and not extra[0].startswith("-"):
        raise typer.BadParameter(
            f"{extra[0]!r} is no argument of vLLM's; those stand after --, such as: -- --uvicorn-log-level info", param_hint="VLLM-ARGUMENT"
        )
    return starting.Settings(
        engine=given["engine"],
        device=given["device"],
        model=str(Path(given["model"]).expanduser().resolve()) if given["model"] and Path(given["model"]).expanduser().is_dir() else given["model"],
        host=given["host"],
        port=given["port"],
        served_model_names=tuple(given["served_model_name"] or ()),
        python=given["python"],
        log_folder=log_folder,
        visible_devices=given["visible_devices"],
        dials=told,
        extra=extra,
    )


def _shared(verb: Any) -> Any:
    """Gives `verb` the parameters of _options as `given`, the dials as `told`, and keeps its own."""
    shared = inspect.signature(_options).parameters
    own = [parameter for parameter in inspect.signature(verb).parameters.values() if parameter.name not in ("given", "told")]

    def call(*, told: dict[str, Any], **every: Any) -> Any:
        given = {name: every.pop(name) for name in shared}
        return verb(**every, given=given, told=told)

    told = inspect.Parameter("told", inspect.Parameter.KEYWORD_ONLY)
    call.__dict__["__signature__"] = inspect.Signature(
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in [*shared.values(), *own]] + [told]
    )
    call.__name__, call.__doc__ = verb.__name__, verb.__doc__
    return dialled(**PANELS)(call)


@app.command()
@_shared
def start(
    given: dict[str, Any],
    told: dict[str, Any],
    name: Name = "",
    log_folder: Annotated[str, typer.Option(help="Folder of the log", show_default="beside the server's state")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until it is healthy")] = True,
    timeout: Annotated[int, typer.Option(help="Seconds to wait", min=1)] = WAIT,
    as_json: AsJson = False,
) -> None:
    """Start it in the background and wait until it is healthy. The server goes on when this command or the terminal ends."""
    settings = _settings(given, told, log_folder)
    instance = _named(name, settings.port)
    _start(instance, settings, given["api_key_file"], wait=wait, timeout=timeout, as_json=as_json)


def _start(
    instance: Instance, settings: starting.Settings, key_file: str, *, wait: bool, timeout: int, as_json: bool, key: str | None = None
) -> None:
    """`key`: in place of the variable's; "" for the one that the instance has in its folder."""
    try:
        with instance.alone():
            if running := instance.running():
                raise Trouble(
                    f"{instance.name} runs already (pid {running.process.pid}, {running.url}): rerank serve restart starts it anew, "
                    "and another --port or --name starts a second one"
                )
            python = pythons.look(settings.python)
            model = starting.require(settings, python, os.environ)
            starting.require_port(settings, _listener)
            if key is None:
                key_path = starting.take_key(instance, key_file, os.environ.get("RERANK_API_KEY", ""))
            else:
                key_path = key_file or (str(instance.key_file) if instance.key_file.is_file() else "")
            starting.prepare(instance)
            argv = starting.arguments(settings, model, key_file=key_path, scratch=str(instance.scratch))
            environment = starting.surroundings(settings, python, instance.folder, os.environ)
            record = starting.start(instance, settings, argv, environment, python, key_file=key_file)
    except (starting.Refused, models.NoModel, pythons.NoPython, BadKeys, instances.Busy) as reason:
        raise Trouble(starting.spoken(str(reason))) from None
    except OSError as error:
        raise Trouble(
            f"{error.filename or instance.folder} cannot be used ({error.strerror}): it must be writable; XDG_STATE_HOME names another place"
        ) from None
    if settings.host not in ("127.0.0.1", "::1", "localhost") and not key_path:
        say(
            f"warning: {settings.url} is open to every machine that reaches {settings.host}: set RERANK_API_KEY or --api-key-file, or leave out --host"
        )
    say(f"{record.name} started (pid {record.process.pid}), its log is {record.log}")
    if wait:
        try:
            seconds = starting.await_healthy(record, timeout, say)
        except starting.Failed as reason:
            raise Trouble(str(reason)) from None
        except KeyboardInterrupt:
            say(f"not waited for: {record.name} goes on starting; rerank serve stop --name {record.name} ends it")
            raise
        say(f"healthy after {seconds:.0f} s: {record.url}/v1")
    if as_json:
        show_json(_row(instance, record))


@app.command()
@_shared
def run(given: dict[str, Any], told: dict[str, Any]) -> None:
    """Run it in the foreground, as a service manager or a look at its log wants it; Ctrl-C ends it."""
    settings = _settings(given, told)
    if os.environ.get("RERANK_API_KEY") and not given["api_key_file"]:
        raise Trouble("run takes keys from a file alone: give --api-key-file, which a service manager keeps closed to others", USAGE)
    try:
        python = pythons.look(settings.python)
        model = starting.require(settings, python, os.environ)
        starting.require_port(settings, _listener)
        key = starting.take_key(_named("", settings.port), given["api_key_file"], "") if given["api_key_file"] else ""
        argv = starting.arguments(settings, model, key_file=key)
        environment = starting.surroundings(settings, python, instances.home() / "run", os.environ)
    except (starting.Refused, models.NoModel, pythons.NoPython, BadKeys) as reason:
        raise Trouble(starting.spoken(str(reason))) from None
    os.execve(python.program, [python.program, "-m", "serving", *argv], environment)


@app.command()
def status(name: Name = "", as_json: AsJson = False) -> None:
    """Which servers were started here, and whether each is well; status 1 where one is not, or none runs."""
    found = [_known(name)] if name else instances.every()
    rows = [_row(one, one.record()) for one in found]
    if as_json:
        show_json(rows)
    elif not rows:
        say("no server was started here: rerank serve start starts one")
    for row in () if as_json else rows:
        place = f"{row['url']}/v1  pid {row['pid']}" if row["pid"] else ""
        print(f"{row['name']}  {row['status']}  {place}".rstrip() + (f"\n  {row['reason']}" if row["reason"] else ""))
    states = [row["status"] for row in rows if name or row["status"] != "stopped"]
    if not states or any(state != "healthy" for state in states):
        raise typer.Exit(FAILED)


@app.command()
def tail(
    name: Name = "",
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines from the end", min=0)] = 20,
    follow: Annotated[bool, typer.Option(help="Go on with what comes, until Ctrl-C")] = True,
) -> None:
    """The end of a server's log, and what comes."""
    from rerank.serve.tail import follow as followed
    from rerank.serve.tail import last

    record = _known(name).record()
    assert record is not None
    file = Path(record.log)
    if not file.is_file():
        raise Trouble(f"there is no log {file}: it was removed, or {record.name} never wrote a line")
    sys.stdout.write("".join(last(file, lines)))
    sys.stdout.flush()
    if follow:
        for text in followed(file, alive=lambda: record.alive):
            sys.stdout.write(text)
            sys.stdout.flush()


@app.command()
def stop(name: Name = "", grace: Grace = GRACE, as_json: AsJson = False) -> None:
    """End a server and all that belongs to it; nothing to do where it does not run."""
    instance = _known(name)
    clean = _stop(instance, grace)
    if as_json:
        show_json({"name": instance.name, "status": "stopped", "ran": clean is not None, "killed": clean is False})


def _stop(instance: Instance, grace: float) -> bool | None:
    """Whether it ended by itself; None where it did not run."""
    try:
        with instance.alone():
            record = instance.record()
            if record is None or not record.alive:
                left = record is not None and not instances.end(record, 0)
                say(f"{instance.name} does not run" + (" any more; what it had left behind was ended" if left else ""))
                return None
            begun = time.monotonic()
            instance.write(dataclasses.replace(record, stopped=True))
            clean = instances.end(record, grace, say)
            say(f"{instance.name} {'ended' if clean else 'was killed'} after {time.monotonic() - begun:.1f} s")
            return clean
    except instances.Busy as reason:
        raise Trouble(str(reason)) from None
    except PermissionError:
        raise Trouble(f"{instance.name} is another user's: stop it as that user") from None


@app.command()
def restart(
    name: Name = "",
    grace: Grace = GRACE,
    wait: Annotated[bool, typer.Option(help="Wait until it is healthy")] = True,
    timeout: Annotated[int, typer.Option(help="Seconds to wait", min=1)] = WAIT,
    as_json: AsJson = False,
) -> None:
    """End a server and start it with the settings and the key that it had. For other settings: stop, then start."""
    instance = _known(name)
    record = instance.record()
    assert record is not None
    _stop(instance, grace)
    settings = starting.Settings(**record.told())
    _start(instance, settings, record.key_file, wait=wait, timeout=timeout, as_json=as_json, key="")


def _listener(port: int) -> str:
    """Who has a port, first of all one of our own."""
    for one in instances.every():
        record = one.running()
        if record and record.settings["port"] == port:
            return f"the server {record.name} (pid {record.process.pid}), which rerank serve stop --name {record.name} ends"
    return processes.listener(port)


def _named(name: str, port: int) -> Instance:
    name = name or f"reranker-{port}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise typer.BadParameter(f"{name!r} must be letters, digits, '.', '_' and '-', at most 64", param_hint="--name")
    return instances.named(name)


def _known(name: str) -> Instance:
    """The instance with this name, or the only one that runs, or the only one there is."""
    found = instances.every()
    if name:
        if chosen := [one for one in found if one.name == name]:
            return chosen[0]
        raise Trouble(
            f"no server {name!r} was started here; "
            + (f"there is {', '.join(one.name for one in found)}" if found else "rerank serve start starts one")
        )
    running = [one for one in found if one.running()] or found
    if len(running) == 1:
        return running[0]
    if not running:
        raise Trouble("no server was started here: rerank serve start starts one")
    raise Trouble(f"say which with --name: {', '.join(one.name for one in running)}", USAGE)


def _row(instance: Instance, record: Record | None) -> dict[str, Any]:
    """What `status` says of one server."""
    if record is None:
        return {
            "name": instance.name,
            "status": "unknown",
            "reason": f"its record in {instance.folder} cannot be read: start it again",
            "pid": 0,
            "url": "",
        }
    row: dict[str, Any] = {"name": record.name, "url": record.url, "pid": 0, "model": record.model, "log": record.log}
    if not record.alive:
        said = "" if record.stopped else f"it ended by itself: {starting.last_words(Path(record.log))[-1]}"
        return {**row, "status": "stopped" if record.stopped else "ended", "reason": said}
    state, reason = starting.health(record.url)
    return {**row, "pid": record.process.pid, "status": "starting" if state == "silent" else state, "reason": reason}
