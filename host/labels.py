"""Names and labels by which things on a Docker host are known: whose they are, and as which incarnation."""

import hashlib
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

OWNER = "io.ragflow-reranker.owner"
MADE = "io.ragflow-reranker.made"
GENERATION = "io.ragflow-reranker.generation"
NETWORK_ID = "io.ragflow-reranker.network"
KEY_ID = "io.ragflow-reranker.key"
UNLIMITED = "io.ragflow-reranker.unlimited"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One deployment: `stack` (project/stack) with an `id` that lives in its state alone, so that two checkouts with one stack name are two.

    `made`: when it came up first, and from where. `heir_of`: deployments whose volumes and network it took over; `taking`: the one among them whose container
    it takes over now. `known`: generations and attachments that its state lists, by which it knows what it made before there were identities.
    """

    stack: str
    id: str
    made: str = ""
    heir_of: tuple[str, ...] = ()
    taking: str = ""
    known: frozenset[str] = frozenset()

    @property
    def owner(self) -> str:
        """What it makes is labelled so."""
        return f"{self.stack}/{self.id}"

    def made_it(self, found: Mapping[str, str]) -> bool:
        """Whether the thing with these labels was made by this deployment."""
        owner = found.get(OWNER, "")
        return identity(owner) == self.id or (owner == identity(owner) and found.get(GENERATION) in self.known)

    def holds(self, found: Mapping[str, str]) -> bool:
        """Whether a volume or network with these labels is this deployment's to use, clear and remove."""
        return self.made_it(found) or identity(found.get(OWNER, "")) in self.heir_of

    def runs(self, found: Mapping[str, str]) -> bool:
        """Whether a container with these labels is this deployment's to replace."""
        return self.made_it(found) or (self.taking != "" and identity(found.get(OWNER, "")) == self.taking)


def identity(owner: str) -> str:
    """The deployment that an owner label names; what was made before there were identities has project/stack for one."""
    return owner.split("/")[2] if owner.count("/") == 2 else owner


def generation(found: Mapping[str, str] | None) -> str:
    """Incarnation of a container, volume or network: what its label says, or a new one where the thing is gone.

    Stable while the thing lives, changed in the first preview after it was lost: so a plain preview, without a refresh of every resource (which doubles its time),
    shows what somebody removed by hand, and what depends on it follows.
    """
    return (found or {}).get(GENERATION) or secrets.token_hex(4)


def marks(found: Mapping[str, str] | None, by: Deployment) -> dict[str, str]:
    """Labels of a volume or network: those that it has where it stands and is ours, for Docker changes none and others would replace it; else new ones."""
    if found and by.holds(found) and found.get(GENERATION):
        return {name: found[name] for name in (OWNER, GENERATION, MADE) if found.get(name)}
    return {OWNER: by.owner, GENERATION: generation(None), **({MADE: by.made} if by.made else {})}


BY_OTHERS = "by others"


def attachment(aliases: Iterable[str] | None, by: str, known: Collection[str] = ()) -> str:
    """Incarnation of a container's place on a network, kept there as an alias: ours, somebody else's, or (aliases None: not attached) a new one."""
    if aliases is None:
        return f"{_prefix(by)}{secrets.token_hex(4)}"
    return next((alias for alias in aliases if alias.startswith(_prefix(by)) or alias in known), BY_OTHERS)


def _prefix(by: str) -> str:
    return f"attachment-{hashlib.sha256(by.encode()).hexdigest()[:8]}-"
