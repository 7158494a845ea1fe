"""host/facts.py: what daemons of many kinds say of themselves, and the verdicts on them."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from host import facts
from host.facts import GIB, Facts, Use, Verdict

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=timezone.utc)
# As dockerd 20.10 on Debian 12 and newer ones say it, shortened to what may be looked at.
INFO: dict[str, Any] = {
    "Name": "box", "ServerVersion": "28.2.2", "OperatingSystem": "Debian GNU/Linux 12 (bookworm)", "OSType": "linux", "Architecture": "x86_64", "NCPU": 4,
    "MemTotal": 16 * GIB, "Driver": "overlay2", "DockerRootDir": "/var/lib/docker", "CgroupDriver": "systemd", "MemoryLimit": True, "SwapLimit": True,
    "CpuCfsPeriod": True, "CpuCfsQuota": True, "CPUSet": True, "PidsLimit": True, "OomKillDisable": False, "IPv4Forwarding": True,
    "SystemTime": "2026-11-25T12:00:01.123456789Z", "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "Runtimes": {"runc": {}, "io.containerd.runc.v2": {}}, "Warnings": None,
}  # fmt: skip
VERSION: dict[str, Any] = {
    "Client": {"Version": "28.2.2", "ApiVersion": "1.50"},
    "Server": {"Platform": {"Name": "Docker Engine - Community"}, "Components": [{"Name": "Engine", "Version": "28.2.2"}], "ApiVersion": "1.50", "Arch": "amd64"},
}  # fmt: skip


def read(info: dict[str, Any] | None = None, server: dict[str, Any] | None = None) -> Facts:
    return facts.read({**INFO, **(info or {})}, {**VERSION, "Server": {**VERSION["Server"], **(server or {})}}, now=NOW)


def said(seen: Facts, **use: Any) -> list[tuple[str, str, str]]:
    return [(verdict.level, verdict.subject, verdict.text) for verdict in facts.verdicts(seen, Use(**use))]


def test_a_daemon_is_read_whole() -> None:
    assert read() == Facts(
        cpus=4, memory=16 * GIB, architecture="x86_64", name="box", version="28.2.2", api=(1, 50), kind="linux", system="Debian GNU/Linux 12 (bookworm)",
        build="amd64", driver="overlay2", root="/var/lib/docker", cgroup_driver="systemd", security=frozenset({"apparmor", "seccomp", "cgroupns"}),
        runtimes=frozenset({"runc", "io.containerd.runc.v2"}), ahead=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("use", [{}, {"omit": False}, {"directory": "/srv/model", "host_port": 80, "model_network": "host"}])
def test_an_ordinary_daemon_has_nothing_to_be_said_of(use: dict[str, Any]) -> None:
    assert facts.verdicts(read(), Use(**use)) == ()


def test_answers_that_say_little_are_no_reason_to_refuse() -> None:
    assert facts.verdicts(facts.read({"NCPU": 2, "MemTotal": GIB, "ServerVersion": "99"}, {}, now=NOW), Use(omit=False)) == ()


STANDING: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str, str]] = [
    # what, info, version's server, use, subject, words that must be said
    ("Podman's service", {"ServerVersion": "4.3.1"}, {"Components": [{"Name": "Podman Engine"}]}, {}, "docker", "Podman answers here in Docker's place (4.3.1)"),
    ("Podman by its version alone", {"ServerVersion": "4.9.3-podman"}, {}, {}, "docker", "Podman answers here"),
    ("Windows containers", {"OSType": "windows"}, {}, {}, "docker", "runs windows containers"),
    ("an old API", {"ServerVersion": "18.09.1"}, {"ApiVersion": "1.39"}, {}, "docker", "Docker 18.09.1 with API 1.39, and Docker 20.10 (API 1.41)"),
    ("32-bit ARM", {"Architecture": "armv7l"}, {"Arch": "arm"}, {}, "architecture", "is arm on a armv7l kernel, a 32-bit system"),
    ("32-bit ARM on a 64-bit kernel", {"Architecture": "aarch64"}, {"Arch": "arm"}, {}, "architecture", "is arm on a aarch64 kernel, a 32-bit system"),
    ("an old Raspberry Pi", {"Architecture": "armv6l"}, {"Arch": ""}, {"wheels": False}, "architecture", "is armv6l, a 32-bit system"),
    ("32-bit x86", {"Architecture": "i686"}, {"Arch": "386"}, {}, "architecture", "32-bit system"),
    ("no wheels for it", {"Architecture": "riscv64"}, {"Arch": "riscv64"}, {}, "architecture", "vLLM has wheels for x86_64 and aarch64 alone"),
    ("no memory limit", {"MemoryLimit": False, "SwapLimit": False}, {}, {"omit": False}, "memoryGiB", "cannot limit a container's memory"),
    ("no swap limit", {"SwapLimit": False}, {}, {"omit": False}, "memoryGiB", "cannot keep a container out of swap"),
    ("no CPU quota", {"CpuCfsQuota": False}, {}, {"omit": False}, "cpus", "cannot limit a container's CPUs"),
    ("no CPU period", {"CpuCfsPeriod": False}, {}, {"omit": False}, "cpus", "cannot limit a container's CPUs"),
    ("no swap limit by its warning", {"SwapLimit": None, "Warnings": ["WARNING: No swap limit support"]}, {}, {"omit": False}, "memoryGiB", "swap"),
    ("host's network under userns-remap", {"SecurityOptions": ["name=userns"]}, {}, {"model_network": "host"}, "modelNetwork", "userns-remap"),
    ("a hidden model under snap", {"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, {}, {"directory": "/home/me/.cache/m"}, "modelPath", "snap"),
    ("a model in /tmp under snap", {"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, {}, {"directory": "/tmp/m"}, "modelPath", "snap"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "info", "server", "use", "subject", "words"), STANDING, ids=[what for what, *_ in STANDING])
def test_what_stands_in_the_way_is_said_by_name_with_a_remedy(what: str, info: Any, server: Any, use: Any, subject: str, words: str) -> None:
    [verdict] = [item for item in facts.verdicts(read(info, server), Use(**use)) if item.level == "fail"]
    assert verdict.subject == subject, what
    assert words in verdict.text
    assert verdict.remedy
    assert str(verdict) == f"{subject}: {verdict.text}; {verdict.remedy}"


KNOWN: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    ("a limit that is left out", {"MemoryLimit": False}, {"omit": True}, "memoryGiB", "left out, so the reranker gets no memory limit"),
    ("swap", {"SwapLimit": False}, {}, "memoryGiB", "left out, so memoryGiB holds, but the reranker may be swapped out"),
    ("CPUs", {"CpuCfsQuota": False}, {}, "cpus", "starts no more threads than that"),
    ("vfs", {"Driver": "vfs"}, {}, "docker", "its storage driver is vfs, which copies every layer whole"),
    ("a clock behind", {"SystemTime": "2026-11-25T09:00:00Z"}, {}, "docker", "its clock is 3 hours behind this machine's"),
    ("a clock ahead, in a zone", {"SystemTime": "2026-11-25T13:10:00.5+01:00"}, {}, "docker", "its clock is 10 minutes ahead of this machine's"),
    ("a clock at its beginning", {"SystemTime": "1970-01-01T00:00:00Z"}, {}, "docker", "days behind"),
    ("no forwarding", {"IPv4Forwarding": False}, {}, "docker", "IPv4 forwarding is off"),
    ("an open API", {"Warnings": ["WARNING: API is accessible on http://0.0.0.0:2375 without encryption."]}, {}, "docker", "open to the network"),
    ("snap", {"DockerRootDir": "/var/snap/docker/common/var-lib-docker"}, {}, "docker", "Docker comes from snap"),
    ("SELinux", {"SecurityOptions": ["name=selinux"]}, {"directory": "/srv/m"}, "modelPath", "SELinux"),
    ("mapped users", {"SecurityOptions": ["name=userns"]}, {"directory": "/srv/m"}, "modelPath", "userns-remap"),
    ("Desktop's folders", {"OperatingSystem": "Docker Desktop"}, {"directory": "/srv/m"}, "modelPath", "Docker Desktop shows containers only the folders"),
    ("a low port without root", {"SecurityOptions": ["name=rootless"]}, {"host_port": 80}, "hostPort", "a port below 1024"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "info", "use", "subject", "words"), KNOWN, ids=[what for what, *_ in KNOWN])
def test_what_should_be_known_is_a_warning_with_a_remedy_and_no_more(what: str, info: Any, use: Any, subject: str, words: str) -> None:
    [verdict] = facts.verdicts(read(info), Use(**use))
    assert (verdict.level, verdict.subject) == ("warn", subject), what
    assert words in verdict.text
    assert verdict.remedy


def test_a_rootless_daemon_is_told_how_it_gets_limits_and_is_fine_with_them() -> None:
    rootless = {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}
    assert facts.verdicts(read(rootless), Use(omit=False)) == ()
    found = facts.verdicts(
        read({**rootless, "CgroupDriver": "none", "MemoryLimit": False, "SwapLimit": False, "CpuCfsQuota": False}), Use(omit=False)
    )
    assert [verdict.subject for verdict in found] == ["memoryGiB", "cpus"]
    assert all("Delegate=cpu cpuset io memory pids" in verdict.remedy for verdict in found)


def test_the_podman_program_under_dockers_name_is_known_by_its_own_form_of_the_answer() -> None:
    own = {"host": {"arch": "amd64", "cpus": 2, "memTotal": GIB, "buildahVersion": "1.28"}, "store": {}, "version": {"Version": "4.3.1"}}
    seen = facts.read(own, {"Client": {"Version": "4.3.1"}}, now=NOW)
    assert (seen.podman, seen.version, seen.cpus) == (True, "4.3.1", 2)
    assert [level for level, *_ in said(seen)] == ["fail"]


@pytest.mark.parametrize(
    ("free", "read_only", "use", "level"),
    [
        (25 * GIB, False, {}, []), (19 * GIB, False, {}, ["warn"]), (GIB // 2, False, {}, ["fail"]), (25 * GIB, True, {}, ["fail"]), (None, False, {}, []),
        (19 * GIB, False, {"wheels": False}, []), (0, False, {"deployed": True}, []), (0, True, {"deployed": True}, ["fail"]),
    ],
)  # fmt: skip
def test_a_full_or_read_only_disk_stops_what_would_write_to_it(free: int | None, read_only: bool, use: dict[str, Any], level: list[str]) -> None:
    seen = Facts(cpus=1, memory=GIB, architecture="x86_64", root="/var/lib/docker", free=free, read_only=read_only)
    assert [item[0] for item in said(seen, **use)] == level


def test_what_stands_in_the_way_comes_first() -> None:
    seen = read({"Driver": "vfs", "SystemTime": (NOW + timedelta(days=40)).isoformat(), "MemoryLimit": False, "Architecture": "riscv64"})
    assert [level for level, *_ in said(seen, omit=False)] == ["fail", "fail", "warn", "warn"]


def test_no_verdict_is_without_a_remedy_that_says_what_to_do() -> None:
    every = [verdict for _, info, server, use, *_ in STANDING for verdict in facts.verdicts(read(info, server), Use(**use))]
    every += [verdict for _, info, use, *_ in KNOWN for verdict in facts.verdicts(read(info), Use(**use))]
    assert all(isinstance(verdict, Verdict) and len(verdict.remedy) > 20 for verdict in every)
