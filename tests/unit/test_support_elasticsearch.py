"""The stand-in for Elasticsearch that a real RAGFlow is tried with: what RAGFlow asks of it."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import contract, elasticsearch

NDJSON = ("Content-Type", "application/vnd.elasticsearch+x-ndjson; compatible-with=8")


@pytest.fixture
def store() -> Iterator[contract.Http]:
    """A stand-in with three chunks of two datasets; the second chunk is switched off."""
    server = elasticsearch.serve(0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    ask = contract.Http(f"http://127.0.0.1:{server.server_address[1]}")
    try:
        lines = [
            json.dumps(line)
            for key, document in {
                "a": {"kb_id": "one", "content_ltks": "river water", "v": [1.0, 0.0]},
                "b": {"kb_id": "one", "content_ltks": "river", "v": [1.0, 1.0], "available_int": 0},
                "c": {"kb_id": "two", "content_ltks": "stone", "v": [0.0, 1.0]},
            }.items()
            for line in ({"index": {"_index": "chunks", "_id": key}}, document)
        ]
        assert ask("PUT", "/_bulk", "\n".join([*lines, ""]).encode(), [NDJSON]).status == 200
        yield ask
    finally:
        ask.close()
        server.shutdown()
        thread.join()
        server.server_close()


def asked(store: contract.Http, path: str, body: Any) -> Any:
    return json.loads(store("POST", path, json.dumps(body).encode(), [contract.JSON]).body)


def found(store: contract.Http, body: Any) -> list[str]:
    return [hit["_id"] for hit in asked(store, "/chunks/_search", body)["hits"]["hits"]]


def test_it_says_what_elasticsearchs_client_wants_to_hear(store: contract.Http) -> None:
    answer = store("GET", "/")
    assert answer.headers["x-elastic-product"] == "Elasticsearch"
    assert json.loads(answer.body)["version"]["number"].startswith("8.")


def test_an_index_is_there_once_something_is_in_it(store: contract.Http) -> None:
    assert store("HEAD", "/chunks").status == 200
    assert store("HEAD", "/others").status == 404


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ({"terms": {"kb_id": ["one"]}}, ["a", "b"]),
        ({"term": {"kb_id": "two"}}, ["c"]),
        ({"terms": {"_id": ["b", "c"]}}, ["b", "c"]),
        ({"exists": {"field": "available_int"}}, ["b"]),
        ({"bool": {"filter": [{"bool": {"must_not": [{"range": {"available_int": {"lt": 1}}}]}}]}}, ["a", "c"]),
        ({"bool": {"should": [{"term": {"kb_id": "two"}}], "minimum_should_match": 1}}, ["c"]),
        ({"bool": {"must": [{"query_string": {"query": "(water^2 OR nothing)", "fields": ["content_ltks^2"]}}]}}, ["a"]),
    ],
)
def test_a_filter_lets_through_what_it_says(store: contract.Http, query: Any, keys: list[str]) -> None:
    assert found(store, {"query": query}) == keys


def test_the_nearest_vectors_come_first_and_far_ones_not_at_all(store: contract.Http) -> None:
    knn = {"field": "v", "query_vector": [0.1, 1.0], "k": 10, "similarity": 0.5}
    assert found(store, {"knn": knn}) == ["c", "b"]
    assert found(store, {"knn": knn, "from": 1, "size": 1}) == ["b"]
    assert found(store, {"knn": knn | {"filter": {"term": {"kb_id": "one"}}}}) == ["b"]


def test_what_is_deleted_is_gone(store: contract.Http) -> None:
    assert asked(store, "/chunks/_delete_by_query", {"query": {"term": {"kb_id": "one"}}})["deleted"] == 2
    assert asked(store, "/chunks/_count", {})["count"] == 1
