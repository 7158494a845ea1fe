"""Two functions for scripts, which find the service by the environment.

RERANK_URL            where it is, e.g. http://127.0.0.1:8123
RERANK_API_KEY        its key, where it asks for one; or
RERANK_API_KEY_FILE   a file with the key in its first line
RERANK_MODEL          the name to ask for, where it has several
"""

import functools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rerank.client import RerankClient
from rerank.errors import InvalidInput
from rerank.results import Item


def rerank(query: str, documents: Iterable[str], top_n: int | None = None, **options: Any) -> tuple[list[Item], list[float], Mapping[str, Any]]:
    """`items, scores, raw`: the best documents first, their scores in the same order, and the service's JSON. `options` as of RerankClient.rerank."""
    result = default_client().rerank(query, documents, top_n, **options)
    return list(result.items), list(result.scores), result.raw


def score(query: str, documents: Iterable[str], **options: Any) -> tuple[list[float], Mapping[str, Any]]:
    """`scores, raw`: a score for each document, in the documents' order, and the service's JSON. `options` as of RerankClient.score."""
    result = default_client().score(query, documents, **options)
    return list(result.scores), result.raw


def default_client() -> RerankClient:
    """The client that the environment describes; the same one as long as that stays. InvalidInput where it says nothing."""
    named = ("RERANK_URL", "RERANK_API_KEY", "RERANK_API_KEY_FILE", "RERANK_MODEL")
    url, key, file, model = (os.environ.get(name, "").strip() for name in named)
    if not url:
        raise InvalidInput(
            "RERANK_URL is not set.", remedy="export RERANK_URL=http://127.0.0.1:8123, or make a RerankClient with the service's address."
        )
    if key and file:
        raise InvalidInput("RERANK_API_KEY and RERANK_API_KEY_FILE are both set.", remedy="Unset one of them.")
    return _client(url, first_key(file) if file else key, model)


@functools.lru_cache(maxsize=8)
def _client(url: str, key: str, model: str) -> RerankClient:
    return RerankClient(url, api_key=key or None, model=model or None)


def first_key(file: str) -> str:
    try:
        lines = Path(file).read_text(encoding="utf-8").split()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise InvalidInput(
            f"RERANK_API_KEY_FILE {file} cannot be read ({why}).", remedy="It must be a file with the key in its first line."
        ) from None
    if not lines:
        raise InvalidInput(f"RERANK_API_KEY_FILE {file} is empty.", remedy="It must hold the key in its first line.")
    return lines[0]
