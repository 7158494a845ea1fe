"""A stand-in for Elasticsearch, for RAGFlow's real API server in tests: it keeps documents in memory and answers what RAGFlow asks of it
for chunks, no more. Start it with `python -m tests.support.elasticsearch PORT`; it listens on loopback alone."""

import json
import math
import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import RLock
from typing import Any
from urllib.parse import unquote, urlsplit

Json = dict[str, Any]
Answer = tuple[HTTPStatus, Json]

VERSION = "8.11.3"
INFO: Json = {
    "name": "stand-in",
    "cluster_name": "stand-in",
    "cluster_uuid": "stand-in",
    "version": {"number": VERSION, "build_flavor": "default", "lucene_version": "9.8.0"},
    "tagline": "You Know, for Search",
}
HEALTH: Json = {"cluster_name": "stand-in", "status": "green", "timed_out": False, "number_of_nodes": 1}
SHARDS: Json = {"total": 1, "successful": 1, "failed": 0}
NOTHING: Json = {"took": 1, "timed_out": False, "total": 0, "updated": 0, "deleted": 0, "failures": []}


class Indices:
    """What was put in, by index and id, and the few questions about it."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Json]] = {}
        self.lock = RLock()

    def bulk(self, lines: list[Json], index: str) -> Json:
        items: list[Json] = []
        actions = iter(lines)
        for action in actions:
            ((name, target),) = action.items()
            where, key = target.get("_index", index), target["_id"]
            if name == "delete":
                self.documents.get(where, {}).pop(key, None)
            elif name == "update":
                self.documents.setdefault(where, {}).setdefault(key, {}).update(next(actions).get("doc", {}))
            else:
                self.documents.setdefault(where, {})[key] = next(actions)
            items.append({name: {"_index": where, "_id": key, "status": 200, "result": "updated"}})
        return {"took": 1, "errors": False, "items": items}

    def matching(self, names: str, query: Json | None) -> list[tuple[str, str, Json]]:
        """(index, id, document) of everything in these indices that the query lets through."""
        return [
            (index, key, document)
            for index in names.split(",")
            for key, document in self.documents.get(index, {}).items()
            if query is None or allows(query, key, document)
        ]

    def search(self, names: str, body: Json) -> Json:
        knn = body.get("knn")
        found = self.matching(names, knn.get("filter") if knn else body.get("query"))
        hits = [hit(index, key, document, knn) for index, key, document in found]
        if knn:
            hits = [each for each in hits if each["_score"] >= (1 + float(knn.get("similarity") or -1)) / 2]
            hits.sort(key=lambda each: -each["_score"])
            hits = hits[: int(knn["k"])]
        total = len(hits)
        start = int(body.get("from", 0))
        answer: Json = {
            "took": 1,
            "timed_out": False,
            "_shards": SHARDS,
            "hits": {
                "total": {"value": total, "relation": "eq"},
                "max_score": 1.0,
                "hits": hits[start : start + int(body.get("size", 10))],
            },
        }
        if "aggs" in body:
            answer["aggregations"] = {name: counted(each, hits) for name, each in body["aggs"].items()}
        return answer


def hit(index: str, key: str, document: Json, knn: Json | None) -> Json:
    score = (1 + cosine(knn["query_vector"], document.get(knn["field"]))) / 2 if knn else 1.0
    return {"_index": index, "_id": key, "_score": score, "_source": dict(document)}


def counted(aggregation: Json, hits: list[Json]) -> Json:
    field = aggregation.get("terms", {}).get("field", "")
    counts: dict[str, int] = {}
    for each in hits:
        for value in listed(each["_source"].get(field)):
            counts[str(value)] = counts.get(str(value), 0) + 1
    return {"buckets": [{"key": key, "doc_count": count} for key, count in counts.items()]}


def cosine(a: list[float], b: list[float] | None) -> float:
    if not b or len(a) != len(b):
        return -1.0
    norm = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


def listed(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def allows(query: Json, key: str, document: Json) -> bool:
    """Whether a filter lets the document through; a kind that is not known here lets everything through."""
    ((kind, body),) = query.items()
    rule: Callable[[Json, str, Json], bool] | None = RULES.get(kind)
    return rule(body, key, document) if rule else True


def _bool(body: Json, key: str, document: Json) -> bool:
    def every(name: str) -> list[bool]:
        clauses = body.get(name) or []
        return [allows(each, key, document) for each in (clauses if isinstance(clauses, list) else [clauses])]

    should = every("should") if int(body.get("minimum_should_match", 0)) else []
    return all(every("must")) and all(every("filter")) and not any(every("must_not")) and (not should or any(should))


def _values(field: str, key: str, document: Json) -> list[object]:
    return [key] if field == "_id" else listed(document.get(field))


def _term(body: Json, key: str, document: Json) -> bool:
    ((field, value),) = ((name, each) for name, each in body.items() if name != "boost")
    wanted = value["value"] if isinstance(value, dict) else value
    return wanted in _values(field, key, document)


def _terms(body: Json, key: str, document: Json) -> bool:
    ((field, wanted),) = ((name, each) for name, each in body.items() if name != "boost")
    return any(each in _values(field, key, document) for each in wanted)


def _range(body: Json, key: str, document: Json) -> bool:
    ((field, bounds),) = body.items()
    numbers = [each for each in _values(field, key, document) if isinstance(each, int | float)]
    tests: dict[str, Callable[[float, float], bool]] = {
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
    }
    return any(all(tests[name](number, float(bound)) for name, bound in bounds.items() if name in tests) for number in numbers)


def _exists(body: Json, key: str, document: Json) -> bool:
    return bool(_values(body["field"], key, document))


def _query_string(body: Json, _key: str, document: Json) -> bool:
    """One word in common is enough: how many must match is not looked at."""
    words = set(re.findall(r"\w+", str(body.get("query", "")).lower()))
    fields = [name.split("^")[0] for name in body.get("fields", ["content_ltks"])]
    return any(words & set(str(value).lower().split()) for field in fields for value in listed(document.get(field)))


RULES: dict[str, Callable[[Json, str, Json], bool]] = {
    "bool": _bool,
    "term": _term,
    "terms": _terms,
    "range": _range,
    "exists": _exists,
    "query_string": _query_string,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    indices: Indices

    def log_message(self, format: str, *args: object) -> None:
        return

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        lines = [json.loads(line) for line in body.splitlines() if line.strip()] if "ndjson" in self.headers.get("Content-Type", "") else []
        with self.indices.lock:
            status, answer = self.answer(
                [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/") if part],
                lines,
                json.loads(body) if body and not lines else {},
            )
        content = b"" if self.command == "HEAD" else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.elasticsearch+json;compatible-with=8")
        self.send_header("X-Elastic-Product", "Elasticsearch")  # its client refuses any other server
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = respond

    def answer(self, path: list[str], lines: list[Json], body: Json) -> Answer:
        if not path:
            return HTTPStatus.OK, INFO
        if path[0] == "_cluster":
            return HTTPStatus.OK, HEALTH
        if path[-1] == "_bulk":
            return HTTPStatus.OK, self.indices.bulk(lines, path[0])
        index, verb = path[0], path[1] if len(path) > 1 else ""
        documents = self.indices.documents
        if not verb and self.command in ("GET", "HEAD"):
            return (HTTPStatus.OK if index in documents else HTTPStatus.NOT_FOUND), {}
        if not verb and self.command == "DELETE":
            documents.pop(index, None)
        elif not verb:
            documents.setdefault(index, {})
        elif verb == "_search":
            return HTTPStatus.OK, self.indices.search(index, body)
        elif verb == "_count":
            return HTTPStatus.OK, {"count": len(self.indices.matching(index, body.get("query"))), "_shards": SHARDS}
        elif verb in ("_doc", "_create"):
            return self.document(index, path[2], body)
        elif verb == "_update":
            documents.setdefault(index, {}).setdefault(path[2], {}).update(body.get("doc", {}))
        elif verb == "_delete_by_query":
            gone = self.indices.matching(index, body.get("query"))
            for where, key, _ in gone:
                del documents[where][key]
            return HTTPStatus.OK, NOTHING | {"total": len(gone), "deleted": len(gone)}
        elif verb == "_update_by_query":
            return HTTPStatus.OK, NOTHING
        return HTTPStatus.OK, {"acknowledged": True, "shards_acknowledged": True, "index": index, "_shards": SHARDS, "result": "updated"}

    def document(self, index: str, key: str, body: Json) -> Answer:
        documents = self.indices.documents.setdefault(index, {})
        if self.command in ("PUT", "POST"):
            documents[key] = body
        there = key in documents
        answer = {"_index": index, "_id": key, "found": there, "result": "updated", "_source": documents.get(key, {})}
        if self.command == "DELETE":
            documents.pop(key, None)
        return (HTTPStatus.OK if there else HTTPStatus.NOT_FOUND), answer


def serve(port: int) -> ThreadingHTTPServer:
    """The stand-in, bound to loopback and not yet serving."""
    handler = type("BoundHandler", (Handler,), {"indices": Indices()})
    return ThreadingHTTPServer(("127.0.0.1", port), handler)


if __name__ == "__main__":
    serve(int(sys.argv[1])).serve_forever()
