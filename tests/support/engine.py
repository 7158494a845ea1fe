"""A project of one's own for the real engine: a copy of the repository with its own state, passphrase, Pulumi home and names on the Docker host."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.identity import KEPT

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("Pulumi.yaml", "*.py", "config", "host", "components", "registration", "serving", "images", "certs", "stacks")
NAMESPACE = "ragflow-reranker"
TIMEOUT_SECONDS = 240


class EngineError(AssertionError):
    """A pulumi command failed, or hung; the message is the command and all it printed."""


@dataclass
class Project:
    """One stack in one copy of the repository. `like` is the stack file it starts from; every name it takes on the host contains `token`."""

    root: Path
    like: str = "mock"
    token: str = field(default_factory=lambda: f"rrt{secrets.token_hex(4)}")
    environment: dict[str, str] = field(default_factory=dict)
    settled: bool = True
    key: str = ""

    def __post_init__(self) -> None:
        self.stack = f"{self.like}-{self.token}"
        for pattern in COPIED:
            for source in ROOT.glob(pattern):
                if source.is_dir():
                    shutil.copytree(source, self.root / source.name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    self.root.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source, self.root / source.name)
        (self.root / ".venv").symlink_to(sys.prefix)
        (self.root / "state").mkdir()
        self.home = self.root / "home"
        self.home.mkdir()
        ambient = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi") / "plugins"
        if ambient.is_dir():
            (self.home / "plugins").symlink_to(ambient)
        self.file = self.root / "stacks" / f"Pulumi.{self.stack}.yaml"
        shutil.copy2(self.root / "stacks" / f"Pulumi.{self.like}.yaml", self.file)
        self.container, self.network, self.port = f"{self.token}-reranker", f"{self.token}-net", free_port()
        self.run("stack", "init", self.stack)
        # A real RAGFlow on the machine is none of the tests' business.
        self.set(containerName=self.container, networkName=self.network, hostPort=self.port, ragflowMode="none")

    @property
    def owner(self) -> str:
        """Value of the owner label of what the stack makes, as its state has the deployment's id; '' where it has none."""
        held = {item["urn"].split("::")[-1]: item for item in json.loads(self.export())["deployment"].get("resources", [])}
        return f"{NAMESPACE}/{self.stack}/{held[KEPT]['inputs']['input']['id']}" if KEPT in held else ""

    def set(self, **dials: Any) -> None:
        """Writes dials in plain into the stack's file, as a person with an editor does; None removes one."""
        content = yaml.safe_load(self.file.read_text())
        for key, value in dials.items():
            content["config"].pop(f"{NAMESPACE}:{key}", None)
            if value is not None:
                content["config"][f"{NAMESPACE}:{key}"] = value
        self.file.write_text(yaml.safe_dump(content))

    def set_secret(self, key: str, value: str) -> None:
        self.run("config", "set", "--secret", key, stdin=value)

    def set_key(self, key: str) -> None:
        """apiKey of the stack, and of whoever calls it in a test."""
        self.key = key
        self.set_secret("apiKey", key)

    def command(self, *argv: str) -> list[str]:
        return ["pulumi", *argv, "--stack", self.stack] if argv[:2] != ("stack", "init") else ["pulumi", *argv]

    def start(self, *argv: str) -> "subprocess.Popen[str]":
        """A pulumi in a session of its own, so that whatever it leaves behind can be found by session."""
        return subprocess.Popen(
            self.command(*argv), cwd=self.root, env=self._environment(), text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def run(self, *argv: str, stdin: str = "", timeout: float = TIMEOUT_SECONDS, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """A pulumi command to its end, stderr within stdout. Raises EngineError where it fails or lasts longer than `timeout` seconds."""
        process = self.start(*argv)
        try:
            text, _ = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            raise EngineError(f"{' '.join(argv)}: no end within {timeout:.0f} s") from None
        finally:
            reap(process)
        if check and process.returncode:
            raise EngineError(f"pulumi {' '.join(argv)} exited {process.returncode}:\n{text}")
        return subprocess.CompletedProcess(argv, process.returncode, text, "")

    def _environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")}
        ours = {"PULUMI_CONFIG_PASSPHRASE": "of-the-tests", "PULUMI_SKIP_UPDATE_CHECK": "true", "PULUMI_HOME": str(self.home)}
        return {**inherited, **ours, **self.environment}

    def preview(self) -> dict[str, str]:
        """What an up would do: operation by resource name, without what stays the same. {} is an empty preview."""
        process = self.start("preview", "--json", "--non-interactive")
        try:
            text, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        finally:
            reap(process)
        if process.returncode:
            raise EngineError(f"pulumi preview exited {process.returncode}:\n{text}")
        found, _ = json.JSONDecoder().raw_decode(text[text.index('{\n    "config"') :])
        return {step["urn"].split("::")[-1]: step["op"] for step in found["steps"] if step["op"] not in ("same", "refresh", "read")}

    def shown(self) -> str:
        """The preview as a person reads it; with an 'Outputs:' part only where outputs change."""
        return self.run("preview", "--non-interactive").stdout

    def up(self, **options: Any) -> str:
        return self.run("up", "--yes", "--skip-preview", "--non-interactive", **options).stdout

    def settle(self) -> dict[str, str]:
        """What a preview shows, after an up did it and left nothing for another preview to show."""
        self.settled = False
        seen = self.preview()
        self.up()
        assert self.preview() == {}
        self.settled = True
        return seen

    def refusal(self, verb: str = "preview") -> str:
        """What a preview (or up) prints that is refused, which it must be."""
        flags = ("--yes", "--skip-preview") if verb == "up" else ()
        done = self.run(verb, *flags, "--non-interactive", check=False)
        if not done.returncode:
            raise EngineError(f"{verb} went through:\n{done.stdout}")
        return done.stdout

    def refresh(self) -> str:
        """Applies a refresh that must find nothing."""
        return self.run("refresh", "--yes", "--skip-preview", "--non-interactive", "--expect-no-changes").stdout

    def destroy(self) -> str:
        return self.run("destroy", "--yes", "--skip-preview", "--non-interactive").stdout

    def outputs(self) -> dict[str, Any]:
        return json.loads(self.run("stack", "output", "--json").stdout)

    def export(self) -> str:
        """The state as it is exported: secrets encrypted."""
        return self.run("stack", "export").stdout

    def resources(self) -> list[str]:
        """Names of what the state holds, the stack itself and the providers aside."""
        deployed = json.loads(self.export())["deployment"].get("resources", [])
        return sorted(item["urn"].split("::")[-1] for item in deployed if not item["type"].startswith("pulumi:"))

    def remains(self) -> dict[str, list[str]]:
        """What is on the Docker host under this project's token or label, by kind; kinds without any are left out."""
        names = {
            "container": docker("ps", "-a", "--format", "{{.Names}}", "--filter", f"name={self.token}"),
            "volume": docker("volume", "ls", "-q", "--filter", f"name={self.token}"),
            "network": docker("network", "ls", "--format", "{{.Name}}", "--filter", f"name={self.token}"),
            "image": docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference=*{self.token}*"),
        }
        owned = docker("ps", "-a", "--format", '{{.Label "io.ragflow-reranker.owner"}} {{.Names}}', "--filter", "label=io.ragflow-reranker.owner")
        names["container"] += "\n".join(line.split()[-1] for line in owned.splitlines() if line.startswith(f"{NAMESPACE}/{self.stack}"))
        return {kind: sorted(set(found.split())) for kind, found in names.items() if found.split()}

    def close(self) -> None:
        """Destroys the stack where that works, and removes everything that carries its token in any case."""
        self.run("cancel", "--yes", check=False)
        self.run("destroy", "--yes", "--skip-preview", "--non-interactive", check=False)
        removals = {"container": ("rm", "-f", "-v"), "volume": ("volume", "rm", "-f"), "network": ("network", "rm"), "image": ("image", "rm")}
        for kind, removal in removals.items():
            for name in self.remains().get(kind, []):
                docker(*removal, name, check=False)

    def interrupt(self, when: Callable[[], bool], how: int) -> str:
        """Starts an up, sends the signal `how` to pulumi alone as soon as `when`, and gives what it printed. Its children end with it."""
        process = self.start("up", "--yes", "--skip-preview", "--non-interactive")
        try:
            wait_until(lambda: when() or process.poll() is not None, seconds=TIMEOUT_SECONDS, every=0.02)
            if process.poll() is not None:
                raise EngineError(f"the up ended before it could be interrupted:\n{process.communicate(timeout=10)[0]}")
            process.send_signal(how)
            process.wait(timeout=60)
        finally:
            reap(process)
        return process.communicate(timeout=30)[0]


def reap(process: "subprocess.Popen[Any]") -> None:
    """Ends a process of ours and all that is left of its session."""
    if process.poll() is None:
        process.kill()
        process.wait(timeout=30)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            session = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if session == process.pid:
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):
            continue  # gone meanwhile


def docker(*argv: str, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
    """Output of a docker command on this machine's daemon."""
    done = subprocess.run(["docker", *argv], input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    if check and done.returncode:
        raise EngineError(f"docker {' '.join(argv)} exited {done.returncode}: {done.stderr}")
    return done.stdout


def inspect(name: str, kind: str = "container") -> dict[str, Any]:
    return json.loads(docker(kind, "inspect", name))[0]


def wait_until(holds: Callable[[], Any], *, seconds: float, every: float = 0.2) -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise EngineError(f"not so within {seconds:.0f} s")
        time.sleep(every)


def free_port() -> int:
    """A port that nothing listens on now, outside the range that the kernel hands out by itself."""
    for _ in range(100):
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise EngineError("no free port found")


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Address of an image registry on this machine's loopback, which Docker speaks to without TLS."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if not program:
        pytest.skip("no image registry to run (Debian, Ubuntu: apt-get install docker-registry)")
    address = f"127.0.0.1:{free_port()}"
    settings = {"version": "0.1", "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}}, "http": {"addr": address}}
    (folder / "registry.json").write_text(json.dumps(settings))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "registry.json")], stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: answers(f"http://{address}/v2/"), seconds=30)
        yield address
    finally:
        reap(process)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@contextmanager
def standin(name: str, *, image: str, network: str = "bridge", stopped: bool = False, labels: Mapping[str, str] | None = None) -> Iterator[str]:
    """A container that stands where RAGFlow would: it only sleeps, and has curl. Gives its name; removed at the end."""
    try:
        make_standin(name, image=image, network=network, labels=labels)
        if stopped:
            docker("stop", "-t", "0", name)
        yield name
    finally:
        docker("rm", "-f", name, check=False)


def make_standin(name: str, *, image: str, network: str = "bridge", labels: Mapping[str, str] | None = None) -> None:
    extra: Sequence[str] = [item for key, value in (labels or {}).items() for item in ("--label", f"{key}={value}")]
    docker("run", "-d", "--init", "--name", name, "--network", network, "--label", "io.ragflow-reranker.test=standin", *extra, image, "sleep", "3600")
