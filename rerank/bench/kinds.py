"""The rerank routes of the servers that can be measured: where they are, what they are sent, what they answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank.errors import MalformedAnswer
from rerank.results import Part, parsed, scores_of, told
from rerank.transport import Reply

Get = Callable[[str], Reply | None]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A server's rerank route: `texts` is the field that has the documents; `bare`: the answer is the list of results itself."""

    name: str
    path: str
    texts: str = "documents"
    bare: bool = False
    score: str = "relevance_score"
    more: Mapping[str, Any] | None = None  # further fields of a request
    tokens_header: str = ""  # where the answer's body counts no tokens

    def body(self, query: str, documents: Sequence[str], model: str | None) -> bytes:
        """The query comes first in it."""
        fields = {"query": query, **({"model": model} if model else {}), **(self.more or {}), self.texts: list(documents)}
        return json.dumps(fields, ensure_ascii=False).encode()

    def read(self, reply: Reply, documents: int) -> dict[str, Any]:
        """Answer's fields (rerank/results.py) of a 200; MalformedAnswer where it cannot be the answer to so many documents."""
        answer = parsed(reply.body)
        if self.bare:
            answer = {"results": answer}
        # Infinity's list was "data" once
        name = "data" if isinstance(answer, dict) and "results" not in answer and "data" in answer else "results"
        scores = scores_of(answer, name, self.score, documents, documents)
        found = told([Part(start=0, count=documents, scores=scores, headers=reply.headers, body=answer)], seconds=0.0)
        if found["tokens"] is None and (tokens := reply.headers.get(self.tokens_header, "")).isdigit():
            found["tokens"] = int(tokens)
        return found


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="ours", path="/v1/rerank", more={"return_documents": False}),
        Kind(name="vllm", path="/v1/rerank"),
        Kind(name="tei", path="/rerank", texts="texts", bare=True, score="score", tokens_header="x-compute-tokens"),
        Kind(name="infinity", path="/rerank", more={"return_documents": False}),
        Kind(name="llamacpp", path="/v1/rerank"),
    )
}


def detect(get: Get) -> str:
    """Which kind of server answers, by routes that it alone has; "" where none of them is there. `get` gives the answer to a path, with any status."""

    def answer(path: str) -> Any:
        reply = get(path)
        try:
            return parsed(reply.body) if reply is not None and reply.status in (200, 503) and reply.body else None
        except MalformedAnswer:
            return None

    health = answer("/health")
    if isinstance(health, dict) and health.get("status") in ("healthy", "starting", "unhealthy"):
        return "ours"
    info = answer("/info")
    if isinstance(info, dict) and "model_type" in info and "max_client_batch_size" in info:
        return "tei"
    models = answer("/models")
    entries = models.get("data") if isinstance(models, dict) else None
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    if first.get("owned_by") == "infinity":
        return "infinity"
    if first.get("owned_by") == "llamacpp":
        return "llamacpp"
    if isinstance(health, dict) and health.get("status") in ("ok", "loading model"):
        return "llamacpp"
    version = answer("/version")
    return "vllm" if isinstance(version, dict) and isinstance(version.get("version"), str) else ""
