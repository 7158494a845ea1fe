"""Everything that is looked at for a stack, side by side and bounded. What is asked of the machine goes through an Edge, what is asked elsewhere through `send`."""

import dataclasses
import functools
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from config import fits
from host import facts, ports, registry, rows
from host.docker import environment
from host.endpoint import Endpoint
from host.facts import Facts
from host.observe import Host, HostError, observe, publishes_here, with_disk
from host.rows import Row
from rerank.doctor import checkout, estimate, machine, network, sent
from rerank.doctor.estimate import Speed
from rerank.doctor.gather import Check, gather
from rerank.doctor.sent import Place, Unsent
from rerank.doctor.stacks import Stack
from serving.launch.machine import Machine
from setup import daemon
from setup.daemon import Daemon
from setup.edge import Edge, Result

SECONDS = 60.0  # all of it
PROGRAM_SECONDS = 15.0  # one call of docker or pulumi
DAEMON_SECONDS = 40.0
PROBE_SECONDS = 25.0  # a container, and torch in it
NETWORK_SECONDS = 20.0
REGISTRY_SECONDS = 15.0
BUILDKIT_API = (1, 39)
Value = TypeVar("Value")


class Hasty(Edge):
    """This machine, with a patience for each program that suits a look."""

    def run(self, argv: Sequence[str], timeout: float, stdin: str = "") -> Result:
        return super().run(argv, timeout if stdin else min(timeout, PROGRAM_SECONDS), stdin)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows, and what RAGFlow's default call will get (None: not seen)."""

    rows: tuple[Row, ...]
    estimate: Mapping[str, object] | None = None

    @property
    def right(self) -> bool:
        return all(row.level != "fail" for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A machine as something on it saw it: the launcher's record, the free disk in bytes (None: of no meaning here), the speed, and where that was."""

    machine: Machine | None = None
    free: int | None = None
    speed: Speed | None = None
    where: str = ""
    why: str = ""


def later(compute: Callable[[], Value]) -> Callable[[], Value]:
    """Starts `compute` now; what is returned waits for it, for everybody who calls it."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(compute())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result


class Doctor:
    """One look at the host of a stack. `root`: the checkout, None where there is none; `send`, `registry_get` and `port` are for tests."""

    def __init__(
        self,
        edge: Edge,
        stack: Stack,
        root: Path | None,
        *,
        send: Callable[..., list[Any]] = sent.ask,
        registry_get: registry.Get | None = None,
        port: Callable[..., str] = ports.seen,
    ) -> None:
        self.edge, self.stack, self.s, self.root = edge, stack, stack.settings, root
        self.send, self.port = send, port
        self.registry_get = registry_get or registry.over_docker(environment(self.s.docker_host), REGISTRY_SECONDS)
        self.docker = ("docker", *(("--host", self.s.docker_host) if self.s.docker_host else ()))
        self.ca_row, self.ca = network.ca_row(self.s, root)
        self.unobserved = ""  # why the daemon that answered did not tell what is on it

    def report(self, seconds: float = SECONDS) -> Report:
        """Looks, `seconds` at most."""
        settings = [Row(*self._split(text)) for text in self.stack.refused]
        named = f"{self.stack.name}: " if self.stack.name else "Pulumi.yaml's defaults: "
        settings = settings or [Row("settings", "ok", f"{named}backend {self.s.backend}, every key within its rule")]
        if self.s.backend == "external":
            return Report(rows=(*settings, *gather([Check("externalUrl", self._external, NETWORK_SECONDS + 10), *self._checkout()], seconds=seconds)))
        self.daemon = later(lambda: daemon.look(self.edge, self.s.docker_host))
        self.host = later(self._observed)
        self.images = later(self._images)
        self.seen = later(self._seen)
        self.answers = later(self._asked)
        start = "is Docker running there, and does ssh reach it without a question?" if self.s.docker_host else "is Docker running?"
        checks = [
            Check("daemon", self._daemon, DAEMON_SECONDS, start),
            Check("cpu", self._machine, seconds),
            Check("base image", self._registry, seconds),
            Check("mirrors", self._network, seconds),
            Check("RAGFlow", self._host, seconds),
            *self._checkout(),
            Check("RAGFlow's call", self._estimate, seconds),
        ]
        found = gather(checks, seconds=seconds)
        speed = self.seen().speed if any(row.name == "RAGFlow's call" and row.level != "not seen" for row in found) else None
        return Report(rows=(*settings, *found), estimate=estimate.told(self.s, speed))

    @staticmethod
    def _split(text: str) -> tuple[str, rows.Level, str, str]:
        name, what, cure = machine.split(text)
        return name, "fail", what, cure

    # -- the daemon, and what is on it -----------------------------------------------------------------------------------

    def _facts(self, found: Daemon) -> Facts:
        return with_disk(found.facts, Endpoint(found.host))

    def _address(self) -> str:
        """The daemon's: the stack's, else the one that the docker program is set to."""
        return self.s.docker_host or self.daemon().host

    def _observed(self) -> Host | None:
        if self.daemon().state != "ready" or self.daemon().facts.podman:
            return None
        try:
            return observe(self.s.docker_host, run=self._docker_run)
        except HostError as error:
            self.unobserved = str(error)
            return None

    def _docker_run(self, argv: Sequence[str], **given: Any) -> "subprocess.CompletedProcess[str]":
        """The docker program as host/ runs it, by the Edge."""
        done = self.edge.run([*self.docker, *argv[1:]], min(float(given["timeout"]), PROGRAM_SECONDS))
        if done.code == 124:
            raise subprocess.TimeoutExpired(list(argv), PROGRAM_SECONDS)
        return subprocess.CompletedProcess(list(argv), done.code, done.out, done.err)

    def _usable(self) -> bool:
        found = self.daemon()
        return found.state == "ready" and not found.facts.podman and found.facts.kind == "linux"

    def _deployed(self) -> bool:
        return machine.ours(self.s, self.host(), self.stack.name) is not None

    def _daemon(self) -> list[Row]:
        found = self.daemon()
        cure = daemon.remedy(self.edge, found)
        if found.state == "no-cli":
            return [Row("docker", "fail", found.detail, cure)]
        if found.state != "ready":
            return [Row("daemon", "fail", f"{found.host or 'this machine'}: {found.detail}", cure)]
        said = self._facts(found)
        use = fits.use_of(self.s, deployed=self._deployed())
        if not self._usable():
            return rows.of_verdicts(facts.verdicts(said, use))
        table = rows.of_daemon(said, where=found.host, use=use)
        if said.api is not None and said.api >= BUILDKIT_API:
            table.append(Row("buildkit", "ok", "part of this Docker"))
        elif said.api is not None:
            table.append(Row("buildkit", "fail", "this Docker is older than 18.09 and has none: the images cannot be built", "upgrade Docker there"))
        return [*table, *self._gpu(said)]

    def _gpu(self, said: Facts) -> list[Row]:
        if self.s.backend != "gpu":
            return []
        near = self.daemon().local and self.edge.which("nvidia-smi")
        listed = self.edge.run(["nvidia-smi", "-L"], PROGRAM_SECONDS) if near else None
        return [machine.gpu_row(self.s, said, None if listed is None else listed.out)]

    def _images(self) -> Sequence[tuple[str, str]]:
        if not self._usable():
            return []
        listed = self.edge.run([*self.docker, "image", "ls", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"], PROGRAM_SECONDS)
        return machine.images(listed.out, self.s)[:2]

    # -- the machine as a container sees it ------------------------------------------------------------------------------

    def _seen(self) -> Seen:
        if not self._usable():
            return Seen(why="the Docker host does not answer, or runs no Linux containers")
        said, host = self.daemon().facts, self.host()
        look = {"what": "machine", "disk": "/"}
        questions: list[dict[str, Any]] = [look]
        places: list[Place] = []
        own = machine.ours(self.s, host, self.stack.name)
        if own and own.running:
            words = (*self.docker, "exec", "--interactive", own.name, "python3", "-c", sent.BOOT)
            places.append(Place(words=words, where=f"the container {own.name}"))
            questions.append({"what": "learned", "url": "http://127.0.0.1:8000"})
        else:
            limits = [*(["--cpus", str(min(self.s.cpus, said.cpus))] if "cpu" not in said.lacking else [])]
            limits += [] if "memory" in said.lacking else ["--memory", f"{self.s.memory_gib}g"]
            places += [sent.in_container(self.docker, number, named=name, network="none", limits=limits) for number, name in self.images()]
            if self.s.backend == "cpu":
                questions.append({"what": "product", "dtype": self.s.dtype})
        why = "there is no image on the Docker host to look from; after the first make up there is"
        for place in places:
            try:
                answers = self.send(self.edge, place, questions, seconds=PROBE_SECONDS)
                return self._judged(answers, place.where)
            except Unsent as reason:
                why = f"{place.where} could not be asked: {reason}"
        return self._bare(look, said, why)

    def _bare(self, look: Mapping[str, Any], said: Facts, why: str) -> Seen:
        """The Docker host itself, where no container can be asked."""
        ssh = self._address().startswith("ssh://")
        if not ssh and not (self.daemon().local and not said.desktop):
            return Seen(why=why)
        place = sent.by_ssh(self._address()) if ssh else sent.here()
        try:
            answers = self.send(self.edge, place, [{**look, "disk": said.root or "/"}], seconds=NETWORK_SECONDS)
        except Unsent as reason:
            return Seen(why=f"{why}; and {place.where}: {reason}")
        return self._judged(answers, f"{place.where}, not in a container: {why}")

    def _judged(self, answers: Sequence[Any], where: str) -> Seen:
        first, second = [*answers, None][:2]
        if not first or "failure" in first:
            return Seen(why=f"{where} gave no answer" + (f": {first['failure']}" if first else ""))
        found, free = machine.of_answer(first)
        speed = None
        if second and second.get("tokens_per_second") and self.s.backend != "mock":
            speed = estimate.learned(float(second["tokens_per_second"]))
        if second and second.get("gflops"):
            speed = estimate.measured(float(second["gflops"]), second["dtype"], self.s.model_slug)
        if speed is None and self.s.backend == "cpu":
            speed = estimate.of_class(
                found.cpu_flags, self.s.dtype, min(found.quota or self.s.cpus, self.s.cpus, len({cpu.core for cpu in found.cpus})), self.s.model_slug
            )
        return Seen(machine=found, free=free, speed=speed, where=where)

    def _machine(self) -> list[Row]:
        seen = self.seen()
        if not self._usable():
            return []  # the daemon's row says it
        found = self._facts(self.daemon())
        said = found if found.free is not None or found.read_only else dataclasses.replace(found, free=seen.free)
        deployed = self._deployed()
        table = machine.cpu_rows(self.s, seen.machine, where=seen.where, why=seen.why)
        return [
            *table,
            *machine.capacity_rows(self.s, said, seen.machine),
            rows.disk(said, fits.use_of(self.s, deployed=deployed), room=not deployed),
        ]

    def _estimate(self) -> list[Row]:
        if self.s.backend == "mock":
            return []
        seen = self.seen()
        return [estimate.row(self.s, seen.speed)]

    # -- the network -------------------------------------------------------------------------------------------------------

    def _place(self) -> Place | None:
        """From where build and download will really ask: this machine, or the Docker host where that is another."""
        found = self.daemon()
        if Endpoint(self._address()).local or found.state == "no-cli":
            return sent.here()
        if self._usable() and self.images():
            number, name = self.images()[0]
            return dataclasses.replace(
                sent.in_container(self.docker, number, named=name, network=self.s.model_network), where=f"a container of {name} on the Docker host"
            )
        return sent.by_ssh(self._address()) if self._address().startswith("ssh://") and found.state == "ready" else None

    def _questions(self) -> list[dict[str, Any]]:
        mirrors, pages = network.sources(self.s), network.indexes(self.s)
        addresses = [*pages, *(f"{one['endpoint']}/" for one in mirrors)]
        return [*mirrors, *({"what": "address", "url": url} for url in addresses)]

    def _asked(self) -> tuple[list[Any], str, bool]:
        """The answers, from where, and whether that is this machine. Unsent."""
        questions, place = self._questions(), self._place()
        if place is None:
            silent = "does not answer" if not self._usable() else "has no image with Python, and is not reached by ssh"
            raise Unsent(f"they are asked from the Docker host, which is another machine and {silent}")
        if not questions:
            return [], place.where, place.where == "this machine"
        answers = self.send(self.edge, place, questions, seconds=NETWORK_SECONDS, proxies=network.told(self.s), ca=self.ca)
        return answers, place.where, place.where == "this machine"

    def _network(self) -> list[Row]:
        questions = self._questions()
        told = [self.ca_row, network.proxy_row(self.s, self.edge.env, self.daemon().info)]
        said = self._facts(self.daemon()) if self.daemon().state == "ready" else None
        try:
            answers, where, here = self.answers()
        except Unsent as reason:
            return [Row("mirrors", "not seen", str(reason)), *told, network.clock_row([], where="", here=False, said=said)]
        pairs = list(zip(questions, answers, strict=True))
        sealed = "model_token" in self.stack.sealed
        built = self._usable() and self._deployed()
        mirrors = network.mirror_rows(self.s, [pair for pair in pairs if pair[0]["what"] == "mirror"], where=where, there=built, sealed=sealed)
        addresses = [(str(question["url"]), answer) for question, answer in pairs if question["what"] == "address"]
        pages = network.indexes(self.s)
        indexes = [network.index_row(url, answer, where=where, built=built, without=pages[url]) for url, answer in addresses if url in pages]
        return [*indexes, *mirrors, *self._model_files(), *told, network.clock_row(addresses, where=where, here=here, said=said)]

    def _model_files(self) -> list[Row]:
        """A model that comes from a file or directory of this machine."""
        if not network.has_model(self.s) or self.s.model_source not in ("directory", "archive"):
            return []
        path = Path(self.s.model_path)
        if self.s.model_source == "archive":
            return []  # config/rules.py looks for it
        if not Endpoint(self._address()).local:
            return [Row("model", "not seen", f"{path} is on the Docker host")]
        if not (path / "config.json").is_file():
            return [Row("model", "fail", f"{path} has no config.json", "set modelPath to a directory with the model's files")]
        return [Row("model", "ok", f"{path} has a config.json")]

    def _registry(self) -> list[Row]:
        image = network.base(self.s)
        if not image or not self._usable():
            return []
        host, names = self.host(), registry.candidates(image, self.s.image_registries)
        held = self.edge.run([*self.docker, "image", "inspect", "--format", "{{.Id}}", registry.local(image), *names], PROGRAM_SECONDS)
        if held.out.strip() or self._deployed() or host is None:
            return [network.registry_row(self.s, {}, there=True)]
        folder = Path(self.edge.env.get("DOCKER_CONFIG") or self.edge.home / ".docker")

        def ask(name: str) -> registry.Answer:
            login = registry.logged_in(registry.split(name)[0], folder)
            return registry.has(name, host.platform, self.registry_get, login=login)

        asked = {name: later(functools.partial(ask, name)) for name in names}
        return [network.registry_row(self.s, {name: answer() for name, answer in asked.items()}, there=False)]

    def _external(self) -> list[Row]:
        url = self.s.external_url.rstrip("/")
        (answer,) = self.send(self.edge, sent.here(), [{"what": "address", "url": f"{url}/models"}], seconds=NETWORK_SECONDS)
        if not answer or answer["failure"]:
            return [
                Row(
                    "externalUrl",
                    "fail",
                    f"{url} does not answer ({answer['failure'] if answer else 'no answer in time'})",
                    "start the service, or correct externalUrl",
                )
            ]
        if answer["status"] in (200, 401):
            return [Row("externalUrl", "ok", f"{url} answers" + ("; it wants a key" if answer["status"] == 401 else ""))]
        return [Row("externalUrl", "fail", f"{url}/models answered {answer['status']}", "correct externalUrl: it ends in /v1")]

    # -- names, port, RAGFlow ----------------------------------------------------------------------------------------------

    def _host(self) -> list[Row]:
        host = self.host()
        if host is None:
            return [Row("RAGFlow", "not seen", self.unobserved, "run the doctor again; 'docker ps' by hand says more")] if self.unobserved else []
        seen = self.port(host.endpoint, same=publishes_here(host), address=self.s.bind_address, port=self.s.host_port) if self.s.host_port else ""
        table = [
            machine.name_row(self.s, host, self.stack.name),
            machine.port_row(self.s, host, seen, self.stack.name),
            *machine.network_rows(self.s, host),
        ]
        ragflows = machine.ragflows(self.s, host)
        if ragflows:
            described = self.edge.run([*self.docker, "container", "inspect", *ragflows], PROGRAM_SECONDS)
            table += machine.proxy_rows(self.s, machine.environments(described.out))
        return table

    # -- this machine ------------------------------------------------------------------------------------------------------

    def _checkout(self) -> list[Check]:
        if self.root is None:
            return [Check("pulumi", lambda: [Row("pulumi", "not seen", "this is no checkout, so nothing is deployed from here")], PROGRAM_SECONDS)]
        root = self.root
        return [
            Check(".venv", lambda: [checkout.venv_row(root)], PROGRAM_SECONDS),
            Check("pulumi", functools.partial(checkout.program_rows, self.edge), DAEMON_SECONDS, "pulumi version, by hand, says more"),
            Check("passphrase", lambda: [checkout.passphrase_row(self.edge, self.stack, self.edge.env)], PROGRAM_SECONDS),
        ]
