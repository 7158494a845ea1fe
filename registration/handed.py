"""How `python3 -m registration` is told what is wanted: place and entry by the environment, both keys as JSON by standard input. Written and read here alone."""

import json
from collections.abc import Mapping
from typing import TypeVar

from registration.entry import Entry, Place

Text = TypeVar("Text")  # a str, or what becomes one later


def environment(*, url: str, container: str, instance: str, model: str, base_url: Text, max_tokens: int | str, default: str) -> dict[str, str | Text]:
    """All but the keys. `default`: none | tenant."""
    return {
        "RAGFLOW_URL": url,
        "RAGFLOW_CONTAINER": container,
        "INSTANCE": instance,
        "MODEL": model,
        "BASE_URL": base_url,
        "MAX_TOKENS": str(max_tokens),
        "DEFAULT": default,
    }


def keys(ragflow: str, reranker: str) -> str:
    """RAGFlow's key and the reranker's, for standard input: argv and environment would show in every list of processes."""
    return json.dumps({"ragflow": ragflow, "reranker": reranker})


def taken(given: Mapping[str, str], stdin: str) -> tuple[Place, Entry]:
    """Place and entry again."""
    both = json.loads(stdin)
    place = Place(url=given["RAGFLOW_URL"], container=given["RAGFLOW_CONTAINER"], key=both["ragflow"])
    entry = Entry(
        instance=given["INSTANCE"],
        model=given["MODEL"],
        base_url=given["BASE_URL"],
        max_tokens=int(given["MAX_TOKENS"]),
        api_key=both["reranker"],
        default=given["DEFAULT"] == "tenant",
    )
    return place, entry
