"""What the launcher reads of the machine, from small trees of files."""

import errno
import os
import socket
from pathlib import Path

import pytest

from serving.launch.machine import Cpu, every_address, read_machine


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal:       33554432 kB\nMemFree: 1 kB\n"}.items() | files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "quota", "memory"),
    [
        ({}, None, 32 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n", "sys/fs/cgroup/memory.max": "8589934592\n"}, 2.0, 8 << 30),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n", "sys/fs/cgroup/memory.max": "max\n"}, None, 32 << 30),
        (
            {
                "proc/self/cgroup": "0::/user/app\n",
                "sys/fs/cgroup/user/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/user/app/cpu.max": "max 100000\n",
                "sys/fs/cgroup/user/app/memory.max": "2147483648\n",
                "sys/fs/cgroup/user/memory.max": "4294967296\n",
            },
            1.5,
            2 << 30,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/ab\n1:cpu,cpuacct:/docker/ab\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "1000000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "17179869184\n",
            },
            10.0,
            16 << 30,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n1:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            None,
            32 << 30,
        ),
        (
            # a container with its own cgroup namespace under systemd, in a slice that is limited above it
            {
                "proc/self/cgroup": "0::/../../system.slice/docker-ab.scope\n",
                "sys/fs/cgroup/cpu.max": "50000 100000\n",
                "sys/fs/cgroup/memory.max": "1073741824\n",
            },
            0.5,
            1 << 30,
        ),
        (
            # both at once, as systemd's hybrid mode has it: the controllers are v1's
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/docker/ab\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3221225472\n",
            },
            3.0,
            3 << 30,
        ),
        # rootless without delegation, and a NAS kernel without quota: the controllers have no files at all
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.controllers": "memory pids\n", "sys/fs/cgroup/memory.max": "max\n"}, None, 32 << 30),
        ({"proc/self/cgroup": "4:memory:/\n1:cpu:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "4294967296\n"}, None, 4 << 30),
    ],
    ids=[
        "no cgroup",
        "v2 in a container",
        "v2 without limits",
        "v2 limits of the cgroups above",
        "v1 with the host's path",
        "v1 without limits",
        "v2 under systemd",
        "both",
        "v2 without a quota",
        "v1 without a quota",
    ],
)
def test_limits_are_read_from_cgroups_of_both_versions(tmp_path: Path, files: dict[str, str], quota: float | None, memory: int) -> None:
    machine = read_machine(tree(tmp_path, files), frozenset({0}))
    assert (machine.quota, machine.memory) == (quota, memory)


@pytest.mark.parametrize(("line", "flag"), [("flags\t\t: fpu avx2 avx512_bf16", "avx512_bf16"), ("Features\t: fp asimd bf16", "bf16")])
def test_cpu_flags_are_read_on_x86_and_on_arm(tmp_path: Path, line: str, flag: str) -> None:
    machine = read_machine(tree(tmp_path, {"proc/cpuinfo": f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n"}), frozenset({0}))
    assert flag in machine.cpu_flags
    assert len(machine.cpu_flags) == len(line.split(":")[1].split())


def test_only_allowed_cpus_count_with_their_core_and_node(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": text for n, text in {1: "1,5", 5: "1,5", 6: "6-7"}.items()}
    files |= {f"sys/devices/system/cpu/cpu{n}/node{node}/x": "" for n, node in {1: 0, 5: 0, 6: 1}.items()}
    assert read_machine(tree(tmp_path, files), frozenset({6, 1, 5})).cpus == (
        Cpu(id=1, core=1, node=0),
        Cpu(id=5, core=1, node=0),
        Cpu(id=6, core=6, node=1),
    )


def test_a_machine_that_hides_its_topology_has_one_core_for_each_cpu(tmp_path: Path) -> None:
    assert read_machine(tree(tmp_path, {}), frozenset({0, 1})).cpus == (Cpu(id=0, core=0, node=0), Cpu(id=1, core=1, node=0))


def test_the_allocator_is_found_where_debian_puts_it(tmp_path: Path) -> None:
    library = "usr/lib/aarch64-linux-gnu/libtcmalloc_minimal.so.4"
    assert ("tcmalloc", str(tmp_path / library)) in read_machine(tree(tmp_path, {library: ""}), frozenset({0})).libraries


def test_this_very_machine_can_be_read() -> None:
    machine = read_machine()
    assert {cpu.id for cpu in machine.cpus} == os.sched_getaffinity(0)
    assert machine.memory > 1 << 30
    assert machine.cpu_flags


class Ends:
    """socket.socket where the kernel is as a test says: `error` at the first touch, `alone`: '::' is for IPv6 only."""

    def __init__(self, error: OSError | None = None, alone: int = 0) -> None:
        self.error, self.alone = error, alone

    def __call__(self, family: int) -> "Ends":
        assert family == socket.AF_INET6
        if self.error:
            raise self.error
        return self

    def __enter__(self) -> "Ends":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def getsockopt(self, *_: int) -> int:
        return self.alone

    def bind(self, address: tuple[str, int]) -> None:
        assert address == ("::", 0)


@pytest.mark.parametrize(
    ("kernel", "address"),
    [
        (Ends(), "::"),
        (Ends(alone=1), "0.0.0.0"),
        (Ends(error=OSError(errno.EAFNOSUPPORT, "Address family not supported")), "0.0.0.0"),
        (Ends(error=OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")), "0.0.0.0"),
    ],
    ids=["both families", "IPv6 alone by sysctl", "a kernel without IPv6", "IPv6 that cannot be bound"],
)
def test_a_service_listens_to_both_families_where_one_socket_can(kernel: Ends, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", kernel)
    assert every_address() == address
