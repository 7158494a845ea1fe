"""The published image below the built one: by digest from the first registry that has it, else made from Debian's packages, under one name on the Docker host."""

import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from host import causes, registry
from host.docker import Docker, DockerError
from host.registry import Answer

REPOSITORY = "ragflow-reranker-base"
SUITE = "bookworm"
DEBIAN = "http://deb.debian.org/debian"
PACKAGES = ("python3", "python3-venv", "ca-certificates")
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PULL_SECONDS = 1800
BUILD_SECONDS = 1800
REACH_SECONDS = 15
IMAGES = Path(__file__).resolve().parent.parent / "images"
# Images with apt, as other people's stacks have them (RAGFlow's compose files among them): one of these can make Debian's image on a host that reaches no registry.
WITH_APT = ("debian", "ubuntu", "ragflow", "python", "buildpack-deps", "valkey", "redis")


Say = Callable[[str], object]


class Unavailable(Exception):
    """The image cannot be had; the message says what was tried and every remedy."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """An image that somebody publishes. `key`: where the stack names it; `registries`: asked in turn for what Docker Hub has, where it is pinned by digest.

    `from_packages`: it may be made of Debian's packages instead, with `packages` in it, from `debian_mirror` (empty: this machine's own, or Debian's).
    """

    reference: str
    key: str = "baseImage"
    registries: tuple[str, ...] = ()
    from_packages: bool = False
    packages: tuple[str, ...] = PACKAGES
    debian_mirror: str = ""
    build_network: str = "default"
    proxies: Mapping[str, str] = field(default_factory=dict)

    @property
    def candidates(self) -> list[str]:
        """Its names, in the order in which they are tried."""
        at, path, digest = registry.split(self.reference)
        if at != registry.HUB or not digest or not self.registries:
            return [self.reference]
        # With a digest the tag says nothing more, and a mirror may not have it.
        return [f"{one.rstrip('/')}/{path.partition(':')[0]}@{digest}" for one in self.registries]

    @property
    def local(self) -> str:
        """Its name on the Docker host, and in the state: the same whichever registry answered, and whatever the list of them is."""
        at, _, digest = registry.split(self.reference)
        return f"{REPOSITORY}:{digest.removeprefix('sha256:')[:12]}" if at == registry.HUB and digest else self.reference


@dataclass(frozen=True)
class Machines:
    """The Docker host and this machine, as far as an image is fetched or made with them; tests hand in another. `surroundings` reach the daemon."""

    surroundings: Mapping[str, str]

    def present(self, name: str) -> bool:
        try:
            Docker(self.surroundings)("image", "inspect", "--format", "{{.Id}}", name)
        except DockerError:
            return False
        return True

    def ask(self, reference: str, platform: str) -> Answer:
        folder = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
        login = registry.logged_in(registry.split(reference)[0], folder)
        return registry.has(reference, platform, registry.over_docker(self.surroundings), login=login)

    def with_apt(self) -> list[str]:
        """Images on the host that a Debian can be made with, RAGFlow's own among them."""
        names = Docker(self.surroundings)("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
        return [
            name for name in names if name.rpartition(":")[0].rpartition("/")[2] in WITH_APT and "alpine" not in name and not name.endswith(":<none>")
        ]

    def lacking(self) -> str:
        """Why debootstrap does not run on this machine; empty where it does."""
        if not shutil.which("debootstrap"):
            return "it is not installed (Debian, Ubuntu: apt-get install debootstrap fakeroot debian-archive-keyring)"
        if not KEYRING.is_file():
            return f"{KEYRING} is not there, and unsigned packages are not taken (apt-get install debian-archive-keyring)"
        if os.geteuid() != 0 and not shutil.which("fakeroot"):
            return "without root it needs fakeroot (apt-get install fakeroot)"
        return ""

    def reaches(self, mirror: str, proxies: Mapping[str, str]) -> str:
        """Why this machine does not reach the mirror; empty where it does."""
        given = {scheme: proxies[name] for scheme in ("http", "https") if (name := f"{scheme.upper()}_PROXY") in proxies}
        opener = urllib.request.build_opener(*([urllib.request.ProxyHandler(given)] if given else []))
        try:
            opener.open(urllib.request.Request(f"{mirror.rstrip('/')}/dists/{SUITE}/InRelease", method="HEAD"), timeout=REACH_SECONDS).close()
        except urllib.error.HTTPError as error:
            return f"{mirror} answered {error.code}"
        except (OSError, ValueError) as error:
            return f"{mirror}: {getattr(error, 'reason', error)}"
        return ""

    def run(self, argv: Sequence[str], *, stdin: str = "", **environment: str) -> tuple[int, str]:
        """Exit status and all it printed."""
        try:
            done = subprocess.run(
                argv, input=stdin, text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=BUILD_SECONDS, check=False,
                env={**os.environ, **self.surroundings, **environment},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 124, f"no end within {BUILD_SECONDS} s"
        except OSError as error:
            return 127, str(error)
        return done.returncode, done.stdout

    def docker(self, *argv: str) -> None:
        Docker(self.surroundings, timeout=PULL_SECONDS)(*argv)


def ensure(image: Published, at: Machines, *, platform: str, dry: bool, say: Say = print, warn: Say = print) -> None:
    """Have the image on the Docker host, which is `platform`, under its local name. `dry`: only find out that it can be had, and change nothing.

    `warn` is told where it is not the file that is pinned. Raises Unavailable.
    """
    if at.present(image.local):
        return
    tried: list[str] = []
    for name in image.candidates:
        if at.present(name):
            if not dry:
                _tag(at, name, image.local)
            return
    with ThreadPoolExecutor(max_workers=8) as pool:
        answers = list(pool.map(lambda name: at.ask(name, platform), image.candidates))
    for name, answer in zip(image.candidates, answers, strict=True):
        failure = answer.why if answer.has == "no" else ("" if dry else _pulled(at, name, image.local))
        if not failure:
            refused = f", after {'; '.join(tried)}" if tried else ""
            say(f"{image.key}: {'would be pulled from' if dry else 'pulled from'} {_registry(name)}{refused}")
            return
        tried.append(f"{_registry(name)}: {failure}")
    if not image.from_packages:
        raise Unavailable(_message(image, tried))
    ways: list[tuple[str, Callable[[], str]]] = [(f"Debian made inside {name}", partial(_at_hand, image, at, name)) for name in at.with_apt()[:2]]
    if not ways:
        tried.append("an image on the Docker host to make a Debian with: none there (debian, ubuntu, RAGFlow's own)")
    mirror = image.debian_mirror or own_mirror()
    lacking = at.lacking() or at.reaches(mirror, image.proxies)
    if lacking:
        tried.append(f"debootstrap on this machine: {lacking}")
    else:
        ways.append(("debootstrap on this machine, finished on the Docker host", partial(_unpacked, image, at, mirror, platform)))
    for what, way in ways:
        if not dry:
            say(f"{image.key}: {what}; a minute or two")
        failure = "" if dry else way()
        if not failure:
            warn(
                f"{image.key}: no registry has it ({'; '.join(tried)}); {'would be' if dry else 'was'} made from Debian's packages ({SUITE}): {what}. "
                "They are signed by Debian, but not pinned; imageFromPackages: false refuses this"
            )
            return
        tried.append(f"{what}: {failure}")
    raise Unavailable(_message(image, tried))


def own_mirror(root: Path = Path("/etc/apt")) -> str:
    """The mirror that this machine's own apt uses, where it is a Debian; else Debian's."""
    sources = [root / "sources.list", *sorted((root / "sources.list.d").glob("debian.sources"))]
    words = [word for path in sources if path.is_file() for word in path.read_text(encoding="utf-8").split()]
    return next((word for word in words if word.startswith("http") and word.rstrip("/").endswith("/debian")), DEBIAN)


def _registry(name: str) -> str:
    """Registry and folder of a candidate, as imageRegistries has it."""
    return registry.split(name)[0] if "@" not in name else name.partition("@")[0]


def _tag(at: Machines, name: str, local: str) -> None:
    if name != local:
        at.docker("tag", name, local)


def _pulled(at: Machines, name: str, local: str) -> str:
    """Why it could not be pulled, or ''."""
    try:
        at.docker("pull", "--quiet", name)
        _tag(at, name, local)
    except DockerError as error:
        return str(error)
    return ""


def _at_hand(image: Published, at: Machines, maker: str) -> str:
    """Why a build on the Docker host, inside an image that it has, made no Debian; or ''."""
    given = {"MAKER": maker, "SUITE": SUITE, "INCLUDE": ",".join(image.packages), "MIRROR": image.debian_mirror or DEBIAN, **image.proxies}
    arguments = [item for key, value in given.items() for item in ("--build-arg", f"{key}={value}")]
    recipe = (IMAGES / "Dockerfile.debian").read_text(encoding="utf-8")
    return _failure(at.run(["docker", "build", "--tag", image.local, "--network", image.build_network, *arguments, "-"], stdin=recipe))


def _unpacked(image: Published, at: Machines, mirror: str, platform: str) -> str:
    """Why debootstrap's first half here (no root needed, no foreign code run), and its second on the Docker host, made no Debian; or ''."""
    unpacked = f"{image.local}-unpacked"
    recipe = (IMAGES / "Dockerfile.debian-unpacked").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="reranker-base-") as folder:
        # One shell: what fakeroot says of owners ends with it. In a container debootstrap makes /proc a link, over which none can be mounted.
        script = (
            'debootstrap --foreign --force-check-gpg --arch="$2" --variant=minbase --include="$3" "$4" "$1/root" "$5" && '
            '{ [ ! -L "$1/root/proc" ] || rm "$1/root/proc"; } && mkdir -p "$1/root/proc" && tar -C "$1/root" --numeric-owner -cf "$1/root.tar" .'
        )
        architecture = platform.rpartition("/")[2]
        prefix = [] if os.geteuid() == 0 else ["fakeroot"]
        made = at.run([*prefix, "/bin/sh", "-c", script, "sh", folder, architecture, ",".join(image.packages), SUITE, mirror], **image.proxies)
        if made[0]:
            return _failure(made)
        imported = at.run(["docker", "import", f"{folder}/root.tar", unpacked])
    failure = _failure(imported) or _failure(
        at.run(["docker", "build", "--tag", image.local, "--build-arg", f"UNPACKED={unpacked}", "-"], stdin=recipe)
    )
    at.run(["docker", "image", "rm", unpacked])
    return failure


def _failure(ended: tuple[int, str]) -> str:
    code, text = ended
    if not code:
        return ""
    name, line = causes.named(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{causes.CAUSES[name].says}: {line}" if name else (lines[-1] if lines else f"exit {code}")


def _message(image: Published, tried: Sequence[str]) -> str:
    mirrored = image.registries and registry.split(image.reference)[0] == registry.HUB
    remedies = [
        *(
            ["imageRegistries: a registry that the Docker host reaches and that has Docker Hub's images, such as your company's proxy of it"]
            if mirrored
            else []
        ),
        *(
            [f"{image.key}: pin it by digest (name:tag@sha256:...), and imageRegistries are asked for it too"]
            if mirrored and "@" not in image.reference
            else []
        ),
        "a proxy for the Docker daemon itself (httpsProxy is for builds and downloads): /etc/docker/daemon.json or systemd, see Docker's manual",
        *(["imageFromPackages: true, and it is made from Debian's packages"] if image.key == "baseImage" and not image.from_packages else []),
        *(
            ["install debootstrap, fakeroot and debian-archive-keyring here, or bring any debian or ubuntu image onto the Docker host"]
            if image.from_packages
            else []
        ),
        *(["debianMirror: a mirror of Debian's packages that this network has"] if image.from_packages else []),
        f"{image.key}: another image, such as one that the Docker host has already (docker image ls)",
        f"bring it along: docker save elsewhere, docker load there, then docker tag IMAGE {image.local}",
    ]
    lines = [
        f"{image.key}: {image.reference} cannot be had on this Docker host. Tried:",
        *(f"  - {one}" for one in tried),
        "Ways around it, then run this again:",
    ]
    return "\n".join([*lines, *(f"  - {one}" for one in remedies)])
