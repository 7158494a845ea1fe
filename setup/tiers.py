"""The tiers of the tests and what each needs of the machine."""

from setup import daemon, pulumi
from setup.daemon import Daemon
from setup.edge import GIB, Edge

TIERS = ("unit", "browser", "docker", "engine", "vllm", "ragflow")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
RAGFLOW_ADDRESS, RAGFLOW_KEY = "RAGFLOW_API", "RAGFLOW_API_KEY"
VLLM_MEMORY_GIB = 12
VLLM_DISK_GIB = 25


def obstacle(edge: Edge, tier: str) -> str:
    """Why the tests of this tier cannot run here, in a few words; empty where they can."""
    if tier == "unit":
        return ""
    if tier == "browser":
        return "" if browser(edge) else "no chromium program on PATH"
    if tier == "ragflow":
        return _ragflow(edge)
    if tier in ("engine", "vllm"):  # vllm applies the laptop's stack with the real engine
        why = _engine(edge)
        if why:
            return why
    found = daemon.look(edge)
    if found.state != "ready":
        return f"Docker does not answer: {found.detail}"
    return _room(edge, found) if tier == "vllm" else ""


def browser(edge: Edge) -> str | None:
    """Path of a Chromium."""
    return next(filter(None, map(edge.which, BROWSERS)), None)


def _ragflow(edge: Edge) -> str:
    lost = [name for name in (RAGFLOW_ADDRESS, RAGFLOW_KEY) if not edge.env.get(name)]
    return f"no real RAGFlow: set {' and '.join(lost)} (docs/ragflow.md)" if lost else ""


def _engine(edge: Edge) -> str:
    program = edge.which("pulumi")
    if not program:
        return "no pulumi program on PATH"
    why = pulumi.fault(edge, program)
    if why:
        return f"{program}: {why}"
    lost = pulumi.missing_plugins(edge, program)
    if not lost:
        return ""
    return f"no Pulumi plugin {' and '.join(f'{name} {version}' for name, version in lost)} on PATH or in `pulumi plugin ls`"


def _room(edge: Edge, found: Daemon) -> str:
    memory = int(found.info.get("MemTotal", 0)) / GIB
    if memory < VLLM_MEMORY_GIB:
        return f"the Docker host has {memory:.1f} GiB of memory, and {VLLM_MEMORY_GIB} are needed"
    root = str(found.info.get("DockerRootDir", ""))
    free = edge.free_gib(root) if found.local else None
    if free is not None and free < VLLM_DISK_GIB:
        return f"{root} has {free:.1f} GiB free, and {VLLM_DISK_GIB} are needed"
    return ""
