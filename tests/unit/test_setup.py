"""setup/ whole, on a machine that is made of answers: what is run, in which order, what is asked, and every sentence."""

import json
import os
import platform
import re
import stat
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from setup import daemon, fit, preflight, pulumi, stack, tiers, venv
from setup.edge import GIB, Edge, Refusal, Result, consent
from setup.verbs import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
Answer = Result | Callable[[], Result]
INFO = {"ServerVersion": "28.2.2", "Architecture": "x86_64", "NCPU": 8, "MemTotal": 16 * GIB, "DockerRootDir": "/var/lib/docker"}
VERSION = {"Client": {"ApiVersion": "1.50"}, "Server": {"ApiVersion": "1.50", "Arch": "amd64"}}
UP = Result(0, json.dumps(INFO))
SMALL = Result(0, json.dumps(INFO | {"MemTotal": 8 * GIB}))
REFUSED = Result(1, "", "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
OUTPUTS = {
    "internalUrl": "http://ragflow-vllm-reranker:8000/v1",
    "hostUrl": "",
    "modelName": "qwen3-reranker-0.6b",
    "networkName": "docker-ragflow",
    "containerName": "ragflow-vllm-reranker",
    "attachedContainers": ["ragflow-cpu"],
    "composeOverride": "services: {}\n",
    "ragflow": {
        "apiKey": "[secret]",
        "baseUrl": "http://ragflow-vllm-reranker:8000/v1",
        "factory": "VLLM",
        "maxTokens": "4096",
        "modelName": "qwen3-reranker-0.6b",
        "modelType": "rerank",
        "snippet": "reranker: {}\n",
    },
    "verify": ["curl -fsS http://127.0.0.1:8123/health"],
}


LISTED = {"object": "list", "data": [{"id": "qwen3-reranker-0.6b"}]}
RANKED = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]}
REPORT = {
    "proxy": [],
    "no_proxy": "",
    "addresses": ["172.18.0.2"],
    "models": {"status": 200, "text": json.dumps(LISTED), "failure": ""},
    "rerank": {"status": 200, "text": json.dumps(RANKED), "failure": "", "unhealthy": "", "seconds": 0.21},
    "tokens_per_second": 640.0,
}


def described(name: str, *, service: str = "", networks: Sequence[str] = ("docker-ragflow",), state: str = "running") -> dict[str, object]:
    """A container as `docker container inspect` describes it."""
    return {
        "Name": f"/{name}",
        "Id": f"id-of-{name}",
        "Image": f"sha256:{name}",
        "Config": {"Image": "any:1", "Labels": {"com.docker.compose.service": service} if service else {}, "Env": ["A=b"]},
        "State": {"Running": state == "running", "Status": state},
        "HostConfig": {"NetworkMode": "docker_ragflow"},
        "NetworkSettings": {"Networks": {network: {"Aliases": None, "IPAddress": "172.18.0.2"} for network in networks}},
    }


GPU = "http://gpu.example:8000/v1"
EXTERNAL = Result(0, json.dumps(OUTPUTS | {"internalUrl": GPU, "hostUrl": GPU, "containerName": "", "networkName": "", "attachedContainers": []}))


def context(host: str, **more: object) -> Result:
    """What `docker context inspect` says."""
    return Result(0, json.dumps({"Name": "default", "Endpoints": {"docker": {"Host": host}}, **more}))


class Machine(Edge):
    """An Edge of answers: programs that are `installed`, `answers` by the words that a command line holds, a clock that only sleep moves."""

    def __init__(self, tmp_path: Path, **env: str) -> None:
        for folder in ("repo/stacks", "repo/tests/unit", "repo/tests/docker", "home", "system/etc", "system/var/run", "system/proc"):
            (tmp_path / folder).mkdir(parents=True)
        super().__init__(root=tmp_path / "repo", home=tmp_path / "home", env={"PATH": "/bin", **env}, system=tmp_path / "system")
        (self.root / venv.RUNTIME_LOCK).write_text("pulumi==3.272.0 \\\n    --hash=sha256:00\npulumi-command==1.2.1\npulumi-docker==5.2.0\n")
        (self.root / venv.DEV_LOCK).write_text("pulumi==3.272.0\npytest==9.2.0\n")
        for name in ("laptop", "home-server"):
            (self.root / f"stacks/Pulumi.{name}.yaml").write_text("config: {}\n")
        (self.system / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
        self.installed = {"pulumi", "pulumi-language-python", "pulumi-resource-docker", "pulumi-resource-command", "docker", "chromium"}
        self.answers: dict[str, Answer] = {
            "pulumi version": Result(0, "v3.260.0\n"),
            "docker info": UP,
            "docker version": Result(0, json.dumps(VERSION)),
            "docker context inspect": context(daemon.SOCKET),
            "config get backend": Result(0, "cpu\n"),
            "config get dockerHost": Result(0, "\n"),
            "config get apiKey": Result(0, "\n"),
            "config get ragflowMode": Result(0, "attach\n"),
            "config get ragflowContainers": Result(0, "[]\n"),
            "config get deadlineSeconds": Result(0, "25\n"),
            "config get minDocumentTokens": Result(0, "192\n"),
            "container ls": Result(0, "c1\nc2\n"),
            "container inspect": Result(0, json.dumps([described("ragflow-vllm-reranker"), described("ragflow-cpu", service="ragflow-cpu")])),
            "docker exec": Result(0, json.dumps(REPORT)),
            "stack output": Result(0, json.dumps(OUTPUTS)),
            "-m venv": self._make_venv,
        }
        self.codes: dict[str, int] = {}
        self.ran: list[str] = []
        self.fed: list[str] = []
        self.shown: list[str] = []
        self.started: list[str] = []
        self.ended: list[int] = []
        self.said: list[str] = []
        self.questions: list[str] = []
        self.typed: list[str] = []
        self.free: float | None = 100.0
        self.user, self.clock = 0, 0.0

    def _make_venv(self) -> Result:
        (self.root / ".venv/bin").mkdir(parents=True, exist_ok=True)
        (self.root / ".venv/bin/python").touch()
        return Result(0)

    def run(self, argv: Sequence[str], timeout: float, stdin: str = "") -> Result:
        assert timeout > 0
        self.fed.append(stdin)
        # paths shortened to their last part, so that the tests read as a person types
        words = [Path(word).name if word.startswith(str(self.root.parent)) else word for word in argv]
        line = " ".join(words)
        self.ran.append(line)
        plain = line.replace(" --format {{json .}}", "")
        for key, answer in self.answers.items():
            if key in plain:
                return answer if isinstance(answer, Result) else answer()
        return Result(0)

    def show(self, argv: Sequence[str], timeout: float) -> int:
        assert timeout > 0
        line = " ".join(Path(word).name if word.startswith("/") else word for word in argv)
        self.shown.append(line)
        return next((code for key, code in self.codes.items() if key in line), 0)

    def spawn(self, argv: Sequence[str], log: Path) -> int:
        self.started.append(" ".join(argv))
        log.write_text("".join(f"line {number}\n" for number in range(1, 8)))
        return 4711

    def end(self, pid: int) -> None:
        self.ended.append(pid)

    def which(self, program: str) -> str | None:
        return f"/bin/{program}" if program in self.installed else None

    def free_gib(self, path: str) -> float | None:
        return self.free

    @property
    def uid(self) -> int:
        return self.user

    @property
    def python(self) -> str:
        return "python3"

    def terminal(self) -> bool:
        return bool(self.typed)

    def read(self, prompt: str) -> str:
        self.questions.append(prompt)
        return self.typed.pop(0)

    def say(self, text: str = "") -> None:
        self.said.append(text)

    def complain(self, text: str) -> None:
        self.said.append(text)

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    @property
    def text(self) -> str:
        return "\n".join(self.said)

    def process(self, pid: int, name: str = "dockerd", state: str = "S") -> None:
        folder = self.system / "proc" / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({name}) {state} 1 1\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def in_turn(*results: Result) -> Callable[[], Result]:
    """The results one after the other, the last one for good."""
    left = list(results)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as caught:
        call()
    return str(caught.value)


# -- the virtual environment ------------------------------------------------------------------------------------------


def test_the_environment_is_made_from_the_lock_with_hashes_and_only_once(machine: Machine) -> None:
    python = venv.ensure(machine, venv.RUNTIME_LOCK)
    assert python == machine.root / ".venv/bin/python"
    first = list(machine.ran)
    venv.ensure(machine, venv.RUNTIME_LOCK)
    assert (
        first
        == machine.ran
        == [
            "python3 -m venv --clear .venv",
            "python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock",
        ]
    )


def test_a_changed_lock_makes_the_environment_again(machine: Machine) -> None:
    venv.ensure(machine, venv.RUNTIME_LOCK)
    (machine.root / venv.RUNTIME_LOCK).write_text("pulumi==3.273.0\n")
    venv.ensure(machine, venv.RUNTIME_LOCK)
    assert machine.ran.count("python3 -m venv --clear .venv") == 2


def test_a_vanished_python_makes_the_environment_again(machine: Machine) -> None:
    venv.ensure(machine, venv.RUNTIME_LOCK).unlink()
    venv.ensure(machine, venv.RUNTIME_LOCK)
    assert machine.ran.count("python3 -m venv --clear .venv") == 2


def test_the_development_lock_is_added_to_the_environment_that_stands_and_serves_the_program_too(machine: Machine) -> None:
    venv.ensure(machine, venv.RUNTIME_LOCK)
    venv.ensure(machine, venv.DEV_LOCK)
    venv.ensure(machine, venv.RUNTIME_LOCK)
    assert [line.rsplit(" ", 1)[-1] for line in machine.ran] == [".venv", "requirements.lock", "requirements-dev.lock"]


def test_a_changed_development_lock_makes_the_environment_again(machine: Machine) -> None:
    venv.ensure(machine, venv.DEV_LOCK)
    (machine.root / venv.DEV_LOCK).write_text("pytest==9.9.9\n")
    venv.ensure(machine, venv.DEV_LOCK)
    assert [line.rsplit(" ", 1)[-1] for line in machine.ran] == [".venv", "requirements-dev.lock"] * 2


def test_a_python_without_venv_ends_in_one_sentence_that_names_the_package(machine: Machine) -> None:
    machine.answers = {"-m venv": Result(1, "ensurepip is not available")}
    assert refusal(lambda: venv.ensure(machine, venv.RUNTIME_LOCK)) == (
        "python -m venv failed: ensurepip is not available; "
        "install what it needs (Debian and Ubuntu: apt-get install python3-venv), then run this again"
    )


def test_a_failing_pip_shows_its_words_and_every_way_around_and_is_tried_again(machine: Machine) -> None:
    machine.answers["pip install"] = in_turn(Result(1, "", "WARNING: Retrying\nERROR: No matching distribution found for pulumi==3.272.0"), Result(0))
    assert refusal(lambda: venv.ensure(machine, venv.RUNTIME_LOCK)) == (
        "pip could not install requirements.lock into .venv:\n"
        "  WARNING: Retrying\n"
        "  ERROR: No matching distribution found for pulumi==3.272.0\n"
        "The cause: a package, or the pinned version of it, is not there.\n"
        "Ways around it, then run this again:\n"
        "  - a proxy: HTTPS_PROXY=http://proxy:port, with PIP_CERT=/path/ca.pem where it has its own CA\n"
        "  - a mirror of the package index: PIP_INDEX_URL=https://mirror/simple\n"
        "  - no network: PIP_NO_INDEX=1 PIP_FIND_LINKS=/folder/of/wheels (filled elsewhere by: pip download -r requirements.lock -d FOLDER)"
    )
    venv.ensure(machine, venv.RUNTIME_LOCK)
    assert machine.ran.count("python3 -m venv --clear .venv") == 2


def test_the_real_locks_are_hashed_name_no_index_and_agree() -> None:
    program, development = venv.pins(ROOT), venv.pins(ROOT, venv.DEV_LOCK)
    assert program.items() <= development.items()
    groups = (ROOT / "pyproject.toml").read_text().partition("[dependency-groups]\n")[2].partition("\n\n")[0]
    for name, group in (("requirements", "program"), ("requirements-dev", "dev")):
        lock = (ROOT / f"{name}.lock").read_text()
        assert "://" not in lock
        assert len(re.findall(r"^[a-z].*\\\n    --hash=sha256:", lock, re.M)) == len(re.findall(r"^[a-z]", lock, re.M))
        asked = re.search(rf"^{group} = \[(.*?)\]$", groups, re.M | re.S)
        assert asked
        wanted = dict(re.findall(r'"([\w-]+)==([^"]+)"', asked[1]))
        assert len(wanted) >= 4
        assert {key.replace("_", "-").lower(): value for key, value in wanted.items()}.items() <= development.items()
    # what serves the mock in the image serves it in the tests
    assert venv.pins(ROOT, "images/mock.lock").items() <= development.items() | {("typing-extensions", development["typing-extensions"])}
    assert {f"pulumi-{name}" for name in pulumi.PLUGINS} <= program.keys()


# -- the engine and its plugins ---------------------------------------------------------------------------------------

PYTHON = Path("/venv/bin/python")
WAYS = (
    "Ways around it, then run this again:\n"
    "  - PATH: put pulumi and pulumi-language-python on it, from a package manager or https://www.pulumi.com/docs/install/\n"
    "  - a local archive: PULUMI_ARCHIVE=/path/pulumi-v3.272.0-linux-x64.tar.gz, the release's archive, fetched elsewhere\n"
    "  - a mirror's address: PULUMI_ARCHIVE=https://mirror/path/pulumi-v3.272.0-linux-x64.tar.gz\n"
    "  - a proxy: HTTPS_PROXY=http://proxy:port, with SSL_CERT_FILE=/path/ca.pem where it has its own CA"
)


@pytest.fixture
def on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def put_pulumi(folder: Path, *programs: str) -> None:
    folder.mkdir(parents=True)
    for name in programs or ("pulumi", "pulumi-language-python"):
        (folder / name).touch()


def archive(path: Path, *names: str) -> str:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            tar.addfile(info)
    return str(path)


def test_a_pulumi_on_path_is_taken_as_it_is(machine: Machine) -> None:
    assert pulumi.ensure(machine, PYTHON) == "/bin/pulumi"
    assert machine.ran == ["/bin/pulumi version"]
    assert (machine.exports, machine.env["PULUMI_SKIP_UPDATE_CHECK"]) == ([], "true")


@pytest.mark.parametrize("place", ["bin", "versions/3.272.0/bin", "versions/3.250.1/bin"])
def test_a_pulumi_in_its_own_folders_is_found_and_put_on_path(machine: Machine, place: str) -> None:
    machine.installed -= {"pulumi", "pulumi-language-python"}
    folder = machine.home / ".pulumi" / place
    put_pulumi(folder)
    assert pulumi.ensure(machine, PYTHON) == str(folder / "pulumi")
    assert machine.env["PATH"] == f"{folder}:/bin"
    assert machine.exports == [f'export PATH="{folder}:$PATH"']
    assert not [line for line in machine.ran if PYTHON.name in line], "nothing is installed where one is found"


def test_pulumi_home_moves_the_folders(machine: Machine, tmp_path: Path) -> None:
    machine.installed -= {"pulumi"}
    machine.env["PULUMI_HOME"] = str(tmp_path / "elsewhere")
    put_pulumi(tmp_path / "elsewhere/bin")
    assert pulumi.ensure(machine, PYTHON) == str(tmp_path / "elsewhere/bin/pulumi")


def test_a_missing_pulumi_is_installed_by_the_automation_api_and_used(machine: Machine) -> None:
    machine.installed -= {"pulumi", "pulumi-language-python"}
    target = machine.home / ".pulumi/versions/3.272.0"

    def install() -> Result:
        put_pulumi(target / "bin")
        return Result(0)

    machine.answers["PulumiCommand.install"] = install
    assert pulumi.ensure(machine, PYTHON) == str(target / "bin/pulumi")
    assert machine.ran[0].startswith(f"{PYTHON} -c ")
    assert machine.said == [f"Installing pulumi 3.272.0 into {target} …"]


@pytest.mark.usefixtures("on_linux")
def test_when_nothing_works_one_message_lists_each_failure_and_every_way_around(machine: Machine) -> None:
    machine.installed -= {"pulumi"}
    machine.answers["PulumiCommand.install"] = Result(1, "", "Traceback\nurllib.error.URLError: <urlopen error Name or service not known>")
    home = machine.home / ".pulumi"
    assert refusal(lambda: pulumi.ensure(machine, PYTHON)) == (
        "there is no Pulumi program that serves, and none could be installed. Tried:\n"
        "  - PATH: no pulumi there\n"
        f"  - {home}/bin/pulumi: not there\n"
        f"  - {home}/versions/3.272.0/bin/pulumi: not there\n"
        "  - PULUMI_ARCHIVE: not set\n"
        "  - download by Pulumi's Automation API: urllib.error.URLError: <urlopen error Name or service not known>\n"
        "The cause: a host's name is not found.\n" + WAYS
    )


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Result(0, "v3.100.2\n"), "it is v3.100.2, older than 3.231.0, the oldest that serves"),
        (Result(127, "", "/bin/pulumi: Exec format error"), "`pulumi version` failed: /bin/pulumi: Exec format error"),
        (Result(124, "", "no end within 60 s"), "`pulumi version` failed: no end within 60 s"),
        (Result(0, "dev\n"), "`pulumi version` says 'dev', which is no version"),
    ],
)
def test_a_pulumi_that_does_not_serve_is_passed_over_with_the_reason(machine: Machine, answer: Result, why: str) -> None:
    machine.answers |= {"pulumi version": answer, "PulumiCommand.install": Result(1)}
    assert f"  - PATH (/bin/pulumi): {why}\n" in refusal(lambda: pulumi.ensure(machine, PYTHON))


def test_a_pulumi_without_its_language_host_is_passed_over(machine: Machine) -> None:
    machine.installed -= {"pulumi-language-python"}
    machine.answers["PulumiCommand.install"] = Result(1)
    why = "pulumi-language-python is neither beside it nor on PATH"
    assert f"  - PATH (/bin/pulumi): {why}\n" in refusal(lambda: pulumi.ensure(machine, PYTHON))


@pytest.mark.parametrize("prefix", ["pulumi/", "pulumi/bin/", ""])
def test_an_archive_is_unpacked_before_any_download(machine: Machine, tmp_path: Path, prefix: str) -> None:
    machine.installed -= {"pulumi", "pulumi-language-python"}
    path = archive(tmp_path / "a.tar.gz", f"{prefix}pulumi", f"{prefix}pulumi-language-python", "../outside", f"{prefix}deep/er")
    machine.env["PULUMI_ARCHIVE"] = path
    folder = machine.home / ".pulumi/versions/3.272.0/bin"
    assert pulumi.ensure(machine, PYTHON) == str(folder / "pulumi")
    assert sorted(item.name for item in folder.iterdir()) == ["pulumi", "pulumi-language-python"]
    assert stat.S_IMODE((folder / "pulumi").stat().st_mode) == 0o755
    assert list(folder.parent.iterdir()) == [folder], "no scratch stays"
    assert not [line for line in machine.ran if "PulumiCommand" in line]


def test_an_archive_may_be_an_address(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.installed -= {"pulumi", "pulumi-language-python"}
    machine.env["PULUMI_ARCHIVE"] = "https://mirror.example/pulumi.tar.gz"
    asked = []

    def fetch(url: str, target: Path, timeout: float) -> None:
        asked.append((url, timeout > 0))
        archive(target, "pulumi/pulumi", "pulumi/pulumi-language-python")

    monkeypatch.setattr(machine, "fetch", fetch)
    pulumi.ensure(machine, PYTHON)
    assert asked == [("https://mirror.example/pulumi.tar.gz", True)]


@pytest.mark.parametrize("kind", ["absent", "garbage", "cut", "empty"])
def test_an_unusable_archive_is_listed_with_its_failure_and_leaves_nothing(machine: Machine, tmp_path: Path, kind: str) -> None:
    machine.installed -= {"pulumi"}
    path = tmp_path / "a.tar.gz"
    if kind == "garbage":
        path.write_text("no tar")
    elif kind == "empty":
        archive(path, "pulumi/README")
    elif kind == "cut":
        source = tmp_path / "big"
        source.write_bytes(os.urandom(200_000))
        with tarfile.open(path, "w:gz") as tar:
            tar.add(source, "pulumi/pulumi")
        path.write_bytes(path.read_bytes()[:100_000])
    machine.env["PULUMI_ARCHIVE"] = str(path)
    machine.answers["PulumiCommand.install"] = Result(1)
    why = {"absent": "No such file", "garbage": "could not be opened", "cut": "end", "empty": "it holds no file named pulumi"}[kind]
    line = next(line for line in refusal(lambda: pulumi.ensure(machine, PYTHON)).splitlines() if line.startswith(f"  - PULUMI_ARCHIVE={path}: "))
    assert why in line
    assert not (machine.home / ".pulumi/versions/3.272.0/bin").exists()


def test_plugins_are_those_of_the_lock_and_one_that_is_listed_is_not_installed(machine: Machine) -> None:
    machine.installed -= {"pulumi-resource-docker", "pulumi-resource-command"}
    rows = [{"name": "docker", "kind": "resource", "version": "5.2.0"}, {"name": "command", "kind": "resource", "version": "1.0.0"}]
    machine.answers["plugin ls"] = Result(0, json.dumps(rows))
    pulumi.ensure(machine, PYTHON)
    assert [line for line in machine.ran if "install" in line] == ["/bin/pulumi plugin install resource command 1.2.1"]


def test_a_plugin_server_is_passed_on(machine: Machine) -> None:
    machine.installed -= {"pulumi-resource-docker"}
    machine.env["PULUMI_PLUGIN_SERVER"] = "https://mirror.example/plugins"
    pulumi.ensure(machine, PYTHON)
    assert machine.ran[-1] == "/bin/pulumi plugin install resource docker 5.2.0 --server https://mirror.example/plugins"


@pytest.mark.usefixtures("on_linux")
def test_missing_plugins_end_in_one_message_with_the_cause_and_every_way_around(machine: Machine) -> None:
    machine.installed -= {"pulumi-resource-docker", "pulumi-resource-command"}
    cause = 'warning: Error downloading plugin: Get "https://get.pulumi.com/x": no such host'
    machine.answers["plugin install resource docker"] = Result(255, "", f"{cause}\nWill retry in 1s [5/5]\nerror: failed all 5 attempts")
    machine.answers["plugin install resource command"] = Result(124, "", "no end within 300 s")
    assert refusal(lambda: pulumi.ensure(machine, PYTHON)) == (
        "Pulumi's resource plugin docker 5.2.0 and command 1.2.1 could not be installed. Tried:\n"
        "  - PATH (pulumi-resource-docker): not there\n"
        "  - pulumi plugin ls: no docker 5.2.0\n"
        f"  - pulumi plugin install resource docker 5.2.0: {cause}\n"
        "  - PATH (pulumi-resource-command): not there\n"
        "  - pulumi plugin ls: no command 1.2.1\n"
        "  - pulumi plugin install resource command 1.2.1: no end within 300 s\n"
        "The cause: a host's name is not found (get.pulumi.com).\n"
        "Ways around it, then run this again:\n"
        "  - PATH: put pulumi-resource-docker and pulumi-resource-command on it\n"
        "  - a local archive, fetched elsewhere:\n"
        "      /bin/pulumi plugin install resource docker 5.2.0 --file /path/pulumi-resource-docker-v5.2.0-linux-amd64.tar.gz\n"
        "      /bin/pulumi plugin install resource command 1.2.1 --file /path/pulumi-resource-command-v1.2.1-linux-amd64.tar.gz\n"
        "  - a mirror's address: PULUMI_PLUGIN_SERVER=https://mirror/path, a folder with "
        "pulumi-resource-docker-v5.2.0-linux-amd64.tar.gz and pulumi-resource-command-v1.2.1-linux-amd64.tar.gz\n"
        "  - a proxy: HTTPS_PROXY=http://proxy:port, with SSL_CERT_FILE=/path/ca.pem where it has its own CA"
    )


# -- Docker -----------------------------------------------------------------------------------------------------------

INSTALL_QUESTION = "No Docker daemon runs on this machine. Install Docker (docker.io and iptables, by apt-get) and start it? [y/N] "


def without_docker(machine: Machine) -> None:
    """A new machine: apt-get brings the programs, dockerd needs two looks to answer."""
    machine.installed -= {"docker"}

    def install() -> Result:
        machine.installed |= {"docker", "dockerd"}
        return Result(0)

    machine.answers |= {"apt-get install": install, "docker info": in_turn(REFUSED, REFUSED, REFUSED, UP)}


def test_a_daemon_that_answers_is_left_alone(machine: Machine) -> None:
    assert daemon.ensure(machine).info == INFO
    assert (machine.started, machine.questions, [line for line in machine.ran if "apt-get" in line]) == ([], [], [])


def test_docker_is_installed_and_started_on_debian_as_root_after_a_yes(machine: Machine) -> None:
    without_docker(machine)
    machine.typed = ["y"]
    assert daemon.ensure(machine).state == "ready"
    assert machine.questions == [INSTALL_QUESTION]
    assert [line for line in machine.ran if "apt-get" in line] == ["apt-get update", "apt-get install -y docker.io iptables"]
    assert machine.started == ["dockerd"]
    assert (machine.system / "var/run/ragflow-reranker-dockerd.pid").read_text() == "4711\n"
    log = machine.system / "var/run/ragflow-reranker-dockerd.log"
    assert machine.said[-1] == f"Started dockerd (process 4711), log {log}; `make docker-stop` ends it."


@pytest.mark.parametrize("name", ["YES", "CI"])
def test_yes_and_ci_agree_to_docker_without_asking(machine: Machine, name: str) -> None:
    without_docker(machine)
    machine.env[name] = "true"
    daemon.ensure(machine)
    assert (machine.questions, machine.started) == ([], ["dockerd"])


@pytest.mark.parametrize("typed", [["n"], [""], []])
def test_without_a_yes_nothing_is_installed_and_the_way_is_told(machine: Machine, typed: list[str]) -> None:
    without_docker(machine)
    machine.typed = typed
    assert refusal(lambda: daemon.ensure(machine)) == (
        "Docker does not answer: no docker program on PATH; install and start it: "
        "apt-get install -y docker.io iptables && dockerd &; `make up YES=1` as root does it"
    )
    assert (machine.started, [line for line in machine.ran if "apt-get" in line]) == ([], [])


def test_a_daemon_that_only_is_not_running_is_started_without_apt(machine: Machine) -> None:
    machine.installed |= {"dockerd"}
    machine.answers["docker info"] = in_turn(REFUSED, REFUSED, UP)
    machine.typed = ["yes"]
    daemon.ensure(machine)
    assert machine.questions == ["No Docker daemon runs on this machine. Start dockerd? [y/N] "]
    assert machine.started == ["dockerd"]
    assert not [line for line in machine.ran if "apt-get" in line]


def test_a_client_without_a_daemon_program_gets_the_package(machine: Machine) -> None:
    machine.answers["docker info"] = in_turn(REFUSED, REFUSED, UP)
    machine.env["YES"] = "1"
    daemon.ensure(machine)
    assert "apt-get install -y docker.io iptables" in machine.ran


def test_where_systemd_runs_it_starts_the_daemon(machine: Machine) -> None:
    (machine.system / "run/systemd/system").mkdir(parents=True)
    machine.installed |= {"dockerd"}
    machine.answers["docker info"] = in_turn(REFUSED, REFUSED, UP)
    machine.env["YES"] = "1"
    daemon.ensure(machine)
    assert "systemctl start docker" in machine.ran
    assert machine.started == []


def test_a_daemon_that_the_package_started_is_not_started_twice(machine: Machine) -> None:
    without_docker(machine)
    machine.answers["docker info"] = UP
    machine.env["YES"] = "1"
    daemon.ensure(machine)
    assert machine.started == []


def test_an_existing_dockerd_that_does_not_answer_is_not_touched(machine: Machine) -> None:
    machine.installed |= {"dockerd"}
    machine.answers["docker info"] = REFUSED
    machine.process(99)
    (machine.system / "var/run/docker.pid").write_text("99")
    machine.env["YES"] = "1"
    assert refusal(lambda: daemon.ensure(machine)).endswith(
        "Is the docker daemon running?; a dockerd runs here (process 99) but does not answer: read its log; it is not restarted from here"
    )
    assert (machine.started, machine.ended) == ([], [])


def test_a_dockerd_that_never_answers_ends_in_its_last_words(machine: Machine) -> None:
    machine.installed |= {"dockerd"}
    machine.answers["docker info"] = REFUSED
    machine.env["YES"] = "1"
    text = refusal(lambda: daemon.ensure(machine))
    log = machine.system / "var/run/ragflow-reranker-dockerd.log"
    assert text == (
        f"dockerd does not answer within 60 s: {REFUSED.err}; the end of {log}:\n" + "\n".join(f"  line {number}" for number in range(3, 8))
    )
    assert 60 <= machine.clock < 65


def test_a_failing_apt_ends_in_its_words(machine: Machine) -> None:
    without_docker(machine)
    machine.env["YES"] = "1"
    machine.answers["apt-get update"] = Result(100, "", "E: Could not resolve 'deb.example'")
    assert refusal(lambda: daemon.ensure(machine)) == (
        "`apt-get update` failed: E: Could not resolve 'deb.example'; repair that, or install Docker by hand: https://docs.docker.com/engine/install/"
    )


def denied(machine: Machine) -> None:
    machine.answers["docker info"] = Result(1, "", "permission denied while trying to connect to the Docker daemon socket")


def other_user(machine: Machine) -> None:
    machine.installed -= {"docker"}
    machine.user = 1000


def other_user_stopped(machine: Machine) -> None:
    machine.installed |= {"dockerd"}
    machine.answers["docker info"] = REFUSED
    machine.user = 1000
    (machine.system / "run/systemd/system").mkdir(parents=True)


def other_system(machine: Machine) -> None:
    machine.installed -= {"docker"}
    (machine.system / "etc/os-release").write_text("ID=fedora\n")


def stopped_mac(machine: Machine) -> None:
    machine.answers["docker info"] = REFUSED
    (machine.system / "etc/os-release").unlink()


@pytest.mark.parametrize(
    ("host_is", "remedy"),
    [
        (denied, "join the docker group: sudo usermod -aG docker $USER, then log in again"),
        (
            other_user,
            "install and start it: sudo apt-get install -y docker.io iptables && sudo dockerd &, then sudo usermod -aG docker $USER and log in again",
        ),
        (other_user_stopped, "start it: sudo systemctl start docker, then sudo usermod -aG docker $USER and log in again"),
        (other_system, "install Docker: https://docs.docker.com/engine/install/ (Linux) or Docker Desktop"),
        (stopped_mac, "start it: systemctl start docker (Linux), or open Docker Desktop"),
    ],
)
def test_where_docker_cannot_be_installed_from_here_the_remedy_is_told(machine: Machine, host_is: Callable[[Machine], None], remedy: str) -> None:
    host_is(machine)
    machine.env["YES"] = "1"
    assert refusal(lambda: daemon.ensure(machine)).endswith(f"; {remedy}")
    assert (machine.started, [line for line in machine.ran if "apt-get" in line]) == ([], [])


@pytest.mark.parametrize(
    ("host", "installed", "remedy"),
    [
        ("ssh://me@nas:2222", True, "make `ssh me@nas docker info` work without a password first"),
        ("tcp://nas:2375", True, "start the Docker daemon at tcp://nas:2375, or correct dockerHost (or DOCKER_HOST)"),
        ("ssh://me@nas", False, "install the docker program: it is the client of the daemon at ssh://me@nas"),
    ],
)
def test_a_remote_docker_is_asked_by_its_address_and_never_installed_here(machine: Machine, host: str, installed: bool, remedy: str) -> None:
    machine.answers["docker --host"] = Result(1, "", "no route")
    machine.installed = machine.installed | {"dockerd"} if installed else set()
    machine.env["YES"] = "1"
    assert refusal(lambda: daemon.ensure(machine, host)).endswith(f"; {remedy}")
    assert machine.started == []
    if installed:
        assert machine.ran[-1] == f"docker --host {host} info --format {{{{json .}}}}"


def test_the_address_is_the_stacks_then_docker_host_then_the_docker_programs_context(machine: Machine) -> None:
    machine.answers["docker --host"] = UP
    machine.answers["docker context inspect"] = context("unix:///home/me/.docker/desktop.sock")
    assert daemon.look(machine).host == "unix:///home/me/.docker/desktop.sock"
    machine.env["DOCKER_HOST"] = "tcp://here:2375"
    machine.answers["docker context inspect"] = context("tcp://here:2375")
    assert daemon.look(machine).host == "tcp://here:2375"
    assert daemon.look(machine, "ssh://nas").host == "ssh://nas"


def test_an_old_docker_that_exits_well_without_a_server_counts_as_down(machine: Machine) -> None:
    machine.answers["docker info"] = Result(0, json.dumps({"ServerErrors": ["Cannot connect", "again"]}))
    found = daemon.look(machine)
    assert (found.state, found.detail) == ("down", "Cannot connect; again")


def test_docker_stop_ends_the_dockerd_that_setup_started_and_waits(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file = machine.system / "var/run/ragflow-reranker-dockerd.pid"
    pid_file.write_text("4711\n")
    machine.process(4711)
    monkeypatch.setattr(machine, "sleep", lambda seconds: machine.process(4711, state="Z"))
    assert main(["docker-stop"], machine) == 0
    assert (machine.ended, machine.said, pid_file.exists()) == ([4711], ["Stopped dockerd (process 4711)."], False)


def test_docker_stop_ends_no_other_process(machine: Machine) -> None:
    (machine.system / "var/run/ragflow-reranker-dockerd.pid").write_text("4711\n")
    machine.process(4711, name="postgres")
    machine.process(99)
    (machine.system / "var/run/docker.pid").write_text("99")
    assert main(["docker-stop"], machine) == 0
    assert (machine.ended, machine.said) == ([], ["No dockerd of ours runs."])


def test_docker_stop_does_not_wait_for_ever(machine: Machine) -> None:
    (machine.system / "var/run/ragflow-reranker-dockerd.pid").write_text("4711\n")
    machine.process(4711)
    assert main(["docker-stop"], machine) == 1
    assert machine.text.startswith("error: dockerd (process 4711) has not ended within 60 s of SIGTERM")


# -- the host's rows --------------------------------------------------------------------------------------------------


def levels(machine: Machine, **info: object) -> dict[str, tuple[str, str]]:
    machine.answers["docker info"] = Result(0, json.dumps(INFO | info))
    return {row.name: (row.level, row.remedy) for row in preflight.rows(machine, daemon.look(machine))}


def test_a_good_host_is_ok_in_every_row(machine: Machine) -> None:
    found = levels(machine)
    assert list(found) == ["python", "docker", "daemon", "cpus", "memory", "disk"]
    assert set(found.values()) == {("ok", "")}


def test_a_small_host_is_warned_of_with_remedies(machine: Machine) -> None:
    machine.free = 19.9
    found = levels(machine, NCPU=1, MemTotal=6 * GIB - 1)
    assert found["cpus"] == ("warn", "a rerank is slow on less than 2")
    assert found["memory"] == ("warn", "the 0.6B model wants 6 GiB: give Docker more memory, or look around with make demo")
    assert found["disk"] == ("warn", "image and model want 20 GiB: free some with docker system prune, or move Docker's data-root")
    machine.free = 20.0
    assert {level for level, _ in levels(machine, NCPU=2, MemTotal=6 * GIB).values()} == {"ok"}


@pytest.mark.parametrize(
    ("info", "version", "row", "level"),
    [
        ({"Architecture": "armv7l"}, {"Arch": "arm"}, "architecture", "fail"),
        ({"OSType": "windows"}, {}, "docker", "fail"),
        ({}, {"ApiVersion": "1.40"}, "docker", "fail"),
        ({}, {"Components": [{"Name": "Podman Engine"}]}, "docker", "fail"),
        ({"MemoryLimit": False}, {}, "memoryGiB", "warn"),
        ({"Driver": "vfs"}, {}, "docker", "warn"),
    ],
)
def test_what_the_daemon_says_of_itself_is_a_row_with_its_remedy(
    machine: Machine, info: dict[str, object], version: dict[str, object], row: str, level: str
) -> None:
    machine.answers |= {
        "docker info": Result(0, json.dumps(INFO | info)),
        "docker version": Result(0, json.dumps({"Server": {"ApiVersion": "1.50", **version}})),
    }
    last = preflight.rows(machine, daemon.look(machine))[-1]
    assert (last.name, last.level) == (row, level)
    assert last.remedy
    machine.env["YES"] = "1"
    assert main(["up"], machine) == (1 if level == "fail" else 0)
    assert main(["down"], machine) == 0  # what cannot run there can still be removed


def test_podmans_own_docker_program_is_known_by_its_answer(machine: Machine) -> None:
    machine.answers["docker info"] = Result(
        0, json.dumps({"host": {"arch": "amd64", "cpus": 8, "memTotal": 16 * GIB}, "version": {"Version": "4.3.1"}})
    )
    assert "Podman answers here in Docker's place (4.3.1)" in preflight.render(preflight.rows(machine, daemon.look(machine)))


def test_a_context_keeps_its_certificates_because_its_address_is_not_repeated(machine: Machine) -> None:
    material = {"TLSMaterial": {"docker": ["ca.pem", "cert.pem", "key.pem"]}, "Storage": {"TLSPath": "/tls/ab"}}
    machine.answers["docker context inspect"] = context("tcp://nas:2376", **{**material, "Name": "nas"})
    found = daemon.look(machine)
    assert (found.state, found.host, found.certificates) == ("ready", "tcp://nas:2376", "/tls/ab/docker")
    assert not [line for line in machine.ran if "--host" in line]
    machine.answers["docker context inspect"] = context("tcp://nas:2376", Name="nas", TLSMaterial={"docker": ["ca.pem"]})
    found = daemon.look(machine)
    assert found.state == "down"
    assert "has TLS without cert.pem and key.pem" in found.detail
    assert "dockerHost" in daemon.remedy(machine, found)


def test_a_context_that_is_not_there_is_told_where_the_contexts_are(machine: Machine) -> None:
    machine.answers["docker info"] = Result(1, "", 'unable to resolve docker endpoint: context "nope": context not found: open /meta.json')
    machine.answers["docker context inspect"] = Result(1, "", 'context "nope" not found')
    assert "'docker context ls' shows the contexts" in daemon.remedy(machine, daemon.look(machine))


@pytest.mark.parametrize(("host", "free"), [("ssh://nas", 1.0), ("", None)])
def test_a_disk_that_is_not_here_is_not_judged(machine: Machine, host: str, free: float | None) -> None:
    machine.answers["docker --host"] = UP
    machine.free = free
    disk = preflight.rows(machine, daemon.look(machine, host))[-1]
    assert (disk.level, disk.text) == ("ok", "not seen from here (/var/lib/docker is the Docker host's)")


def test_rows_end_at_the_first_failure_and_are_shown_with_the_remedy(machine: Machine) -> None:
    denied(machine)
    text = preflight.render(preflight.rows(machine, daemon.look(machine)))
    assert text.splitlines()[-2:] == [
        "  fail  daemon   permission denied while trying to connect to the Docker daemon socket",
        "                 -> join the docker group: sudo usermod -aG docker $USER, then log in again",
    ]
    machine.installed -= {"docker"}
    assert [row.name for row in preflight.rows(machine, daemon.look(machine))] == ["python", "docker"]


# -- state and passphrase ---------------------------------------------------------------------------------------------


def test_the_passphrase_is_made_private_once_and_never_overwritten(machine: Machine) -> None:
    path = machine.home / ".config/ragflow-reranker/passphrase"
    stack.ensure_passphrase(machine, "laptop")
    first = path.read_text()
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
    assert len(first) >= 40
    assert machine.said == [f"Made the passphrase of the stacks' secrets, {path}: keep a copy, nothing else opens them."]
    assert machine.env["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(path)
    assert machine.exports == [f"export PULUMI_CONFIG_PASSPHRASE_FILE={path}"]
    del machine.env["PULUMI_CONFIG_PASSPHRASE_FILE"]
    stack.ensure_passphrase(machine, "laptop")
    assert (path.read_text(), len(machine.said)) == (first, 1)


def test_two_passphrases_differ(tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        machine = Machine(tmp_path / name)
        stack.ensure_passphrase(machine, "laptop")
        made.append(Path(machine.env["PULUMI_CONFIG_PASSPHRASE_FILE"]).read_text())
    assert made[0] != made[1]


def test_xdg_config_home_moves_the_passphrase(machine: Machine, tmp_path: Path) -> None:
    machine.env["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    stack.ensure_passphrase(machine, "laptop")
    assert (tmp_path / "xdg/ragflow-reranker/passphrase").exists()


def test_a_passphrase_that_others_can_read_is_warned_of_and_left(machine: Machine) -> None:
    path = machine.home / ".config/ragflow-reranker/passphrase"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    path.chmod(0o644)
    stack.ensure_passphrase(machine, "laptop")
    assert machine.said == [f"warning: others can read {path}: chmod 600 it"]
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("mine", 0o644)


@pytest.mark.parametrize("name", ["PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"])
def test_a_passphrase_that_the_user_set_is_taken_even_an_empty_one(machine: Machine, name: str) -> None:
    machine.env[name] = ""
    stack.ensure_passphrase(machine, "laptop")
    assert (machine.exports, list(machine.home.iterdir())) == ([], [])


def test_a_lost_passphrase_is_named_by_its_file_and_no_other_is_made_in_its_place(machine: Machine) -> None:
    path = machine.home / ".config/ragflow-reranker/passphrase"
    (machine.root / "stacks/Pulumi.laptop.yaml").write_text("encryptionsalt: v1:abc\nconfig: {}\n")
    text = refusal(lambda: stack.ensure_passphrase(machine, "laptop"))
    assert text.startswith(f"{path} is gone, and the secrets of the stack laptop were made with the passphrase in it; put your copy of it back")
    assert "docs/configuration.md" in text
    assert not path.exists()
    stack.ensure_passphrase(machine, "home-server")  # a stack without secrets yet may have a new one
    assert path.exists()


def test_a_passphrase_file_of_the_users_own_that_is_not_there_is_named(machine: Machine) -> None:
    machine.env["PULUMI_CONFIG_PASSPHRASE_FILE"] = "/not/here"
    text = refusal(lambda: stack.ensure_passphrase(machine, "laptop"))
    assert text.startswith("PULUMI_CONFIG_PASSPHRASE_FILE: /not/here is not there, or not yours to read; put your copy of it back")


WRONG = Result(255, "", "error: getting stack configuration: get stack secrets manager: incorrect passphrase")


@pytest.mark.parametrize(
    ("env", "named"), [({}, ".config/ragflow-reranker/passphrase"), ({"PULUMI_CONFIG_PASSPHRASE": "x"}, "PULUMI_CONFIG_PASSPHRASE")]
)
def test_a_wrong_passphrase_is_the_last_thing_said_and_by_its_file(machine: Machine, env: dict[str, str], named: str) -> None:
    machine.env |= {"YES": "1", **env}
    machine.codes["preview"] = 255
    machine.answers["config set --secret probe"] = WRONG
    before = (machine.root / "stacks/Pulumi.laptop.yaml").read_text()
    assert main(["up"], machine) == 255
    assert machine.said[-1].startswith("error: the passphrase in ")
    assert f"{named} is not the one that the secrets of the stack laptop were made with" in machine.said[-1]
    assert (machine.root / "stacks/Pulumi.laptop.yaml").read_text() == before


def test_a_locked_stack_is_said_with_how_to_unlock_it_and_other_failures_keep_pulumis_words(machine: Machine) -> None:
    machine.codes["destroy"] = 255
    machine.env["YES"] = "1"
    assert main(["down"], machine) == 255
    assert not machine.said[-1].startswith("error:")
    lock = machine.root / "state/.pulumi/locks/organization/ragflow-reranker/laptop/1.json"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert main(["down"], machine) == 255
    assert machine.said[-1].startswith(
        "error: the stack laptop is locked: another run works on it, or was killed; where none does: pulumi cancel --stack laptop"
    )


def test_verify_does_not_take_a_key_that_no_passphrase_opens_for_none(machine: Machine) -> None:
    machine.answers["config get apiKey"] = WRONG
    assert main(["verify"], machine) == 1
    assert "is not the one that the secrets of the stack laptop were made with" in machine.said[-1]


def test_a_stack_without_a_file_is_refused_with_those_there_are(machine: Machine) -> None:
    machine.env |= {"STACK": "attic", "YES": "1"}
    assert main(["up"], machine) == 1
    assert machine.said == [
        "error: STACK=attic: there is no stacks/Pulumi.attic.yaml; choose one of home-server, laptop, or copy one of them to that name"
    ]
    assert machine.ran == []


def test_a_stack_that_pulumi_cannot_open_ends_in_its_words(machine: Machine) -> None:
    machine.answers["stack select"] = Result(255, "", "error: incorrect passphrase")
    machine.env["YES"] = "1"
    assert main(["up"], machine) == 1
    assert machine.said[-1] == "error: pulumi could not open the stack laptop: error: incorrect passphrase"


@pytest.mark.parametrize(("backend", "made"), [("", True), ("s3://bucket", False)])
def test_the_state_folder_is_made_where_the_state_is_there(machine: Machine, backend: str, made: bool) -> None:
    machine.env["PULUMI_BACKEND_URL"] = backend
    stack.select(machine, "/bin/pulumi", "laptop")
    assert (machine.root / "state").exists() is made


# -- the verbs --------------------------------------------------------------------------------------------------------


def test_up_prepares_in_order_previews_asks_applies_and_says_what_ragflow_wants(machine: Machine) -> None:
    machine.typed = ["y"]
    assert main(["up"], machine) == 0
    assert machine.ran == [
        "python3 -m venv --clear .venv",
        "python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock",
        "/bin/pulumi version",
        "/bin/pulumi stack select --create --stack laptop --non-interactive",
        "/bin/pulumi config get backend --stack laptop --non-interactive",
        "/bin/pulumi config get dockerHost --stack laptop --non-interactive",
        "docker context inspect --format {{json .}}",
        "docker info --format {{json .}}",
        "docker version --format {{json .}}",
        "/bin/pulumi stack output --json --stack laptop --non-interactive",
        "/bin/pulumi config get dockerHost --stack laptop --non-interactive",
        "/bin/pulumi config get apiKey --stack laptop --non-interactive",
        "/bin/pulumi config get ragflowMode --stack laptop --non-interactive",
        "/bin/pulumi config get ragflowContainers --stack laptop --non-interactive",
        "docker context inspect --format {{json .}}",
        "docker container ls --all --quiet --no-trunc",
        "docker container inspect c1 c2",
        "docker exec --interactive id-of-ragflow-cpu python3 -",
        "/bin/pulumi config get backend --stack laptop --non-interactive",
        "/bin/pulumi config get deadlineSeconds --stack laptop --non-interactive",
        "/bin/pulumi config get minDocumentTokens --stack laptop --non-interactive",
    ]
    assert machine.shown == ["pulumi preview --stack laptop", "pulumi up --stack laptop --yes --skip-preview"]
    assert machine.questions == ["Apply this to the stack laptop? [y/N] "]
    assert machine.said[-4] == (
        "\nOutputs:\n"
        "  internalUrl         http://ragflow-vllm-reranker:8000/v1\n"
        "  modelName           qwen3-reranker-0.6b\n"
        "  networkName         docker-ragflow\n"
        "  containerName       ragflow-vllm-reranker\n"
        '  attachedContainers  ["ragflow-cpu"]\n'
        "\n"
        "In RAGFlow, under Model providers, add a model:\n"
        "  Provider    VLLM\n"
        "  Model type  rerank\n"
        "  Model name  qwen3-reranker-0.6b\n"
        "  Base URL    http://ragflow-vllm-reranker:8000/v1\n"
        "  API key     [secret]\n"
        "  Max tokens  4096\n"
        "then choose it as the rerank model of a chat, a search or an agent; docs/ragflow.md says more."
    )
    assert machine.said[-3:] == [
        "\nA rerank, asked for from each place:\n  right  inside ragflow-cpu  the document about Paris scored 0.900, the other 0.100, in 0.21 s",
        "\n" + "\n".join(fit.lines(640.0, deadline=25, least=192, engines={"ragflow-cpu": ""})),
        "\nCheck it any time with: make verify",
    ]


def test_an_up_whose_verification_fails_stands_and_says_so_last(machine: Machine) -> None:
    machine.env["YES"] = "1"
    machine.answers["docker exec"] = Result(0, json.dumps(REPORT | {"rerank": SWAPPED}))
    assert main(["up"], machine) == 0
    assert "  WRONG  inside ragflow-cpu  " in machine.said[-2]
    assert machine.said[-1] == "\nThe stack is up, and not all of it is right: see WRONG above. Check again with: make verify"


def test_an_up_that_cannot_be_verified_stands_and_says_why(machine: Machine) -> None:
    machine.env |= {"YES": "1", "STACK": "home-server"}
    machine.answers["container ls"] = Result(1, "", "Cannot connect to the Docker daemon")
    assert main(["up"], machine) == 0
    assert machine.said[-2] == "Not verified: Docker does not answer: Cannot connect to the Docker daemon; run this again"
    assert machine.said[-1].endswith("make verify STACK=home-server")


def test_up_says_how_ragflow_knows_a_model_that_the_stack_entered(machine: Machine) -> None:
    machine.env |= {"YES": "1"}
    machine.answers["stack output"] = Result(0, json.dumps({**OUTPUTS, "ragflow": {"modelId": "m@ragflow-vllm-reranker@VLLM"}}))
    assert main(["up"], machine) == 0
    assert "RAGFlow has it as m@ragflow-vllm-reranker@VLLM:\nchoose it as the rerank model of a chat" in machine.text
    assert "add a model" not in machine.text


@pytest.mark.parametrize("verb", ["up", "down"])
@pytest.mark.parametrize("typed", ["n", "", "nope"])
def test_anything_but_yes_changes_nothing(machine: Machine, verb: str, typed: str) -> None:
    machine.typed = [typed]
    assert main([verb], machine) == 1
    assert (len(machine.shown), machine.said[-1]) == (1, "Nothing was changed.")


def test_yes_asks_nothing_and_needs_no_terminal(machine: Machine) -> None:
    machine.env |= {"YES": "1", "STACK": "home-server"}
    assert main(["up"], machine) == 0
    assert (machine.questions, machine.shown[-1]) == ([], "pulumi up --stack home-server --yes --skip-preview")


def test_ci_does_not_agree_to_an_up(machine: Machine) -> None:
    machine.env["CI"] = "true"
    assert main(["up"], machine) == 1
    assert machine.shown == []


@pytest.mark.parametrize(("verb", "harmless"), [("up", "make preview"), ("down", "pulumi destroy --preview-only")])
def test_without_a_terminal_and_without_yes_nothing_begins(machine: Machine, verb: str, harmless: str) -> None:
    assert main([verb], machine) == 1
    assert machine.said == [
        f"error: make {verb} asks before it changes anything, and there is no terminal to ask on: add YES=1, or only look with {harmless}"
    ]
    assert machine.ran == machine.shown == []


@pytest.mark.parametrize(
    ("verb", "failing", "shown"),
    [("up", "preview", 1), ("up", "--skip-preview", 2), ("down", "--preview-only", 1), ("down", "--yes", 2), ("preview", "preview", 1)],
)
def test_pulumis_exit_code_passes_on_and_ends_the_verb(machine: Machine, verb: str, failing: str, shown: int) -> None:
    machine.env["YES"] = "1"
    machine.codes[failing] = 255
    assert main([verb], machine) == 255
    assert len(machine.shown) == shown
    assert "In RAGFlow" not in machine.text
    assert "What stays" not in machine.text


def test_down_shows_asks_destroys_and_says_what_stays(machine: Machine) -> None:
    machine.typed = ["y"]
    assert main(["down"], machine) == 0
    assert machine.shown == ["pulumi destroy --stack laptop --preview-only", "pulumi destroy --stack laptop --yes --skip-preview"]
    assert machine.questions == ["Destroy this in the stack laptop? [y/N] "]
    assert machine.said[-1].splitlines() == [
        "",
        "What stays on disk:",
        "  the model volume, unless modelKeep is false; shown by docker volume ls --filter label=io.ragflow-reranker.owner",
        "  Docker's images and build cache; freed by docker image prune --all, docker builder prune",
        "  state/, .venv, the passphrase and ~/.pulumi",
    ]


def test_setup_ends_with_the_lines_that_plain_pulumi_needs(machine: Machine) -> None:
    machine.installed -= {"pulumi"}
    put_pulumi(machine.home / ".pulumi/bin")
    assert main(["setup"], machine) == 0
    assert machine.shown == []
    assert machine.said[-1] == (
        "\nReady. Plain pulumi works too:\n"
        f'  export PATH="{machine.home}/.pulumi/bin:$PATH"\n'
        f"  export PULUMI_CONFIG_PASSPHRASE_FILE={machine.home}/.config/ragflow-reranker/passphrase\n"
        "  pulumi up --stack laptop"
    )


@pytest.mark.parametrize(("verb", "code"), [("setup", 0), ("preview", 1), ("down", 1)])
def test_verbs_that_need_no_docker_or_only_look_install_none(machine: Machine, verb: str, code: int) -> None:
    without_docker(machine)
    machine.env["YES"] = "1"
    assert main([verb], machine) == code
    assert (machine.started, machine.shown, [line for line in machine.ran if "apt-get" in line]) == ([], [], [])
    assert "  fail  docker   no docker program on PATH" in machine.text


def test_up_installs_docker_where_it_may(machine: Machine) -> None:
    without_docker(machine)
    machine.typed = ["y", "y"]
    assert main(["up"], machine) == 0
    assert machine.questions == [INSTALL_QUESTION, "Apply this to the stack laptop? [y/N] "]


def test_the_stacks_docker_host_is_the_one_that_is_looked_at(machine: Machine) -> None:
    machine.env["YES"] = "1"
    machine.answers |= {"config get dockerHost": Result(0, "ssh://me@nas\n"), "docker --host": UP}
    assert main(["preview"], machine) == 0
    assert "docker --host ssh://me@nas info --format {{json .}}" in machine.ran


def test_an_external_service_needs_no_docker(machine: Machine) -> None:
    machine.installed -= {"docker"}
    machine.env["YES"] = "1"
    machine.answers |= {"config get backend": Result(0, "external\n"), "stack output": EXTERNAL, "python3 -": Result(0, json.dumps(REPORT))}
    assert main(["up"], machine) == 0
    assert not [line for line in machine.ran if "docker" in line and "dockerHost" not in line]


def test_a_setting_that_pulumi_refuses_ends_in_its_words(machine: Machine) -> None:
    machine.answers["config get dockerHost"] = Result(1, "", "error: Stack 'laptop' is missing configuration value 'x'")
    assert main(["preview"], machine) == 1
    assert machine.said[-1] == (
        "error: pulumi could not read dockerHost of the stack laptop: error: Stack 'laptop' is missing configuration value 'x'"
    )


def test_test_runs_pytest_once_over_the_folders_that_there_are(machine: Machine) -> None:
    machine.codes["pytest"] = 3
    assert main(["test"], machine) == 3
    assert machine.shown == ["python -m pytest tests/unit tests/docker"]


def test_the_unit_tier_alone_looks_for_neither_docker_nor_pulumi(machine: Machine) -> None:
    machine.env["TIERS"] = "unit"
    assert main(["test"], machine) == 0
    assert machine.shown == ["python -m pytest tests/unit"]
    assert not [line for line in machine.ran if "docker" in line or "pulumi" in line]


def test_test_goes_on_with_a_warning_where_docker_and_pulumi_cannot_be_had(machine: Machine) -> None:
    machine.installed = set()
    (machine.system / "etc/os-release").write_text("ID=fedora\n")
    (machine.root / "tests/engine").mkdir()
    machine.answers["PulumiCommand.install"] = Result(1)
    assert main(["test"], machine) == 0
    assert [line.split(":")[0] + ":" + line.split(":")[1] for line in machine.said if line.startswith("warning")] == [
        "warning: Docker does not answer",
        "warning: there is no Pulumi program that serves, and none could be installed. Tried",
    ]
    assert machine.shown == ["python -m pytest tests/unit tests/docker tests/engine"]


@pytest.mark.parametrize("picked", ["units", "unit,everything", ","])
def test_an_unknown_tier_is_refused_with_those_there_are(machine: Machine, picked: str) -> None:
    machine.env["TIERS"] = picked
    assert main(["test"], machine) == 1
    assert machine.said == [f"error: TIERS={picked}: choose from unit,browser,docker,engine,vllm,ragflow"]


def test_a_tier_without_tests_is_refused(machine: Machine) -> None:
    machine.env["TIERS"] = "vllm"
    assert main(["test"], machine) == 1
    assert machine.said == ["error: TIERS=vllm: there is no folder of these under tests/"]


@pytest.mark.parametrize(("verb", "word"), [("demo", "up"), ("demo-down", "down")])
def test_the_demo_runs_on_the_daemon_that_the_docker_programs_context_names(machine: Machine, verb: str, word: str) -> None:
    machine.answers["docker context inspect"] = context("unix:///home/me/desktop.sock")
    machine.codes["demo"] = 7
    assert main([verb], machine) == 7
    assert machine.shown == [f"python -m tests.support.demo {word}"]
    assert machine.env["DOCKER_HOST"] == "unix:///home/me/desktop.sock"
    assert machine.ran[-4].endswith("requirements-dev.lock")


def test_lint_runs_both_tools_and_fails_with_the_first_failure(machine: Machine) -> None:
    machine.codes["ruff"] = 4
    assert main(["lint"], machine) == 4
    assert machine.shown == ["python -m ruff format --check .", "python -m ruff check .", "python -m mypy"]


def test_the_benchmark_runs_on_the_daemon_that_was_found_with_the_arguments_of_its_variable(machine: Machine) -> None:
    machine.env["BENCH"] = "speed --rounds 3"
    machine.codes["bench.serving"] = 5
    assert main(["bench"], machine) == 5
    assert machine.shown == ["python -m bench.serving speed --rounds 3"]
    assert any(line.endswith("requirements-dev.lock") for line in machine.ran)


SWAPPED = {**REPORT["rerank"], "text": json.dumps({"results": [{"index": 1, "relevance_score": 0.1}, {"index": 0, "relevance_score": 0.9}]})}  # type: ignore[dict-item]
PUBLISHED = Result(0, json.dumps(OUTPUTS | {"hostUrl": "http://127.0.0.1:8123/v1"}))


def test_verify_asks_from_every_place_and_says_which_came_out_right(machine: Machine) -> None:
    machine.answers |= {"stack output": PUBLISHED, "python3 -": Result(0, json.dumps(REPORT | {"rerank": SWAPPED}))}
    assert main(["verify"], machine) == 1
    assert machine.said[-1] == (
        "\nA rerank, asked for from each place:\n"
        "  right  inside ragflow-cpu  the document about Paris scored 0.900, the other 0.100, in 0.21 s\n"
        "  WRONG  the Docker host     the document about Paris scored 0.100, the other 0.900: the wrong one comes first; docker\n"
        "                             logs ragflow-vllm-reranker says why"
    )


def test_verify_ends_with_what_fits_where_all_came_out_right(machine: Machine) -> None:
    assert main(["verify"], machine) == 0
    assert machine.said[-1].startswith("\nThe fit, at the 640 tokens/s that this reranker has learned, within deadlineSeconds 25:\n")
    assert len(machine.said[-1].strip().splitlines()) == 5


def test_verify_says_nothing_of_the_mocks_speed(machine: Machine) -> None:
    machine.answers["config get backend"] = Result(0, "mock\n")
    assert main(["verify"], machine) == 0
    assert "The fit" not in machine.text


def test_verify_hands_the_key_over_by_standard_input_and_in_no_argv(machine: Machine) -> None:
    machine.answers["config get apiKey"] = Result(0, "sk-s3cret\n")
    assert main(["verify"], machine) == 0
    assert "s3cret" not in "".join(machine.ran) + machine.text + "".join(machine.env.values())
    assert [line for line, fed in zip(machine.ran, machine.fed, strict=True) if "sk-s3cret" in fed] == [
        "docker exec --interactive id-of-ragflow-cpu python3 -"
    ]


def test_verify_asks_a_remote_hosts_docker_and_its_loopback_for_nothing(machine: Machine) -> None:
    machine.answers |= {"stack output": PUBLISHED, "config get dockerHost": Result(0, "ssh://me@nas\n"), " exec ": Result(0, json.dumps(REPORT))}
    assert main(["verify"], machine) == 0
    assert [line for line in machine.ran if line.endswith("python3 -")] == [
        "docker --host ssh://me@nas exec --interactive id-of-ragflow-cpu python3 -"
    ]


def test_verify_of_an_external_service_asks_it_from_here_alone(machine: Machine) -> None:
    machine.installed -= {"docker"}
    machine.answers |= {"stack output": EXTERNAL, "python3 -": Result(0, json.dumps(REPORT)), "config get backend": Result(0, "external\n")}
    assert main(["verify"], machine) == 0
    assert [line for line in machine.ran if "docker" in line and "dockerHost" not in line] == []
    assert "  right  this machine  " in machine.text


@pytest.mark.parametrize(("answer", "code", "said"), [
    (Result(0, "RAGFlow v0.27.0 m@n@VLLM\n"), 0, "  right  RAGFlow's own list  it holds and reaches the reranker: RAGFlow v0.27.0 m@n@VLLM"),
    (Result(1, "", "RAGFlow refused the reranker: it does not answer"), 1, "  WRONG  RAGFlow's own list  RAGFlow refused the reranker: it does not answer"),
])  # fmt: skip
def test_verify_has_ragflow_try_what_the_stack_entered_there(machine: Machine, answer: Result, code: int, said: str) -> None:
    outputs = {**OUTPUTS, "containerName": "", "ragflow": {"modelId": "m@n@VLLM", "maxTokens": "4096"}}
    machine.answers |= {
        "registration check": answer, "stack output": Result(0, json.dumps(outputs)), "config get ragflowUrl": Result(0, "http://127.0.0.1:9380\n"),
        "config get ragflowApiKey": Result(0, "ragflow-s3cret\n"), "config get ragflowContainers": Result(0, "[]\n"),
    }  # fmt: skip
    assert main(["verify"], machine) == code
    assert said in machine.text
    [asked] = [line for line in machine.ran if "registration check" in line]
    assert "RAGFLOW_URL=http://127.0.0.1:9380 " in asked
    assert "s3cret" not in "".join(machine.ran)


def test_verify_asks_ragflow_where_up_did(machine: Machine) -> None:
    entered = {**OUTPUTS, "ragflow": {"modelId": "m@n@VLLM", "maxTokens": "4096"}}
    machine.answers |= {
        "stack output": Result(0, json.dumps(entered)), " exec ": Result(0, json.dumps(REPORT)), "registration check": Result(0, "m@n@VLLM\n"),
        "config get dockerHost": Result(0, "ssh://me@nas\n"),
    }  # fmt: skip
    for url, told in (("http://box:9380/", "RAGFLOW_URL=http://box:9380 RAGFLOW_CONTAINER= "), ("container", "RAGFLOW_CONTAINER=ragflow-cpu ")):
        machine.ran.clear()
        machine.answers["config get ragflowUrl"] = Result(0, f"{url}\n")
        assert main(["verify"], machine) == 0
        [asked] = [line for line in machine.ran if "registration check" in line]
        assert told in asked
        assert "DOCKER_HOST=ssh://me@nas " in asked


def test_verify_does_not_guess_which_ragflow_holds_it(machine: Machine) -> None:
    entered = {**OUTPUTS, "containerName": "", "ragflow": {"modelId": "m@n@VLLM", "maxTokens": "4096"}}
    machine.answers |= {"stack output": Result(0, json.dumps(entered)), "config get ragflowUrl": Result(0, "container\n")}
    assert main(["verify"], machine) == 1
    assert "WRONG  RAGFlow's own list  ragflowUrl: 'container' needs one RAGFlow container on this host, and there is none" in machine.text
    assert not [line for line in machine.ran if "registration check" in line]


def test_verify_says_where_there_is_nothing_to_verify(machine: Machine) -> None:
    machine.answers["stack output"] = Result(0, "{}")
    assert main(["verify"], machine) == 1
    assert machine.said[-1] == "error: the stack laptop has nothing to verify: it is not up; run make up first"


def test_verify_without_a_daemon_says_what_to_do(machine: Machine) -> None:
    machine.answers |= {"container ls": REFUSED, "docker info": REFUSED}
    assert main(["verify"], machine) == 1
    assert machine.said[-1].startswith("error: Docker does not answer: Cannot connect to the Docker daemon")
    assert "; install and start it: " in machine.said[-1]


def test_every_make_target_is_a_verb_and_the_usage_names_it(machine: Machine) -> None:
    targets = re.search(r"^\.PHONY: help (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert targets
    assert set(targets[1].split()) == VERBS.keys()
    rule = re.search(r"^([a-z -]+):\n\t@\$\(PYTHON\) -m setup \$@$", (ROOT / "Makefile").read_text(), re.M)
    assert rule
    assert rule[1].split() == targets[1].split()
    assert (main([], machine), main(["upp"], machine)) == (0, 2)
    assert machine.said[0] == machine.said[1]
    assert all(verb in machine.said[0] for verb in VERBS)


@pytest.mark.parametrize(
    ("env", "typed", "ci_agrees", "agreed"),
    [
        ({"YES": "1"}, [], False, True),
        ({"YES": "0"}, [], False, False),
        ({"YES": "0"}, ["Y"], False, True),
        ({"CI": "true"}, [], False, False),
        ({"CI": "true"}, [], True, True),
        ({}, [], True, False),
    ],
)
def test_consent_table(machine: Machine, env: dict[str, str], typed: list[str], ci_agrees: bool, agreed: bool) -> None:
    machine.env |= env
    machine.typed = typed
    assert consent(machine, "Go?", ci_agrees=ci_agrees) is agreed


# -- the edge itself, for real ----------------------------------------------------------------------------------------


def real(tmp_path: Path) -> Edge:
    return Edge(root=tmp_path, home=tmp_path, env=dict(os.environ))


def test_run_captures_bounds_and_never_raises(tmp_path: Path) -> None:
    edge = real(tmp_path)
    assert edge.run([sys.executable, "-c", "import sys; print('out'); sys.exit('err')"], 60) == Result(1, "out\n", "err\n")
    assert edge.run(["no-such-program"], 60) == Result(127, err="no-such-program: No such file or directory")
    assert edge.run(["sleep", "600"], 0.2) == Result(124, err="no end within 0.2 s")


def test_a_timeout_ends_what_the_program_started_too(tmp_path: Path) -> None:
    answer = real(tmp_path).run(["sh", "-c", "sleep 600 & echo $! > child; wait"], 3)
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    assert answer.code == 124
    deadline = time.monotonic() + 20
    while child.exists() and child.read_text().rsplit(")", 1)[-1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)


def test_show_returns_the_exit_code_and_is_bounded(tmp_path: Path) -> None:
    edge = real(tmp_path)
    assert edge.show(["sh", "-c", "exit 7"], 60) == 7
    assert edge.show(["sh", "-c", "kill -9 $$"], 60) == 137
    assert edge.show(["sleep", "600"], 0.2) == 124


def test_a_result_says_its_last_words_or_its_code() -> None:
    assert Result(1, "out", "one\ntwo\n\n").tail() == "two"
    assert Result(1, "out", "one\ntwo\n").tail(2) == "one\ntwo"
    assert Result(1, "out\n", " ").tail() == "out"
    assert Result(3).tail() == "exit code 3"


def test_an_old_python_gets_one_sentence(tmp_path: Path) -> None:
    source = (ROOT / "setup/__main__.py").read_text().split("from setup")[0]
    program = "import sys\nsys.version_info = (3, 8, 1)\n" + source
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 1
    assert answer.stderr == "error: python3 is 3.8, and this project needs 3.10 or newer: run make PYTHON=/path/to/a/newer/python3\n"


# -- the tiers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "lost", "answers", "why"),
    [
        ("unit", {"docker", "pulumi"}, {}, ""),
        ("browser", {"docker", "pulumi"}, {}, ""),
        ("browser", {"chromium"}, {}, "no chromium program on PATH"),
        ("docker", set(), {}, ""),
        ("docker", {"docker"}, {}, "Docker does not answer: no docker program on PATH"),
        ("engine", set(), {}, ""),
        ("engine", {"pulumi"}, {}, "no pulumi program on PATH"),
        ("engine", {"pulumi-language-python"}, {}, "/bin/pulumi: pulumi-language-python is neither beside it nor on PATH"),
        ("engine", {"pulumi-resource-docker"}, {}, "no Pulumi plugin docker 5.2.0 on PATH or in `pulumi plugin ls`"),
        ("engine", {"docker"}, {}, "Docker does not answer: no docker program on PATH"),
        ("vllm", set(), {}, ""),
        ("vllm", {"pulumi"}, {}, "no pulumi program on PATH"),
        ("ragflow", set(), {}, "no real RAGFlow: set RAGFLOW_API and RAGFLOW_API_KEY (docs/ragflow.md)"),
        ("vllm", set(), {"docker info": SMALL}, "the Docker host has 8.0 GiB of memory, and 12 are needed"),
    ],
)
def test_what_a_tier_lacks(machine: Machine, tier: str, lost: set[str], answers: dict[str, Answer], why: str) -> None:
    machine.installed -= lost
    machine.answers |= answers
    assert tiers.obstacle(machine, tier) == why


def test_the_ragflow_tier_wants_an_address_and_a_key_and_neither_docker_nor_pulumi(machine: Machine) -> None:
    machine.installed -= {"docker", "pulumi"}
    machine.env["RAGFLOW_API"] = "http://127.0.0.1:9380"
    assert tiers.obstacle(machine, "ragflow") == "no real RAGFlow: set RAGFLOW_API_KEY (docs/ragflow.md)"
    machine.env["RAGFLOW_API_KEY"] = "ragflow-x"
    assert tiers.obstacle(machine, "ragflow") == ""


def test_the_vllm_tier_wants_room(machine: Machine) -> None:
    machine.free = 24.9
    assert tiers.obstacle(machine, "vllm") == "/var/lib/docker has 24.9 GiB free, and 25 are needed"
    machine.free = None
    assert tiers.obstacle(machine, "vllm") == ""


@pytest.fixture
def small_suite(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs this project's conftest over a unit test and an engine test, on a machine whose PATH holds nothing."""
    for tier in ("unit", "engine"):
        (tmp_path / "tests" / tier).mkdir(parents=True)
        (tmp_path / "tests" / tier / f"test_{tier}.py").write_text(
            "def test_it(request):\n    assert request.node.get_closest_marker(request.path.parent.name)\n"
        )
    (tmp_path / "tests/conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for folder in ("setup", "host"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "empty").mkdir()

    def run(*args: str, **env: str) -> tuple[int, str]:
        answer = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **env},
        )
        return answer.returncode, answer.stdout + answer.stderr

    return run


def test_a_tier_that_cannot_run_is_skipped_by_name_and_the_closing_line_counts_it(small_suite: Callable[..., tuple[int, str]]) -> None:
    code, text = small_suite()
    assert code == 0
    assert "engine tier: no pulumi program on PATH" in text
    assert "tier unit: ran, 1 passed\ntier engine: skipped, no pulumi program on PATH\n" in text
    assert re.search(r"=+ 1 passed, 1 skipped in ", text.splitlines()[-1])


def test_a_required_tier_that_cannot_run_fails(small_suite: Callable[..., tuple[int, str]]) -> None:
    code, text = small_suite(RERANKER_REQUIRE_TIERS="unit,engine")
    assert code == 1
    assert "engine tier is required (RERANKER_REQUIRE_TIERS) and cannot run: no pulumi program on PATH" in text


def test_an_unknown_required_tier_is_a_usage_error(small_suite: Callable[..., tuple[int, str]]) -> None:
    code, text = small_suite(RERANKER_REQUIRE_TIERS="engin")
    assert code == 4
    assert "RERANKER_REQUIRE_TIERS=engin: choose from unit,browser,docker,engine,vllm,ragflow" in text


def test_a_tiers_marker_picks_it(small_suite: Callable[..., tuple[int, str]]) -> None:
    code, text = small_suite("-m", "unit")
    assert code == 0
    assert "1 passed, 1 deselected" in text
