"""What a host must have for these settings; refused before anything is declared."""

from config.rules import lacking_memory
from config.settings import Settings, refused
from host import neighbours
from host.labels import Deployment
from host.neighbours import Names
from host.observe import Host
from serving.memory import GIB

X86 = ("x86_64", "amd64")


def check(settings: Settings, host: Host, deployment: Deployment, names: Names) -> None:
    """Raises SettingsError with every reason why the settings cannot stand on this host."""
    if refusals := refusals_on(settings, host, deployment, names):
        raise refused("this Docker host cannot take this configuration", refusals)


def refusals_on(s: Settings, host: Host, deployment: Deployment, names: Names) -> list[str]:
    """The reasons, in words; empty when the host fits."""
    refusals = []
    if s.cpus > host.cpus:
        refusals.append(f"cpus: {s.cpus} is more than the {host.cpus} of this Docker host; set it to {host.cpus} or less")
    if s.memory_gib * GIB > host.memory:
        refusals.append(
            f"memoryGiB: {s.memory_gib} is more than the {host.memory / GIB:.1f} GiB of this Docker host; lower it, or take a smaller model"
        )
    # Intel's OpenMP, with which the engine can be a fork, is there for x86 alone.
    if host.architecture not in X86 and (said := lacking_memory(s, forks=False)):
        refusals.append(said)
    if s.backend == "gpu" and "nvidia" not in host.runtimes:
        refusals.append(
            f"backend: 'gpu' needs the NVIDIA runtime and this Docker host has {', '.join(sorted(host.runtimes)) or 'none'}; install "
            "nvidia-container-toolkit there, or set backend to cpu"
        )
    refusals += neighbours.refusals(names, host, deployment)
    network = host.networks.get(s.network_name)
    if s.ragflow_mode != "join" and network and network.driver not in ("bridge", "overlay"):
        refusals.append(f"networkName: {s.network_name!r} exists with driver {network.driver}; choose another name")
    return refusals
