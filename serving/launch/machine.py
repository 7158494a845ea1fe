"""What the launcher must know about the machine and the model before it decides; everything is read here, nothing is decided."""

import importlib.util
import os
import platform
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

# vLLM's server, newest first: the second is deprecated in 0.32 and all there is before.
SERVER_MODULES = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
LIBRARIES = {
    "tcmalloc": (
        "{packages}/vllm/libs/libtcmalloc*.so*",
        "usr/lib/*/libtcmalloc_minimal.so.4",
        "usr/lib/*/libtcmalloc.so.4",
        "usr/lib64/libtcmalloc*.so.4",
        "usr/local/lib/libtcmalloc*.so.4",
    ),
    "iomp5": ("{prefix}/lib/libiomp5.so", "{packages}/torch/lib/libiomp5.so", "opt/venv/lib/libiomp5.so", "usr/lib/*/libiomp5.so"),
}


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """One logical CPU: its number, the physical core it is a thread of (lowest number of its siblings), its NUMA node."""

    id: int
    core: int
    node: int


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine as this process may use it. `quota` is in CPUs (None: no limit), `memory` in bytes: the cgroup's limit or the machine's RAM."""

    architecture: str
    cpu_flags: frozenset[str]
    cpus: tuple[Cpu, ...]
    quota: float | None
    memory: int
    libraries: tuple[tuple[str, str], ...]  # (name, path) of what is worth preloading and exists
    preloaded: str  # LD_PRELOAD as the image set it
    compiler: bool  # a C++ compiler, which torch.compile calls on a CPU
    server_module: str  # "" where vLLM is not installed
    every_address: str  # what to listen on for callers of both IP families


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _cpu_flags(root: Path) -> frozenset[str]:
    for line in _text(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _cpus(root: Path, affinity: frozenset[int]) -> tuple[Cpu, ...]:
    found = []
    for number in sorted(affinity):
        home = root / f"sys/devices/system/cpu/cpu{number}"
        siblings = _text(home / "topology/thread_siblings_list").replace("-", ",").split(",")
        nodes = sorted(int(path.name[4:]) for path in home.glob("node[0-9]*"))
        found.append(Cpu(id=number, core=int(siblings[0] or number), node=nodes[0] if nodes else 0))
    return tuple(found)


def _cgroup_values(root: Path, controller: str, v1_file: str, v2_file: str) -> list[list[str]]:
    """The words of a limit's file in this process's cgroup and each one above it; v1 answers with `v1_file`, v2 with `v2_file`."""
    values = []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", v2_file
        elif controller in controllers.split(","):
            mount, name = root / "sys/fs/cgroup" / controller, v1_file
        else:
            continue
        # In a container the path may be the host's, of which only the mount's root is visible.
        parts = [part for part in group.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            words = _text(mount.joinpath(*parts[:depth], name)).split()
            if words:
                values.append(words)
    return values


def _quota(root: Path) -> float | None:
    quotas = [int(words[0]) / int(words[1]) for words in _cgroup_values(root, "cpu", "", "cpu.max") if len(words) == 2 and words[0] != "max"]
    limits = _cgroup_values(root, "cpu", "cpu.cfs_quota_us", "")
    periods = _cgroup_values(root, "cpu", "cpu.cfs_period_us", "")
    quotas += [int(limit[0]) / int(period[0]) for limit, period in zip(limits, periods, strict=False) if int(limit[0]) > 0]
    return min(quotas, default=None)


def _memory(root: Path) -> int:
    sizes = [int(line.split()[1]) * 1024 for line in _text(root / "proc/meminfo").splitlines() if line.startswith("MemTotal:")]
    sizes += [int(words[0]) for words in _cgroup_values(root, "memory", "memory.limit_in_bytes", "memory.max") if words[0] != "max"]
    return min(sizes)


def _libraries(root: Path, prefix: str, packages: str) -> tuple[tuple[str, str], ...]:
    found = []
    for name, patterns in LIBRARIES.items():
        for pattern in patterns:
            paths = sorted(root.glob(pattern.format(prefix=prefix.lstrip("/"), packages=packages.lstrip("/"))))
            if paths:
                found.append((name, str(paths[0])))
                break
    return tuple(found)


def _server_module() -> tuple[str, str]:
    """(module, folder of the packages); the module is looked up as a file, since importing vLLM takes half a minute."""
    spec = importlib.util.find_spec("vllm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for module in SERVER_MODULES:
            if Path(folder, *module.split(".")[1:]).with_suffix(".py").is_file():
                return module, str(Path(folder).parent)
    return "", ""


def every_address() -> str:
    """'::' listens for IPv4 as well, also where a container has IPv6 switched off; '0.0.0.0' where the kernel has no IPv6, or gives '::' IPv6 alone."""
    try:
        with socket.socket(socket.AF_INET6) as trial:
            alone = trial.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
            trial.bind(("::", 0))
    except OSError:
        return "0.0.0.0"
    return "0.0.0.0" if alone else "::"


def read_machine(root: Path = Path("/"), affinity: frozenset[int] | None = None) -> Machine:
    """The machine this process runs on. `root` and `affinity` are for tests; files that are missing read as "no limit"."""
    server_module, packages = _server_module()
    return Machine(
        architecture=platform.machine(),
        cpu_flags=_cpu_flags(root),
        quota=_quota(root),
        memory=_memory(root),
        cpus=_cpus(root, frozenset(os.sched_getaffinity(0)) if affinity is None else affinity),
        libraries=_libraries(root, sys.prefix, packages or sys.prefix),
        preloaded=os.environ.get("LD_PRELOAD", ""),
        compiler=shutil.which("g++") is not None or "CXX" in os.environ,
        server_module=server_module,
        every_address=every_address(),
    )
