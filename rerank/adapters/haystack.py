"""Haystack: a ranker. Needs haystack-ai."""

from dataclasses import replace
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.utils import Secret

from rerank.client import RerankClient

KEY = Secret.from_env_var("RERANK_API_KEY", strict=False)


@component
class RerankRanker:
    """The `top_k` best documents (None: all), best first, each a copy with its score.

    The key is RERANK_API_KEY's by default, and none where that is not set; a pipeline that is saved names the variable, not the key,
    and is loaded with allowed_modules=["rerank.adapters.haystack"].
    Options are those of RerankClient; `deadline` is in seconds, None the service's own. Raises RerankError.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: Secret | None = KEY,
        model: str | None = None,
        top_k: int | None = None,
        deadline: float | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.options = {"base_url": base_url, "model": model, "top_k": top_k, "deadline": deadline, "timeout": timeout}
        self.api_key, self.top_k, self.deadline = api_key, top_k, deadline
        self.client = RerankClient(base_url, api_key=api_key.resolve_value() if api_key else None, model=model, timeout=timeout)

    def to_dict(self) -> dict[str, Any]:
        return default_to_dict(self, **self.options, api_key=self.api_key.to_dict() if self.api_key else None)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RerankRanker":
        key = data["init_parameters"].get("api_key")
        restored = {**data["init_parameters"], "api_key": Secret.from_dict(key) if isinstance(key, dict) else key}
        return default_from_dict(cls, {**data, "init_parameters": restored})

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, list[Document]]:
        texts = [document.content or "" for document in documents]
        found = self.client.rerank(query, texts, self.top_k if top_k is None else top_k, deadline=self.deadline)
        return {"documents": [replace(documents[item.index], score=item.score) for item in found.items]}
