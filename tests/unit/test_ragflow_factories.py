"""What RAGFlow's factories send, release by release, asked of the service as they ask it (docs/ragflow.md has the table for people).

Each row is a factory of some releases: the base URL that a person types, the path it makes of it, the body and key it sends, and where it reads the scores.
Read in RAGFlow's rag/llm/rerank_model.py and written down here; {model} is the name as that factory sends it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import pytest

from serving.launch import mock
from tests.support import asgi, contract
from tests.support.engine import wait_until
from tests.support.options import service_options

KEY = "a-key-of-eight"
NAME = "qwen3-reranker-0.6b"
DOCUMENTS = ("Bananas are yellow.", "Paris is the capital of France.", "The Seine flows.")
QUERY = "What is the capital of France?"

Body = Callable[[str], dict[str, Any]]


def plain(model: str) -> dict[str, Any]:
    return {"model": model, "query": QUERY, "documents": list(DOCUMENTS), "top_n": len(DOCUMENTS)}


def cohere(model: str) -> dict[str, Any]:
    return plain(model) | {"return_documents": False}


def xinference(model: str) -> dict[str, Any]:
    return {"model": model, "query": QUERY, "return_documents": "true", "return_len": "true", "documents": list(DOCUMENTS)}


def siliconflow(model: str) -> dict[str, Any]:
    return plain(model) | {"return_documents": False, "max_chunks_per_doc": 1024, "overlap_tokens": 80}


def tei(_: str) -> dict[str, Any]:
    return {"query": QUERY, "texts": list(DOCUMENTS), "raw_scores": False, "truncate": True}


def appended(base: str) -> str:
    """{base}/rerank, as cohere's client and the newer factories make it."""
    return urljoin(base.rstrip("/") + "/", "rerank")


def at_root(base: str) -> str:
    return urljoin(base, "/rerank")


def xinferences(base: str) -> str:
    if "/v1" not in base:
        return urljoin(base, "/v1/rerank")
    return base if "/rerank" in base else urljoin(base, "/v1/rerank")


def gpustacks(base: str) -> str:
    return base.rstrip("/") + "/v1/rerank"


def as_typed(base: str) -> str:
    return base


def results(answer: Any) -> dict[int, float]:
    return {item["index"]: item["relevance_score"] for item in answer["results"]}


def listed(answer: Any) -> dict[int, float]:
    return {item["index"]: item["score"] for item in answer}


@dataclass(frozen=True, kw_only=True)
class Factory:
    releases: str
    bases: tuple[str, ...]
    path: Callable[[str], str]
    body: Body
    read: Callable[[Any], dict[int, float]] = results
    names: tuple[str, ...] = (NAME, "Qwen/Qwen3-Reranker-0.6B", f"/models/{NAME}", NAME.upper())
    headers: Mapping[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {KEY}"})


FACTORIES: dict[str, list[Factory]] = {
    "VLLM, Cohere": [
        Factory(releases="v0.18 to main", bases=("", "/", "/v1", "/v1/"), path=appended, body=cohere),
        Factory(releases="v0.17.2", bases=("", "/v1"), path=appended, body=cohere, names=(f"{NAME}___VLLM",)),
    ],
    "OpenAI-API-Compatible": [
        Factory(releases="v0.24 to main", bases=("", "/v1", "/v1/", "/v1/rerank"), path=lambda base: base if "/rerank" in base else appended(base), body=plain),
        Factory(releases="v0.19 to v0.23", bases=("", "/v1"), path=at_root, body=plain),
        Factory(releases="v0.27, Go", bases=("/", "/v1", "/v1/"), path=as_typed, body=plain),
    ],
    "LocalAI": [Factory(releases="all", bases=("", "/v1"), path=at_root, body=plain)],
    "Xinference": [Factory(releases="all", bases=("", "/v1", "/v1/rerank"), path=xinferences, body=xinference)],
    "GPUStack": [Factory(releases="all", bases=("", "/", "/v1"), path=gpustacks, body=plain)],
    "New API, RAGcon": [Factory(releases="v0.26 and v0.25 on", bases=("", "/v1", "/v1/"), path=lambda base: base + "/rerank", body=plain)],
    "Jina": [Factory(releases="v0.25.6 on", bases=("/v1/rerank", "/rerank", "/v1/rerank/"), path=as_typed, body=plain)],
    "SILICONFLOW": [Factory(releases="v0.25 on", bases=("/v1", "/v1/rerank"), path=lambda base: base if "/rerank" in base else appended(base), body=siliconflow)],
    "HuggingFace": [Factory(releases="all, without a key", bases=("", "/rerank"), path=lambda base: base if base.endswith("/rerank") else base + "/rerank", body=tei, read=listed, headers={})],
}  # fmt: skip
CALLS = [
    pytest.param(factory, base, name, id=f"{label}, {factory.releases}, {base or 'bare'}, {name}")
    for label, factories in FACTORIES.items()
    for factory in factories
    for base in factory.bases
    for name in factory.names
]


def served(**changes: Any) -> Iterator[str]:
    service = mock.build(service_options(served_model_names=(NAME,), **changes))
    with asgi.running(service) as (host, port):
        wait_until(lambda: service.vitals.proven, seconds=10, every=0.01)
        yield f"http://{host}:{port}"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("key") / "api_keys"
    file.write_text(f"{KEY}\n")
    yield from served(api_key_file=str(file))


@pytest.fixture(scope="module")
def unlocked() -> Iterator[str]:
    yield from served()


def ask(url: str, factory: Factory, base: str, name: str, headers: Mapping[str, str]) -> contract.Answer:
    path = factory.path(f"{url}{base}").removeprefix(url)
    http = contract.Http(url)
    try:
        return http("POST", path or "/", json.dumps(factory.body(name)).encode(), [("Content-Type", "application/json"), *headers.items()])
    finally:
        http.close()


@pytest.mark.parametrize(("factory", "base", "name"), CALLS)
def test_a_factory_is_answered_in_its_own_shape(request: pytest.FixtureRequest, factory: Factory, base: str, name: str) -> None:
    url = request.getfixturevalue("locked" if factory.headers else "unlocked")
    answer = ask(url, factory, base, name, factory.headers)
    assert answer.status == 200, answer
    scores = factory.read(answer.json)
    assert sorted(scores) == [0, 1, 2]
    assert max(scores, key=lambda place: scores[place]) == 1


@pytest.mark.parametrize(("factory", "base", "name"), CALLS)
def test_a_factorys_wrong_key_is_no_wrong_login(locked: str, factory: Factory, base: str, name: str) -> None:
    """RAGFlow takes an error whose text has that number, or that word, for its own user's wrong login, and logs him out."""
    answer = ask(locked, factory, base, name, {"Authorization": "Bearer x"})
    assert answer.status == 403
    assert not any(mark in f"status_code: {answer.status}, body: {answer.body.decode()}".lower() for mark in ("401", "unauthorized"))
