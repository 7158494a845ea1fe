"""What a host must have for these settings; refused before anything is declared."""

import labels
from host import Host
from settings import Settings, SettingsError
from sizing import GIB


def check(settings: Settings, host: Host, owner: str) -> None:
    """Raises SettingsError with every reason why the settings cannot stand on this host."""
    refusals = refusals_on(settings, host, owner)
    if refusals:
        raise SettingsError(
            "\n".join(["this Docker host cannot take this configuration; nothing was changed:", *(f"  - {text}" for text in refusals)])
        )


def refusals_on(s: Settings, host: Host, owner: str) -> list[str]:
    """The reasons, in words; empty when the host fits."""
    refusals = []
    if s.cpus > host.cpus:
        refusals.append(f"cpus: {s.cpus} is more than the {host.cpus} of this Docker host; set it to {host.cpus} or less")
    if s.memory_gib * GIB > host.memory:
        refusals.append(
            f"memoryGiB: {s.memory_gib} is more than the {host.memory / GIB:.1f} GiB of this Docker host; lower it, or take a smaller model"
        )
    if s.backend == "gpu" and "nvidia" not in host.runtimes:
        refusals.append(
            f"backend: 'gpu' needs the NVIDIA runtime and this Docker host has {', '.join(sorted(host.runtimes)) or 'none'}; install "
            "nvidia-container-toolkit there, or set backend to cpu"
        )
    taken = host.container(s.container_name)
    if taken and not labels.owned(taken.labels, owner):
        whose = taken.labels.get(labels.OWNER)
        maker = f"by stack {whose}" if whose else "not by this project (a compose file?)"
        refusals.append(
            f"containerName: a container {s.container_name!r} exists and was made {maker}; remove it (docker rm -f {s.container_name}), or choose another name"
        )
    network = host.networks.get(s.network_name)
    if s.ragflow_mode != "join" and network and network.driver not in ("bridge", "overlay"):
        refusals.append(f"networkName: {s.network_name!r} exists with driver {network.driver}; choose another name")
    return refusals
