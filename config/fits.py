"""What a host must have for these settings; refused before anything is declared."""

from collections.abc import Iterable

from config.rules import lacking_memory
from config.settings import Settings, refused
from host import facts, neighbours
from host.labels import Deployment
from host.neighbours import Names
from host.observe import Container, Host
from host.ports import overlap
from serving.memory import GIB

X86 = ("x86_64", "amd64")


def check(settings: Settings, host: Host, deployment: Deployment, names: Names, *, port: str = "") -> list[str]:
    """What somebody should know of this host, in words. Raises SettingsError with every reason why the settings cannot stand on it. `port`: host/ports.py of hostPort."""
    if refusals := refusals_on(settings, host, deployment, names, port=port):
        raise refused("this Docker host cannot take this configuration", refusals)
    return warnings_on(settings, host, deployment)


def use_of(s: Settings, host: Host, deployment: Deployment) -> facts.Use:
    """The settings, as far as the daemon's own facts matter to them."""
    return facts.Use(
        wheels=s.backend == "cpu" and s.image_strategy == "wheel",
        omit=s.missing_limits == "omit",
        directory=s.model_path if s.backend in ("cpu", "gpu") and s.model_source == "directory" else "",
        host_port=s.host_port,
        model_network=s.model_network if s.backend in ("cpu", "gpu") else "bridge",
        deployed=_own(s, host, deployment) is not None,
    )


def wants_port(s: Settings, host: Host, deployment: Deployment) -> bool:
    """Whether hostPort is still to be had: not where our own container has it already."""
    own = _own(s, host, deployment)
    return s.host_port > 0 and not (own and any(_meets(s, at) for at in own.ports))


def _own(s: Settings, host: Host, deployment: Deployment) -> Container | None:
    found = host.container(s.container_name)
    return found if found and deployment.runs(found.labels) else None


def _meets(s: Settings, at: tuple[str, int]) -> bool:
    return at[1] == s.host_port and overlap(s.bind_address, at[0])


def warnings_on(s: Settings, host: Host, deployment: Deployment) -> list[str]:
    """What works, but not as somebody may think."""
    said = [str(verdict) for verdict in facts.verdicts(host, use_of(s, host, deployment)) if verdict.level == "warn"]
    network = host.networks.get(s.network_name)
    if s.ragflow_mode != "join" and network and not network.ipv4:
        said.append(
            f"networkName: {s.network_name!r} has IPv6 alone: RAGFlow reaches the reranker there only by IPv6; to have both, choose another name, and "
            "the network is made"
        )
    return said


def refusals_on(s: Settings, host: Host, deployment: Deployment, names: Names, *, port: str = "") -> list[str]:
    """The reasons, in words; empty when the host fits."""
    # A host that nothing runs on has no further reasons.
    refusals = [str(verdict) for verdict in facts.verdicts(host, use_of(s, host, deployment)) if verdict.level == "fail"]
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
    return [*refusals, *_network_refusals(s, host), *_port_refusals(s, host, deployment, port)]


def _network_refusals(s: Settings, host: Host) -> Iterable[str]:
    key, name = ("ragflowNetwork", s.ragflow_network) if s.ragflow_mode == "join" else ("networkName", s.network_name)
    network = host.networks.get(name)
    if network is None:
        return
    if network.ambiguous:
        yield f"{key}: {network.ambiguous}"
    if network.unfit:
        yield (
            f"{key}: {name!r} {network.unfit}; choose another name, and the network is made"
            if key == "networkName"
            else f"{key}: {name!r} {network.unfit}"
        )
    if network.internal and s.host_port:
        yield (
            f"hostPort: {s.host_port} cannot be published from {name!r}, an internal network (made with --internal); set hostPort to 0 (RAGFlow does not need it), "
            f"or choose another {key}"
        )


def _port_refusals(s: Settings, host: Host, deployment: Deployment, port: str) -> Iterable[str]:
    """`port`: what host/ports.py saw besides containers."""
    if not wants_port(s, host, deployment):
        return
    other = "set hostPort to another, or to 0 for none (RAGFlow does not need it)"
    holder = next(
        (item for item in host.containers if item.running and item.name != s.container_name and any(_meets(s, at) for at in item.ports)), None
    )
    if holder:
        yield f"hostPort: {s.host_port} on {s.bind_address} is published by the container {holder.name!r}; stop that, or {other}"
    elif port == "absent":
        yield f"bindAddress: {s.bind_address} is no address of the Docker host; 'ip -brief address' there shows which are, 127.0.0.1 keeps the port to that host"
    elif port:
        yield f"hostPort: {s.host_port} on {s.bind_address} is {port}{'' if ' by ' in port else ' on the Docker host by another program'}; stop that, or {other}"
