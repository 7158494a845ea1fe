"""What a Docker daemon says of itself, and what that means for this project: the one table of verdicts, for the preview, for `make`'s look at the host, for whoever asks.

Pure, and Python's standard library only: facts in, verdicts out.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

GIB = 1 << 30
OLDEST_API = (1, 41)
OLDEST_DOCKER = "20.10"
MIN_DISK_GIB = 20  # image and model of the default stack
FULL_GIB = 1  # with less than this nothing is built at all
CLOCK_SECONDS = 300
WARN_DRIVERS = {
    "vfs": "copies every layer whole: the image takes a multiple of its 7 GB, and its build is slow",
    "devicemapper": "is out of support, and its loopback mode loses data",
    "aufs": "is out of support",
    "overlay": "is out of support and runs out of inodes",
}
MACHINES = ("x86_64", "amd64", "aarch64", "arm64")  # those that vLLM has wheels for
NARROW = re.compile(r"arm(v[5-7]\w*|hf|el)?|i[3-6]86|386|x86|mips(el|le)?|ppc|powerpc")  # 32 bits

Level = Literal["warn", "fail"]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A Docker daemon by its own words. `memory` and `free` in bytes; `free` None: not seen from here. `lacking`: the limits that it cannot keep, of 'cpu', 'memory',
    'swap'. `build`: the architecture that the daemon was built for, which on a 64-bit kernel can be 32-bit. `ahead`: its clock before ours, in seconds.
    """

    cpus: int
    memory: int
    architecture: str
    name: str = ""
    version: str = ""
    api: tuple[int, int] | None = None
    kind: str = "linux"
    system: str = ""
    build: str = ""
    podman: bool = False
    driver: str = ""
    root: str = ""
    free: int | None = None
    read_only: bool = False
    cgroup_driver: str = ""
    security: frozenset[str] = frozenset()
    runtimes: frozenset[str] = frozenset()
    lacking: frozenset[str] = frozenset()
    forwards: bool = True
    ahead: float = 0.0
    warnings: tuple[str, ...] = ()

    @property
    def desktop(self) -> bool:
        """Docker Desktop: the daemon is in a virtual machine, its ports and paths are this machine's by agreement."""
        return "docker desktop" in self.system.lower()

    @property
    def snap(self) -> bool:
        return self.root.startswith("/var/snap/")

    @property
    def rootless(self) -> bool:
        return "rootless" in self.security


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a stack wants of the host, as far as the daemon's facts matter to it. `omit`: a limit that cannot be kept is left out; `wheels`: the image is built from
    vLLM's wheels; `directory`: the model's on the host, '' for none; `deployed`: the container is there already, so that no build and no download are ahead.
    """

    wheels: bool = True
    omit: bool = True
    directory: str = ""
    host_port: int = 0
    model_network: str = "bridge"
    deployed: bool = False


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Something about the host that stands in the way (fail) or that somebody should know (warn), with what to do."""

    subject: str
    level: Level
    text: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.text}; {self.remedy}"


LIMITS = {
    # what docker info calls it, the warning that older daemons give, what is not kept then, which key asks for it
    "memory": (("MemoryLimit",), "no memory limit support", "cannot limit a container's memory (the kernel's memory controller is off)", "memoryGiB"),
    "swap": (("SwapLimit",), "no swap limit support", "cannot keep a container out of swap (the kernel's swap accounting is off)", "memoryGiB"),
    "cpu": (("CpuCfsQuota", "CpuCfsPeriod"), "no cpu cfs", "cannot limit a container's CPUs (the kernel has no CFS quota)", "cpus"),
}
LEFT_OUT = {
    "memory": "the reranker gets no memory limit and can take all that the host has",
    "swap": "memoryGiB holds, but the reranker may be swapped out, and is slow then",
    "cpu": "the reranker is not held to its CPUs; it starts no more threads than that",
}
KERNEL = {
    "memory": "on a Raspberry Pi add 'cgroup_enable=memory cgroup_memory=1' to cmdline.txt in /boot/firmware (or /boot) and restart it",
    "swap": "add 'swapaccount=1' to the kernel's command line (GRUB_CMDLINE_LINUX; cmdline.txt on a Raspberry Pi) and restart the host",
    "cpu": "a kernel with CONFIG_CFS_BANDWIDTH has it (the makers of a NAS often leave it out)",
}


def read(info: Mapping[str, Any], version: Mapping[str, Any], *, now: datetime) -> Facts:
    """`docker info` and `docker version` (their JSON; {} where one was not to be had) as facts. Podman's own form of both is known, other forms are empty facts."""
    if "host" in info and "NCPU" not in info:  # the podman program under docker's name
        host = info["host"]
        return Facts(
            cpus=int(host.get("cpus") or 0),
            memory=int(host.get("memTotal") or 0),
            architecture=str(host.get("arch") or ""),
            version=str((info.get("version") or {}).get("Version") or ""),
            podman=True,
        )
    server = version.get("Server") or {}
    warnings = tuple(str(line) for line in info.get("Warnings") or ())
    runtimes = frozenset(info.get("Runtimes") or ())
    components = " ".join(str(part.get("Name")) for part in server.get("Components") or ())
    return Facts(
        cpus=int(info.get("NCPU") or 0),
        memory=int(info.get("MemTotal") or 0),
        architecture=str(info.get("Architecture") or ""),
        name=str(info.get("Name") or ""),
        version=str(info.get("ServerVersion") or server.get("Version") or ""),
        api=_api(str(server.get("ApiVersion") or "")),
        kind=str(info.get("OSType") or "linux").lower(),
        system=str(info.get("OperatingSystem") or ""),
        build=str(server.get("Arch") or ""),
        podman="podman" in f"{components} {server.get('Platform') or ''} {info.get('OperatingSystem')} {info.get('ServerVersion')}".lower(),
        driver=str(info.get("Driver") or ""),
        root=str(info.get("DockerRootDir") or ""),
        cgroup_driver=str(info.get("CgroupDriver") or ""),
        security=frozenset(_option(text) for text in info.get("SecurityOptions") or ()),
        runtimes=runtimes,
        lacking=frozenset(
            what
            for what, (keys, warning, *_) in LIMITS.items()
            if any(info.get(key) is False for key in keys) or any(warning in line.lower() for line in warnings)
        ),
        forwards=info.get("IPv4Forwarding") is not False,
        ahead=_ahead(str(info.get("SystemTime") or ""), now),
        warnings=warnings,
    )


def verdicts(facts: Facts, use: Use) -> tuple[Verdict, ...]:
    """All that is to be said of this daemon, what stands in the way first."""
    found = [*_engine(facts), *_machine(facts, use), *_limits(facts, use), *_disk(facts, use), *_confinement(facts, use), *_oddities(facts)]
    return tuple(sorted(found, key=lambda verdict: verdict.level != "fail"))


def _engine(f: Facts) -> Iterable[Verdict]:
    if f.podman:
        yield Verdict(
            subject="docker",
            level="fail",
            text=f"Podman answers here in Docker's place ({f.version or 'its version is not known'}), and neither Pulumi's Docker provider nor this project was made for it",
            remedy="install Docker's own engine (Debian, Ubuntu: apt-get install docker.io, without podman-docker), or set dockerHost to a host that has it",
        )
    elif f.kind != "linux":
        yield Verdict(
            subject="docker",
            level="fail",
            text=f"this daemon runs {f.kind} containers, and the reranker's image is for Linux",
            remedy="switch Docker Desktop to Linux containers (its menu: Switch to Linux containers), or set dockerHost to a Linux host",
        )
    elif f.api is not None and f.api < OLDEST_API:
        yield Verdict(
            subject="docker",
            level="fail",
            text=f"this daemon is Docker {f.version or '?'} with API {f.api[0]}.{f.api[1]}, and Docker {OLDEST_DOCKER} (API {OLDEST_API[0]}.{OLDEST_API[1]}) "
            "is the oldest that serves",
            remedy="upgrade Docker there: https://docs.docker.com/engine/install/",
        )


def _machine(f: Facts, use: Use) -> Iterable[Verdict]:
    narrow = next((name for name in (f.build, f.architecture) if NARROW.fullmatch(name.lower())), "")
    if f.podman or f.kind != "linux":
        return
    if narrow:
        beside = f" on a {f.architecture} kernel" if narrow != f.architecture else ""
        yield Verdict(
            subject="architecture",
            level="fail",
            text=f"this Docker host is {narrow}{beside}, a 32-bit system, and vLLM and PyTorch have no build for one",
            remedy="install a 64-bit system there (a Raspberry Pi 3 or newer can: Raspberry Pi OS, 64-bit), or set dockerHost to another machine",
        )
    elif use.wheels and f.architecture and f.architecture.lower() not in MACHINES:
        yield Verdict(
            subject="architecture",
            level="fail",
            text=f"this Docker host is {f.architecture}, and vLLM has wheels for x86_64 and aarch64 alone",
            remedy="set imageStrategy to registry or archive with an image for this architecture, or set dockerHost to another machine",
        )


def _limits(f: Facts, use: Use) -> Iterable[Verdict]:
    if f.podman or f.kind != "linux":
        return
    lacking = f.lacking - ({"swap"} if "memory" in f.lacking else set())  # without the one the other is not asked for
    for what in sorted(lacking, key=list(LIMITS).index):
        _, _, cannot, key = LIMITS[what]
        how = (
            "a rootless daemon can keep limits with cgroup v2 and the controllers delegated to its user: Delegate=cpu cpuset io memory pids in "
            "/etc/systemd/system/user@.service.d/delegate.conf"
            if f.rootless
            else KERNEL[what]
        )
        if use.omit:
            text, remedy = f"this Docker host {cannot}: left out, so {LEFT_OUT[what]}", how
        else:
            text, remedy = f"this Docker host {cannot}", f"{how}; or set missingLimits to omit: then {LEFT_OUT[what]}"
        yield Verdict(subject=key, level="warn" if use.omit else "fail", text=text, remedy=remedy)


def _disk(f: Facts, use: Use) -> Iterable[Verdict]:
    if f.read_only:
        yield Verdict(
            subject="disk",
            level="fail",
            text=f"Docker's folder {f.root} is on a file system that is mounted read-only",
            remedy="mount it for writing (dmesg says why it is not: often a damaged disk), or move Docker's data-root",
        )
    elif f.free is not None and f.free < FULL_GIB * GIB and not use.deployed:
        yield Verdict(
            subject="disk",
            level="fail",
            text=f"Docker's folder {f.root} is full: {f.free / GIB:.1f} GiB free",
            remedy=f"image and model want {MIN_DISK_GIB} GiB: free some (docker image prune, docker builder prune), or move Docker's data-root",
        )
    elif f.free is not None and f.free < MIN_DISK_GIB * GIB and use.wheels and not use.deployed:
        yield Verdict(
            subject="disk",
            level="warn",
            text=f"{f.free / GIB:.0f} GiB free under {f.root}",
            remedy=f"image and model want {MIN_DISK_GIB} GiB: free some with docker system prune, or move Docker's data-root",
        )


def _confinement(f: Facts, use: Use) -> Iterable[Verdict]:
    """What a daemon that is confined itself cannot do for us."""
    folders = use.directory.split("/")
    if f.snap and use.directory and (folders[1:2] not in (["home"], ["media"], ["mnt"]) or any(name.startswith(".") for name in folders)):
        yield Verdict(
            subject="modelPath",
            level="fail",
            text=f"Docker comes from snap on this host, which lets it read below /home alone and no hidden folder, and {use.directory!r} is elsewhere",
            remedy="move the model to a visible folder below /home, or install Docker from the distribution's packages",
        )
    elif f.snap:
        yield Verdict(
            subject="docker",
            level="warn",
            text="Docker comes from snap on this host: it reads neither /tmp nor hidden folders, and its confinement can stop containers that may gain no privileges",
            remedy="if the container stops with 'operation not permitted', install Docker from the distribution's packages (apt-get install docker.io)",
        )
    if f.rootless and 0 < use.host_port < 1024:
        yield Verdict(
            subject="hostPort",
            level="warn",
            text=f"a rootless daemon may not publish {use.host_port}, a port below 1024, unless the host allows it",
            remedy="set hostPort to 1024 or more, or on the host: sysctl net.ipv4.ip_unprivileged_port_start=0",
        )
    if "userns" in f.security and use.model_network == "host":
        yield Verdict(
            subject="modelNetwork",
            level="fail",
            text="'host' is not to be had from this daemon: it maps users (userns-remap), and shares the host's network with no container then",
            remedy="set modelNetwork to bridge",
        )
    if "userns" in f.security and use.directory:
        yield Verdict(
            subject="modelPath",
            level="warn",
            text=f"this daemon maps users (userns-remap): in {use.directory} the container can read only what everybody may",
            remedy=f"on the Docker host: chmod -R a+rX {use.directory}",
        )
    if "selinux" in f.security and use.directory:
        yield Verdict(
            subject="modelPath",
            level="warn",
            text=f"this daemon runs under SELinux, which keeps containers from {use.directory} unless that has their label",
            remedy=f"on the Docker host: chcon -R -t container_file_t {use.directory}",
        )
    if f.desktop and use.directory:
        yield Verdict(
            subject="modelPath",
            level="warn",
            text=f"Docker Desktop shows containers only the folders that it shares, and {use.directory} may not be one",
            remedy="add it under Settings, Resources, File sharing",
        )


def _oddities(f: Facts) -> Iterable[Verdict]:
    if f.driver in WARN_DRIVERS:
        yield Verdict(
            subject="docker",
            level="warn",
            text=f"its storage driver is {f.driver}, which {WARN_DRIVERS[f.driver]}",
            remedy='set "storage-driver": "overlay2" in /etc/docker/daemon.json where the file system can do that (Docker starts empty then)',
        )
    if abs(f.ahead) > CLOCK_SECONDS:
        yield Verdict(
            subject="docker",
            level="warn",
            text=f"its clock is {span(abs(f.ahead))} {'ahead of' if f.ahead > 0 else 'behind'} this machine's, so certificates may not verify there",
            remedy="set the clock that is wrong: timedatectl set-ntp true",
        )
    if not f.forwards:
        yield Verdict(
            subject="docker",
            level="warn",
            text="IPv4 forwarding is off on the Docker host, so containers reach nothing outside, and builds and downloads fail",
            remedy="on the Docker host: sysctl -w net.ipv4.ip_forward=1, and the same in /etc/sysctl.d",
        )
    if any("accessible on http" in line.lower() for line in f.warnings):
        yield Verdict(
            subject="docker",
            level="warn",
            text="its API is open to the network without encryption, and who reaches it is root on that host",
            remedy="use ssh:// in dockerHost, or TLS: https://docs.docker.com/engine/security/protect-access/",
        )


def _api(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def _option(text: str) -> str:
    """'name=seccomp,profile=default' -> 'seccomp'; daemons before 17.12 say the name alone."""
    return next((part[5:] for part in str(text).split(",") if part.startswith("name=")), str(text))


def _ahead(said: str, now: datetime) -> float:
    """Seconds from our time to the daemon's; 0 where it gives none. Go writes nanoseconds, of which Python reads six digits."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)$", said)
    if not found or found[1].startswith("0001"):
        return 0.0
    return (datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00")) - now).total_seconds()


def span(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 60:.0f} minutes"
