"""Starting a server: its arguments, what must hold before, the processes, and the wait until it is healthy."""

import dataclasses
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rerank import house, models
from rerank.serve import gpus, log, processes
from rerank.serve.instance import Instance, Record
from rerank.serve.python import Python

house.enter("serving")

from serving import dials, keys  # noqa: E402
from serving.launch import options as launch  # noqa: E402
from serving.options import ServiceDials, ServiceOptions  # noqa: E402

MARK = "RERANK_SERVE"
LOG = "server.log"
BEGINS = "rerank serve: started"  # the first line of each start in the log
ASK_SECONDS = 5.0
LOOK_SECONDS = 0.5
SAY_SECONDS = 10.0
INTERESTING = 8  # lines of a log that an error shows
# Lines of a log that say nothing about an end.
NOISE = re.compile(r'^\s*$|^\s*File "|^Traceback|INFO|^\{"launch"|^\s+\^|^\s*~')
# Words of the launcher that are a container's, and what they are here.
HERE = (
    (re.compile(r"raise memoryGiB, lower"), "use a machine with more memory, lower"),
    (re.compile(r"raise memoryGiB"), "use a machine with more memory"),
    (re.compile(r"set apiKey again and run pulumi up"), "give --api-key-file another file"),
    (re.compile(r"backend external"), "a reranker elsewhere"),
    (re.compile(r"run pulumi up"), "run rerank fetch"),
)


class Refused(Exception):
    """A start that cannot work; one sentence with the remedy."""


class Failed(Exception):
    """A server that was started and is not well; the sentence, and the last lines of its log that matter."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is told. `dials` are the keys of Pulumi.yaml in snake case that differ from their defaults; `extra` goes to vLLM as it is."""

    engine: str = "vllm"
    device: str = "cpu"
    model: str = ""
    host: str
    port: int
    served_model_names: tuple[str, ...] = ()
    python: str = ""
    log_folder: str = ""
    visible_devices: str = ""
    dials: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extra: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"

    def dial(self, name: str) -> Any:
        return self.dials.get(name, house.defaults()[name])


def arguments(settings: Settings, model: models.Local | None, *, key_file: str = "", scratch: str = "") -> list[str]:
    """argv of the serving module for these settings; `model` is None for the mock."""
    names = settings.served_model_names or ((model.name,) if model else (models.slug(models.usual()),))
    service = {item.name: settings.dial(item.name) for item in dataclasses.fields(ServiceDials)}
    common: dict[str, Any] = {**service, "served_model_names": names, "api_key_file": key_file, "host": settings.host, "port": settings.port}
    if model is None:
        host, port = common.pop("host"), common.pop("port")
        return ["mock", *dials.argv(ServiceOptions(**common)), "--host", host, "--port", str(port)]
    own = {item.name: settings.dial(item.name) for item in dataclasses.fields(launch.LaunchDials)}
    gpu = {item.name: settings.dial(item.name) for item in dataclasses.fields(launch.GpuDials)} if settings.device == "gpu" else {}
    options = launch.LaunchOptions(
        **common,
        **own,
        **gpu,
        device=settings.device,
        model=str(model.directory),
        unverified=not model.verified,
        scratch=scratch,
        extra=settings.extra,
    )
    return ["launch", *launch.written(options)]


def require(settings: Settings, python: Python, known: Mapping[str, str]) -> models.Local | None:
    """The model that will be served, None for the mock. Refused (or models.NoModel) where a start cannot work; nothing was started then."""
    for name, rule in (*dials.rules_of(ServiceDials), *dials.rules_of(launch.LaunchDials), *dials.rules_of(launch.GpuDials)):
        if not rule.holds(settings.dial(name)):
            raise Refused(f"{dials.flag(name)} {settings.dial(name)}: it {rule.sentence}")
    if settings.engine == "mock":
        lacks = sorted({"uvicorn", "prometheus_client"} - python.modules)
        if lacks:
            raise Refused(f"{python.program} lacks {' and '.join(lacks)}, which serve the mock: in the checkout, pip install '.[mock]'")
        return None
    if "vllm" not in python.modules:
        raise Refused(
            f"vLLM is not installed in {python.program}: name a Python that has it with --python PATH, install it (docs/serve.md has the lines), "
            "or look around without a model: --engine mock"
        )
    model = models.find(settings.model)
    if settings.device == "gpu":
        if python.unnamed or "+cpu" in python.vllm:
            raise Refused(f"the vLLM of {python.program} is built for CPUs: use --device cpu, or --python with a vLLM for CUDA")
        visible = settings.visible_devices or known.get(gpus.VARIABLE)
        if fault := gpus.fault(visible, settings.dial("gpu_count")):
            raise Refused(fault)
    elif settings.visible_devices:
        raise Refused("--visible-devices is for --device gpu: add that, or leave it out")
    return model


def require_port(settings: Settings, others: Callable[[int], str] = processes.listener) -> None:
    """Refused where the address cannot be listened on, with the one who has it."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        who = others(settings.port)
        if who:
            raise Refused(f"port {settings.port} is taken by {who}: stop that, or choose another --port") from None
        if error.errno in (13, 1):
            raise Refused(f"port {settings.port} is not open to user {os.getuid()} ({reason}): choose a --port from 1024 up") from None
        if error.errno == 98:
            hint = f"another user's process holds it; as root, ss -ltnp 'sport = :{settings.port}' names it"
            raise Refused(f"port {settings.port} is taken ({hint}): stop that, or choose another --port") from None
        raise Refused(
            f"{settings.host} cannot be listened on ({reason}): give --host an address of this machine, 127.0.0.1 for this machine alone"
        ) from None


def surroundings(settings: Settings, python: Python, folder: Path, known: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server; no key in it."""
    told = house.environment(known, *python.metadata(folder / "metadata"))
    told.pop("RERANK_API_KEY", None)
    if settings.device == "gpu" and settings.visible_devices:
        told[gpus.VARIABLE] = settings.visible_devices
    return {**told, "PYTHONUNBUFFERED": "1"}


def take_key(instance: Instance, file: str, key: str) -> str:
    """The file that the server reads its keys from: the user's own, or `key` in the instance's folder; "" for none. keys.BadKeys where it cannot be used."""
    if file:
        keys.read(Path(file))
        return str(Path(file).resolve())
    if not key:
        instance.key_file.unlink(missing_ok=True)
        return ""
    keys.write(instance.key_file, keys.parse(key, "RERANK_API_KEY"))
    return str(instance.key_file)


def start(instance: Instance, settings: Settings, argv: list[str], environment: Mapping[str, str], python: Python, *, key_file: str = "") -> Record:
    """Starts the server and the process that keeps its log, and notes both. Does not wait."""
    folder = Path(settings.log_folder).expanduser().resolve() if settings.log_folder else instance.folder / "log"
    folder.mkdir(parents=True, exist_ok=True)
    file, mark = folder / LOG, secrets.token_hex(16)
    keeper = [sys.executable, "-I", str(log.__file__), str(file), str(house.defaults()["log_max_mib"])]
    keeping = subprocess.Popen(
        keeper, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd=os.sep
    )
    assert keeping.stdin is not None
    keeping.stdin.write(f"{BEGINS} at {time.strftime('%Y-%m-%dT%H:%M:%S%z')}\n".encode())
    keeping.stdin.flush()
    try:
        server = subprocess.Popen(
            [python.program, "-m", "serving", *argv],
            stdin=subprocess.DEVNULL,
            stdout=keeping.stdin,
            stderr=subprocess.STDOUT,
            env={**environment, MARK: mark},
            cwd=instance.scratch,
            start_new_session=True,
        )
    finally:
        keeping.stdin.close()  # the server has its own end of the pipe: the log ends with it
    process = processes.find(server.pid)
    if process is None:
        raise Failed("the server's process ended at once")
    told = dataclasses.asdict(settings)
    record = Record(
        name=instance.name,
        process=process,
        mark=f"{MARK}={mark}",
        url=settings.url,
        model=settings.model,
        log=str(file),
        key_file=key_file,
        settings=told,
    )
    instance.write(record)
    return record


def prepare(instance: Instance) -> None:
    """An empty scratch folder: what the last server left in it is of no use."""
    shutil.rmtree(instance.scratch, ignore_errors=True)
    instance.scratch.mkdir(parents=True, mode=0o700)


def health(url: str) -> tuple[str, str]:
    """(healthy | starting | unhealthy | silent, reason), as GET /health says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        try:
            with opener.open(f"{url}/health", timeout=ASK_SECONDS) as answer:
                body = json.loads(answer.read(1 << 16))
        except urllib.error.HTTPError as error:
            body = json.loads(error.read(1 << 16))
        return str(body["status"]), str(body.get("reason", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return "silent", "the server does not listen yet"


def await_healthy(record: Record, seconds: float, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> float:
    """Seconds until it was healthy. Failed where the server ends, is unhealthy for good, or is not well in time: with why."""
    begun = clock()
    said, reason = begun, ""
    while True:
        if not record.alive:
            raise Failed("\n".join([f"{record.name} ended while it started:", *(f"  {line}" for line in last_words(Path(record.log)))]))
        status, reason = health(record.url)
        passed = clock() - begun
        if status == "healthy":
            return passed
        if status == "unhealthy" and passed > SAY_SECONDS:
            raise Failed(f"{record.name} is not well: {reason} It goes on running; its log is {record.log}.")
        if passed > seconds:
            why = f"it does not listen; {_last(record)}" if status == "silent" else reason
            raise Failed(f"{record.name} was not healthy after {passed:.0f} s: {why} It goes on starting; its log is {record.log}.")
        if clock() - said >= SAY_SECONDS:
            said = clock()
            say(f"{passed:.0f} s: {f'it loads; {_last(record)}' if status == 'silent' else reason}")
        time.sleep(LOOK_SECONDS)


def _last(record: Record) -> str:
    return f"its log: {last_words(Path(record.log))[-1][:160]}"


def last_words(file: Path) -> list[str]:
    """The last lines of a log that say why it ended, with the command's names of things."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
    except OSError:
        lines = []
    for place in range(len(lines) - 1, -1, -1):
        if lines[place].startswith(BEGINS):
            lines = lines[place + 1 :]
            break
    telling = [line for line in lines if not NOISE.search(line)] or [line for line in lines if line.strip()]
    return [spoken(line.rstrip()) for line in telling[-INTERESTING:]] or [f"nothing in its log {file}"]


def spoken(sentence: str) -> str:
    """A sentence of the launcher's, whose keys are a stack's, with the options of this command."""
    for pattern, words in HERE:
        sentence = pattern.sub(words, sentence)
    fields = {item.name for kind in (ServiceDials, launch.LaunchDials, launch.GpuDials) for item in dataclasses.fields(kind)}
    return re.sub(
        r"\b[a-z]+(?:[A-Z]\w*)\b", lambda found: dials.flag(house.snake(found[0])) if house.snake(found[0]) in fields else found[0], sentence
    )
