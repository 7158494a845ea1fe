"""BUNDLE=file of make up, preview, setup and down: what a bundle holds, checked and put where the stack looks for it (docs/bundle.md)."""

import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from host import bundled
from setup import bundle_file, venv
from setup.bundle_file import BundleFile
from setup.bundle_make import watch
from setup.daemon import Daemon
from setup.edge import GIB, Edge, Refusal
from setup.stack import chosen

ASK_LIMIT_S = 60
LOAD_LIMIT_S = 4 * 3600
# docker load unpacks the tar beside the layers that it makes of it.
ROOM = 2.1


@dataclass
class Brought:
    """A bundle that fits this checkout and this machine. `tag` is what its image is called on the stack's Docker host, once `fit` has said so."""

    edge: Edge
    file: BundleFile
    tag: str = ""

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.file.manifest

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Wheels and Pulumi's archives, verified, where pip and Pulumi's installation find them, for as long as it takes."""
        (self.edge.root / "state").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bundle-", dir=self.edge.root / "state") as scratch:
            variables: dict[str, str] = {}
            if not venv.current(self.edge.root):
                wheels = self._extracted("wheels", Path(scratch))
                variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
            if self.manifest["platform"] == here():
                programs = self._extracted("pulumi", Path(scratch))
                archive = next((str(path) for path in programs.glob("pulumi-v*")), "")
                variables |= {"PULUMI_ARCHIVE": archive, "PULUMI_PLUGIN_FOLDER": str(programs)}
            before = {name: self.edge.env.get(name) for name in variables}
            self.edge.env.update(variables)
            try:
                yield
            finally:
                for name, value in before.items():
                    if value is None:
                        del self.edge.env[name]
                    else:
                        self.edge.env[name] = value

    def _extracted(self, folder: str, scratch: Path) -> Path:
        (scratch / folder).mkdir()
        for part in self.file.under(folder):
            self.file.verify(part)
            self.file.extract(part, scratch / folder / Path(part.name).name)
        return scratch / folder

    def fit(self, settings: Mapping[str, str], found: Daemon) -> None:
        """Refuses a bundle that is not of this stack's image and model, or not for its Docker host; verifies both, and tells pulumi of them."""
        image = bundled.pins(settings, self.edge.root)
        self._same("image", image)
        model = settings["backend"] != "mock" and settings["modelSource"] in ("hub", "modelscope")
        self._same("model", {key: settings[key] for key in ("model", "modelRevision")} if model else {})
        architecture = str(found.info.get("Architecture", ""))
        host = "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}.get(architecture, architecture)
        if host != self.manifest["platform"]:
            raise Refusal(
                f"BUNDLE={self.file.path} is for {self.manifest['platform']}, and the stack's Docker host is {host}; "
                f"run make bundle on a machine with a Docker for {host}"
            )
        for name in ("model.tar", "image.tar"):
            if name in self.file.parts:
                self.file.verify(self.file.parts[name], watch=watch(self.edge, "checking"))
        self.edge.say(f"The bundle is whole: {len(self.file.parts)} parts, all checksums right, seal {self.file.seal[:16]}.")
        self.tag = bundled.tag(settings["containerName"], image, self.file.parts["image.tar"].sha256)
        self.edge.env[bundled.IMAGE] = self.tag
        if model:
            part = self.file.parts["model.tar"]
            value = f"{part.offset} {part.size} {self.file.path}"
            self.edge.export(bundled.MODEL, value, f"export {bundled.MODEL}='{value}'")

    def _same(self, what: str, wanted: Mapping[str, str]) -> None:
        found = self.manifest["pins"][what]
        if wanted and not found:
            raise Refusal(f"BUNDLE={self.file.path} holds no {what}, and this stack needs one; {self._again}")
        if wanted and found != wanted:
            differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
            said = "; ".join(f"{key} is {_short(found.get(key))} in it and {_short(wanted.get(key))} here" for key in differing)
            raise Refusal(f"BUNDLE={self.file.path} is of another {what} than this stack's: {said}; {self._again}")

    @property
    def _again(self) -> str:
        """What makes bundle and checkout fit: the bundle's stack, its commit, or another bundle."""
        ways, commit = [], str(self.manifest.get("commit", ""))
        if self.manifest["stack"] != chosen(self.edge):
            ways.append(f"choose STACK={self.manifest['stack']}, which it was made for")
        if commit:
            ways.append(f"git checkout {commit[:10]} (and the stack file of then)")
        return ", or ".join([*ways, "run make bundle again from this commit and stack"])

    def load(self, found: Daemon) -> None:
        """Puts the image on the stack's Docker host under its tag, unless it is there."""
        docker = found.program
        part, reference = self.file.parts["image.tar"], str(self.manifest["image"]["reference"])
        if self.edge.run([*docker, "image", "inspect", "--format", "{{.Id}}", self.tag], ASK_LIMIT_S).code == 0:
            self.edge.say(f"The bundle's image is on the Docker host already: {self.tag}")
            return
        self._need_room(found)
        self.edge.say(f"Loading the image, {part.size >> 20} MiB, into the Docker host …")
        told = watch(self.edge, "loading")

        def pieces() -> Iterator[bytes]:
            done = 0
            for piece in self.file.pieces(part):
                yield piece
                done += len(piece)
                told(part.name, done, part.size)

        answer = self.edge.stream([*docker, "load", "--quiet"], LOAD_LIMIT_S, feed=pieces())
        if answer.code:
            raise Refusal(f"docker load failed: {answer.tail(3)}; free some disk on the Docker host where that is it, and run this again")
        for argv in (["tag", reference, self.tag], ["image", "rm", reference]):
            answer = self.edge.run([*docker, *argv], ASK_LIMIT_S)
            if answer.code:
                raise Refusal(f"docker {' '.join(argv)} failed after the image was loaded: {answer.tail(3)}; run this again")

    def tidy(self, found: Daemon, container: str) -> None:
        """Takes the tags of the stack's earlier bundles away, once this one serves."""
        docker = found.program
        listed = self.edge.run([*docker, "image", "ls", "--filter", "reference=*:bundle-*", "--format", "{{.Repository}}:{{.Tag}}"], ASK_LIMIT_S)
        for old in bundled.stale(listed.out.split(), container, self.tag):
            self.edge.run([*docker, "image", "rm", old], ASK_LIMIT_S)

    def _need_room(self, found: Daemon) -> None:
        root = str(found.info.get("DockerRootDir", ""))
        free = self.edge.free_gib(root) if found.local else None
        needed = (ROOM * self.file.parts["image.tar"].size + (self.file.parts["model.tar"].size if "model.tar" in self.file.parts else 0)) / GIB
        if free is not None and free < needed:
            raise Refusal(
                f"image and model take {needed:.1f} GiB while they are loaded, and {root} has {free:.1f} GiB free; "
                "free some (docker system df shows what takes it), then run this again: nothing was changed"
            )


def given(edge: Edge) -> Brought | None:
    """The bundle that BUNDLE names, None without. Refuses one that is not whole in form, or not for this checkout or this machine."""
    if not edge.env.get("BUNDLE"):
        return None
    file = bundle_file.read((edge.root / Path(edge.env["BUNDLE"]).expanduser()).resolve())
    brought = Brought(edge, file)
    try:
        _fits(brought)
    except (KeyError, TypeError, AttributeError) as failure:
        raise Refusal(
            f"BUNDLE={file.path}: its manifest lacks what this project writes ({failure!r}); run make bundle again from this commit"
        ) from None
    return brought


def _fits(brought: Brought) -> None:
    edge, manifest, said = brought.edge, brought.manifest, f"BUNDLE={brought.file.path}"
    lock = sha256((edge.root / venv.RUNTIME_LOCK).read_bytes()).hexdigest()
    if manifest["pins"][venv.RUNTIME_LOCK] != lock:
        raise Refusal(f"{said} holds other Python packages than {venv.RUNTIME_LOCK} of this checkout pins; {brought._again}")
    if not venv.current(edge.root):
        if manifest["platform"] != here():
            raise Refusal(
                f"{said} is for {manifest['platform']}, and this machine is {here()}: its Python packages do not run here; "
                f"run make bundle on a {here()} machine, or make setup here where there is a network"
            )
        python = ".".join(platform.python_version_tuple()[:2])
        if python not in manifest["pythons"]:
            raise Refusal(
                f"{said} has packages for Python {', '.join(manifest['pythons'])}, and this is {python}; "
                "name one of those that is installed here: make up PYTHON=/path/to/python3"
            )
    edge.say(f"Bundle of {manifest['made']}: stack {manifest['stack']}, {manifest['platform']}, commit {manifest['commit'][:10] or '(unknown)'}.")
    head = edge.run(["git", "-C", str(edge.root), "rev-parse", "HEAD"], ASK_LIMIT_S)
    if not head.code and manifest["commit"] not in ("", head.out.strip()):
        edge.say(f"  This checkout is at {head.out.strip()[:10]}; what the bundle holds is checked against what that pins.")


def here() -> str:
    """This machine's platform, as 'linux/amd64'."""
    machine = platform.machine().lower()
    return f"{platform.system().lower()}/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(machine, machine) }"


def _short(value: str | None) -> str:
    """A value for a sentence; a checksum's first digits."""
    if value is None:
        return "not there"
    return value[:12] if len(value) == 64 else repr(value)
