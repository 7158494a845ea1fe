"""Names and labels by which things on a Docker host are known as ours, and as which incarnation."""

import hashlib
import secrets
from collections.abc import Iterable, Mapping

OWNER = "io.ragflow-reranker.owner"
GENERATION = "io.ragflow-reranker.generation"
NETWORK_ID = "io.ragflow-reranker.network"
KEY_ID = "io.ragflow-reranker.key"
UNLIMITED = "io.ragflow-reranker.unlimited"


def owner(project: str, stack: str) -> str:
    """The stack that made a thing, as its label says."""
    return f"{project}/{stack}"


def owned(found: Mapping[str, str], by: str) -> bool:
    return found.get(OWNER) == by


def generation(found: Mapping[str, str] | None) -> str:
    """Incarnation of a container, volume or network: what its label says, or a new one where the thing is gone.

    Stable while the thing lives, changed in the first preview after it was lost: so a plain preview, without a refresh of every resource (which doubles its time),
    shows what somebody removed by hand, and what depends on it follows.
    """
    return (found or {}).get(GENERATION) or secrets.token_hex(4)


BY_OTHERS = "by others"


def attachment(aliases: Iterable[str] | None, by: str) -> str:
    """Incarnation of a container's place on a network, kept there as an alias: ours, somebody else's, or (aliases None: not attached) a new one."""
    if aliases is None:
        return f"{_prefix(by)}{secrets.token_hex(4)}"
    return next((alias for alias in aliases if alias.startswith(_prefix(by))), BY_OTHERS)


def _prefix(by: str) -> str:
    return f"attachment-{hashlib.sha256(by.encode()).hexdigest()[:8]}-"
