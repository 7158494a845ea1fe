"""A deployed reranker as its stack's outputs or a URL name it: where it is, whether it is well and why not. Nothing is changed."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rerank import house

house.enter()

from host.docker import Docker, DockerError, environment  # noqa: E402

PULUMI_SECONDS = 120.0
ASK_SECONDS = 15.0
LOCAL = ("", "unix://", "npipe://")
HEALTHY, STARTING, UNHEALTHY, STOPPED, GONE, UNREACHED = "healthy", "starting", "unhealthy", "stopped", "gone", "unreached"
PASSPHRASE = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")


class NoTarget(Exception):
    """There is nothing to look at; one sentence with the remedy."""


class NotUp(NoTarget):
    """The stack is there, but nothing is deployed."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """`container` on the daemon of `docker_host` ("" is this machine's), or a service at `url` (base URL without /v1). A container's `url` is its published port on that host, if any."""

    container: str = ""
    docker_host: str = ""
    url: str = ""
    model: str = ""


@dataclass(frozen=True, kw_only=True)
class State:
    """How a target is: one of the states above, why, and what else is known of its container."""

    state: str
    reason: str = ""
    where: str = ""
    restarts: int = 0
    started: str = ""


def of_url(url: str) -> Target:
    """NoTarget where it is no http address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise NoTarget(f"{url!r} is no http address: write it as http://127.0.0.1:8123/v1")
    return Target(url=url.rstrip("/").removesuffix("/v1"))


def of_outputs(text: str, source: str) -> Target:
    """The target of `pulumi stack output --json`. NoTarget where that is something else, or of a stack that is not up."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise NoTarget(f"{source} is not what 'pulumi stack output --json' prints: pipe that in, or give its file")
    if not found.get("internalUrl"):
        raise NotUp(f"{source} has no internalUrl: the stack is not up, run 'make up' (or pulumi up) first")
    container, model = str(found.get("containerName", "")), str(found.get("modelName", ""))
    if not container:
        return Target(url=of_url(str(found["internalUrl"])).url, model=model)
    published = str(found.get("hostUrl", ""))
    return Target(container=container, docker_host=str(found.get("dockerHost", "")), url=of_url(published).url if published else "", model=model)


def of_stack(name: str, checkout: Path | None, surroundings: Mapping[str, str] = os.environ) -> Target:
    """The target of a stack of a checkout, asked for by the pulumi program. NoTarget where that cannot be."""
    if checkout is None:
        here = Path.cwd()
        if not (here / "Pulumi.yaml").is_file() or not (here / "stacks").is_dir():
            raise NoTarget("--stack needs the checkout that the stack is in: change into it, or pipe in 'pulumi stack output --json', or give a URL")
        checkout = here
    known = sorted(path.name.split(".")[1] for path in (checkout / "stacks").glob("Pulumi.*.yaml"))
    if name not in known:
        raise NoTarget(f"there is no stack {name!r} in {checkout}: choose one of {', '.join(known)}")
    program = shutil.which("pulumi", path=os.pathsep.join([surroundings.get("PATH", ""), str(Path.home() / ".pulumi/bin")]))
    if program is None:
        raise NoTarget("pulumi is not on PATH: run 'make setup' and paste its lines, or pipe in what 'pulumi stack output --json' prints elsewhere")
    told = {"PULUMI_SKIP_UPDATE_CHECK": "true", **surroundings}
    kept = Path(surroundings.get("XDG_CONFIG_HOME") or Path.home() / ".config", "ragflow-reranker", "passphrase")
    if not any(variable in told for variable in PASSPHRASE) and kept.is_file():
        told["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(kept)  # which make keeps there
    argv = [program, "stack", "output", "--json", "--stack", name, "--non-interactive"]
    try:
        done = subprocess.run(argv, cwd=checkout, env=told, capture_output=True, text=True, timeout=PULUMI_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoTarget(f"pulumi could not be asked for the outputs of {name} ({error}): try 'pulumi stack output --json -s {name}' by hand") from None
    if done.returncode:
        said = " ".join(done.stderr.strip().splitlines()[-3:]) or f"exit {done.returncode}"
        raise NoTarget(f"pulumi could not read the outputs of {name}: {said}")
    return of_outputs(done.stdout, f"the stack {name}")


def look(target: Target, *, docker: Callable[..., str] | None = None) -> State:
    """How it is now: by Docker where it is a container, else by GET /health."""
    if not target.container:
        return _asked(target.url)
    where = f"container {target.container}" + (f" on {target.docker_host}" if target.docker_host else "")
    run = docker or Docker(environment(target.docker_host))
    try:
        return _inspected(run, target.container, where)
    except DockerError as error:
        if "no such" in str(error).lower():
            return State(state=GONE, where=where, reason="there is no such container: make up (or pulumi up) makes it")
        remedy = "is Docker running there, and may this user use it?"
        return State(state=UNREACHED, where=where, reason=f"{error}: {remedy}")


def _inspected(docker: Callable[..., str], container: str, where: str) -> State:
    found: dict[str, Any] = json.loads(docker("inspect", "--type", "container", container))[0]
    state = found["State"]
    known: dict[str, Any] = {"where": where, "restarts": found.get("RestartCount", 0), "started": state.get("StartedAt", "")}
    if state["Status"] != "running":
        return State(state=STOPPED, reason=_end(state, docker, container), **known)
    health = (state.get("Health") or {}).get("Status", "")
    if health == HEALTHY:
        return State(state=HEALTHY, **known)
    # Fresher than what Docker keeps, which may be of half a minute ago.
    reason = ""
    with contextlib.suppress(DockerError):
        reason = docker("exec", container, "python3", "-m", "serving", "health", partial=True).strip()
    if reason == HEALTHY:
        return State(state=HEALTHY, **known)
    body = _body(reason)
    said = str(body.get("reason", "")) or reason or "its health check does not run"
    return State(state=STARTING if body.get("status") == STARTING or health == STARTING else UNHEALTHY, reason=said, **known)


def _end(state: Mapping[str, Any], docker: Callable[..., str], container: str) -> str:
    """Why a container does not run."""
    if state.get("OOMKilled"):
        return "it was killed for want of memory: raise memoryGiB (docs/memory.md)"
    said = f"it is {state['Status']}, exit status {state.get('ExitCode')}"
    with contextlib.suppress(DockerError):
        if last := [line for line in docker("logs", "--tail", "5", container).splitlines() if line.strip()]:
            return f"{said}; its log ends: {last[-1][:300]}"
    return f"{said}; 'rerank logs' has more"


def _asked(url: str) -> State:
    """GET /health of a service; of one that is not ours, whether it answers."""
    import requests

    try:
        with requests.Session() as session:
            session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")
            answer = session.get(f"{url}/health", timeout=ASK_SECONDS)
    except requests.Timeout:
        return State(state=UNREACHED, where=url, reason=f"no answer within {ASK_SECONDS:g} s: it is stuck, or a firewall drops the call")
    except requests.RequestException as error:
        return State(state=UNREACHED, where=url, reason=f"it cannot be reached ({type(error).__name__}): is it running, and is the address right?")
    body = _body(answer.text)
    if answer.status_code == 200:
        return State(state=HEALTHY, where=url)
    if answer.status_code == 503 and body.get("status") in (STARTING, UNHEALTHY):
        return State(state=str(body["status"]), where=url, reason=str(body.get("reason", "")))
    return State(state=UNHEALTHY, where=url, reason=f"GET /health answered {answer.status_code}: is that the reranker's own address?")


def _body(text: str) -> dict[str, Any]:
    """A JSON object, or an empty one."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
