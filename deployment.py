"""Which deployment this is: an identity that lives in the stack's own state, whatever backend holds it."""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi

from components.identity import KEPT, TAG
from config.settings import SettingsError
from host import labels
from host.labels import Deployment

TAG_SECONDS = 30
TRIES, PAUSE_SECONDS = 20, 0.1


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where pulumi runs: a machine and the project's folder on it."""

    machine: str
    folder: str


def read() -> tuple[Deployment, dict[str, Any]]:
    """The deployment of the running stack, and what its state is to keep of it. Raises SettingsError where the folder is a copy, state and all."""
    stack = f"{pulumi.get_project()}/{pulumi.get_stack()}"
    full = f"{pulumi.get_organization()}/{stack}"
    place = Place(machine=socket.gethostname(), folder=str(Path.cwd()))
    taking = os.environ.get("TAKE_OVER", "").strip()
    held = state(full)
    kept = identity(held)
    if kept is not None and taking != kept["id"] and not os.environ.get("PULUMI_BACKEND_URL") and (there := copied(kept, place)):
        raise SettingsError(
            f"this folder is a copy of {there}, with its state: both would be the deployment {kept['id']}, and each would replace what the other made; nothing "
            "was changed. Give the copy a state and names of its own: remove its folder state/ and set another containerName; or work on from here alone: "
            f"TAKE_OVER={kept['id']}"
        )
    # Not by an empty state: the engine may have noted the stack itself by now.
    kept = kept or born(remembered(full), place)
    if taking == kept["id"]:
        kept, taking = {**kept, "machine": place.machine, "folder": place.folder}, ""
    if taking and taking not in kept["heirOf"]:
        kept = {**kept, "heirOf": [*kept["heirOf"], taking]}
    return of(stack, kept, taking=taking, known=frozenset(incarnations(held))), kept


def state(
    stack: str, *, ask: Callable[[str], Mapping[str, Any]] | None = None, sleep: Callable[[float], None] = time.sleep
) -> dict[str, Mapping[str, Any]]:
    """Outputs of what the state lists, by URN. Asked again where it cannot be read, or shows no identity: the engine may be writing it at that moment."""
    read_once = ask or _ask
    for attempt in range(TRIES):
        try:
            held = resources(read_once(stack))
        except Exception:
            if attempt == TRIES - 1:
                raise
        else:
            if attempt or identity(held) is not None:
                return held
        sleep(PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _ask(stack: str) -> Mapping[str, Any]:
    answer: Any = pulumi.runtime.invoke("pulumi:pulumi:readStackResourceOutputs", {"stackName": stack}).value
    return dict(answer)


def of(stack: str, kept: Mapping[str, Any], *, taking: str = "", known: frozenset[str] = frozenset()) -> Deployment:
    made = f"{kept['made']} from {kept['machine']}:{kept['folder']}"
    return Deployment(stack=stack, id=kept["id"], made=made, heir_of=tuple(kept["heirOf"]), taking=taking, known=known)


def born(told: str, place: Place) -> dict[str, Any]:
    """A new deployment, or the one whose id and heirlooms (words of `told`) the backend remembers from before a destroy."""
    names = told.split() or [secrets.token_hex(4)]
    return {"id": names[0], "made": time.strftime("%Y-%m-%d"), "machine": place.machine, "folder": place.folder, "heirOf": names[1:]}


def copied(kept: Mapping[str, Any], here: Place) -> str:
    """The folder that this one is a copy of, where that is still there with a state of its own; '' where there was none or this one moved."""
    there = Place(machine=kept["machine"], folder=kept["folder"])
    if there.machine != here.machine or there.folder == here.folder:
        return ""
    try:
        twin = Path(there.folder, "state").is_dir() and not os.path.samefile(there.folder, here.folder)
    except OSError:
        return ""
    return there.folder if twin else ""


def resources(answer: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Outputs of what the state lists, by URN."""
    return {urn: item.get("outputs") or {} for urn, item in (answer.get("outputs") or {}).items() if "::pulumi:providers:" not in urn}


def identity(held: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    return next((dict(outputs["input"]) for urn, outputs in held.items() if urn.endswith(f"::{KEPT}")), None)


def incarnations(held: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Generations and attachments that the state lists."""
    for outputs in held.values():
        marked = outputs.get("labels")
        for item in marked if isinstance(marked, list) else []:
            if isinstance(item, dict) and item.get("label") == labels.GENERATION:
                yield str(item["value"])
        environment = outputs.get("environment")
        if isinstance(environment, dict) and isinstance(environment.get("ATTACHMENT"), str):
            yield environment["ATTACHMENT"]


def remembered(stack: str) -> str:
    """What a destroy left in the backend, so that the next up knows the model volume that was kept; '' where there is nothing, or no way to ask."""
    try:
        argv = ["pulumi", "stack", "tag", "get", TAG, "--stack", stack]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TAG_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
