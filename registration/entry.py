"""What RAGFlow is to hold: one entry, the same for every release."""

from dataclasses import dataclass, field

PROVIDER = "VLLM"  # RAGFlow's name of the factory, case included
KEY_PLACEHOLDER = "x"  # RAGFlow's client refuses an empty key, and any other will do where none is asked for
MODEL_TYPE = "rerank"
CONTAINER = "container"  # in the place of an address: from inside RAGFlow's own container
INSIDE = "http://127.0.0.1:9380"  # RAGFlow's API, seen from its own container, whatever port the host publishes


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The reranker as RAGFlow calls it. `instance`: its fixed name there; `api_key` '': none is asked for; `default`: it is to be the tenant's rerank model."""

    instance: str
    model: str
    base_url: str
    max_tokens: int
    api_key: str = field(default="", repr=False)
    default: bool = False

    @property
    def key(self) -> str:
        """The key as RAGFlow stores it."""
        return self.api_key or KEY_PLACEHOLDER


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where RAGFlow's API is. `url`: as seen from where it is called; `container` not empty: called from inside that container; `key`: RAGFlow's API key."""

    url: str
    container: str = ""
    key: str = field(repr=False)
