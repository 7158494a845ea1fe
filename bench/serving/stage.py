"""Images, volumes and containers of a run: all of them named and labelled after it, all removed with it."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pulumi

import plan
from bench.serving.client import Client
from bench.serving.prepare import SLUG
from config.read import read_settings
from config.settings import Settings
from tests.support import confined, recording

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "ragflow-reranker"
LABEL = "io.ragflow-reranker.bench"
START_SECONDS = 1200
SEED_MEMORY_GIB = 16
OVERRIDES = {"architectures": ["Qwen3ForSequenceClassification"], "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": True}
# The launcher's own decisions, less the middleware.
BARE = """
import os, sys
from bench.serving.measures import bare_argv
from serving.launch import run
execve = os.execve
os.execve = lambda path, argv, env: execve(path, bare_argv(argv), env)
sys.exit(run.main(sys.argv[1:]))
"""
# torch's own look at the CPU is not held back by these; avx2/sitecustomize.py answers vLLM in its place.
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def _moment(text: str) -> float:
    """Seconds since the epoch of Docker's time, '2026-11-21T15:31:00.12345Z'."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


class Missing(Exception):
    """What the machine lacks for the benchmark, in one sentence with the remedy."""


def defaults(**overrides: Any) -> Settings:
    """Pulumi.yaml's defaults, and `overrides` (its keys)."""
    pulumi.runtime.set_all_config(recording.config_of({**overrides, "modelSource": "directory", "modelPath": "/models"}))
    return read_settings(pulumi.Config(PROJECT))


def docker(*arguments: str, seconds: float = 600, stdin: str = "") -> str:
    """Output of the docker program; Missing with its last line where it fails."""
    try:
        ran = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False, input=stdin)
    except FileNotFoundError as error:
        raise Missing("The benchmark needs the docker program, which is not on PATH; install Docker, or let make up do it.") from error
    if ran.returncode:
        raise Missing(f"docker {arguments[0]} failed: {(ran.stderr.strip() or ran.stdout.strip())[-600:]}")
    return ran.stdout.strip()


@dataclass
class Server:
    """A container that serves, and how long its start took."""

    name: str
    healthy_seconds: float = 0.0

    @property
    def port(self) -> int:
        return int(docker("port", self.name, "8000/tcp").splitlines()[0].rsplit(":", 1)[1])

    def client(self, seconds: float = 1800.0) -> Client:
        return Client(self.port, seconds)

    def wait(self) -> float:
        """Seconds from the container's start, by Docker's clock, to the first 200 of /health."""
        began, port = _moment(json.loads(docker("inspect", "--format", "{{json .State.StartedAt}}", self.name))), self.port
        end, look = time.monotonic() + START_SECONDS, time.monotonic()
        while time.monotonic() < end:
            client = Client(port, 5)
            with contextlib.suppress(OSError):
                if client.ask("/health").status == 200:
                    self.healthy_seconds = time.time() - began
                    return self.healthy_seconds
            client.close()
            if time.monotonic() - look > 5:  # seldom: asking costs the starting server its cores
                look = time.monotonic()
                if docker("inspect", "--format", "{{.State.Running}}", self.name) != "true":
                    raise Missing(f"{self.name} stopped while starting: {self.log()[-1500:]}")
            time.sleep(0.1)
        raise Missing(f"{self.name} was not healthy within {START_SECONDS} s: {self.log()[-1500:]}")

    def restart(self) -> float:
        docker("restart", "--time", "60", self.name)
        return self.wait()

    def log(self) -> str:
        argv = ["docker", "logs", self.name]
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False, errors="replace").stdout

    def decided(self) -> dict[str, Any]:
        """The launcher's line."""
        found = next((line for line in self.log().splitlines() if line.startswith('{"launch"')), "{}")
        return dict(json.loads(found).get("decisions", {}))

    def stop(self) -> None:
        docker("rm", "-f", self.name)


@dataclass
class Stage:
    """One run's things on the Docker host."""

    base: str
    cpus: int
    keep: str = ""  # a token under which image and models are kept, and found again
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    servers: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.token = self.keep or self.token
        self.image = f"rr-bench-{self.token}:serving"
        self.models = f"rr-bench-{self.token}-models"

    # -- what is needed ------------------------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        if not docker("images", "-q", self.base):
            raise Missing(
                f"The image {self.base} is not on this Docker host; make up builds it (imageStrategy wheel), docker load takes one that was saved."
            )
        program = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else shutil.which("docker") or "docker"
        argv = [
            program,
            "build",
            "-q",
            "-t",
            self.image,
            "-f",
            "images/Dockerfile.serving",
            "--build-arg",
            f"BASE={self.base}",
            "--label",
            LABEL,
            ".",
        ]
        for buildkit in ("1", "0"):
            ran = subprocess.run(
                argv, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False, env={**os.environ, "DOCKER_BUILDKIT": buildkit}
            )
            if not ran.returncode:
                return
        raise Missing(f"The serving layer could not be built on {self.base}: {ran.stderr[-600:]}")

    def prepare(self) -> None:
        if docker("volume", "ls", "-q", "--filter", f"name=^{self.models}$"):
            return
        docker("volume", "create", "--label", LABEL, self.models)
        mounts = [f"{ROOT / part}:/repo/{part}:ro" for part in ("bench", "tests", "serving")]
        self.inside("-m", "bench.serving.prepare", "/models", mounts=mounts, environment={"PYTHONPATH": "/repo", "HOME": "/tmp"}, write=True)

    def inside(
        self, *arguments: str, mounts: Sequence[str] = (), environment: Mapping[str, str] | None = None, write: bool = False, seconds: float = 1800
    ) -> str:
        """Output of the image's python3 with the models at hand."""
        options = [item for mount in (f"{self.models}:/models{'' if write else ':ro'}", *mounts) for item in ("-v", mount)]
        options += [item for name, value in (environment or {}).items() for item in ("-e", f"{name}={value}")]
        common = ["--rm", "--user", "0:0", "--network", "none", "--cpus", str(self.cpus), "--label", LABEL]
        return docker("run", *common, *options, "--entrypoint", "python3", self.image, *arguments, seconds=seconds)

    def texts(self) -> dict[str, list[str]]:
        return dict(json.loads(self.inside("-c", "print(open('/models/texts.json').read())")))

    def matmul(self, dtype: str, environment: Mapping[str, str] | None = None, seconds: float = 3) -> dict[str, float]:
        """GFLOP/s by way of multiplying (matmul.py), with the threads of our server; its allocator and OpenMP are in `environment`."""
        return dict(
            json.loads(
                self.inside(
                    "/matmul.py",
                    dtype,
                    str(self.cpus),
                    str(seconds),
                    mounts=[f"{Path(__file__).with_name('matmul.py')}:/matmul.py:ro"],
                    environment=environment,
                )
            )
        )

    # -- servers -------------------------------------------------------------------------------------------------------------------------------

    def ours(self, name: str, *, model: str = SLUG, guarded: bool = True, avx2: bool = False, directory: str = "", **overrides: Any) -> Server:
        """Our launcher in a container like the stack's, with Pulumi.yaml's defaults and `overrides`; `directory`: a model on this machine instead."""
        chosen = defaults(cpus=self.cpus, goldenCheck=False, **overrides)
        name = f"rr-bench-{self.token}-{name}"
        mount = f"{directory}:/models/{model}:ro" if directory else f"{self.models}:/models:ro"
        arguments = [f"/models/{model}" if before == "--model" else part for before, part in pairwise(["", *plan.arguments(chosen)])]
        options = [*confined.options(chosen), "-v", mount, "-v", f"{name}:/var/lib/reranker"]
        if avx2:
            options += [item for key, value in AVX2.items() for item in ("-e", f"{key}={value}")]
            options += ["-v", f"{Path(__file__).with_name('avx2')}:/avx2:ro", "-e", "PYTHONPATH=/opt/reranker:/avx2"]
        if guarded:
            return self._run(name, options, [self.image, *arguments])
        options += [item for part in ("bench", "serving") for item in ("-v", f"{ROOT / part}:/repo/{part}:ro")]
        options += ["-e", "PYTHONPATH=/opt/reranker:/repo", "--entrypoint", "python3"]
        return self._run(name, options, [self.image, "-c", BARE, *arguments[1:]])

    def seeds(self) -> Server:
        """The configuration of the compose files of the past, with the two flags that vLLM no longer has put as it wants them now."""
        name = f"rr-bench-{self.token}-seeds"
        arguments = [
            "vllm", "serve", f"/models/{SLUG}", "--runner", "pooling", "--hf-overrides", json.dumps(OVERRIDES), "--dtype", "float32", "--port", "8000",
            "--trust-remote-code", "--max-model-len", "8192",
        ]  # fmt: skip
        # vLLM's default would take most of this machine's memory for the KV cache.
        memory = f"{SEED_MEMORY_GIB}g"
        options = [
            "--init", "--user", "0:0", "--cpus", str(self.cpus), "--memory", memory, "--memory-swap", memory, "--shm-size", "4g",
            "-e", "VLLM_CPU_KVCACHE_SPACE=4", "-e", "HF_HUB_OFFLINE=1", "-v", f"{self.models}:/models:ro",
        ]  # fmt: skip
        return self._run(name, options, [self.base, *arguments])

    def _run(self, name: str, options: Sequence[str], command: Sequence[str]) -> Server:
        common = ["--name", name, "--label", LABEL, "-p", "127.0.0.1::8000"]
        server = Server(name)
        self.servers.append(server)
        print(f"starting {name} …", file=sys.stderr, flush=True)
        docker("run", "-d", *common, *options, *command)
        server.wait()
        print(f"{name}: healthy after {server.healthy_seconds:.1f} s", file=sys.stderr, flush=True)
        return server

    @contextlib.contextmanager
    def scene(self) -> Iterator["Stage"]:
        """Removes the servers that were started in it, and their volumes."""
        first = len(self.servers)
        try:
            yield self
        finally:
            for server in self.servers[first:]:
                with contextlib.suppress(Missing):
                    server.stop()
                with contextlib.suppress(Missing):
                    docker("volume", "rm", "-f", server.name)
            del self.servers[first:]

    def close(self) -> None:
        if not self.keep:
            for what in (("volume", "rm", "-f", self.models), ("rmi", "-f", self.image)):
                with contextlib.suppress(Missing):
                    docker(*what)
