"""The Pulumi program and its resource plugins: found, or installed, or every way around it said at once."""

import json
import platform
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from host.causes import told
from setup import venv
from setup.edge import Edge, Refusal, Result

PLUGINS = ("docker", "command")
# pulumi-docker 5.2 asks for an SDK of this age, and so for an engine of it
OLDEST = (3, 231, 0)
ASK_LIMIT_S = 60
INSTALL_LIMIT_S = 300

# PulumiCommand.install drops the installer's words: they are the only reason a person gets
INSTALL = """
import subprocess, sys
from pulumi.automation import PulumiCommand
try:
    PulumiCommand.install(root=sys.argv[1])
except subprocess.CalledProcessError as failure:
    sys.exit(failure.output.decode(errors="replace")[-2000:])
"""


@dataclass(frozen=True)
class Try:
    """One way that was tried and why it did not serve."""

    what: str
    failure: str

    def __str__(self) -> str:
        return f"  - {self.what}: {self.failure}"


def fault(edge: Edge, program: str | Path) -> str:
    """Why this pulumi does not serve, in a few words; empty where it does."""
    answer = edge.run([str(program), "version"], ASK_LIMIT_S)
    if answer.code:
        return f"`pulumi version` failed: {answer.tail()}"
    version = re.match(r"v?(\d+)\.(\d+)\.(\d+)", answer.out.strip())
    if not version:
        return f"`pulumi version` says {answer.out.strip()!r}, which is no version"
    if tuple(map(int, version.groups())) < OLDEST:
        return f"it is {version.group()}, older than {'.'.join(map(str, OLDEST))}, the oldest that serves"
    beside = Path(program).resolve().parent / "pulumi-language-python"
    if not beside.exists() and not edge.which(beside.name):
        return "pulumi-language-python is neither beside it nor on PATH"
    return ""


def missing_plugins(edge: Edge, program: str | Path) -> list[tuple[str, str]]:
    """(name, version) of the resource plugins that are neither on PATH nor in Pulumi's plugin folder; versions are the lock's."""
    pinned = venv.pins(edge.root)
    wanted = [(name, pinned[f"pulumi-{name}"]) for name in PLUGINS if not edge.which(f"pulumi-resource-{name}")]
    if not wanted:
        return []
    answer = edge.run([str(program), "plugin", "ls", "--json"], ASK_LIMIT_S)
    try:
        listed = {(row["name"], row["version"].removeprefix("v")) for row in json.loads(answer.out) if row["kind"] == "resource"}
    except (ValueError, KeyError, TypeError):
        listed = set()
    return [row for row in wanted if row not in listed]


def ensure(edge: Edge, python: Path) -> str:
    """Path of a pulumi that serves, its plugins in place and its folder on the children's PATH.

    Looks on PATH, then in Pulumi's own folders, then installs: from PULUMI_ARCHIVE where that is set, else by Pulumi's Automation API, run with
    `python` of .venv. Refusal lists all that was tried and every way around it.
    """
    edge.env.setdefault("PULUMI_SKIP_UPDATE_CHECK", "true")
    program = _ensure_program(edge, python)
    _ensure_plugins(edge, program)
    return program


def _ensure_program(edge: Edge, python: Path) -> str:
    version = venv.pins(edge.root)["pulumi"]
    home = Path(edge.env.get("PULUMI_HOME") or edge.home / ".pulumi")
    target = home / "versions" / version
    tried: list[Try] = []

    on_path = edge.which("pulumi")
    why = fault(edge, on_path) if on_path else "no pulumi there"
    if on_path and not why:
        return on_path
    tried.append(Try(f"PATH ({on_path})" if on_path else "PATH", why))

    for place in dict.fromkeys([home / "bin", target / "bin", *sorted((home / "versions").glob("*/bin"), reverse=True)]):
        why = fault(edge, place / "pulumi") if (place / "pulumi").exists() else "not there"
        if not why:
            return _use(edge, place)
        tried.append(Try(str(place / "pulumi"), why))

    archive = edge.env.get("PULUMI_ARCHIVE", "")
    if not archive:
        tried.append(Try("PULUMI_ARCHIVE", "not set"))
    else:
        edge.say(f"Installing pulumi from {archive} …")
        try:
            _unpack(edge, archive, target / "bin")
            why = fault(edge, target / "bin" / "pulumi")
        except (OSError, tarfile.TarError, EOFError) as failure:
            why = " ".join(str(failure).split())
        if not why:
            return _use(edge, target / "bin")
        tried.append(Try(f"PULUMI_ARCHIVE={archive}", why))

    edge.say(f"Installing pulumi {version} into {target} …")
    answer = edge.run([str(python), "-c", INSTALL, str(target)], INSTALL_LIMIT_S)
    why = answer.tail() if answer.code else fault(edge, target / "bin" / "pulumi")
    if not why:
        return _use(edge, target / "bin")
    tried.append(Try("download by Pulumi's Automation API", why))
    name = f"pulumi-v{version}-{platform.system().lower()}-{_machine('x64')}.tar.gz"
    raise Refusal(
        "there is no Pulumi program that serves, and none could be installed. Tried:\n" + "\n".join(map(str, tried)) + f"\n{told(why)}"
        "Ways around it, then run this again:\n"
        "  - PATH: put pulumi and pulumi-language-python on it, from a package manager or https://www.pulumi.com/docs/install/\n"
        f"  - a local archive: PULUMI_ARCHIVE=/path/{name}, the release's archive, fetched elsewhere\n"
        f"  - a mirror's address: PULUMI_ARCHIVE=https://mirror/path/{name}\n"
        "  - a proxy: HTTPS_PROXY=http://proxy:port, with SSL_CERT_FILE=/path/ca.pem where it has its own CA"
    )


def _ensure_plugins(edge: Edge, program: str) -> None:
    server = edge.env.get("PULUMI_PLUGIN_SERVER", "")
    tried: list[Try] = []
    lost: list[tuple[str, str]] = []
    for name, version in missing_plugins(edge, program):
        edge.say(f"Installing Pulumi's plugin {name} {version} …")
        argv = [program, "plugin", "install", "resource", name, version, *(["--server", server] if server else [])]
        answer = edge.run(argv, INSTALL_LIMIT_S)
        if answer.code:
            lost.append((name, version))
            tried += [
                Try(f"PATH (pulumi-resource-{name})", "not there"),
                Try("pulumi plugin ls", f"no {name} {version}"),
                Try("pulumi " + " ".join(argv[1:]), _cause(answer)),
            ]
    if not tried:
        return
    files = {name: f"pulumi-resource-{name}-v{version}-{platform.system().lower()}-{_machine('amd64')}.tar.gz" for name, version in lost}
    raise Refusal(
        f"Pulumi's resource plugin {' and '.join(f'{name} {version}' for name, version in lost)} could not be installed. Tried:\n"
        + "\n".join(map(str, tried))
        + f"\n{told(chr(10).join(one.failure for one in tried))}"
        "Ways around it, then run this again:\n"
        f"  - PATH: put {' and '.join(f'pulumi-resource-{name}' for name, _ in lost)} on it\n"
        "  - a local archive, fetched elsewhere:\n"
        + "".join(f"      {program} plugin install resource {name} {version} --file /path/{files[name]}\n" for name, version in lost)
        + "  - a mirror's address: PULUMI_PLUGIN_SERVER=https://mirror/path, a folder with "
        + " and ".join(files.values())
        + "\n"
        "  - a proxy: HTTPS_PROXY=http://proxy:port, with SSL_CERT_FILE=/path/ca.pem where it has its own CA"
    )


def _cause(answer: Result) -> str:
    """Why a plugin could not be downloaded: pulumi's last line only counts its attempts."""
    return next((line for line in reversed(answer.err.splitlines()) if "rror downloading plugin" in line), answer.tail())


def _use(edge: Edge, folder: Path) -> str:
    edge.export("PATH", f"{folder}:{edge.env.get('PATH', '')}", f'export PATH="{folder}:$PATH"')
    return str(folder / "pulumi")


def _machine(x86: str) -> str:
    return "arm64" if platform.machine().lower() in ("aarch64", "arm64") else x86


def _unpack(edge: Edge, archive: str, target: Path) -> None:
    """Puts the programs of a release archive (a path or an address) into `target`, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        path = Path(archive).expanduser()
        if archive.startswith(("https://", "http://")):
            path = Path(scratch) / "archive.tar.gz"
            edge.fetch(archive, path, ASK_LIMIT_S)
        programs = Path(scratch) / "bin"
        programs.mkdir()
        with tarfile.open(path) as tar:
            files = [member for member in tar if member.isfile()]
            homes = [Path(member.name).parent for member in files if Path(member.name).name == "pulumi"]
            if not homes:
                raise OSError("it holds no file named pulumi")
            for member in files:
                source = tar.extractfile(member)
                if source and Path(member.name).parent == homes[0]:
                    program = programs / Path(member.name).name
                    with program.open("wb") as out:
                        shutil.copyfileobj(source, out)
                    program.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        programs.rename(target)
