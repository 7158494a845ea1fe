"""make bundle: all that a stack needs on a machine without a network, in one file (docs/bundle.md)."""

import hashlib
import json
import os
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host import bundled
from setup import pulumi, stack, venv
from setup.bundle_file import Watch, Writer
from setup.daemon import Daemon
from setup.edge import GIB, PIECE, Edge, Refusal

PLATFORMS = ("linux/amd64", "linux/arm64")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
GLIBCS = ("manylinux_2_17", "manylinux2014", "manylinux_2_28", "manylinux_2_34")
WHEEL_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
ELF_MACHINES = {0x3E: "linux/amd64", 0xB7: "linux/arm64"}
PROGRAMS = "https://get.pulumi.com/releases/sdk"
PLUGINS = "https://get.pulumi.com/releases/plugins"
# What of a Pulumi installation runs a Python program.
NEEDED = ("pulumi", "pulumi-language-python", "pulumi-language-python-exec", "pulumi-resource-pulumi-python")
REFERENCE = "ragflow-reranker-bundle"
ASK_LIMIT_S = 60
FETCH_LIMIT_S = 60
PIP_LIMIT_S = 1800
SAVE_LIMIT_S = 4 * 3600
SHOWN_EVERY_S = 5

# Run by the image's own python3 in a container without a network. Sorted and without owners and times: the same model gives the same bytes.
MODEL_TAR = """
import os, sys, tarfile
def plain(item):
    item.uid = item.gid = item.mtime = 0
    item.uname = item.gname = ""
    return None if os.path.basename(item.name).startswith(".incomplete") else item
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as tar:
    for name in sorted(os.listdir("/srv/model")):
        tar.add("/srv/model/" + name, "model/" + name, filter=plain)
"""
MODEL_SIZE = "import os; print(sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk('/srv/model') for name in names))"


@dataclass(frozen=True)
class Making:
    """One run of make bundle. `program` is pulumi, `python` that of .venv; `platform` is the target's, as in 'linux/amd64'; `work` is kept until it is done."""

    edge: Edge
    program: str
    python: Path
    stack: str
    settings: Mapping[str, str]
    platform: str
    docker: Sequence[str]
    work: Path

    @property
    def machine(self) -> str:
        return self.platform.split("/")[1]


def platform_of(edge: Edge, found: Daemon) -> str:
    """The platform to make a bundle for: PLATFORM, or this machine's Docker's. Raises Refusal where it cannot be made here."""
    architecture = str(found.info.get("Architecture", ""))
    here = f"{found.info.get('OSType', 'linux')}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(architecture, architecture) }".replace(" ", "")
    wanted = edge.env.get("PLATFORM") or here
    if wanted not in PLATFORMS:
        raise Refusal(f"PLATFORM={wanted}: a bundle is made for {' or '.join(PLATFORMS)}; set PLATFORM to one of them")
    if wanted != here:
        raise Refusal(
            f"PLATFORM={wanted}: Docker on this machine is {here}, and an image is built by a Docker of its own platform; "
            f"run make bundle on a {wanted} machine, or leave PLATFORM away"
        )
    return wanted


def make(m: Making) -> Path:
    """Writes the bundle and returns its path. What was fetched and built stays until it stands, so that the next try goes on from there."""
    edge, commit = m.edge, _commit(m.edge)
    target = _target(m, commit)
    m.work.mkdir(parents=True, exist_ok=True)
    pythons = _wheels(m, m.work / "wheels")
    versions = _programs(m, m.work / "pulumi")
    made = _packed(m)
    image, volume = str(made["image"]), str(made["volume"])
    pins = {
        "requirements.lock": hashlib.sha256((edge.root / venv.RUNTIME_LOCK).read_bytes()).hexdigest(),
        "image": bundled.pins(m.settings, edge.root),
        "model": {key: m.settings[key] for key in ("model", "modelRevision")} if volume else {},
    }
    reference = f"{REFERENCE}:{hashlib.sha256(json.dumps(pins['image'], sort_keys=True).encode()).hexdigest()[:12]}"
    _docker(m, "tag", image, reference)
    size = int(_docker(m, "image", "inspect", "--format", "{{.Size}}", reference))
    model_size = int(_docker(m, *_inside(image, volume), MODEL_SIZE)) if volume else 0
    small = sum(path.stat().st_size for folder in ("wheels", "pulumi") for path in (m.work / folder).iterdir())
    _need_room(edge, target, size + model_size + small)

    part = target.with_name(target.name + ".part")
    writer = Writer(part, watch=watch(edge, "writing"))
    try:
        for folder in ("pulumi", "wheels"):
            for path in sorted((m.work / folder).iterdir()):
                writer.file(f"{folder}/{path.name}", path)
        if volume:
            writer.part("model.tar", lambda take: _run(m, [*m.docker, *_inside(image, volume), MODEL_TAR], take))
        edge.say(f"Saving the image, {size / GIB:.1f} GiB: Docker lays it out before the first byte comes …")
        writer.part("image.tar", lambda take: _run(m, [*m.docker, "save", reference], take))
        seal = writer.finish(
            {
                "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "commit": commit,
                "stack": m.stack,
                "platform": m.platform,
                "pythons": pythons,
                "pulumi": versions,
                "image": {"reference": reference, "size": size},
                "pins": pins,
            }
        )
        os.replace(part, target)
    except OSError as failure:
        raise Refusal(f"{part} could not be written ({failure.strerror}); free space there, or set BUNDLE to a file elsewhere") from None
    finally:
        writer.close()
        part.unlink(missing_ok=True)
    # Only what this run made. What fails here stays on disk and does no harm.
    for argv in (["image", "rm", reference, image], *([["volume", "rm", volume]] if volume else [])):
        edge.run([*m.docker, *argv], ASK_LIMIT_S)
    shutil.rmtree(m.work, ignore_errors=True)
    edge.say(f"\n{target}\n  {target.stat().st_size / GIB:.2f} GiB, {m.platform}, Python {pythons[0]} to {pythons[-1]}, seal {seal[:16]}")
    edge.say(
        f"Take it to the machine without a network, into a clone at commit {commit[:10] or '(unknown)'}, and there:\n"
        f"  make up{'' if m.stack == stack.DEFAULT else f' STACK={m.stack}'} BUNDLE={target.name}"
    )
    return target


def watch(edge: Edge, what: str) -> Watch:
    """Says how far a large part is, every few seconds."""
    last = edge.now()

    def told(name: str, done: int, size: int) -> None:
        nonlocal last
        if edge.now() - last >= SHOWN_EVERY_S:
            last = edge.now()
            edge.say(f"  {what} {name}: {done >> 20} {f'of {size >> 20} ' if size else ''}MiB")

    return told


# -- the parts ----------------------------------------------------------------------------------------------------------


def _wheels(m: Making, folder: Path) -> list[str]:
    """Fills `folder` with what requirements.lock pins, for each Python that all of it is there for; returns those."""
    tags = [f"{glibc}_{WHEEL_MACHINES[m.machine]}" for glibc in GLIBCS]
    served, last = [], ""
    for version in m.edge.env.get("PYTHONS", "").replace(",", " ").split() or PYTHONS:
        m.edge.say(f"Wheels for Python {version} …")
        argv = [
            str(m.python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--only-binary=:all:",
            *(item for tag in tags for item in ("--platform", tag)), "--implementation", "cp", "--python-version", version,
            "--dest", str(folder), "-r", venv.RUNTIME_LOCK,
        ]  # fmt: skip
        answer = m.edge.run(argv, PIP_LIMIT_S)
        if answer.code:
            last = answer.tail(3)
            m.edge.say(f"  not for Python {version}: {answer.tail()}")
        else:
            served.append(version)
    if not served:
        raise Refusal(
            f"pip could not download the wheels of {venv.RUNTIME_LOCK} for {m.platform}:\n{last}\n"
            "set HTTPS_PROXY (and PIP_CERT) where there is a proxy, or PIP_INDEX_URL to a mirror, then run this again"
        )
    return served


def _programs(m: Making, folder: Path) -> dict[str, str]:
    """Fills `folder` with the archives of pulumi and its plugins for the target; returns their versions."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {}
    here = Path(m.program).resolve()
    if elf_platform(here) == m.platform:
        version = m.edge.run([m.program, "version"], ASK_LIMIT_S).out.strip().removeprefix("v")
        m.edge.say(f"Pulumi {version}: as it is installed here, {here.parent}")
        beside = [path for name in NEEDED if (path := _installed(m.edge, here.parent, name))]
        _archive(folder / _program_file(m, version), beside, "pulumi/")
    else:
        version = venv.pins(m.edge.root)["pulumi"]
        given = m.edge.env.get("PULUMI_ARCHIVE", "")
        archive = folder / _program_file(m, version)
        _fetch(m, given or f"{PROGRAMS}/{archive.name}", archive, "pulumi", (f"pulumi-{version}-checksums.txt", "SHA256SUMS"), "PULUMI_ARCHIVE")
    versions["pulumi"] = version
    for name in pulumi.PLUGINS:
        version = versions[name] = venv.pins(m.edge.root)[f"pulumi-{name}"]
        binary, archive = f"pulumi-resource-{name}", folder / pulumi.plugin_file(name, version, "linux", m.machine)
        installed = _plugin(m, name, version)
        if installed:
            m.edge.say(f"Plugin {name} {version}: as it is installed here, {installed}")
            _archive(archive, [installed], "")
            continue
        server, local = m.edge.env.get("PULUMI_PLUGIN_SERVER") or PLUGINS, Path(m.edge.env.get("PULUMI_PLUGIN_FOLDER") or "/nowhere", archive.name)
        source = str(local) if local.is_file() else f"{server.rstrip('/')}/{archive.name}"
        _fetch(m, source, archive, binary, (f"pulumi-{name}_{version}_checksums.txt", "SHA256SUMS"), "PULUMI_PLUGIN_FOLDER or PULUMI_PLUGIN_SERVER")
    return versions


def _program_file(m: Making, version: str) -> str:
    return pulumi.program_file(version, "linux", "x64" if m.machine == "amd64" else m.machine)


def _installed(edge: Edge, folder: Path, name: str) -> Path | None:
    """The program beside pulumi, else on PATH."""
    found = folder / name if (folder / name).is_file() else edge.which(name)
    return Path(found) if found else None


def _plugin(m: Making, name: str, version: str) -> Path | None:
    """The plugin's program where this machine has it in that very version and for the target's platform."""
    home = Path(m.edge.env.get("PULUMI_HOME") or m.edge.home / ".pulumi")
    kept = home / "plugins" / f"resource-{name}-v{version}" / f"pulumi-resource-{name}"
    if elf_platform(kept) == m.platform:
        return kept
    on_path = m.edge.which(f"pulumi-resource-{name}")
    if not on_path or elf_platform(Path(on_path)) != m.platform:
        return None
    try:
        found = json.loads(m.edge.run([m.program, "package", "get-schema", on_path], ASK_LIMIT_S).out).get("version")
    except (ValueError, AttributeError):
        found = None
    return Path(on_path) if found == version else None


def elf_platform(path: Path) -> str:
    """The platform that a program is for, 'linux/amd64' or 'linux/arm64'; '' where it is none of these."""
    try:
        with path.open("rb") as file:
            return _elf(file.read(20))
    except OSError:
        return ""


def _elf(head: bytes) -> str:
    return ELF_MACHINES.get(int.from_bytes(head[18:20], "little"), "") if head[:4] == b"\x7fELF" else ""


def _archive(target: Path, files: Sequence[Path], folder: str) -> None:
    """A release archive, as Pulumi's own have it: the program's files in `folder`."""
    with tarfile.open(target, "w:gz", compresslevel=1) as tar:
        for path in files:
            info = tarfile.TarInfo(folder + path.name)
            info.size, info.mode = path.stat().st_size, 0o755
            with path.open("rb") as file:
                tar.addfile(info, file)


def _fetch(m: Making, source: str, target: Path, binary: str, sums: Sequence[str], variables: str) -> None:
    """Gets a release archive from a path or an address, and refuses what is cut off, for another platform, or not what a list of checksums beside it says."""
    m.edge.say(f"{target.name}: from {source}")
    stated = ""
    try:
        if source.startswith(("https://", "http://")):
            m.edge.fetch(source, target, FETCH_LIMIT_S)
            stated = _stated(m, source, sums)
        else:
            shutil.copyfile(Path(source).expanduser(), target)
        found = _platform_in(target, binary)
    except (OSError, tarfile.TarError, EOFError) as failure:
        target.unlink(missing_ok=True)
        raise Refusal(
            f"{source} could not be had whole ({' '.join(str(failure).split())}); set {variables} to what this machine reaches, "
            "HTTPS_PROXY (and SSL_CERT_FILE) where there is a proxy, then run this again"
        ) from None
    digest = _sha256(target)
    if found != m.platform or (stated and digest != stated):
        target.unlink()
        why = f"its SHA-256 is {digest}, and the list beside it says {stated}" if found == m.platform else f"it holds no {binary} for {m.platform}"
        raise Refusal(f"{source}: {why}; set {variables} to the release's own archive {target.name}")
    m.edge.say("  its checksum is the one that is stated beside it" if stated else "  whole; no checksum is stated beside it")


def _stated(m: Making, source: str, sums: Sequence[str]) -> str:
    """The SHA-256 that a list of checksums in the same folder states of the archive, or ''."""
    base, name = source.rsplit("/", 1)
    listed = m.work / "checksums"
    for one in sums:
        try:
            m.edge.fetch(f"{base}/{one}", listed, FETCH_LIMIT_S)
            rows = [line.split() for line in listed.read_text(errors="replace").splitlines()]
        except OSError:
            continue
        for row in rows:
            if len(row) == 2 and row[1].lstrip("*") == name and len(row[0]) == 64:
                return row[0].lower()
    return ""


def _platform_in(archive: Path, binary: str) -> str:
    """The platform of a program in an archive, which is read to its end."""
    found = ""
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isfile() and Path(member.name).name == binary and (file := tar.extractfile(member)):
                found = _elf(file.read(20))
    return found


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _packed(m: Making) -> dict[str, Any]:
    """Image and model as the program makes them, on this machine's Docker: {"image": its name, "volume": the model's or ''}."""
    backend = m.work / "backend"
    backend.mkdir(exist_ok=True)
    settings = {"PULUMI_BACKEND_URL": f"file://{backend}", bundled.PACK: "1"}
    pulumi_ = ["env", *(f"{name}={value}" for name, value in settings.items()), m.program]
    asked = ["--stack", m.stack, "--non-interactive"]
    m.edge.say("Image and model, made on this machine's Docker:")
    chosen = m.edge.run([*pulumi_, "stack", "select", "--create", *asked], ASK_LIMIT_S)
    if chosen.code:
        raise Refusal(f"pulumi could not open a state of its own in {backend}: {chosen.tail(5)}; remove that folder and run this again")
    # A killed run leaves its lock, and nobody else uses this state.
    m.edge.run([*pulumi_, "cancel", "--yes", *asked], ASK_LIMIT_S)
    if m.edge.show([*pulumi_, "up", "--yes", "--skip-preview", "--refresh", "--stack", m.stack], stack.WORK_LIMIT_S):
        raise Refusal("image and model could not be made, see above; what was fetched so far is kept: mend it and run make bundle again")
    answer = m.edge.run([*pulumi_, "stack", "output", "--json", *asked], ASK_LIMIT_S)
    try:
        made = json.loads(answer.out)
        return {"image": made["image"], "volume": made["volume"]}
    except (ValueError, KeyError, TypeError):
        raise Refusal(f"pulumi does not say what it made: {answer.tail(5)}; remove {m.work} and run make bundle again") from None


# -- docker, files ------------------------------------------------------------------------------------------------------


def _inside(image: str, volume: str) -> list[str]:
    """docker's argv for a script in the image's python3, the model under /srv/model, nothing else: no network, nothing to write to."""
    return [
        "run", "--rm", "--network", "none", "--user", "2000:2000", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
        "--log-driver", "none", "--mount", f"type=volume,source={volume},target=/srv/model,readonly", "--entrypoint", "python3", image, "-c",
    ]  # fmt: skip


def _docker(m: Making, *argv: str) -> str:
    answer = m.edge.run([*m.docker, *argv], ASK_LIMIT_S)
    if answer.code:
        raise Refusal(f"docker {argv[0]} failed: {answer.tail(3)}; run make bundle again")
    return answer.out.strip()


def _run(m: Making, argv: Sequence[str], take: Any) -> None:
    answer = m.edge.stream(argv, SAVE_LIMIT_S, take=take)
    if answer.code:
        raise Refusal(f"{' '.join(argv[:2])} failed: {answer.tail(3)}; free some disk where Docker or the bundle is full, then run make bundle again")


def _need_room(edge: Edge, target: Path, size: int) -> None:
    free = edge.free_gib(str(target.parent))
    if free is not None and size / GIB > free:
        raise Refusal(
            f"the bundle takes about {size / GIB:.1f} GiB and {target.parent} has {free:.1f} GiB free; free some there, or set BUNDLE to a file elsewhere"
        )


def _commit(edge: Edge) -> str:
    """The checkout's commit, or '' where it is no clone."""
    answer = edge.run(["git", "-C", str(edge.root), "rev-parse", "HEAD"], ASK_LIMIT_S)
    return "" if answer.code else answer.out.strip()


def _target(m: Making, commit: str) -> Path:
    """Where the bundle goes: BUNDLE, a file or a folder, else a name that says what it is."""
    name = f"ragflow-reranker-{m.stack}-{m.machine}{f'-{commit[:10]}' if commit else ''}.bundle.tar"
    given = Path(m.edge.env.get("BUNDLE") or name).expanduser()
    target = (m.edge.root / given).resolve()
    target = target / name if target.is_dir() else target
    if not target.parent.is_dir():
        raise Refusal(f"BUNDLE={given}: there is no folder {target.parent}; make it, or choose another")
    if not os.access(target.parent, os.W_OK):
        raise Refusal(f"BUNDLE={given}: {target.parent} cannot be written by you; choose another folder")
    return target
