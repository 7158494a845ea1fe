"""vLLM into /opt/venv, with torch from the first index that has its CPU build, else from the package index. Run by images/Dockerfile.cpu, which gives the arguments
as environment variables; Python's standard library only.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

IMAGES = Path(__file__).resolve().parent
sys.path.insert(0, str(IMAGES.parent))
sys.dont_write_bytecode = True

from host import causes  # noqa: E402

UV = "/opt/uv/bin/uv"
VENV = "/opt/venv"
PYTHON = f"{VENV}/bin/python3"
# An index that is not there is found out fast; the download itself may take its time.
PROBE = {"UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "1"}
PROBE_LIMIT_S = 120
# What vLLM imports of torch's family: a build for another torch fails here and not in the container that serves.
WORKS = "import torch, torchvision; torch.ones(1)"


@dataclass(frozen=True)
class Way:
    """One way to torch: `requirement` for the whole environment, `index` where it is taken from (empty: as everything), `pins` a file with hashes (or None)."""

    requirement: str
    index: str
    pins: Path | None

    @property
    def cpu(self) -> bool:
        return bool(self.index)


def ways(requirement: str, indexes: Sequence[str], images: Path = IMAGES) -> list[Way]:
    """The CPU build from each index in turn, where its pins are known and `requirement` leaves the build open; last the requirement as it stands."""
    version = requirement.partition("==")[2]
    if "+" in version:
        return [Way(requirement, "", None)]
    public, cpu = (images / f"torch-{name}.txt" for name in (version, f"{version}+cpu"))
    builds = [Way(f"{requirement}+cpu", index, cpu) for index in indexes if cpu.is_file()]
    return [*builds, Way(requirement, "", public if public.is_file() else None)]


def pinned(path: Path) -> list[str]:
    """The requirements of a pins file without their hashes."""
    return re.findall(r"^([A-Za-z][\w.-]*==[^\s\\]+)", path.read_text(encoding="utf-8"), re.MULTILINE)


def constraints(path: Path, taken: Sequence[str]) -> str:
    """A constraints file without the packages that `taken` pins."""
    names = {requirement.partition("==")[0] for requirement in taken}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return "".join(f"{line}\n" for line in lines if line.partition("==")[0] not in names)


def torch_argv(way: Way, indexes: Sequence[str]) -> list[str]:
    """uv's call for torch alone, each file checked against its hash."""
    where = ["--default-index", way.index] if way.cpu else list(indexes)
    return [UV, "pip", "install", "--python", PYTHON, "--no-deps", *where, "--index-strategy", "unsafe-best-match", "--requirement", str(way.pins)]


def vllm_argv(vllm: str, indexes: Sequence[str], override: Path, constraint: Path) -> list[str]:
    """uv's call for the rest, which leaves torch as it is."""
    return [
        UV, "pip", "install", "--python", PYTHON, *indexes, "--index-strategy", "unsafe-best-match",
        "--override", str(override), "--constraint", str(constraint), vllm,
    ]  # fmt: skip


def reachable(way: Way, given: Mapping[str, str]) -> str:
    """Why the index does not have this torch for this Python; empty where it does. Nothing is downloaded but the index's page and the wheel's head."""
    try:
        done = subprocess.run(
            [*torch_argv(way, []), "--dry-run"], capture_output=True, text=True, timeout=PROBE_LIMIT_S, check=False, env={**given, **PROBE}
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {PROBE_LIMIT_S} s"
    if not done.returncode:
        return ""
    name, _ = causes.named(done.stdout + done.stderr, [value for key, value in given.items() if key.lower().endswith("_proxy")])
    return causes.CAUSES[name].says if name else (done.stderr.strip().splitlines() or ["unknown"])[-1]


def install(given: Mapping[str, str]) -> int:
    """The environment, made. 0, or the exit status of what failed last."""
    indexes = [
        *(["--default-index", given["PACKAGE_INDEX"]] if given.get("PACKAGE_INDEX") else []),
        *(["--index", given["EXTRA_INDEX"]] if given.get("EXTRA_INDEX") else []),
    ]
    code = 1
    for way in ways(given["TORCH_REQUIREMENT"], given.get("TORCH_INDEXES", "").split()):
        # Anew for each way: what another left would look like something that this one has.
        if code := causes.main([UV, "venv", "--clear", "--python", sys.executable, VENV]):
            return code
        if way.cpu and (why := reachable(way, given)):
            print(f"torch: not from {way.index}: {why}", flush=True)
            continue
        print(f"torch: {way.requirement} from {way.index or 'the package index'}", flush=True)
        code = attempt(way, indexes, f"{given['VLLM_PACKAGE']}=={given['VLLM_VERSION']}", IMAGES / f"constraints-{given['VLLM_VERSION']}.txt")
        if not code:
            return 0
        if way.cpu:
            print(f"torch: the CPU build of {way.index} does not serve, see above", flush=True)
    return code


def attempt(way: Way, indexes: Sequence[str], vllm: str, constraint: Path) -> int:
    """torch, then vLLM, in the environment that is there. 0, or the exit status of the step that failed."""
    taken = pinned(way.pins) if way.cpu and way.pins else [way.requirement]
    override, narrowed = Path("/tmp/override.txt"), Path("/tmp/constraints.txt")
    override.write_text("".join(f"{line}\n" for line in taken), encoding="utf-8")
    narrowed.write_text(constraints(constraint, taken), encoding="utf-8")
    steps = [
        *([torch_argv(way, indexes)] if way.pins else []),
        vllm_argv(vllm, indexes, override, narrowed),
        *([[PYTHON, "-c", WORKS]] if way.cpu else []),
    ]
    return next((code for code in map(causes.main, steps) if code), 0)


if __name__ == "__main__":
    sys.exit(install(os.environ))
