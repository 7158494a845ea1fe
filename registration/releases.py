"""RAGFlow's releases by how a model is entered there, and the id under which it is then known. Pure."""

import re
from enum import Enum

from registration.entry import PROVIDER, Entry


class Generation(Enum):
    """How a release takes a model."""

    BY_HAND = "up to v0.23: its model routes take no API key"
    UPSERT = "v0.24 and v0.25: add_llm, over and over"
    INSTANCES = "v0.26: instances of a provider, made and dropped"
    UPDATABLE = "v0.27 and later: instances that can be changed"


def generation_of(version: str) -> Generation | None:
    """By the number in 'v0.27.0' or 'v0.26.4-12-g3f2a1b'; None where there is none (a nightly build's own name)."""
    found = re.match(r"v?(\d+)\.(\d+)", version.strip())
    if not found:
        return None
    number = (int(found[1]), int(found[2]))
    if number < (0, 24):
        return Generation.BY_HAND
    return Generation.UPSERT if number < (0, 26) else Generation.INSTANCES if number < (0, 27) else Generation.UPDATABLE


def stored_name(entry: Entry) -> str:
    """The model's name in the table of releases before v0.26."""
    return f"{entry.model}___{PROVIDER}"


def model_id(generation: Generation, entry: Entry) -> str:
    """What a chat, a search or a retrieval names as its rerank model; '' where the stack entered none."""
    if generation is Generation.BY_HAND:
        return ""
    return f"{stored_name(entry)}@{PROVIDER}" if generation is Generation.UPSERT else f"{entry.model}@{entry.instance}@{PROVIDER}"
