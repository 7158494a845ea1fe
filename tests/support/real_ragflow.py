"""A real RAGFlow's HTTP API as the ragflow tier asks it: plain calls with an API key, for v0.26 and later and for v0.24 and v0.25."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

FACTORY = "VLLM"
TIMEOUT_SECONDS = 180.0


class Reply(NamedTuple):
    """HTTP status, and RAGFlow's own code, message and data; code -1 where the body is not RAGFlow's."""

    status: int
    code: int
    message: str
    data: Any

    @property
    def good(self) -> bool:
        return (self.status, self.code) == (200, 0)

    @property
    def logs_out(self) -> bool:
        """Whether RAGFlow's page takes this answer for the end of the login."""
        return 401 in (self.status, self.code)


@dataclass(frozen=True)
class Ragflow:
    """A running API server, by its address (http://host:port) and one of its API keys."""

    url: str
    key: str

    def call(self, method: str, path: str, body: object = None) -> Reply:
        """One request; OSError where nobody answers."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return reply(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return reply(error.code, error.read())

    @cached_property
    def providers(self) -> bool:
        """Whether models are instances of a provider (v0.26 and later), and not rows of /v1/llm."""
        return self.call("GET", "/api/v1/providers").good

    @cached_property
    def version(self) -> str:
        found = self.call("GET", "/api/v1/system/version")
        return str((found if found.good else self.call("GET", "/v1/system/version")).data)

    @cached_property
    def ping_path(self) -> str:
        """A request that costs RAGFlow nothing, and needs no key."""
        for path in ("/api/v1/system/ping", "/v1/system/ping"):
            if self.call("GET", path).status == 200:
                return path
        raise AssertionError("no route of RAGFlow answers a ping")

    def register(self, kind: str, model: str, base_url: str, key: str, instance: str) -> Reply:
        """Adds a model of one kind (rerank, embedding); RAGFlow tries it before it answers."""
        if not self.providers:
            return self.call("POST", "/v1/llm/add_llm", {
                "llm_factory": FACTORY, "llm_name": model, "model_type": kind, "api_base": base_url, "api_key": key, "max_tokens": 4096,
            })  # fmt: skip
        self.call("PUT", "/api/v1/providers", {"provider_name": FACTORY})  # a second time it is refused, which does no harm
        return self.call("POST", f"/api/v1/providers/{FACTORY}/instances", {
            "instance_name": instance, "api_key": key, "base_url": base_url, "region": "default",
            "model_info": [{"model_type": [kind], "model_name": model, "max_tokens": 4096, "extra": {}}],
        })  # fmt: skip

    def remove(self, model: str, instance: str) -> Reply:
        if not self.providers:
            return self.call("POST", "/v1/llm/delete_llm", {"llm_factory": FACTORY, "llm_name": f"{model}___{FACTORY}"})
        return self.call("DELETE", f"/api/v1/providers/{FACTORY}/instances", {"instances": [instance]})

    def instances(self) -> list[str]:
        """Names of what the factory has (v0.26 and later)."""
        return [str(each["instance_name"]) for each in self.call("GET", f"/api/v1/providers/{FACTORY}/instances").data or []]

    def model_id(self, model: str, instance: str) -> str:
        """What retrieval calls the model by."""
        return f"{model}@{instance}@{FACTORY}" if self.providers else f"{model}___{FACTORY}@{FACTORY}"

    def dataset(self, name: str, embedding: str) -> str:
        """Id of a new, empty dataset."""
        made = self.call("POST", "/api/v1/datasets", {"name": name, "embedding_model": embedding})
        assert made.good, made
        return str(made.data["id"])

    def document(self, dataset: str, name: str) -> str:
        """Id of a new document without a file."""
        made = self.call("POST", f"/api/v1/datasets/{dataset}/documents?type=empty", {"name": name})
        if not made.good:
            made = self.call("POST", "/v1/document/create", {"name": name, "kb_id": dataset})
        assert made.good, made
        return str(made.data["id"])

    def chunk(self, dataset: str, document: str, text: str) -> None:
        made = self.call("POST", f"/api/v1/datasets/{dataset}/documents/{document}/chunks", {"content": text})
        assert made.good, made

    def retrieve(self, dataset: str, question: str, rerank_id: str = "", **over: object) -> Reply:
        asked = {"question": question, "dataset_ids": [dataset], "page_size": 100, "similarity_threshold": 0.0, **over}
        return self.call("POST", "/api/v1/retrieval", asked | ({"rerank_id": rerank_id} if rerank_id else {}))


def reply(status: int, body: bytes) -> Reply:
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return Reply(status, -1, body[:300].decode(errors="replace"), None)
    return Reply(status, int(found.get("code") or 0), str(found.get("message") or ""), found.get("data"))
