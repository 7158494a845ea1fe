"""What stands on the Docker host under our names and is somebody else's: said in the preview, with the ways out, before anything is touched."""

from collections.abc import Mapping
from dataclasses import dataclass

from host import labels
from host.labels import Deployment, identity
from host.observe import Host


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names that a stack takes on its host: the container that serves, those that run once (`steps`), and its volumes."""

    container: str
    steps: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


def refusals(names: Names, host: Host, by: Deployment) -> list[str]:
    """A sentence for each deployment, or stranger, that something under these names belongs to; empty where all is free or ours."""
    theirs: dict[str, list[str]] = {}
    owners: dict[str, Mapping[str, str]] = {}
    strange = []
    own = host.container(names.container)
    found = [("container", names.container, own.labels, by.runs(own.labels))] if own else []
    found += [("volume", name, host.volumes[name], by.holds(host.volumes[name])) for name in names.volumes if name in host.volumes]
    for kind, name, marked, ours in found:
        owner = marked.get(labels.OWNER)
        if ours:
            continue
        if owner is None:
            strange.append(_strange(kind, name))
            continue
        theirs.setdefault(identity(owner), []).append(f"{kind} {name!r}")
        # Where and when it was made is not on what was made before there were identities.
        if labels.MADE in marked or identity(owner) not in owners:
            owners[identity(owner)] = marked
    said = [_theirs(things, owners[who], names.container, by) for who, things in theirs.items()]
    steps = [item for name in names.steps if (item := host.container(name)) and not by.made_it(item.labels)]
    said += [
        f"containerName: a container {item.name!r} is there, {_whose(item.labels)}; wait until it ends, or docker rm -f {item.name}" for item in steps
    ]
    return [*strange, *said, *_nobody(host, by)]


def shared(host: Host, network: str, by: Deployment) -> str:
    """Whose the network is that is shared with another deployment, in a sentence; '' where it is ours or no deployment's."""
    seen = host.networks.get(network)
    if seen is None or labels.OWNER not in seen.labels or by.holds(seen.labels):
        return ""
    return f"networkName: network {network!r} is shared, {_whose(seen.labels)}; it stays when this stack goes. For one of your own set another networkName"


def _strange(kind: str, name: str) -> str:
    maker = "this project did not make it (a compose file of an earlier guide?)"
    remove = f"docker rm -f {name}" if kind == "container" else f"docker volume rm {name}"
    return f"containerName: a {kind} {name!r} exists already, and {maker}; remove it ({remove}), or choose another name"


def _theirs(things: list[str], marked: Mapping[str, str], container: str, by: Deployment) -> str:
    stack = by.stack.rsplit("/", 1)[-1]
    return (
        f"containerName: {_listed(things)} {'exist' if len(things) > 1 else 'exists'} already, {_whose(marked)}. To have both, choose another containerName and "
        f"hostPort (the network is shared): pulumi config set -s {stack} containerName {container}-2. To take over what is there, on purpose or after lost "
        f"state: make up STACK={stack} TAKE_OVER={identity(marked[labels.OWNER])}"
    )


def _whose(marked: Mapping[str, str]) -> str:
    owner = marked.get(labels.OWNER)
    if owner is None:
        return "not made by this project"
    project_and_stack = "/".join(owner.split("/")[:2])
    if owner == identity(owner):
        return f"made by the stack {project_and_stack} of another checkout or lost state (before deployments had identities)"
    made = f", {marked[labels.MADE]}" if marked.get(labels.MADE) else ""
    return f"made by another deployment, {identity(owner)} ({project_and_stack}{made})"


def _nobody(host: Host, by: Deployment) -> list[str]:
    """TAKE_OVER names a deployment that has nothing here."""
    everything = [*(item.labels for item in host.containers), *host.volumes.values(), *(item.labels for item in host.networks.values())]
    here = sorted({identity(marked[labels.OWNER]) for marked in everything if labels.OWNER in marked} - {by.id})
    if not by.taking or by.taking in here:
        return []
    others = f"it has things of {', '.join(here)}" if here else "it has nothing of any"
    return [f"TAKE_OVER: {by.taking!r} is no other deployment on this Docker host: {others}; leave TAKE_OVER out, or name one of these"]


def _listed(things: list[str]) -> str:
    return f"{', '.join(things[:-1])} and {things[-1]}" if len(things) > 1 else things[0]
