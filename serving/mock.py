"""`mock`: a small real HTTP server with vLLM 0.32's reranking API and no model, for tests and demos.

Scores reward words that query and document share.
"""

import argparse
import json
import re
import signal
import sys
import threading
import time
import unicodedata
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from serving import keys

VERSION = "0.32.0+mock"
BODY_LIMIT_BYTES = 32 << 20
IDLE_SECONDS = 60.0
STOP_SECONDS = 10.0
RERANK_PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")
SCORE_PATHS = ("/v1/score", "/score")
PATHS = (*RERANK_PATHS, *SCORE_PATHS, "/health", "/v1/models", "/version", "/metrics")
# vLLM's names for the two sides of a score request, in the order it tries them.
SCORE_FIELDS = (("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2"))
# Scripts written without spaces: Chinese, Japanese, Korean.
SCRIPT = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
PIECE = re.compile(rf"[{SCRIPT}]+|[^\W{SCRIPT}]+")


class ApiError(Exception):
    """An answer other than 200, in vLLM's shape: status, its type, what went wrong, and the parameter it is about."""

    def __init__(self, status: int, kind: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.param = status, kind, message, param

    @classmethod
    def of_field(cls, kind: str, field: str, message: str) -> "ApiError":
        """400 about a field of the request, or (field "") the request as a whole."""
        place = f"body.{field}" if field else "body"
        return cls(400, "Bad Request", f"1 validation error:\n  {{'type': '{kind}', 'loc': '{place}', 'msg': '{message}'}}", place)

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}}


def terms(text: str) -> list[str]:
    """The words of `text`, in order, letter case and width ignored; of scripts without spaces each character and each pair of neighbours."""
    found = []
    for piece in PIECE.findall(unicodedata.normalize("NFKC", text).casefold()):
        if re.match(f"[{SCRIPT}]", piece):
            found += [*piece, *(piece[at : at + 2] for at in range(len(piece) - 1))]
        else:
            found.append(piece)
    return found


def score(query: str, document: str) -> float:
    """In [0, 1]: the share of the query's terms that the document has, and a tenth for the share of the document that the query asks for."""
    asked, given = set(terms(query)), set(terms(document))
    if not asked or not given:
        return 0.0
    common = len(asked & given)
    return 0.9 * common / len(asked) + 0.1 * common / len(given)


def rerank(request: dict[str, Any], model: str) -> dict[str, Any]:
    """vLLM's answer to a rerank request: by score, best first, each with its place in `documents`; all of them where `top_n` is 0 or missing.

    Like vLLM, it always returns the documents, and does not know `return_documents`.
    """
    query, documents = _texts(request, "query"), _texts(request, "documents")
    if isinstance(request["query"], list):
        raise ApiError.of_field("string_type", "query", "Input should be a valid string")
    top_n = request.get("top_n", 0)
    if isinstance(top_n, bool) or not isinstance(top_n, int):
        raise ApiError.of_field("int_type", "top_n", "Input should be a valid integer")
    if top_n < 0:
        raise ApiError.of_field("greater_than_equal", "top_n", "Input should be greater than or equal to 0")
    pairs = _pairs(query, documents)
    results: list[dict[str, Any]] = [
        {"index": index, "document": {"text": document, "multi_modal": None}, "relevance_score": score(asked, document)}
        for index, (asked, document) in enumerate(pairs)
    ]
    results.sort(key=lambda result: result["relevance_score"], reverse=True)
    tokens = _tokens(pairs)
    return {
        "id": f"score-{uuid.uuid4().hex[:16]}",
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "results": results[: top_n or len(results)],
    }


def score_pairs(request: dict[str, Any], model: str) -> dict[str, Any]:
    """vLLM's answer to a score request: one score a pair, in the order of the request."""
    fields = next((pair for pair in SCORE_FIELDS if all(name in request for name in pair)), None)
    if fields is None:
        raise ApiError.of_field("missing", "queries", "Field required")
    pairs = _pairs(_texts(request, fields[0]), _texts(request, fields[1]))
    tokens = _tokens(pairs)
    return {
        "id": f"score-{uuid.uuid4().hex[:16]}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [{"index": index, "object": "score", "score": score(*pair)} for index, pair in enumerate(pairs)],
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }


def models(names: tuple[str, ...]) -> dict[str, Any]:
    """vLLM's list of served models."""
    now = int(time.time())
    permission = {
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "object": "list",
        "data": [
            {
                "id": name,
                "object": "model",
                "created": now,
                "owned_by": "vllm",
                "root": "mock",
                "parent": None,
                "max_model_len": None,
                "permission": [{"id": f"modelperm-{uuid.uuid4().hex[:16]}", **permission}],
            }
            for name in names
        ],
    }


def _texts(request: dict[str, Any], name: str) -> list[str]:
    if name not in request:
        raise ApiError.of_field("missing", name, "Field required")
    value = request[name]
    texts = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in texts):
        raise ApiError.of_field("string_type", name, "Input should be a valid string")
    return texts


def _pairs(left: list[str], right: list[str]) -> list[tuple[str, str]]:
    if len(left) > 1 and len(left) != len(right):
        raise ApiError(400, "BadRequestError", "Input lengths must be either 1:1, 1:N or N:N")
    if not left:
        raise ApiError(400, "BadRequestError", "At least one text element must be given")
    if not right:
        raise ApiError(400, "BadRequestError", "At least one text_pair element must be given")
    return list(zip(left * len(right) if len(left) == 1 else left, right, strict=False))


def _tokens(pairs: list[tuple[str, str]]) -> int:
    return sum(len(terms(query)) + len(terms(document)) for query, document in pairs)


class MockServer(ThreadingHTTPServer):
    """The server: the names it serves, the keys it asks for (none: open), what it has counted, and a stop that lets running answers end."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], names: tuple[str, ...], api_keys: tuple[str, ...] = ()) -> None:
        self.names, self.api_keys = names, api_keys
        self.counts: dict[tuple[str, str, str], int] = {}  # by path, method and class of status
        self.running = 0
        self.changed = threading.Condition()
        super().__init__(address, Handler)

    def begin(self) -> None:
        with self.changed:
            self.running += 1

    def end(self, path: str, method: str, status: int) -> None:
        counted = (path if path in PATHS else "none", method, f"{status // 100}xx")
        with self.changed:
            self.running -= 1
            self.counts[counted] = self.counts.get(counted, 0) + 1
            self.changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Waits at most `seconds` for running requests; whether all have ended."""
        with self.changed:
            return self.changed.wait_for(lambda: self.running == 0, timeout=seconds)

    def metrics(self) -> str:
        lines = ["# HELP http_requests_total Total number of requests by method, status and handler.", "# TYPE http_requests_total counter"]
        with self.changed:
            lines += [
                f'http_requests_total{{handler="{path}",method="{method}",status="{status}"}} {count:.1f}'
                for (path, method, status), count in sorted(self.counts.items())
            ]
        return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    server: MockServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True  # headers and body are two writes

    def log_message(self, format: str, *args: object) -> None:
        """No access log, as with the real server."""

    def do_GET(self) -> None:
        self._answer(
            {
                "/health": lambda: "",
                "/v1/models": lambda: models(self.server.names),
                "/version": lambda: {"version": VERSION},
                "/metrics": self.server.metrics,
            }
        )

    def do_POST(self) -> None:
        self._answer(
            {path: lambda: rerank(*self._request()) for path in RERANK_PATHS} | {path: lambda: score_pairs(*self._request()) for path in SCORE_PATHS}
        )

    def _answer(self, routes: dict[str, Any]) -> None:
        path = self.path.split("?", 1)[0]
        self.body_read = self.command == "GET"
        self.server.begin()
        status = 500
        try:
            try:
                if path != "/health" and self.server.api_keys and not self._admitted():
                    status, body = 401, {"error": "Unauthorized"}
                elif path in routes:
                    status, body = 200, routes[path]()
                else:
                    status, body = (405, {"detail": "Method Not Allowed"}) if path in PATHS else (404, {"detail": "Not Found"})
            except ApiError as error:
                status, body = error.status, error.body()
            self._send(status, body)
        except OSError:
            self.close_connection = True  # the client went away
        finally:
            self.server.end(path, self.command, status)

    def _admitted(self) -> bool:
        given = self.headers.get_all("Authorization") or []
        return len(given) == 1 and keys.admits(given[0].encode("latin-1", "replace"), self.server.api_keys)

    def _request(self) -> tuple[dict[str, Any], str]:
        """The request's body and the name of the model that answers it."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise ApiError(411, "Length Required", "The request must have a Content-Length")
        if int(length) > BODY_LIMIT_BYTES:
            raise ApiError(413, "Request Entity Too Large", f"The body has {length} bytes and may have {BODY_LIMIT_BYTES}")
        raw = self.rfile.read(int(length))
        self.body_read = True
        if self.headers.get_content_type() != "application/json":
            raise ApiError(400, "Bad Request", "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed")
        try:
            request = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise ApiError.of_field("json_invalid", "", "JSON decode error") from error
        if not isinstance(request, dict):
            raise ApiError.of_field("model_attributes_type", "", "Input should be a valid dictionary or object to extract fields from")
        model = request.get("model")
        if model and model not in self.server.names:
            raise ApiError(404, "NotFoundError", f"The model `{model}` does not exist.")
        return request, self.server.names[0]

    def _send(self, status: int, body: str | dict[str, Any]) -> None:
        data = (body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode("utf-8", "replace")
        self.send_response(status)
        if not self.body_read:
            # What is left of the body would be taken for the next request.
            self.close_connection = True
            self.send_header("Connection", "close")
        if data:
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main(argv: list[str]) -> int:
    """Serves until SIGTERM or SIGINT; running answers get 10 s to end. Status 1 and one sentence where key file or port cannot be used."""
    parser = argparse.ArgumentParser(prog="serving mock")
    parser.add_argument("--served-model-name", action="append", required=True)
    parser.add_argument("--api-key-file", type=Path)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, for use outside a container")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one, for use outside a container")
    options = parser.parse_args(argv)
    try:
        api_keys = keys.read(options.api_key_file) if options.api_key_file else ()
        server = MockServer((options.host, options.port), tuple(options.served_model_name), api_keys)
    except keys.BadKeys as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"The mock cannot listen on {options.host}:{options.port} ({error.strerror}); the port must be free: stop what uses it.", file=sys.stderr
        )
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for serve_forever(), which this very thread runs.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(json.dumps({"mock": list(server.names), "listening": "{}:{}".format(*server.server_address[:2]), "key": bool(api_keys)}), flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    drained = server.drain(STOP_SECONDS)
    print(json.dumps({"mock": "stopped", "running": 0 if drained else server.running}), flush=True)
    return 0
