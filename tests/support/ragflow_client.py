"""RAGFlow's own call: the Cohere SDK in the version that it pins, as its VLLM provider uses it, with its 30 s."""

from collections.abc import Sequence

import cohere

SECONDS = 30.0


def rerank(base_url: str, model: str, key: str, query: str, documents: Sequence[str]) -> dict[int, float]:
    """Relevance score by place of the document, in the answer's order; `base_url` as in RAGFlow's form. Raises what the SDK raises (httpx.ReadTimeout, ApiError)."""
    with cohere.Client(api_key=key, base_url=base_url, timeout=SECONDS) as client:
        answer = client.rerank(model=model, query=query, documents=documents, top_n=len(documents), return_documents=False)
    return {result.index: result.relevance_score for result in answer.results}
