"""RAGFlow as it holds the reranker right now, read before anything is declared: what somebody changed or removed by hand shows in a plain preview. Reads only."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from host.ragflow import NotFound
from registration.api import Api, Refused, WrongKey
from registration.entry import CONTAINER, INSIDE, Entry, Place
from registration.releases import Generation
from registration.standing import look
from registration.transport import Transport, Unreachable, transport
from registration.verbs import BY_HAND, WRONG_KEY

SECONDS = 10


class NotRegistrable(Exception):
    """RAGFlow cannot be given the reranker; the message has the remedy."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """`found`: what RAGFlow holds instead of the entry, never the same text twice, and `note` the sentence for it; '' where all is as wanted, or could not be
    read, which `warning` says.
    """

    found: str = ""
    note: str = ""
    warning: str = ""


def place(url: str, key: str, containers: Sequence[str]) -> Place:
    """Where RAGFlow takes it: `url` is ragflowUrl, `containers` the names of RAGFlow's own. Raises NotFound where one is needed and there is not one alone."""
    if url != CONTAINER:
        return Place(url=url.rstrip("/"), key=key)
    if len(containers) != 1:
        raise NotFound(
            f"ragflowUrl: 'container' needs one RAGFlow container on this host, and there is {', '.join(containers) or 'none'}; start RAGFlow, name one in "
            "ragflowContainers, or set the address of its API"
        )
    return Place(url=INSIDE, container=containers[0], key=key)


def observe(place: Place, entry: Entry, *, surroundings: Mapping[str, str], send: Transport | None = None) -> Registered:
    """Raises NotRegistrable where no up could help: a key that is not taken, a release without a way."""
    try:
        seen = look(Api(send or transport(place, seconds=SECONDS, surroundings=surroundings)), entry)
    except WrongKey as error:
        raise NotRegistrable(WRONG_KEY) from error
    except (Unreachable, Refused) as error:
        return Registered(
            warning=f"ragflowUrl: whether RAGFlow still holds the reranker was not looked up: {error}; a change there by hand would not show"
        )
    if seen.release.generation is Generation.BY_HAND:
        raise NotRegistrable(f"ragflowUrl: {BY_HAND.format(version=seen.release.version)}")
    if seen.as_wanted:
        return Registered()
    differences = "; ".join(seen.differences)
    note = f"RAGFlow has the reranker with {differences}: up puts that right" if seen.there else "RAGFlow does not have the reranker: up enters it"
    # so that the second of two equal findings is a change as well
    return Registered(found=f"{differences} ({secrets.token_hex(2)})", note=note)
