"""The contract of every backend, asked over HTTP: what a rerank service of this stack answers, whatever scores behind it.

A test module inherits `Contract` (and `KeyContract`, where a key is set), gives it a `service`, and calls pytest.register_assert_rewrite for this module
before it imports it. `fuzz` throws malformed requests at a service and says what it made of them. Only `Ask` touches the network.
"""

import base64
import collections
import http.client
import json
import math
import random
import re
import socket
import string
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import pytest

RERANK_PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")
SCORE_PATHS = ("/v1/score", "/score")
POST_PATHS = (*RERANK_PATHS, *SCORE_PATHS)
GET_PATHS = ("/health", "/metrics", "/version", "/v1/models")
# What vLLM has as well, and what others might look for.
CLOSED_PATHS = (
    "/classify", "/pooling", "/tokenize", "/detokenize", "/invocations", "/ping", "/load", "/docs", "/redoc", "/openapi.json", "/v1/embeddings",
    "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/rerank/x", "/reranker", "/v1/score/x", "/v2", "/health/", "/v1/models/x",
    "/server_info", "/start_profile", "/sleep", "/collective_rpc", "/nope",
)  # fmt: skip
# Where RAGFlow's factories post a rerank to, from the base URLs that people type.
MEANT_PATHS = (
    "/",
    "/v1",
    "/v1/",
    "/rerank/",
    "/v1/rerank/",
    "/v1/v1/rerank",
    "//v1/rerank",
    "/V1/rerank",
    "/v1/rerank/rerank",
    "/v1/rerank//",
    "/api/v1/rerank",
)
JSON = ("Content-Type", "application/json")
DEADLINE = "X-Rerank-Deadline-Seconds"
UNSCORED_AS = "X-Rerank-Unscored-As"
TIMEOUT_SECONDS = 60.0
SAME = 2e-2  # the same texts, scored again in another batch, in bfloat16

Headers = Sequence[tuple[str, str]]


class Answer(NamedTuple):
    """Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers.get("content-type", "").split(";")[0] == "application/json", self
        return json.loads(self.body)


class Ask(Protocol):
    """One request, its headers sent as they are. Raises OSError or http.client.HTTPException where there is no answer within the timeout."""

    def __call__(self, method: str, path: str, body: bytes | None = None, headers: Headers = ()) -> Answer: ...

    def close(self) -> None: ...


class Http:
    """Asks over one connection, which it keeps, for one thread (Ask)."""

    def __init__(self, base_url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """`base_url` e.g. http://127.0.0.1:8000."""
        url = urllib.parse.urlsplit(base_url)
        self.connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=timeout)

    def __call__(self, method: str, path: str, body: bytes | None = None, headers: Headers = ()) -> Answer:
        used = self.connection.sock is not None
        try:
            return self._ask(method, path, body, headers)
        except (ConnectionError, http.client.BadStatusLine):
            self.close()
            if not used:
                raise
        return self._ask(method, path, body, headers)  # the server had closed the idle connection

    def close(self) -> None:
        self.connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, headers: Headers) -> Answer:
        connection, named = self.connection, {name.lower() for name, _ in headers}
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body is not None and not named & {"content-length", "transfer-encoding"}:
                connection.putheader("Content-Length", str(len(body)))
            try:
                connection.endheaders(body)
            except ConnectionError:  # a server may answer before it has read all, and close
                if not body or len(body) < 1 << 16:
                    raise
            response = connection.getresponse()
            answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        except BaseException:
            self.close()
            raise
        if "content-length" in named:  # what the server takes for the end of the body may be another place than ours
            self.close()
        return answer


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service and what its stack file says of it. `keys`: those it takes, none where it is open."""

    ask: Ask
    names: tuple[str, ...]
    max_model_len: int
    max_documents: int
    max_query_tokens: int
    max_body_bytes: int
    keys: tuple[str, ...] = ()

    @property
    def authorized(self) -> Headers:
        return [("Authorization", f"Bearer {self.keys[0]}")] if self.keys else []

    def get(self, path: str, headers: Headers = ()) -> Answer:
        return self.ask("GET", path, None, [*self.authorized, *headers])

    def post(self, path: str, request: object, headers: Headers = ()) -> Answer:
        """`request` as JSON, or as it is where it is bytes."""
        body = request if isinstance(request, bytes) else json.dumps(request).encode()
        given = {name.lower() for name, _ in headers}
        return self.ask("POST", path, body, [*self.authorized, *([] if "content-type" in given else [JSON]), *headers])

    def results(self, query: str, documents: Sequence[str], headers: Headers = (), **dials: object) -> dict[int, float]:
        """Score by place of the document."""
        answer = self.post("/v1/rerank", {"query": query, "documents": documents, **dials}, headers)
        assert answer.status == 200, answer
        return {result["index"]: result["relevance_score"] for result in answer.json["results"]}


QUERY = "What is the capital of China?"
DOCUMENTS = ("Apples grow on trees.", "The capital of China is Beijing.", "China is a large country in Asia.")
GOOD = {"query": QUERY, "documents": list(DOCUMENTS)}
GOOD_SCORE = {"queries": QUERY, "documents": list(DOCUMENTS)}
UNCUT = [(DEADLINE, "600")]  # for long texts: what a deadline would cut is not asked for here


def assert_refused(answer: Answer, *statuses: int, param: str | None = None) -> dict[str, Any]:
    """Asserts that it is an error in the API's own shape, one of the statuses; returns what is in "error"."""
    assert answer.status in statuses, answer
    body = answer.json
    assert list(body) == ["error"], body
    error: dict[str, Any] = body["error"]
    assert error.keys() == {"message", "type", "param", "code"}, error
    assert error["code"] == answer.status, error
    assert isinstance(error["message"], str), error
    assert error["message"], error
    assert isinstance(error["type"], str), error
    assert error["type"], error
    assert error["param"] is None or isinstance(error["param"], str), error
    if param is not None:
        assert error["param"] == param, error
    return error


def assert_serves(service: Service) -> None:
    """Asserts that a good call has a whole, right answer."""
    answer = service.post("/v1/rerank", GOOD)
    assert answer.status == 200, answer
    results = answer.json["results"]
    scores = [result["relevance_score"] for result in results]
    assert sorted(result["index"] for result in results) == [0, 1, 2]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


# Values of a type that a field does not take.
WRONG_TYPES: dict[str, Sequence[object]] = {
    "query": (None, 5, 1.5, True, [], {}, ["a"], ["a", "b"], [["a"]], {"text": 5}, {"content": []}),
    "documents": (None, 5, True, {}, [5], [None], [True], [{}], [[]], [["a"]], ["a", 5], [{"text": 5}], [{"text": ["a"]}], [{"a": "b"}]),
    "top_n": (-1, -(2**70), 1.5, "", "-1", "1.5", "three", "3e0", "9" * 50, True, [], {}, [1]),
    "max_tokens_per_doc": (-1, 1.5, "x", True, [], {}),
    "max_tokens_per_query": (-1, 1.5, "x", True, [], {}),
    "truncate_prompt_tokens": (-2, 1.5, "x", True, [], {}),
    "request_id": (5, True, [], {}, ["a"], {"text": "a"}),
    "model": (5, True, [], {}, ["a"]),
    "instruction": (5, True, {"a": "b"}, [["a"]]),
}  # fmt: skip


class Contract:
    """What holds with a key and without one."""

    @pytest.fixture
    def service(self) -> Service:
        raise NotImplementedError

    # -- routes

    @pytest.mark.parametrize("path", CLOSED_PATHS)
    def test_a_route_that_users_of_a_reranker_do_not_need_is_404(self, service: Service, path: str) -> None:
        assert_refused(service.get(path), 404)
        assert_refused(service.post(path, GOOD), 404)

    @pytest.mark.parametrize("path", MEANT_PATHS)
    def test_a_rerank_is_answered_wherever_ragflows_factories_post_it(self, service: Service, path: str) -> None:
        assert service.post(path, GOOD).json["results"] == service.post("/v1/rerank", GOOD).json["results"]
        assert service.get(path).status in ((200,) if path == "/" else (404, 405))  # GET / is the page

    @pytest.mark.parametrize(("path", "allowed"), [*((path, "POST") for path in POST_PATHS), *((path, "GET") for path in GET_PATHS)])
    def test_another_method_is_405_and_names_the_right_one(self, service: Service, path: str, allowed: str) -> None:
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - {allowed}:
            answer = service.ask(method, path, b"{}" if method in ("POST", "PUT", "PATCH") else None, [*service.authorized, JSON])
            assert_refused(answer, 405)
            assert answer.headers["allow"] == allowed

    def test_a_query_string_changes_nothing(self, service: Service) -> None:
        assert service.get("/v1/models?a=/health").status == 200
        assert service.post("/v1/rerank?x=1", GOOD).status == 200
        assert_refused(service.get("/nope?/v1/models"), 404)

    @pytest.mark.parametrize("path", ["/v1/rerank", "/health", "/v1/realtime"])
    def test_no_websocket_is_opened(self, service: Service, path: str) -> None:
        wish = [
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ]
        assert service.get(path, wish).status in (200, 400, 401, 403, 404, 405)  # not 101

    # -- answers

    @pytest.mark.parametrize("path", RERANK_PATHS)
    def test_a_rerank_has_vllms_shape_best_document_first(self, service: Service, path: str) -> None:
        answer = service.post(path, {"model": service.names[-1], **GOOD})
        assert answer.status == 200
        body = answer.json
        assert body.keys() == {"id", "model", "usage", "results"}
        assert body["id"].startswith("score-")
        assert body["model"] == service.names[0]
        assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
        scores = [result["relevance_score"] for result in body["results"]]
        assert scores == sorted(scores, reverse=True)
        assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores)
        assert sorted(result["index"] for result in body["results"]) == [0, 1, 2]
        assert all(result["document"] == {"text": DOCUMENTS[result["index"]], "multi_modal": None} for result in body["results"])
        assert (answer.headers["x-rerank-documents"], answer.headers["x-rerank-scored"]) == ("3", "3")
        assert "x-rerank-cut" not in answer.headers
        assert "x-rerank-unscored" not in answer.headers

    @pytest.mark.parametrize("fields", [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")])
    @pytest.mark.parametrize("path", SCORE_PATHS)
    def test_a_score_has_vllms_shape_in_the_order_of_the_request(self, service: Service, path: str, fields: tuple[str, str]) -> None:
        scores = service.results(QUERY, DOCUMENTS)
        answer = service.post(path, {"model": service.names[0], fields[0]: QUERY, fields[1]: list(DOCUMENTS)})
        assert answer.status == 200
        body = answer.json
        assert body.keys() == {"id", "object", "created", "model", "data", "usage"}
        assert (body["object"], body["model"]) == ("list", service.names[0])
        assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
        assert [(item["index"], item["object"]) for item in body["data"]] == [(index, "score") for index in range(3)]
        assert [item["score"] for item in body["data"]] == [pytest.approx(scores[index], abs=SAME) for index in range(3)]

    def test_a_score_takes_one_pair_one_query_for_all_or_a_query_for_each(self, service: Service) -> None:
        queries = [QUERY, "Explain gravity", "Where do apples grow?"]
        each = service.post("/v1/score", {"queries": queries, "documents": list(DOCUMENTS)}).json["data"]
        for index, (query, document) in enumerate(zip(queries, DOCUMENTS, strict=True)):
            alone = service.post("/v1/score", {"text_1": query, "text_2": document}).json["data"]
            assert len(alone) == 1
            assert alone[0]["score"] == pytest.approx(each[index]["score"], abs=SAME)
        assert len(service.post("/v1/score", {"text_1": [QUERY], "text_2": list(DOCUMENTS)}).json["data"]) == 3
        assert_refused(service.post("/v1/score", {"text_1": [QUERY, QUERY], "text_2": list(DOCUMENTS)}), 400)
        assert_refused(service.post("/v1/score", {"text_1": [], "text_2": list(DOCUMENTS)}), 400)

    def test_models_lists_the_served_names_and_version_is_a_text(self, service: Service) -> None:
        body = service.get("/v1/models").json
        assert body["object"] == "list"
        assert [model["id"] for model in body["data"]] == list(service.names)
        assert all(model["object"] == "model" and model["max_model_len"] == service.max_model_len for model in body["data"])
        version = service.get("/version").json
        assert isinstance(version["version"], str)
        assert version["version"]

    def test_health_is_json_and_tells_what_was_left_out(self, service: Service) -> None:
        answer = service.ask("GET", "/health")
        assert answer.status == 200
        assert answer.json["status"] == "healthy"
        assert all(isinstance(sentence, str) and sentence for sentence in answer.json["skipped"])

    def test_metrics_are_valid_for_prometheus_the_servers_and_the_services_own(self, service: Service) -> None:
        before = prometheus(service.get("/metrics").body.decode())
        service.post("/rerank", GOOD, [("Cache-Control", "no-cache")])
        service.post("/rerank", {"query": 5})
        answer = service.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        after = prometheus(answer.body.decode())
        assert any(not name.startswith("reranker_") for name, _ in after)

        def grown(name: str, **labels: str) -> float:
            key = (name, tuple(sorted(labels.items())))
            return after[key] - before.get(key, 0)

        assert grown("reranker_requests_total", route="/rerank", status="200") == 1
        assert grown("reranker_requests_total", route="/rerank", status="400") == 1
        assert grown("reranker_documents_total", result="scored") == 3
        assert grown("reranker_cache_misses_total") == 3
        assert grown("reranker_call_seconds_count") == 1
        assert grown("reranker_tokens_total") > 0
        # A name of anyone's making must not become a label.
        assert not any("nope" in value for _, labels in after for _, value in labels)

    def test_no_documents_are_an_empty_answer(self, service: Service) -> None:
        for path in RERANK_PATHS:
            answer = service.post(path, {"query": QUERY, "documents": []})
            assert (answer.status, answer.json["results"]) == (200, [])

    @pytest.mark.parametrize(("top_n", "number"), [(None, 3), (0, 3), (1, 1), (2, 2), (3, 3), (99, 3), (2**63, 3)])
    def test_top_n_cuts_after_sorting_and_zero_means_all(self, service: Service, top_n: int | None, number: int) -> None:
        every = [result["index"] for result in service.post("/v1/rerank", GOOD).json["results"]]
        answer = service.post("/v1/rerank", {**GOOD, "top_n": top_n})
        assert [result["index"] for result in answer.json["results"]] == every[:number]
        assert answer.headers["x-rerank-scored"] == "3"

    @pytest.mark.parametrize(("given", "with_text"), [(True, True), ("true", True), (None, True), (False, False), ("false", False), ("False", False)])
    def test_documents_are_returned_unless_the_caller_says_no(self, service: Service, given: object, with_text: bool) -> None:
        results = service.post("/v1/rerank", {**GOOD, "return_documents": given}).json["results"]
        assert [("document" in result) for result in results] == [with_text] * 3

    def test_documents_may_be_objects_with_a_text(self, service: Service) -> None:
        answer = service.post("/v2/rerank", {"query": QUERY, "documents": [{"text": text} for text in DOCUMENTS]})
        assert {result["index"]: result["relevance_score"] for result in answer.json["results"]} == pytest.approx(
            service.results(QUERY, DOCUMENTS), abs=SAME
        )

    def test_what_cohere_and_xinference_send_beside_is_ignored(self, service: Service) -> None:
        beside = {
            "return_documents": "true",
            "return_len": "true",
            "max_chunks_per_doc": 10,
            "overlap_tokens": 80,
            "rank_fields": ["text"],
            "user": None,
        }
        assert service.post("/v1/rerank", {"model": service.names[0], **GOOD, "top_n": 3, **beside}).status == 200

    @pytest.mark.parametrize("two", [2, 2.0, "2", "2.0", " +2 "])
    def test_an_integral_number_is_taken_in_every_spelling_that_vllm_takes(self, service: Service, two: object) -> None:
        documents = ["China", "one two three four five six seven eight", "Berlin"]
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": documents, "top_n": two, "max_tokens_per_doc": two})
        assert (answer.status, len(answer.json["results"]), answer.headers["x-rerank-kept-tokens"]) == (200, 2, "2")

    @pytest.mark.parametrize("path", ["/v1/rerank", "/v1/score"])
    def test_a_null_among_the_documents_is_400_and_names_its_place(self, service: Service, path: str) -> None:
        call = GOOD if path == "/v1/rerank" else GOOD_SCORE
        for null in (None, {"text": None}, {"content": None}, {"content": [{"type": "text", "text": None}]}):
            error = assert_refused(service.post(path, {**call, "documents": ["a", "b", null, "d"]}), 400, param="body.documents")
            assert "'body.documents.2'" in error["message"]

    def test_texts_may_be_content_parts_of_type_text(self, service: Service) -> None:
        def parts(text: str) -> dict[str, object]:
            return {"content": [{"type": "text", "text": text}]}

        plain = service.results(QUERY, DOCUMENTS)
        answer = service.post("/v1/rerank", {"query": parts(QUERY), "documents": [*map(parts, DOCUMENTS)]})
        assert {item["index"]: item["relevance_score"] for item in answer.json["results"]} == pytest.approx(plain, abs=SAME)
        alone = service.post("/v1/score", {"queries": parts(QUERY), "documents": parts(DOCUMENTS[0])})
        assert [item["score"] for item in alone.json["data"]] == [pytest.approx(plain[0], abs=SAME)]
        two = {"content": [{"type": "text", "text": DOCUMENTS[0]}, {"type": "text", "text": DOCUMENTS[1]}]}
        [joined] = service.post("/v1/rerank", {"query": QUERY, "documents": two}).json["results"]
        assert joined["document"]["text"] == f"{DOCUMENTS[0]}\n{DOCUMENTS[1]}"

    @pytest.mark.parametrize(
        "part", [{"type": "image_url", "image_url": {"url": "https://127.0.0.1/x.png"}}, {"text": "a"}, "a", 5, {"type": ["text"]}]
    )
    def test_a_content_part_that_is_no_text_is_400(self, service: Service, part: object) -> None:
        error = assert_refused(service.post("/v1/rerank", {"query": QUERY, "documents": ["a", {"content": [part]}]}), 400, param="body.documents")
        assert "content parts of type text alone" in error["message"]
        assert "'body.documents.1'" in error["message"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("use_activation", False), ("use_activation", 0), ("use_activation", "false"), ("use_activation", "No"), ("use_activation", "off"),
            ("use_activation", "maybe"), ("use_activation", []), ("use_activation", {}), ("activation", False), ("softmax", False), ("raw_scores", True), ("truncation_side", "left"), ("truncation_direction", "Left"),
            ("padding", "max_length"), ("priority", 1), ("priority", "-1"), ("cache_salt", "a-secret-of-the-callers"), ("rank_fields", ["title", "text"]),
        ],
    )  # fmt: skip
    def test_a_wish_for_another_answer_than_is_given_here_is_400_with_what_to_do(self, service: Service, name: str, value: object) -> None:
        for path, call in (("/v1/rerank", GOOD), ("/v1/score", GOOD_SCORE)):
            error = assert_refused(service.post(path, {**call, name: value}), 400, param=f"body.{name}")
            assert re.search("leave the field out|put into it", error["message"])

    def test_a_wish_for_what_is_done_anyway_changes_nothing(self, service: Service) -> None:
        plain = service.results(QUERY, DOCUMENTS)
        wishes = {
            "use_activation": True, "activation": "true", "softmax": None, "raw_scores": False, "truncation_side": "right", "truncation_direction": "Right",
            "padding": "do_not_pad", "priority": "0", "cache_salt": None, "user": "somebody", "mm_processor_kwargs": {}, "max_tokens_per_query": 0,
            "chat_template_kwargs": {"enable_thinking": False}, "truncate_prompt_tokens": -1,
        }  # fmt: skip
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": list(DOCUMENTS), **wishes})
        assert {item["index"]: item["relevance_score"] for item in answer.json["results"]} == pytest.approx(plain, abs=SAME)

    def test_the_answer_bears_the_id_that_the_caller_gave_its_request(self, service: Service) -> None:
        for path, call in (("/v1/rerank", GOOD), ("/v1/score", GOOD_SCORE)):
            assert service.post(path, {**call, "request_id": 'mine "ä" 5'}).json["id"] == 'score-mine "ä" 5'

    def test_a_caller_may_limit_the_tokens_of_the_query(self, service: Service) -> None:
        documents = list(DOCUMENTS)
        assert "x-rerank-query-kept-tokens" not in service.post("/v1/rerank", {"query": QUERY, "documents": documents}).headers
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": documents, "max_tokens_per_query": 2})
        assert (answer.status, 1 <= int(answer.headers["x-rerank-query-kept-tokens"]) <= 2) == (200, True)
        assert answer.headers["x-rerank-cached"] == "0"  # what is known of the whole query is not known of a part

    def test_duplicates_have_equal_scores_and_equal_scores_keep_the_callers_order(self, service: Service) -> None:
        documents = [DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0], DOCUMENTS[1], DOCUMENTS[0]]
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": documents}, [("Cache-Control", "no-cache")])
        scores = {result["index"]: result["relevance_score"] for result in answer.json["results"]}
        assert scores[0] == scores[2] == scores[4]
        assert scores[1] == scores[3]
        order = [result["index"] for result in answer.json["results"]]
        assert [index for index in order if index in (0, 2, 4)] == [0, 2, 4]
        assert [index for index in order if index in (1, 3)] == [1, 3]

    def test_texts_in_any_script_and_empty_ones_are_scored(self, service: Service) -> None:
        documents = [
            "",
            " ",
            "北京是中国的首都。",
            "Äpfel wachsen an Bäumen.",
            "def f(x):\n\treturn x",
            "🍎 \u0000 \u2028",
            "<|im_end|>\n<|im_start|>assistant",
            "ﷺ" * 9,
        ]
        for query in (QUERY, "中国的首都是哪里？", "", "<|im_start|>system"):
            assert service.results(query, documents).keys() == set(range(len(documents)))

    # -- lengths

    def test_a_long_document_is_cut_and_the_answer_says_which_and_how_much_was_kept(self, service: Service) -> None:
        documents = [*DOCUMENTS[:2], "capital of China, " * service.max_model_len, DOCUMENTS[2]]
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": documents}, UNCUT)
        assert answer.status == 200
        assert answer.headers["x-rerank-cut"] == "2"
        assert service.max_model_len / 2 < int(answer.headers["x-rerank-kept-tokens"]) < service.max_model_len
        scores = {result["index"]: result["relevance_score"] for result in answer.json["results"]}
        alone = service.results(QUERY, DOCUMENTS)
        assert [scores[index] for index in (0, 1, 3)] == pytest.approx([alone[index] for index in (0, 1, 2)], abs=SAME)

    def test_a_document_of_a_hundred_thousand_words_stands_among_short_ones(self, service: Service) -> None:
        documents = [DOCUMENTS[0], "China " * 100_000, DOCUMENTS[1]]
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": documents, "return_documents": False}, UNCUT)
        assert (answer.status, answer.headers["x-rerank-cut"], answer.headers["x-rerank-scored"]) == (200, "1", "3")

    @pytest.mark.parametrize("dial", ["max_tokens_per_doc", "truncate_prompt_tokens"])
    def test_a_caller_may_limit_the_tokens_of_each_document(self, service: Service, dial: str) -> None:
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": ["China", "one two three four five six seven eight"], dial: 4})
        assert (answer.status, answer.headers["x-rerank-cut"], answer.headers["x-rerank-kept-tokens"]) == (200, "1", "4")

    def test_a_query_beyond_its_limit_is_cut_and_a_header_says_to_how_much(self, service: Service) -> None:
        """Its beginning and its end are kept: a question stands there."""
        filling = "filling " * (service.max_query_tokens + 1)
        for path, request in (("/v1/rerank", GOOD | {"query": f"{QUERY} {filling}"}), ("/v1/rerank", GOOD | {"query": f"{filling} {QUERY}"}),
                              ("/v1/score", {"queries": f"{QUERY} {filling}", "documents": list(DOCUMENTS)})):  # fmt: skip
            answer = service.post(path, request, UNCUT)
            assert answer.status == 200, answer
            assert 1 <= int(answer.headers["x-rerank-query-kept-tokens"]) <= service.max_query_tokens
            again = service.post(path, request, UNCUT)
            assert again.headers["x-rerank-query-kept-tokens"] == answer.headers["x-rerank-query-kept-tokens"]
        assert "x-rerank-query-kept-tokens" not in service.post("/v1/rerank", GOOD).headers

    def test_an_instruction_that_leaves_no_room_is_400(self, service: Service) -> None:
        error = assert_refused(service.post("/v1/rerank", GOOD | {"instruction": "find " * (service.max_model_len + 1)}, UNCUT), 400, param="query")
        assert "instruction" in error["message"]
        assert_serves(service)

    def test_no_error_text_can_be_read_as_a_wrong_login(self, service: Service) -> None:
        """RAGFlow logs its user out at the sight of that status' number, or its name, in an error's text."""
        many = service.max_documents + 1
        calls: list[dict[str, Any]] = [
            GOOD | {"documents": ["x"] * (many - many % 1000 + 1401)}, GOOD | {"model": "401"}, GOOD | {"top_n": "401x"}, GOOD | {"instruction": "401 " * 5000},
            GOOD | {"documents": [401]}, GOOD | {"documents": ["x"] * 401 + [None]}, {"query": "401"},
        ]  # fmt: skip
        for call in calls:
            answer = service.post("/v1/rerank", call, UNCUT)
            assert answer.status in (400, 404, 413), answer
            assert "401" not in answer.body.decode()
            assert "unauthorized" not in answer.body.decode().lower()

    def test_a_model_is_known_in_the_spellings_that_people_use(self, service: Service) -> None:
        plain = service.names[0].rpartition("/")[2]
        for name in (plain, plain.upper(), f"Qwen/{plain}", f"/models/{plain}", f"{plain}___VLLM", f" {plain} ", f"models/{plain}/"):
            assert service.post("/v1/rerank", {**GOOD, "model": name}).status == 200, name
        for name in (f"{plain}x", f"x{plain}", "qwen3-reranker", f"{plain}/other"):
            assert_refused(service.post("/v1/rerank", {**GOOD, "model": name}), 404, param="model")

    def test_text_embeddings_inferences_shape_gets_a_bare_list(self, service: Service) -> None:
        """RAGFlow's factory HuggingFace sends it, in pieces of eight."""
        texts = list(DOCUMENTS)
        answer = service.post("/rerank", {"query": QUERY, "texts": texts, "raw_scores": False, "truncate": True})
        assert answer.status == 200
        wanted = {
            item["index"]: item["relevance_score"] for item in service.post("/v1/rerank", GOOD | {"query": QUERY, "documents": texts}).json["results"]
        }
        assert {item["index"]: item["score"] for item in answer.json} == pytest.approx(wanted, abs=SAME)
        assert [item["score"] for item in answer.json] == sorted((item["score"] for item in answer.json), reverse=True)
        assert not any("text" in item for item in answer.json)
        told = service.post("/rerank", {"query": QUERY, "texts": texts, "return_text": True}).json
        assert {item["index"]: item["text"] for item in told} == dict(enumerate(texts))
        assert service.post("/rerank", {"query": QUERY, "texts": []}).json == []
        assert_refused(service.post("/rerank", {"query": QUERY, "texts": texts, "raw_scores": True}), 400, param="body.raw_scores")
        assert_refused(service.post("/rerank", {"query": QUERY, "texts": [5]}), 400, param="body.texts")

    def test_documents_beyond_their_limit_are_413(self, service: Service) -> None:
        documents = ["x"] * (service.max_documents + 1)
        error = assert_refused(service.post("/v1/rerank", {"query": QUERY, "documents": documents}), 413, param="documents")
        assert str(service.max_documents) in error["message"]
        assert_refused(service.post("/v1/score", {"queries": QUERY, "documents": documents}), 413, param="documents")
        assert_refused(service.post("/v1/score", {"queries": documents, "documents": documents}), 413, param="documents")

    def test_a_body_that_says_it_is_beyond_the_limit_is_413_before_it_is_sent(self, service: Service) -> None:
        for size in (service.max_body_bytes + 1, 10**12):
            error = assert_refused(service.post("/v1/rerank", b"{}", [("Content-Length", str(size))]), 413)
            assert f"{service.max_body_bytes >> 20} MiB" in error["message"]
        assert_serves(service)

    def test_a_body_that_grows_beyond_the_limit_is_413(self, service: Service) -> None:
        text = b"x" * (service.max_body_bytes + 1)
        assert_refused(service.post("/v1/rerank", text), 413)
        chunks = (
            b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (text[at : at + 50_000] for at in range(0, len(text), 50_000))) + b"0\r\n\r\n"
        )
        assert_refused(service.post("/v1/rerank", chunks, [("Transfer-Encoding", "chunked")]), 413)
        assert_serves(service)

    def test_a_body_in_chunks_is_one_body(self, service: Service) -> None:
        body = json.dumps(GOOD).encode()
        chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
        assert len(service.post("/v1/rerank", chunks, [("Transfer-Encoding", "chunked")]).json["results"]) == 3

    # -- time and repeats

    @pytest.mark.parametrize("seconds", ["25", "29.5", "3600"])
    def test_a_caller_may_set_the_deadline(self, service: Service, seconds: str) -> None:
        assert service.post("/v1/rerank", GOOD, [(DEADLINE, seconds)]).status == 200

    @pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "-inf", "", "soon", "3601", "1e400", "25,25", "0x10"])
    def test_a_deadline_that_is_no_number_of_seconds_is_400(self, service: Service, seconds: str) -> None:
        assert DEADLINE.lower() in assert_refused(service.post("/v1/rerank", GOOD, [(DEADLINE, seconds)]), 400)["message"].lower()

    @pytest.mark.parametrize("way", ["below", "typical", " Below"])
    def test_a_caller_may_choose_what_a_document_without_a_score_is_given(self, service: Service, way: str) -> None:
        assert service.post("/v1/rerank", GOOD, [(UNSCORED_AS, way)]).status == 200

    @pytest.mark.parametrize("way", ["", "above", "below,typical", "0"])
    def test_a_value_that_there_is_not_is_400(self, service: Service, way: str) -> None:
        assert UNSCORED_AS.lower() in assert_refused(service.post("/v1/rerank", GOOD, [(UNSCORED_AS, way)]), 400)["message"].lower()

    def test_a_deadline_too_short_gets_what_there_is_or_an_honest_503(self, service: Service) -> None:
        documents = [f"{text} {number}" for number in range(50) for text in DOCUMENTS]
        answer = service.post("/v1/rerank", {"query": QUERY, "documents": documents}, [(DEADLINE, "0.001"), ("Cache-Control", "no-cache")])
        if answer.status != 200:
            assert_refused(answer, 503, 408)  # 408: not even the body was there in time
            assert answer.status == 408 or int(answer.headers["retry-after"]) >= 1
        else:
            assert len(answer.json["results"]) == len(documents)
        assert_serves(service)

    def test_the_same_call_again_is_known_unless_the_caller_says_no_cache(self, service: Service) -> None:
        call = {"query": f"{QUERY} {random.random()}", "documents": list(DOCUMENTS)}
        first = service.post("/v1/rerank", call)
        assert first.headers["x-rerank-cached"] == "0"
        again = service.post("/v1/rerank", call)
        assert again.headers["x-rerank-cached"] == "3"
        assert again.json["results"] == first.json["results"]
        grown = service.post("/v1/rerank", {**call, "documents": [*DOCUMENTS, "Beijing."], "top_n": 2})
        assert (grown.headers["x-rerank-documents"], grown.headers["x-rerank-cached"]) == ("4", "3")
        fresh = service.post("/v1/rerank", call, [("Cache-Control", "no-cache")])
        assert fresh.headers["x-rerank-cached"] == "0"
        assert {result["index"]: result["relevance_score"] for result in fresh.json["results"]} == pytest.approx(
            {result["index"]: result["relevance_score"] for result in first.json["results"]}, abs=SAME
        )

    def test_an_instruction_comes_with_the_request_in_either_spelling(self, service: Service) -> None:
        call = {"query": f"{QUERY} {random.random()}", "documents": list(DOCUMENTS)}
        instruction = "Decide whether the document names the city"
        assert service.post("/v1/rerank", call).headers["x-rerank-cached"] == "0"
        own = service.post("/v1/rerank", {**call, "instruction": instruction})
        assert (own.status, own.headers["x-rerank-cached"]) == (200, "0")  # what is known under another instruction is not known under this
        same = service.post("/v1/rerank", {**call, "chat_template_kwargs": {"instruction": instruction}})
        assert (same.status, same.headers["x-rerank-cached"]) == (200, "3")
        both = service.post("/v1/rerank", {**call, "instruction": "another one", "chat_template_kwargs": {"instruction": instruction}})
        assert (both.status, both.headers["x-rerank-cached"]) == (200, "3")  # as in vLLM, the second one goes first

    # -- what is no call

    @pytest.mark.parametrize("body", [
        b"", b" ", b"{", b"}", b"{}", b"[]", b"null", b"true", b"5", b'"text"', b"nope", b"{'query': 1}", b'{"query": "a", "documents": ["b"],}',
        b'{"query": "a" "documents": ["b"]}', b'[{"query": "a", "documents": ["b"]}]', b'{"query": "a", "documents": ["b"]} {}', b"NaN", b"Infinity",
        b'{"query": "a", "documents": ["b"], "top_n": NaN}', b'{"query": "a", "documents": ["b"], "top_n": Infinity}',
        b'{"query": "a", "documents": ["b"], "top_n": -Infinity}', b'{"query": "a", "documents": ["b"], "beside": NaN}', b"\xff\xfe", b"\x00", b"\xef\xbb\xbf",
        b'{"query": "\xff", "documents": ["b"]}', b'{"query": "a", "documents": ["\xc3\x28"]}', b'{"query": "a\nb", "documents": ["b"]}',
        b'{"query": "\\ud800", "documents": ["b"]}', b'{"query": "a", "documents": ["b", "\\udfff\\ud800"]}', b'{"query": "\xed\xa0\x80", "documents": ["b"]}',
        b'{"query": "a", "documents": ["b"], "instruction": "\\ud800"}', b'{"query": "a", "documents": [{"text": "\\ud800"}]}',
        b'{"query": "a", "documents": ["b"], "chat_template_kwargs": {"instruction": "\\ud800"}}',
        b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"query": "a", "documents": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5_000 + b"}", b'{"query": "a", "documents": ["b"], "top_n": -' + b"9" * 400 + b"}",
        b'{"query": "a", "documents": ["b"], "top_n": 1e400}', b"\x1f\x8b\x08\x00\x00\x00\x00\x00", b"query=a&documents=b",
    ], ids=lambda body: ascii(body[:60]))  # fmt: skip
    def test_a_body_that_is_no_call_is_400_and_the_next_call_is_answered(self, service: Service, body: bytes) -> None:
        for path in ("/v1/rerank", "/v1/score"):
            assert_refused(service.post(path, body), 400)
        assert_serves(service)

    @pytest.mark.parametrize("depth", [10, 100, 300, 500, 900, 980, 990, 1_000, 2_000, 4_000, 5_000, 9_990, 10_000, 50_000])
    @pytest.mark.parametrize("name", ["beside", "return_documents", "query", "documents", "model", "instruction", "chat_template_kwargs", "top_n"])
    def test_a_value_of_any_depth_is_answered_and_never_500(self, service: Service, name: str, depth: int) -> None:
        for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
            value = opening * depth + b"1" + closing * depth
            good = b"".join(b'"%b": %b, ' % (key.encode(), json.dumps(given).encode()) for key, given in GOOD.items() if key != name)
            answer = service.post("/v1/rerank", b'{%b"%b": %b}' % (good, name.encode(), value))
            if answer.status != 200:
                assert_refused(answer, 400)

    @pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_TYPES.items() for value in values])
    def test_a_field_of_a_wrong_type_is_400_and_named(self, service: Service, name: str, value: object) -> None:
        error = assert_refused(service.post("/v1/rerank", {**GOOD, name: value}), 400)
        assert name in (error["param"] or ""), error

    @pytest.mark.parametrize(("path", "call", "missing"), [("/v1/rerank", GOOD, "query"), ("/v1/rerank", GOOD, "documents"),
                                                           ("/v1/score", GOOD_SCORE, "queries"), ("/v1/score", GOOD_SCORE, "documents")])  # fmt: skip
    def test_a_missing_field_is_400_and_named(self, service: Service, path: str, call: dict[str, object], missing: str) -> None:
        error = assert_refused(service.post(path, {name: value for name, value in call.items() if name != missing}), 400)
        assert (missing if path == "/v1/rerank" else "queries") in error["param"]

    def test_another_model_is_404_and_an_empty_name_is_the_one_served(self, service: Service) -> None:
        for name in ("nope", "\ud800", service.names[0].upper() + "x"):
            assert_refused(service.post("/v1/rerank", {**GOOD, "model": name}), 404, param="model")
        for served in (None, "", *service.names):
            assert service.post("/v1/rerank", {**GOOD, "model": served}).status == 200

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "", "json", ";"]
    )
    def test_a_content_type_that_is_not_json_is_400(self, service: Service, kind: str) -> None:
        assert_refused(service.post("/v1/rerank", GOOD, [("Content-Type", kind)]), 400)

    @pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", " application/json ;x=y"])
    def test_a_content_type_that_is_json_is_taken_in_any_spelling(self, service: Service, kind: str) -> None:
        assert service.post("/v1/rerank", GOOD, [("Content-Type", kind)]).status == 200

    def test_what_a_client_would_rather_have_changes_no_answer(self, service: Service) -> None:
        wishes = [
            ("Accept", "text/html"),
            ("Accept-Encoding", "gzip, br"),
            ("X-Request-Id", "x"),
            ("Range", "bytes=0-1"),
            ("If-None-Match", "*"),
            ("Cookie", "a=b"),
        ]
        assert service.post("/v1/rerank", GOOD, wishes).json["results"]
        assert service.get("/v1/models", wishes).json["data"]
        assert prometheus(service.get("/metrics", wishes).body.decode())


class KeyContract:
    """What holds where the service has keys: two at least, as while one is being replaced by another."""

    @pytest.fixture
    def service(self) -> Service:
        raise NotImplementedError

    @pytest.mark.parametrize("path", [*POST_PATHS, *MEANT_PATHS, *(path for path in GET_PATHS if path != "/health"), *CLOSED_PATHS])
    def test_every_route_but_health_needs_a_key(self, service: Service, path: str) -> None:
        key = service.keys[0]
        wrong: list[Headers] = [
            [], *([("Authorization", value)] for value in (
                "", "Bearer", "Bearer ", f"Bearer {key}x", f"Bearer x{key}", f"Bearer {key[:-1]}", key, f"Basic {key}", f"Bearer {key} {key}", f"Bearer: {key}",
                "Basic " + base64.b64encode(f":{key}".encode()).decode(), f"Bearer {service.keys[0]},{service.keys[-1]}",
            )),
            [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")], [("X-Api-Key", key)], [("Cookie", f"Authorization=Bearer {key}")],
        ]  # fmt: skip
        bodies = set()
        for headers in wrong:
            for method, body in (("GET", None), ("POST", json.dumps(GOOD).encode()), ("POST", b"[" * 100_000), ("OPTIONS", None)):
                if (method, path) == ("GET", "/"):  # the page, which a browser opens in its own way
                    continue
                answer = service.ask(method, path, body, [JSON, *headers])
                assert answer.status == 403, (method, headers, answer)
                bodies.add(answer.body)
        # RAGFlow logs its user out at the sight of either in an error's text.
        assert len(bodies) == 1
        assert not any(mark in body.lower() for mark in (b"401", b"unauthorized") for body in bodies)
        assert b"apiKey" in bodies.pop()

    def test_any_of_the_keys_opens_and_health_needs_none(self, service: Service) -> None:
        assert len(service.keys) > 1
        for key in service.keys:
            for scheme in ("Bearer", "bearer", "BEARER"):
                headers = [JSON, ("Authorization", f"{scheme} {key}")]
                assert service.ask("POST", "/v1/rerank", json.dumps(GOOD).encode(), headers).status == 200
                assert service.ask("GET", "/v1/models", None, headers).status == 200
        for headers in ([], [("Authorization", "Bearer wrong")]):
            assert service.ask("GET", "/health", None, headers).status == 200

    def test_a_key_in_the_query_or_the_body_opens_nothing(self, service: Service) -> None:
        key = service.keys[0]
        assert service.ask("GET", f"/v1/models?api_key={key}&token={key}").status == 403
        assert service.ask("POST", "/v1/rerank", json.dumps({**GOOD, "api_key": key}).encode(), [JSON]).status == 403
        assert service.ask("GET", "/v1/models?/health").status == 403
        assert service.ask("GET", "/health/../v1/models").status == 403


# -- Prometheus' text format -------------------------------------------------------------------------------------------------------------------------

Labels = tuple[tuple[str, str], ...]
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? ([^ ]+)(?: -?[0-9]+)?")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}


def prometheus(text: str) -> dict[tuple[str, Labels], float]:
    """The samples of an exposition by name and labels; AssertionError where Prometheus or a strict reader would not take it."""
    assert text.endswith("\n"), text[-200:]
    kinds: dict[str, str] = {}
    samples: dict[tuple[str, Labels], float] = {}
    described, family = set(), ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in described, f"described twice: {name}"
            described.add(name)
        elif line.startswith("# TYPE "):
            _, _, family, kind = line.split(" ")
            assert re.fullmatch(NAME, family), line
            assert family not in kinds, f"two families of a name: {family}"
            assert kind in ("counter", "gauge", "histogram", "summary", "untyped"), line
            kinds[family] = kind
        elif line and not line.startswith("#"):
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line}"
            name, inner, value = match.groups()
            labels = tuple(sorted(LABEL.findall(inner or "")))
            assert "".join(found[0] for found in LABEL.finditer(inner or "")) == (inner or ""), f"not labels: {line}"
            assert len({key for key, _ in labels}) == len(labels), f"a label twice: {line}"
            assert name in [family + suffix for suffix in SUFFIXES.get(kinds.get(family, ""), ("",))], f"outside its family {family}: {line}"
            assert (name, labels) not in samples, f"a sample twice: {line}"
            samples[name, labels] = float(value)
            assert kinds[family] != "counter" or samples[name, labels] >= 0, line
    for name, kind in kinds.items():
        ours = [labels for found, labels in samples if found == name]
        if kind == "counter":
            assert len({tuple(key for key, _ in labels) for labels in ours}) <= 1, f"samples of one family differ in their labels: {name}"
        if kind == "histogram":
            _check_histogram(name, samples)
    return samples


def _check_histogram(name: str, samples: Mapping[tuple[str, Labels], float]) -> None:
    series: dict[Labels, list[tuple[float, float]]] = collections.defaultdict(list)
    for (found, labels), value in samples.items():
        if found == f"{name}_bucket":
            bound = float(dict(labels)["le"])
            series[tuple(label for label in labels if label[0] != "le")].append((bound, value))
    for labels, buckets in series.items():
        assert sorted(buckets) == buckets, f"buckets out of order: {name}"
        assert [value for _, value in buckets] == sorted(value for _, value in buckets), f"buckets are not cumulative: {name}"
        assert math.isinf(buckets[-1][0]), f"no bucket for all: {name}"
        assert buckets[-1][1] == samples[f"{name}_count", labels], f"count is not the last bucket: {name}"
        assert (f"{name}_sum", labels) in samples, f"no sum: {name}"


# -- malformed requests --------------------------------------------------------------------------------------------------------------------------------

STATUSES = {200, 400, 403, 404, 405, 408, 411, 413, 414, 415, 422, 426, 431}
WORDS = ("", "a", QUERY, "中国", "\ud800", "\x00", "<|im_end|>", "🍎" * 50, "x" * 5_000, "NaN", "../..", "${jndi}", "' or 1=1 --", "%s%n")
NAMES = ("query", "documents", "queries", "items", "data_1", "data_2", "text_1", "text_2", "model", "top_n", "return_documents", "max_tokens_per_doc",
         "truncate_prompt_tokens", "instruction", "chat_template_kwargs", "beside")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """A malformed request. `raw`: sent as it is, and what an HTTP server makes of it is its own affair as long as it does not fail."""

    method: str = "POST"
    path: str = "/v1/rerank"
    headers: Headers = ()
    body: bytes | None = None
    raw: bytes | None = None

    def __str__(self) -> str:
        shown = ascii(self.raw if self.raw is not None else self.body)
        return f"{self.method} {self.path} {list(self.headers)} {shown if len(shown) < 2000 else shown[:2000] + '…'}"


@dataclass(kw_only=True)
class Fuzzed:
    """What became of the requests: how many by status (0: closed without an answer, for raw ones alone), and those that went wrong."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)


def value(rng: random.Random, depth: int = 0) -> object:
    """Anything that JSON can say, and numbers that it cannot."""
    choices: list[Callable[[], object]] = [
        lambda: None,
        lambda: rng.choice((True, False)),
        lambda: rng.choice((0, 1, -1, 3, 2**31, -(2**63), 10**30)),
        lambda: rng.choice((0.5, -1.5, 1e308, math.nan, math.inf, -math.inf)),
        lambda: rng.choice(WORDS),
        lambda: "".join(chr(rng.randrange(1, 0x3000)) for _ in range(rng.randrange(20))),
    ]
    if depth < 3:
        choices.append(lambda: [value(rng, depth + 1) for _ in range(rng.randrange(4))])
        choices.append(lambda: {rng.choice((*NAMES, "text", "")): value(rng, depth + 1) for _ in range(rng.randrange(4))})
    return rng.choice(choices)()


def wrong(rng: random.Random) -> Wrong:
    """A request that is malformed, or nearly so: some of them are right by chance."""
    kinds = (_bytes_changed, _bytes_changed, _fields_changed, _fields_changed, _anything, _wrong_headers, _wrong_route, _nested, _raw)
    return rng.choice(kinds)(rng)


def _call(rng: random.Random) -> tuple[str, dict[str, object]]:
    if rng.random() < 0.6:
        return rng.choice(RERANK_PATHS), {"model": None, **GOOD, "top_n": rng.randrange(4), "return_documents": rng.random() < 0.5}
    left, right = rng.choice((("queries", "documents"), ("queries", "items"), ("data_1", "data_2"), ("text_1", "text_2")))
    return rng.choice(SCORE_PATHS), {left: QUERY, right: list(DOCUMENTS)}


def _bytes_changed(rng: random.Random) -> Wrong:
    path, call = _call(rng)
    body = bytearray(json.dumps(call, ensure_ascii=rng.random() < 0.5).encode())
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(4):
            case 0:
                body[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                body[at:at] = rng.choice((b'"', b"{", b"]", b"\\", b",", b"\x00", b"\xff", b"\\ud800", b"1e999", b"NaN", b"null"))
            case 2:
                del body[at : at + rng.randrange(1, 10)]
            case _:
                del body[at:]
    return Wrong(path=path, headers=[JSON], body=bytes(body))


def _fields_changed(rng: random.Random) -> Wrong:
    path, call = _call(rng)
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice((*call, *NAMES))
        if rng.random() < 0.2:
            call.pop(name, None)
        elif isinstance(call.get(name), list) and rng.random() < 0.5:
            call[name] = [*DOCUMENTS, value(rng)]
        else:
            call[name] = value(rng)
    return Wrong(path=path, headers=[JSON], body=json.dumps(call).encode())


def _anything(rng: random.Random) -> Wrong:
    body = rng.randbytes(rng.randrange(200)) if rng.random() < 0.5 else json.dumps(value(rng)).encode()
    return Wrong(path=rng.choice(POST_PATHS), headers=[JSON], body=body)


def _wrong_headers(rng: random.Random) -> Wrong:
    path, call = _call(rng)
    noise = "".join(rng.choice(string.printable[:95]) for _ in range(rng.randrange(30)))
    headers = rng.choice((
        [("Content-Type", rng.choice(("text/plain", "", "application/xml", "application/json/x", noise)))],
        [JSON, (DEADLINE, rng.choice(("-1", "nan", "0", "x", "1e999", "", noise + "x")))],
        [JSON, ("Authorization", rng.choice(("Bearer", "Basic eA==", "Bearer \xe9", noise)))],
        [JSON, ("Content-Length", rng.choice(("-1", "x", "1e3", "0x10", " ", "99999999999999999999999", "3", "10000000000")))],
        [JSON, ("Cache-Control", noise), ("Accept", noise), ("Host", noise), ("X-Forwarded-For", noise)],
        [JSON, ("Expect", rng.choice(("200-ok", noise)))],
        [JSON, *(("X-Many", "y" * 50) for _ in range(rng.choice((10, 80))))],
        [JSON, ("Connection", rng.choice(("close", "upgrade", "keep-alive", noise))), ("Upgrade", rng.choice(("h2c", noise)))],
        [("Content-Encoding", rng.choice(("gzip", "br", "x"))), JSON],
        [],
    ))  # fmt: skip
    return Wrong(path=path, headers=headers, body=json.dumps(call).encode())


def _wrong_route(rng: random.Random) -> Wrong:
    path = rng.choice((*POST_PATHS, *GET_PATHS, *CLOSED_PATHS))
    noise = "".join(rng.choice(string.ascii_letters + string.digits + "/%._-~!$&'()*+,;=:@") for _ in range(rng.randrange(40)))
    path = rng.choice(
        (path, path + noise, path + "?" + noise, "/" + noise, path.replace("/", "/%2e/"), "/%00", "/%ff%fe", "/" + "a" * 3_000, path + "%0d%0aX:%20y")
    )
    method = rng.choice(("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"))
    return Wrong(method=method, path=path, headers=[JSON], body=rng.choice((None, b"", b"{}", json.dumps(GOOD).encode())))


def _nested(rng: random.Random) -> Wrong:
    depth = rng.choice((50, 500, 950, 1_000, 5_000, 20_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = opening * depth + rng.choice((b"", b"1" + closing * depth))
    name = rng.choice(NAMES).encode()
    return Wrong(
        path=rng.choice(POST_PATHS), headers=[JSON], body=rng.choice((inner, b'{"query": "a", "documents": ["b"], "%b": %b}' % (name, inner)))
    )


def _raw(rng: random.Random) -> Wrong:
    body = json.dumps(GOOD).encode()
    head = b"POST /v1/rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    cut = rng.randrange(len(body))
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    changed = bytearray(whole)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(head))] = rng.randrange(256)
    return Wrong(raw=rng.choice((
        head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:cut],  # truncated, and then the client leaves
        head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body[:cut],
        head + b"Transfer-Encoding: chunked\r\n\r\n" + rng.choice((b"zz\r\n", b"-1\r\n", b"5\r\n{}\r\n", b"\r\n", b"ffffffffffffffffffff\r\n")),
        head + b"Transfer-Encoding: %b\r\nContent-Length: 3\r\n\r\n" % rng.choice((b"chunked", b"gzip", b"identity", b"")) + b"0\r\n\r\n",
        head + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\n{}   ",
        head[: rng.randrange(len(head))], bytes(changed), rng.randbytes(rng.randrange(1, 300)), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /health HTTP/9.9\r\n\r\n", b"GET\r\n\r\n", b"\r\n\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /" + b"a" * 100_000, head + b"X: " + b"y" * 200_000,
    )))  # fmt: skip


def fuzz(connect: Callable[[], Http], count: int, *, seed: int, authorized: Headers = (), threads: int = 4) -> Fuzzed:
    """Sends `count` malformed requests that follow from `seed`, `threads` at a time. A fault is a 5xx, no answer in time, or an error in another shape."""

    def part(number: int) -> Fuzzed:
        done, ask = Fuzzed(), connect()
        for index in range(number, count, threads):
            request = wrong(random.Random(f"{seed}/{index}"))
            try:
                status, fault = _sent(ask, request, authorized)
            except (OSError, http.client.HTTPException) as error:
                status, fault = -1, f"{type(error).__name__}: {error}"
                ask.close()
            done.statuses[status] += 1
            if fault:
                done.faults.append(f"seed {seed}/{index}: {fault}: {request}")
        ask.close()
        return done

    total = Fuzzed()
    with ThreadPoolExecutor(threads) as pool:
        for done in pool.map(part, range(threads)):
            total.statuses += done.statuses
            total.faults += done.faults
    return total


def _sent(ask: Http, request: Wrong, authorized: Headers) -> tuple[int, str]:
    """The status, and what is wrong with the answer, or ""."""
    if request.raw is not None:
        status = _send_raw(ask, request.raw)
        return status, "" if status in STATUSES | {0} else "failed"
    given = {name.lower() for name, _ in request.headers}
    answer = ask(request.method, request.path, request.body, [*request.headers, *(authorized if "authorization" not in given else [])])
    if answer.status not in STATUSES:
        return answer.status, "failed"
    # Without a type of its own an answer is the HTTP server's, which did not take the request for one.
    if answer.status not in (200, 403) and request.method != "HEAD" and answer.headers.get("content-type") == "application/json":
        try:
            assert_refused(answer, answer.status)
        except AssertionError as error:
            return answer.status, f"another shape ({error})"
    return answer.status, ""


def _send_raw(ask: Http, data: bytes) -> int:
    """Status of the answer to `data` and the end of what the client has to say; 0 where the server hangs up without one."""
    with socket.create_connection((ask.connection.host, ask.connection.port), TIMEOUT_SECONDS) as connection:
        answer = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while len(answer) < 1 << 16 and (more := connection.recv(1 << 16)):
                answer += more
        except TimeoutError:
            raise
        except OSError:  # the server has hung up
            pass
    match = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(match[1]) if match else 0
