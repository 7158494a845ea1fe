"""What a host must have for these settings; refused before anything is declared."""

from config.rules import lacking_memory
from config.settings import Settings, refused
from host import labels
from host.observe import Host
from serving.memory import GIB

X86 = ("x86_64", "amd64")


def check(settings: Settings, host: Host, owner: str) -> None:
    """Raises SettingsError with every reason why the settings cannot stand on this host."""
    if refusals := refusals_on(settings, host, owner):
        raise refused("this Docker host cannot take this configuration", refusals)


def refusals_on(s: Settings, host: Host, owner: str) -> list[str]:
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
    taken = host.container(s.container_name)
    if taken and not labels.owned(taken.labels, owner):
        whose = taken.labels.get(labels.OWNER)
        maker = f"the stack {whose} made it" if whose else "this project did not make it (a compose file of an earlier guide?)"
        refusals.append(
            f"containerName: a container {s.container_name!r} exists already, and {maker}; remove it (docker rm -f {s.container_name}), or choose another name"
        )
    network = host.networks.get(s.network_name)
    if s.ragflow_mode != "join" and network and network.driver not in ("bridge", "overlay"):
        refusals.append(f"networkName: {s.network_name!r} exists with driver {network.driver}; choose another name")
    return refusals
