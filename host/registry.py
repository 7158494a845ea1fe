"""What image registries have, asked by the daemon itself: with its own proxies, certificates and view of the network, wherever it is. Downloads nothing."""

import io
import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Literal

TIMEOUT_SECONDS = 20
HUB = "docker.io"


@dataclass(frozen=True)
class Answer:
    """Whether a registry has an image: 'yes', 'no' with the reason, or 'unknown' where this daemon cannot be asked without a pull."""

    has: Literal["yes", "no", "unknown"]
    why: str = ""


# Takes a path of Docker's API and gives status and body; OSError where the daemon is not reached that way, TimeoutError where nothing came.
Get = Callable[[str], tuple[int, str]]


def split(reference: str) -> tuple[str, str, str]:
    """(registry, path, digest) of an image's name: 'python:3.12@sha256:1' is ('docker.io', 'library/python:3.12', 'sha256:1')."""
    name, _, digest = reference.partition("@")
    first, slash, rest = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest if first != HUB or "/" in rest else f"library/{rest}", digest
    return HUB, name if slash else f"library/{name}", digest


def has(reference: str, platform: str, get: Get, *, login: bool = False) -> Answer:
    """Ask for the image's manifest, and whether it is there for `platform` ('linux/amd64'). `login`: this machine has a login for the registry, which a pull uses."""
    try:
        status, body = get(f"/distribution/{reference}/json")
    except TimeoutError:
        return Answer("no", f"no answer in {TIMEOUT_SECONDS} s")
    except (OSError, HTTPException):
        return Answer("unknown")
    try:
        told = json.loads(body)
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    message = " ".join(str(told.get("message", body)).split())
    if status == 200:
        found = {f"{one.get('os')}/{one.get('architecture')}" for one in told.get("Platforms") or []}
        return (
            Answer("yes")
            if platform in found or not found
            else Answer("no", f"it has the image for {', '.join(sorted(found))}, and this host is {platform}")
        )
    if (status == 404 and "page not found" in message.lower()) or status in (405, 501):
        return Answer("unknown")  # Podman does not know the question
    if login and (status in (401, 403) or "unauthorized" in message or "denied" in message):
        return Answer("unknown")
    return Answer("no", message or f"status {status}")


def logged_in(registry: str, folder: Path) -> bool:
    """Whether Docker's client, whose configuration is in `folder`, may have a login for the registry."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    known = [*(config.get("auths") or {}), *(config.get("credHelpers") or {})]
    wanted = {HUB: "index.docker.io"}.get(registry, registry)
    return bool(config.get("credsStore")) or any(wanted in name for name in known)


def over_docker(surroundings: Mapping[str, str], timeout: float = TIMEOUT_SECONDS) -> Get:
    """Docker's API through the docker program, which reaches every daemon that it reaches at all (socket, ssh, TLS, contexts)."""

    def get(path: str) -> tuple[int, str]:
        argv = ["docker", "system", "dial-stdio"]
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(argv, env={**os.environ, **surroundings}, **streams) as process:
            late = threading.Event()

            def end() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(timeout, end)
            timer.start()
            try:
                # Its input stays open until the answer is there: the daemon gives up a question whose asker has hung up.
                process.stdin.write(f"GET {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
                raw = process.stdout.read()  # type: ignore[union-attr]
            finally:
                timer.cancel()
                process.kill()
        if late.is_set():
            raise TimeoutError
        answer = HTTPResponse(_Read(raw))  # type: ignore[arg-type]
        answer.begin()
        return answer.status, answer.read().decode("utf-8", "replace")

    return get


class _Read:
    """What was read, in a socket's place."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self.raw)
