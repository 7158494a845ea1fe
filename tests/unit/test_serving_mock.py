"""The mock over a real socket; the answers of vLLM 0.32 that it is compared with were taken from a running one."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import health, mock

ROOT = Path(__file__).parents[2]
NAMES = ("qwen3-reranker-0.6b", "/models/qwen3-reranker-0.6b")


def running(api_keys: tuple[str, ...] = ()) -> Iterator[mock.MockServer]:
    server = mock.MockServer(("127.0.0.1", 0), NAMES, api_keys)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server() -> Iterator[mock.MockServer]:
    yield from running()


@pytest.fixture
def locked() -> Iterator[mock.MockServer]:
    yield from running(("one", "two"))


def call(server: mock.MockServer, path: str, body: Any = None, *, raw: bytes | None = None, method: str = "", **headers: str) -> tuple[int, Any]:
    """(status, decoded body) of one request; JSON unless `raw` is given."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    sent = ({"Content-Type": "application/json"} if data is not None else {}) | {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method or ("GET" if data is None else "POST"), path, data, sent)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, json.loads(text) if answer.getheader("Content-Type") == "application/json" else text


DOCUMENTS = ["Apples are red.", "The capital of China is Beijing.", "China is a country."]


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank"])
def test_a_rerank_has_vllms_shape_best_document_first(server: mock.MockServer, path: str) -> None:
    status, answer = call(server, path, {"model": NAMES[1], "query": "the capital of China", "documents": DOCUMENTS})
    assert status == 200
    assert list(answer) == ["id", "model", "usage", "results"]
    assert answer["id"].startswith("score-")
    assert answer["model"] == NAMES[0]
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    assert answer["results"][0] == {
        "index": 1,
        "document": {"text": DOCUMENTS[1], "multi_modal": None},
        "relevance_score": pytest.approx(0.9 + 0.1 * 4 / 6),
    }
    assert answer["results"][2]["relevance_score"] == 0
    assert answer["usage"]["prompt_tokens"] == answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(("top_n", "number"), [(0, 3), (1, 1), (2, 2), (3, 3), (99, 3)])
def test_top_n_cuts_after_sorting_and_zero_means_all(server: mock.MockServer, top_n: int, number: int) -> None:
    _, answer = call(server, "/v1/rerank", {"query": "capital China", "documents": DOCUMENTS, "top_n": top_n, "return_documents": False})
    assert [result["index"] for result in answer["results"]] == [1, 2, 0][:number]
    assert all(result["document"]["text"] == DOCUMENTS[result["index"]] for result in answer["results"])  # vLLM ignores return_documents


def test_equal_scores_keep_the_order_of_the_request(server: mock.MockServer) -> None:
    _, answer = call(server, "/v1/rerank", {"query": "x", "documents": ["b", "a", "c"]})
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]


@pytest.mark.parametrize(
    "body",
    [
        {"text_1": "capital", "text_2": ["no", "the capital"]},
        {"queries": "capital", "documents": ["no", "the capital"]},
        {"queries": ["capital"], "items": ["no", "the capital"]},
        {"data_1": ["capital", "capital"], "data_2": ["no", "the capital"]},
    ],
)
@pytest.mark.parametrize("path", ["/v1/score", "/score"])
def test_a_score_keeps_the_order_of_the_request(server: mock.MockServer, path: str, body: dict[str, Any]) -> None:
    status, answer = call(server, path, body)
    assert status == 200
    assert answer.keys() == {"id", "object", "created", "model", "data", "usage"}
    assert [(item["index"], item["object"], item["score"]) for item in answer["data"]] == [(0, "score", 0.0), (1, "score", pytest.approx(0.95))]


@pytest.mark.parametrize(
    ("query", "better", "worse"),
    [
        ("北京是哪个国家的首都", "北京是中国的首都。", "苹果是红色的。"),
        ("重排序", "重排序模型", "排版模型"),
        ("東京タワー", "東京タワーは高い", "大阪城は広い"),
        ("ＭＥＭＯＲＹ limit", "Set the memory limit", "Set the clock"),
        ("vLLM部署", "如何部署vLLM", "如何部署Ollama"),
    ],
)
def test_shared_words_and_characters_make_a_document_relevant(query: str, better: str, worse: str) -> None:
    assert 1 >= mock.score(query, better) > mock.score(query, worse) >= 0


def test_scores_lie_between_zero_and_one() -> None:
    assert mock.score("same words", "same words") == 1
    assert mock.score("", "x") == mock.score("x", "") == mock.score("?!", "x") == 0


ERROR_KEYS = ["message", "type", "param", "code"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "param", "message"),
    [
        ({"query": "a", "documents": []}, 400, "BadRequestError", None, "At least one text_pair element must be given"),
        ({"documents": ["b"]}, 400, "Bad Request", "body.query", "Field required"),
        ({"query": "a"}, 400, "Bad Request", "body.documents", "Field required"),
        ({"query": "a", "documents": ["x"], "model": "nope"}, 404, "NotFoundError", None, "The model `nope` does not exist."),
        ({"query": "a", "documents": ["x"], "top_n": -1}, 400, "Bad Request", "body.top_n", "greater than or equal to 0"),
        ({"query": "a", "documents": ["x"], "top_n": [1]}, 400, "Bad Request", "body.top_n", "valid integer"),
        ({"query": 5, "documents": ["x"]}, 400, "Bad Request", "body.query", "valid string"),
        ({"query": ["a", "b"], "documents": ["x"]}, 400, "Bad Request", "body.query", "valid string"),
        ({"query": "a", "documents": ["x", 7]}, 400, "Bad Request", "body.documents", "valid string"),
        ([], 400, "Bad Request", "body", "valid dictionary"),
    ],
)
def test_a_wrong_request_gets_vllms_error(server: mock.MockServer, body: Any, status: int, kind: str, param: str | None, message: str) -> None:
    got, answer = call(server, "/v1/rerank", body)
    error = answer["error"]
    assert (got, list(error), error["type"], error["param"], error["code"]) == (status, ERROR_KEYS, kind, param, status)
    assert message in error["message"]


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"{nope", {}, 400),
        (b"", {}, 400),
        (b"[" * 100_000, {}, 400),
        (b"{}", {"Content_Type": "text/plain"}, 400),
        (b"\xff\xfe", {}, 400),
        (b"{}", {"Content_Length": str(mock.BODY_LIMIT_BYTES + 1)}, 413),
        (b"{}", {"Content_Length": "-1"}, 411),
        (b"{}", {"Transfer_Encoding": "chunked"}, 411),
    ],
)
def test_a_body_that_is_no_json_object_of_a_bearable_size_is_refused(
    server: mock.MockServer, raw: bytes, headers: dict[str, str], status: int
) -> None:
    if "Transfer_Encoding" in headers:
        raw = b"2\r\n{}\r\n0\r\n\r\n"
    got, answer = call(server, "/v1/rerank", raw=raw, **headers)
    assert (got, answer["error"]["code"]) == (status, status)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("POST", "/nope", 404), ("GET", "/v1/rerank", 405), ("POST", "/health", 405)]
)
def test_an_unknown_route_gets_the_frameworks_answer(server: mock.MockServer, method: str, path: str, status: int) -> None:
    got, answer = call(server, path, raw=b"{}" if method == "POST" else None, method=method)
    assert (got, answer) == (status, {"detail": "Not Found" if status == 404 else "Method Not Allowed"})


def test_models_version_metrics_and_health_answer(server: mock.MockServer) -> None:
    assert call(server, "/health") == (200, "")
    assert call(server, "/version")[1]["version"].startswith("0.32.0")
    status, answer = call(server, "/v1/models")
    assert (status, answer["object"], [model["id"] for model in answer["data"]]) == (200, "list", list(NAMES))
    assert answer["data"][0].keys() == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"}
    call(server, "/nope")
    assert server.drain(5)
    status, text = call(server, "/metrics")
    assert 'http_requests_total{handler="/v1/models",method="GET",status="2xx"} 1.0\n' in text
    assert 'http_requests_total{handler="none",method="GET",status="4xx"} 1.0\n' in text


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/v2/rerank", "/v1/score", "/score", "/v1/models", "/version", "/metrics", "/nope"])
def test_a_key_guards_every_route_but_health(locked: mock.MockServer, path: str) -> None:
    body = {"query": "a", "documents": ["a"], "text_1": "a", "text_2": "a"} if path.endswith(("rerank", "score")) else None
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "one"}):
        assert call(locked, path, body, **headers) == (401, {"error": "Unauthorized"})
    for key in ("one", "two"):
        assert call(locked, path, body, Authorization=f"Bearer {key}")[0] == (404 if path == "/nope" else 200)
    assert call(locked, "/health") == (200, "")


def test_one_connection_carries_many_requests_and_a_refused_body_is_not_read_as_a_request(server: mock.MockServer) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    for _ in range(3):
        connection.request("POST", "/v1/rerank", json.dumps({"query": "a", "documents": ["a"]}), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert (answer.version, answer.status, answer.getheader("Connection")) == (11, 200, None)
        answer.read()
    connection.request("POST", "/nope", b"GET /v1/models HTTP/1.1\r\n\r\n")
    answer = connection.getresponse()
    answer.read()
    assert (answer.status, answer.getheader("Connection")) == (404, "close")
    connection.close()


def test_a_client_that_leaves_does_not_stop_the_server(server: mock.MockServer) -> None:
    with socket.create_connection(server.server_address[:2], 5) as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    assert call(server, "/health") == (200, "")


def test_the_health_check_is_well_with_a_well_server(locked: mock.MockServer) -> None:
    assert health.check(locked.server_address[:2]) == ""


def start(*argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serving", "mock", "--host", "127.0.0.1", "--port", "0", "--served-model-name", "m", *argv],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_mock_with_status_0_although_a_client_is_connected(number: signal.Signals) -> None:
    process = start()
    try:
        assert process.stdout is not None
        host, port = json.loads(process.stdout.readline())["listening"].split(":")
        with socket.create_connection((host, int(port)), 5):
            process.send_signal(number)
            assert process.wait(15) == 0
        assert json.loads(process.stdout.readline()) == {"mock": "stopped", "running": 0}
    finally:
        process.kill()
        process.communicate()


def test_a_stop_waits_for_running_answers(server: mock.MockServer) -> None:
    server.begin()
    assert server.drain(0.01) is False
    threading.Timer(0.05, server.end, ("/v1/rerank", "POST", 200)).start()
    assert server.drain(10) is True


def test_the_mock_reads_its_keys_from_the_file_and_shows_none(tmp_path: Path) -> None:
    (tmp_path / "api_keys").write_text("s3cret-key\n")
    process = start("--api-key-file", str(tmp_path / "api_keys"))
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        host, port = json.loads(line)["listening"].split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        connection.request("GET", "/v1/models", headers={"Authorization": "Bearer s3cret-key"})
        assert connection.getresponse().status == 200
        connection.close()
        assert json.loads(line)["key"] is True
        assert "s3cret" not in line
    finally:
        process.terminate()
        out, err = process.communicate(timeout=15)
    assert "s3cret" not in out + err


def test_a_missing_key_file_ends_the_mock_in_one_sentence() -> None:
    process = start("--api-key-file", "/nowhere/keys")
    out, err = process.communicate(timeout=15)
    assert (process.returncode, out) == (1, "")
    assert "The API key file /nowhere/keys cannot be read" in err
    assert err.count("\n") == 1


def test_a_busy_port_ends_the_mock_in_one_sentence(server: mock.MockServer) -> None:
    process = start("--port", str(server.server_address[1]))
    _, err = process.communicate(timeout=15)
    assert process.returncode == 1
    assert "cannot listen on 127.0.0.1" in err
    assert err.count("\n") == 1
