"""What the launcher must know about the machine and the model before it decides; everything is read here, nothing is decided."""

import importlib.util
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "reranker-manifest.json"
BYTES_PER_VALUE = {"float32": 4, "bfloat16": 2, "float16": 2}
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


class BadModel(Exception):
    """A model directory that must not be served; its text is one sentence with the remedy."""


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


@dataclass(frozen=True, kw_only=True)
class Model:
    """Numbers of one Qwen3 model's config.json, and the bytes of its weight files."""

    directory: str
    architecture: str
    weight_bytes: int
    weight_dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    max_positions: int
    vocabulary: int
    hidden: int
    tied: bool  # the embedding is the output head as well, and once in the files

    def weight_memory(self, dtype: str) -> int:
        """Bytes of the weights once they are converted to `dtype`."""
        return self.weight_bytes * BYTES_PER_VALUE[dtype] // BYTES_PER_VALUE[self.weight_dtype]

    def packed_embedding(self, dtype: str) -> int:
        """Bytes of the second embedding that vLLM packs for a CPU; where it is not tied, the head that goes after loading makes room for it."""
        return self.vocabulary * self.hidden * BYTES_PER_VALUE[dtype] if self.tied else 0

    def kv_bytes_per_token(self, dtype: str) -> int:
        return 2 * self.layers * self.kv_heads * self.head_dim * BYTES_PER_VALUE[dtype]


@dataclass(frozen=True, kw_only=True)
class Facts:
    machine: Machine
    model: Model


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
    )


def check_directory(directory: Path, *, verified: bool) -> None:
    """BadModel where the directory lacks files, holds files of another size than its manifest says, or files that this user cannot read.

    `verified` demands the manifest that the population step writes last; without, the files that every model has are asked for.
    """
    if not os.access(directory, os.R_OK | os.X_OK):
        raise BadModel(
            f"The model directory {directory} is missing or closed to user {os.getuid()}; it must exist and be readable: "
            "run pulumi up, or chmod -R a+rX the directory of modelPath."
        )
    if verified:
        files = _manifest_files(directory)
    else:
        weights = sorted(path.name for path in directory.glob("*.safetensors"))
        files = [(name, None) for name in ["config.json", "tokenizer.json", *weights]]
        if not weights:
            raise BadModel(f"The model directory {directory} has no *.safetensors file; it must hold the weights of a Qwen3-Reranker.")
    for name, size in files:
        path = directory / name
        if not path.is_file():
            raise BadModel(f"The model file {path} is missing; run pulumi up to complete the model.")
        if size is not None and path.stat().st_size != size:
            raise BadModel(
                f"The model file {path} has {path.stat().st_size} bytes but must have {size}; remove it and run pulumi up to download it again."
            )
        if not os.access(path, os.R_OK):
            raise BadModel(f"The model file {path} cannot be read by user {os.getuid()}; it must be readable by all: chmod a+r it.")


def _manifest_files(directory: Path) -> list[tuple[str, int | None]]:
    path = directory / MANIFEST
    if not path.is_file():
        raise BadModel(
            f"The model directory {directory} has no {MANIFEST}, which is written when the model is complete; run pulumi up to complete it."
        )
    try:
        return [(entry["path"], int(entry["size"])) for entry in json.loads(path.read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadModel(
            f"The manifest {path} cannot be read ({type(error).__name__}: {error}); remove it and run pulumi up to check the model again."
        ) from error


def read_model(directory: Path) -> Model:
    """The model's numbers; BadModel where config.json is missing, is no JSON or lacks one of them."""
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        dtype = str(config.get("dtype") or config.get("torch_dtype") or "bfloat16").removeprefix("torch.")
        if dtype not in BYTES_PER_VALUE:
            raise BadModel(
                f"The model {directory} is stored as {dtype}; its config.json must say one of {', '.join(BYTES_PER_VALUE)}: "
                "take the original Qwen3-Reranker weights."
            )
        return Model(
            directory=str(directory),
            architecture=str(config["architectures"][0]),
            weight_dtype=dtype,
            weight_bytes=sum(file.stat().st_size for file in directory.glob("*.safetensors")),
            layers=int(config["num_hidden_layers"]),
            kv_heads=int(config["num_key_value_heads"]),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]),
            max_positions=int(config["max_position_embeddings"]),
            vocabulary=int(config["vocab_size"]),
            hidden=int(config["hidden_size"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise BadModel(
            f"The model's {path} cannot be used ({type(error).__name__}: {error}); it must be the config.json of a Qwen3-Reranker."
        ) from error
