"""The image under mock and stand-ins: Debian with python3, CA certificates, curl and the mock's web server, from an image registry or else from Debian's packages."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import docker
import docker.errors
import requests

from tests.support import recording

TAG = "ragflow-reranker-base:2"
SUITE = "bookworm"
SERVER = "opt/reranker/packages"  # where images/Dockerfile.serving looks for it
PACKAGES = "python3,python3-venv,ca-certificates,curl"
SILENCE_SECONDS = 20  # a registry that says nothing for so long is taken for unreachable
BUILD_SECONDS = 900


class NoBaseImage(Exception):
    """There is no base image and none can be made; the message says what was tried and the remedy."""


def ensure(say: Callable[[str], None] = lambda _: None) -> str:
    """Name of the base image on the local daemon: it is there, or pulled, or made by debootstrap (about a minute). Raises NoBaseImage."""
    client = docker.from_env(timeout=BUILD_SECONDS)
    try:
        if _present(client, TAG):
            return TAG
        pulled = recording.config_of({})["ragflow-reranker:baseImage"]
        say(f"base image: docker pull {pulled.split('@')[0]} (given up after {SILENCE_SECONDS} s without an answer)")
        failure = _pull(pulled)
        if not failure:
            failure = _with_curl(pulled)
        if failure:
            say(f"base image: {failure}; debootstrap makes one from Debian's packages, which takes a minute or two")
            _debootstrap(failure)
        return TAG
    finally:
        client.close()


def _present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _pull(name: str) -> str:
    """Why the pull failed, or ''."""
    client = docker.from_env(timeout=SILENCE_SECONDS)
    try:
        for line in client.api.pull(name, stream=True, decode=True):
            if "error" in line:
                return f"no image registry ({line['error'].strip()})"
    except (docker.errors.DockerException, requests.RequestException) as error:
        return f"no image registry ({getattr(error, 'explanation', None) or error})"
    finally:
        client.close()
    return ""


def _with_curl(name: str) -> str:
    """Why curl and the web server could not be added to the pulled image, or ''."""
    recipe = (
        f"FROM {name}\nRUN apt-get update && apt-get install --yes --no-install-recommends curl && rm -rf /var/lib/apt/lists/*\n"
        f"COPY {SERVER} /{SERVER}\n"
    )
    with tempfile.TemporaryDirectory(prefix="reranker-base-") as folder:
        _install_server(Path(folder))
        Path(folder, "Dockerfile").write_text(recipe, encoding="utf-8")
        done = _run(["docker", "build", "--tag", TAG, folder])
    return f"curl could not be installed in {name.split('@')[0]} ({_last_line(done)})" if done.returncode else ""


def _install_server(root: Path) -> None:
    """The mock's web server below `root`, by this environment's pip: it reached its index when .venv was made, which a build in Docker may not."""
    lock = recording.ROOT / "images/mock.lock"
    done = _run([sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--target", str(root / SERVER), "-r", str(lock)])
    if done.returncode:
        raise NoBaseImage(f"no base image: pip could not install {lock.name} ({_last_line(done)}); set PIP_INDEX_URL to a mirror, or HTTPS_PROXY")


def _debootstrap(tried: str) -> None:
    remedy = f"connect this machine to an image registry, or bring the image along: docker load, then docker tag IMAGE {TAG}"
    if os.geteuid() != 0:
        raise NoBaseImage(f"no base image: {tried}, and debootstrap needs root; run this as root, or {remedy}")
    if not shutil.which("debootstrap"):
        if not shutil.which("apt-get"):
            raise NoBaseImage(f"no base image: {tried}, and there is neither debootstrap nor apt-get; {remedy}")
        _run(["apt-get", "update", "-qq"])
        installed = _run(["apt-get", "install", "-y", "-qq", "debootstrap", "debian-archive-keyring"], DEBIAN_FRONTEND="noninteractive")
        if installed.returncode:
            raise NoBaseImage(f"no base image: {tried}, and apt-get install debootstrap failed ({_last_line(installed)}); {remedy}")
    with tempfile.TemporaryDirectory(prefix="reranker-base-") as folder:
        made = _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, folder, *_mirror()])
        if made.returncode:
            raise NoBaseImage(f"no base image: {tried}, and debootstrap failed ({_last_line(made)}); {remedy}")
        shutil.rmtree(Path(folder, "var/cache/apt/archives"), ignore_errors=True)
        _install_server(Path(folder))
        imported = _run(["/bin/sh", "-c", f"tar -C '{folder}' --numeric-owner -c . | docker import - {TAG}"])
        if imported.returncode:
            raise NoBaseImage(f"no base image: docker import failed ({_last_line(imported)}); {remedy}")


def _mirror() -> Sequence[str]:
    """The mirror that this machine's own apt uses, where it is a Debian; else debootstrap's default."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian.sources"))]
    words = [word for path in sources if path.is_file() for word in path.read_text(encoding="utf-8").split()]
    return [word for word in words if word.startswith("http") and word.rstrip("/").endswith("/debian")][:1]


def _run(argv: Sequence[str], *, stdin: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            argv,
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BUILD_SECONDS,
            check=False,
            env={**os.environ, **environment},
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, f"no end within {BUILD_SECONDS} s")
    except OSError as error:
        return subprocess.CompletedProcess(argv, 127, str(error))


def _last_line(done: "subprocess.CompletedProcess[str]") -> str:
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit {done.returncode}"
