"""Sends probe.py, with serving/ beside it, to where something is to be asked: in a container, to the Docker host over ssh, or into a process here. Leaves nothing."""

import base64
import io
import json
import secrets
import shlex
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rerank import house
from setup.edge import Edge

GRACE_SECONDS = 6.0  # for Python, a container and ssh to start, beside what the probe itself may take
BOOT = """
import base64, sys, tempfile
if sys.version_info < (3, 10): sys.exit("Python %d.%d there is too old, 3.10 is needed" % sys.version_info[:2])
with tempfile.NamedTemporaryFile(suffix=".zip") as pack:
    pack.write(base64.b64decode(sys.stdin.readline()))
    pack.flush()
    sys.path.insert(0, pack.name)
    import doctor_probe
    doctor_probe.main(sys.stdin.read())
"""


class Unsent(Exception):
    """Nothing was asked there; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where to ask: the words before the Python program's arguments, in words, and what ends it there after a time-out."""

    words: tuple[str, ...]
    where: str
    end: tuple[str, ...] = ()


def here() -> Place:
    return Place(words=(sys.executable, "-c", BOOT), where="this machine")


def by_ssh(docker_host: str) -> Place:
    """The Docker host's own Python, by the ssh address that Docker is reached on."""
    parts = urlsplit(docker_host)
    port = ["-p", str(parts.port)] if parts.port else []
    user = f"{parts.username}@" if parts.username else ""
    argv = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *port, "--", f"{user}{parts.hostname}", f"python3 -c {shlex.quote(BOOT)}"]
    return Place(words=tuple(argv), where=f"{parts.hostname}, the Docker host")


def in_container(docker: Sequence[str], image: str, *, named: str, network: str, limits: Sequence[str] = ()) -> Place:
    """A container of an image that the Docker host has, gone after the answer. `docker`: the program and its --host; `named`: the image in words."""
    name = f"reranker-doctor-{secrets.token_hex(4)}"
    confined = [
        "--network",
        network,
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "65534:65534",
        "--tmpfs",
        "/tmp",
        "--env",
        "HOME=/tmp",
    ]
    argv = [
        *docker,
        "run",
        "--rm",
        "--interactive",
        "--pull",
        "never",
        "--name",
        name,
        *confined,
        *limits,
        "--entrypoint",
        "python3",
        image,
        "-c",
        BOOT,
    ]
    return Place(words=tuple(argv), where=f"a container of {named}", end=(*docker, "rm", "--force", name))


def ask(
    edge: Edge, place: Place, questions: Sequence[Mapping[str, Any]], *, seconds: float, proxies: Mapping[str, str] | None = None, ca: str = ""
) -> list[Any]:
    """The answers in their order, None for one that did not come within `seconds`. Unsent where nothing came at all."""
    job = {"questions": list(questions), "environment": dict(proxies or {}), "ca": ca, "seconds": seconds}
    done = edge.run(place.words, seconds + GRACE_SECONDS, f"{_pack()}\n{json.dumps(job)}")
    if done.code == 124 and place.end:
        edge.run(place.end, GRACE_SECONDS)
    try:
        found = json.loads(done.out.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise Unsent(done.tail()) from None
    if not isinstance(found, list) or len(found) != len(questions):
        raise Unsent("it answered something else")
    return found


@cache
def _pack() -> str:
    """serving/ and the probe as a zip file, which Python imports from, as text."""
    out, root = io.BytesIO(), house.root()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as pack:
        for path in sorted((root / "serving").rglob("*.py")):
            pack.write(path, path.relative_to(root))
        pack.write(Path(__file__).with_name("probe.py"), "doctor_probe.py")
    return base64.b64encode(out.getvalue()).decode()
