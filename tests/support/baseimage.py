"""The image under mock and stand-ins: Debian with python3, CA certificates, curl and the mock's web server, on the base image of every stack (components/_base.py)."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import docker
import docker.errors

from components import _base
from tests.support import recording

TAG = "ragflow-reranker-base:2"
SERVER = "opt/reranker/packages"  # where images/Dockerfile.serving looks for it
BUILD_SECONDS = 900


class NoBaseImage(Exception):
    """There is no base image and none can be made; the message says what was tried and the remedy."""


def ensure(say: Callable[[str], None] = lambda _: None) -> str:
    """Name of the base image on the local daemon: it is there, or pulled, or made from Debian's packages (a minute or two). Raises NoBaseImage."""
    client = docker.from_env(timeout=BUILD_SECONDS)
    try:
        if not _present(client, TAG):
            published = dataclasses.replace(_published(), packages=(*_base.PACKAGES, "curl"))
            _have_debootstrap()
            machine = client.api.info()
            platform = "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(machine["Architecture"], machine["Architecture"])
            _base.ensure(published, _base.Machines({}), platform=platform, dry=False, say=say, warn=say)
            if failure := _finished(published.local):
                raise NoBaseImage(
                    f"no base image: {failure}; give the Docker daemon a proxy, or bring the image along: docker load, then docker tag IMAGE {TAG}"
                )
        return TAG
    except _base.Unavailable as reason:
        raise NoBaseImage(str(reason)) from None
    finally:
        client.close()


def _present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except docker.errors.ImageNotFound:
        return False
    return True


def _published() -> _base.Published:
    """Pulumi.yaml's own."""
    given = recording.config_of({})
    listed = {key: json.loads(given[f"ragflow-reranker:{key}"]) for key in ("imageRegistries", "imageFromPackages")}
    return _base.Published(
        reference=given["ragflow-reranker:baseImage"], registries=tuple(listed["imageRegistries"]), from_packages=listed["imageFromPackages"]
    )


def _have_debootstrap() -> None:
    """As root on a Debian it is installed, so that the demo and the tests need nothing by hand; elsewhere the chain says what is lacking."""
    if os.geteuid() == 0 and not shutil.which("debootstrap") and shutil.which("apt-get"):
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "debootstrap", "debian-archive-keyring"], DEBIAN_FRONTEND="noninteractive")


def _finished(name: str) -> str:
    """Why curl and the web server could not be added to the image, or ''."""
    curl = "command -v curl || { apt-get update && apt-get install --yes --no-install-recommends curl && rm -rf /var/lib/apt/lists/*; }"
    recipe = f"FROM {name}\nRUN {curl}\nCOPY {SERVER} /{SERVER}\n"
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
