"""The guard around an engine of known speed, in virtual time: what callers get, when, and what they are told about it."""

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from serving import golden
from serving.engine import NoEngine
from serving.guard import ROUTES, Guard
from serving.vitals import PROBE_AFTER_SECONDS
from tests.support import virtual
from tests.support.virtual import OPTIONS, Answer, ask

RAGFLOW = {"model": "some-reranker", "query": "cats", "documents": [f"{number} " + "cats and dogs " * 170 for number in range(66)]}


def guard(engine: virtual.Engine | NoEngine, **changes: Any) -> Guard:
    """A guard that has proven its engine, unless `proven=False`."""
    proven = changes.pop("proven", True)
    options = dataclasses.replace(OPTIONS, **changes)
    made = Guard(virtual.inner, options, engine, threads=virtual.Inline(), clock=asyncio.get_running_loop().time)
    if proven:
        made.vitals.proven, made.vitals.reason = True, ""
        assert isinstance(engine, virtual.Engine)
        made.scheduler.speed.learn(int(10 * engine.speed), 10)
    return made


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def rerank(app: Guard, body: Any = None, **more: Any) -> Answer:
    answer = await ask(app, "POST", "/v1/rerank", {"query": "cats", "documents": ["dogs bark", "cats purr"]} if body is None else body, **more)
    assert answer is not None
    return answer


def story(told: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        virtual.run(told())

    test.__name__, test.__doc__ = told.__name__, told.__doc__
    return test


@story
async def test_a_rerank_comes_sorted_with_what_was_done_in_headers() -> None:
    answer = await rerank(guard(virtual.Engine(speed=900)))
    assert answer.status == 200
    assert [item["index"] for item in answer.json()["results"]] == [1, 0]
    assert answer.json()["results"][0] == {"index": 1, "relevance_score": 0.5, "document": {"text": "cats purr", "multi_modal": None}}
    assert answer.json()["model"] == "some-reranker"
    assert answer.json()["usage"] == {"prompt_tokens": 2 * (50 + 2 + 10), "total_tokens": 124}
    assert (answer.headers["x-rerank-documents"], answer.headers["x-rerank-scored"], answer.headers["x-rerank-cached"]) == ("2", "2", "0")
    assert "x-rerank-cut" not in answer.headers
    assert "x-rerank-unscored" not in answer.headers


@story
async def test_ragflows_default_call_is_answered_within_the_deadline_and_says_what_it_cut() -> None:
    answer = await rerank(guard(virtual.Engine(speed=900)), RAGFLOW)
    assert answer.status == 200
    assert answer.seconds <= 25
    assert len(answer.json()["results"]) == 66
    assert answer.headers["x-rerank-scored"] == "66"
    assert answer.headers["x-rerank-cut"] == "0-65"
    assert 200 < int(answer.headers["x-rerank-kept-tokens"]) < 400


@story
async def test_what_was_not_scored_comes_last_in_the_callers_order() -> None:
    answer = await rerank(guard(virtual.Engine(speed=134)), RAGFLOW)
    scored = int(answer.headers["x-rerank-scored"])
    results = answer.json()["results"]
    assert 0 < scored < 66
    assert answer.headers["x-rerank-unscored"] == f"{scored}-65"
    assert [item["index"] for item in results[scored:]] == list(range(scored, 66))
    scores = [item["relevance_score"] for item in results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores[scored - 1 :])) == 66 - scored + 1, "strictly below"
    assert min(scores) >= 0


@story
async def test_a_deadline_in_the_request_is_kept() -> None:
    answer = await rerank(guard(virtual.Engine(speed=900)), RAGFLOW, headers={"x-rerank-deadline-seconds": "8"})
    assert answer.status == 200
    assert 6 < answer.seconds <= 8


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "", "1e9", "1_0", "9" * 400])
def test_a_deadline_that_is_none_is_refused(given: str) -> None:
    async def told() -> None:
        answer = await rerank(guard(virtual.Engine(speed=900)), headers={"x-rerank-deadline-seconds": given})
        assert answer.status == 400
        assert "x-rerank-deadline-seconds" in answer.json()["error"]["message"]

    virtual.run(told())


@story
async def test_the_same_call_again_is_free_and_the_same() -> None:
    app = guard(virtual.Engine(speed=134))
    first = await rerank(app, RAGFLOW)
    again = await rerank(app, RAGFLOW)
    assert again.seconds == 0
    assert [item["index"] for item in again.json()["results"]] == [item["index"] for item in first.json()["results"]]
    assert again.headers["x-rerank-cached"] == first.headers["x-rerank-scored"]
    assert again.headers["x-rerank-unscored"] == first.headers["x-rerank-unscored"]


@story
async def test_a_document_is_scored_once_for_a_query_whatever_stands_beside_it() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    await rerank(app, {"query": "cats", "documents": ["one cats", "two"]})
    answer = await rerank(app, {"query": "cats", "documents": ["three", "two", "one cats", "two"]})
    assert answer.headers["x-rerank-cached"] == "3"
    assert [" ".join(prompt.document) for prompt in engine.scored] == ["one cats", "two", "three"]
    other = await rerank(app, {"query": "dogs", "documents": ["two"]})
    assert other.headers["x-rerank-cached"] == "0"
    another = await rerank(app, {"query": "dogs", "documents": ["two"], "instruction": "another"})
    assert another.headers["x-rerank-cached"] == "0"


@story
async def test_duplicates_are_scored_once_and_score_alike() -> None:
    engine = virtual.Engine(speed=900)
    answer = await rerank(guard(engine), {"query": "cats", "documents": ["cats", "dogs", "cats"]})
    assert len(engine.scored) == 2
    assert [item["index"] for item in answer.json()["results"]] == [0, 2, 1]


@story
async def test_no_cache_in_the_request_computes_again() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    await rerank(app)
    answer = await rerank(app, headers={"cache-control": "no-cache"})
    assert answer.headers["x-rerank-cached"] == "0"
    assert len(engine.scored) == 4


@story
async def test_a_score_of_a_part_serves_again_only_where_no_more_would_fit() -> None:
    engine = virtual.Engine(speed=134)
    app = guard(engine)
    await rerank(app, RAGFLOW)
    few = {**RAGFLOW, "documents": RAGFLOW["documents"][:2]}
    answer = await rerank(app, few)
    assert answer.headers["x-rerank-cached"] == "0", "two documents fit whole, so their cut scores are not good enough"
    assert "x-rerank-cut" not in answer.headers


@story
async def test_whole_scores_win_over_an_answer_that_was_cut() -> None:
    app = guard(virtual.Engine(speed=900))
    cut = await rerank(app, RAGFLOW)
    await rerank(app, RAGFLOW, headers={"x-rerank-deadline-seconds": "300"})
    again = await rerank(app, RAGFLOW)
    assert cut.headers["x-rerank-cut"] == "0-65"
    assert "x-rerank-cut" not in again.headers
    assert again.headers["x-rerank-cached"] == "66"


@story
async def test_callers_together_cannot_fill_the_memory() -> None:
    app = guard(virtual.Engine(speed=900))
    large = {"query": "cats", "documents": ["x" * 900_000]}
    answers = await asyncio.gather(*(rerank(app, {**large, "top_n": number}) for number in range(8)))
    assert {answer.status for answer in answers} <= {200, 503}
    assert [answer.status for answer in answers].count(200) == 4
    assert app.bytes == 0


@story
async def test_the_cache_is_bounded() -> None:
    engine = virtual.Engine(speed=1e6)
    app = guard(engine, cache_entries=10)
    await rerank(app, {"query": "cats", "documents": [f"document {number}" for number in range(50)]})
    assert len(app.scorer.scores) == 10
    answer = await rerank(app, {"query": "cats", "documents": [f"document {number}" for number in range(50)]})
    assert answer.headers["x-rerank-cached"] == "10"


@story
async def test_without_a_cache_nothing_is_remembered() -> None:
    app = guard(virtual.Engine(speed=1e6), cache_entries=0)
    await rerank(app)
    assert (await rerank(app)).headers["x-rerank-cached"] == "0"


@story
async def test_equal_calls_at_one_time_are_computed_once() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    answers = await asyncio.gather(*(rerank(app, RAGFLOW) for _ in range(3)))
    assert len(engine.scored) == 66
    assert len({answer.body[60:] for answer in answers}) == 1


@story
async def test_the_work_of_equal_calls_goes_on_while_one_of_them_waits() -> None:
    app = guard(virtual.Engine(speed=900))
    leaving = ask(app, "POST", "/rerank", RAGFLOW, hang_up_after=2)
    left, answer = await asyncio.gather(leaving, rerank(app, RAGFLOW))
    assert left is None
    assert answer.headers["x-rerank-scored"] == "66"


@story
async def test_when_the_client_hangs_up_the_work_stops_in_the_engine() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    assert await ask(app, "POST", "/rerank", RAGFLOW, hang_up_after=3) is None
    await asyncio.sleep(1)
    assert engine.aborted > 0
    assert (app.scheduler.jobs, app.scheduler.chunks, app.scorer.computing, app.calls) == ([], {}, {}, 0)
    assert b"reranker_hangups_total 1\n" in (await ask(app, "GET", "/metrics")).body  # type: ignore[union-attr]
    before = len(engine.scored)
    await asyncio.sleep(100)
    assert len(engine.scored) == before


@story
async def test_not_one_document_in_time_is_503_with_a_time_to_come_back() -> None:
    answer = await rerank(guard(virtual.Engine(speed=134)), RAGFLOW, headers={"x-rerank-deadline-seconds": "0.5"})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == 503


@story
async def test_score_calls_keep_the_callers_order_and_never_lack_a_score() -> None:
    app = guard(virtual.Engine(speed=134))
    answer = await ask(app, "POST", "/v1/score", {"text_1": "cats", "text_2": ["dogs", "cats", "cats dogs"]})
    assert answer is not None
    assert [(item["index"], item["score"]) for item in answer.json()["data"]] == [(0, 0.0), (1, 1.0), (2, 0.5)]
    pairs = await ask(app, "POST", "/score", {"queries": ["cats", "dogs"], "documents": ["cats", "cats"]})
    assert pairs is not None
    assert [item["score"] for item in pairs.json()["data"]] == [1.0, 0.0]
    many = await ask(app, "POST", "/score", {"queries": "cats", "documents": RAGFLOW["documents"]})
    assert many is not None
    assert many.status == 503


@story
async def test_no_documents_are_an_empty_result() -> None:
    answer = await rerank(guard(virtual.Engine(speed=900)), {"query": "cats", "documents": []})
    assert (answer.status, answer.json()["results"]) == (200, [])


@story
async def test_a_document_too_long_for_the_model_is_cut_and_the_others_are_not() -> None:
    app = guard(virtual.Engine(speed=1e5))
    answer = await rerank(app, {"query": "cats", "documents": ["cats", "cats " * 100_000, "dogs"]})
    assert answer.status == 200
    assert (answer.headers["x-rerank-cut"], answer.headers["x-rerank-kept-tokens"]) == ("1", str(4096 - 60))


class Counting(virtual.Engine):
    """Counts the documents that it tokenized."""

    tokenized = 0

    def prompts(self, instruction: str, query: str, documents: Any) -> virtual.Prompts:
        self.tokenized += len(documents)
        return super().prompts(instruction, query, documents)


@story
async def test_documents_far_beyond_what_the_time_allows_are_not_even_tokenized() -> None:
    engine = Counting(speed=500)
    answer = await rerank(
        guard(engine, max_documents=5000, max_body_bytes=16 << 20),
        {"query": "cats", "documents": [f"{number} " + "dogs " * 300 for number in range(5000)]},
    )
    assert answer.status == 200
    assert len(answer.json()["results"]) == 5000
    scored = int(answer.headers["x-rerank-scored"])
    assert answer.headers["x-rerank-unscored"] == f"{scored}-4999"
    assert scored < engine.tokenized < 1000


@story
async def test_max_tokens_per_doc_cuts_each_document() -> None:
    engine = virtual.Engine(speed=1e5)
    await rerank(guard(engine), {"query": "cats", "documents": ["a b c d e f", "a b"], "max_tokens_per_doc": 3})
    assert [len(prompt.document) for prompt in engine.scored] == [3, 2]


@story
async def test_a_query_too_long_is_named_in_tokens() -> None:
    answer = await rerank(guard(virtual.Engine(speed=900)), {"query": "cats " * 201, "documents": ["a"]})
    assert answer.status == 400
    assert "201 tokens and may have 200" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b"null", 400), (b"\xff\xfe", 400), (b"[" * 100_000, 400), (b'{"a":' * 50_000, 400),
        (b'{"query": "a", "documents": NaN}', 400), (b'{"query": "a", "documents": ["b"], "top_n": 1e999}', 400), (b'{"query": "a", "documents": ["b"], "top_n": ' + b"9" * 5000 + b"}", 400),
        ({"documents": ["a"]}, 400), ({"query": "a"}, 400), ({"query": 3, "documents": ["a"]}, 400), ({"query": ["a"], "documents": ["a"]}, 400), ({"query": "a", "documents": [3]}, 400),
        ({"query": "a", "documents": [None]}, 400), ({"query": "a", "documents": {"text": 1}}, 400), ({"query": "a", "documents": ["\ud800"]}, 400), ({"query": "\udfff", "documents": ["a"]}, 400),
        ({"query": "a", "documents": ["a"], "top_n": -1}, 400), ({"query": "a", "documents": ["a"], "top_n": True}, 400), ({"query": "a", "documents": ["a"], "instruction": 7}, 400), ({"query": "a", "documents": ["a"], "instruction": ["b", "c"]}, 400), ({"query": "a", "documents": ["a"], "chat_template_kwargs": 0}, 400),
        ({"query": "a", "documents": ["a"], "instruction": "\ud800"}, 400), ({"query": "a", "documents": ["a"], "model": ["x"]}, 400), ({"query": "a", "documents": ["a"], "model": "gpt-5"}, 404),
        ({"query": "a", "documents": ["a"], "max_tokens_per_doc": "x"}, 400), ({"query": "a", "documents": ["a"] * 201}, 413), (b" " * (1 << 20) + b"{}", 413),
    ],
)  # fmt: skip
def test_what_is_no_request_is_a_4xx_in_the_apis_own_shape_and_the_engine_hears_nothing_of_it(body: Any, status: int) -> None:
    async def told() -> None:
        engine = virtual.Engine(speed=900)
        answer = await rerank(guard(engine), body)
        assert answer.status == status
        error = answer.json()["error"]
        assert error["code"] == status
        assert error["message"]
        assert engine.scored == []

    virtual.run(told())


@story
async def test_an_engine_that_fails_is_a_503_without_any_text_of_the_users() -> None:
    answer = await rerank(guard(virtual.Engine(speed=900, fails=True)), {"query": "secretquery", "documents": ["secretdocument"]})
    assert answer.status == 503
    assert b"secret" not in answer.body
    assert int(answer.headers["retry-after"]) > 0


class Broken(virtual.Engine):
    def prompts(self, instruction: str, query: str, documents: Any) -> virtual.Prompts:
        raise ValueError(f"cannot read {query}")


@story
async def test_a_fault_of_our_own_is_a_500_in_the_apis_shape_and_no_text_of_the_users_is_logged() -> None:
    kept = Kept()
    logging.getLogger("reranker").addHandler(kept)
    try:
        answer = await rerank(guard(Broken(speed=900)), {"query": "secretquery", "documents": ["a"]})
    finally:
        logging.getLogger("reranker").removeHandler(kept)
    assert (answer.status, answer.json()["error"]["code"]) == (500, 500)
    assert b"secret" not in answer.body
    assert kept.lines[0] == "guard: a request to /v1/rerank failed with ValueError"
    assert "secret" not in "".join(kept.lines)


class Wild(virtual.Engine):
    async def score(self, prompts: Any) -> list[float]:
        return [float("nan") for _ in prompts]


@story
async def test_a_score_that_is_no_number_is_never_given_to_a_caller() -> None:
    answer = await rerank(guard(Wild(speed=900)))
    assert answer.status == 503
    assert b"NaN" not in answer.body


@story
async def test_only_the_routes_of_a_reranker_are_there() -> None:
    app = guard(virtual.Engine(speed=900))
    for path in (
        "/classify",
        "/pooling",
        "/tokenize",
        "/invocations",
        "/docs",
        "/openapi.json",
        "/",
        "/v1/rerank/",
        "//rerank",
        "/load",
        "/v1/embeddings",
    ):
        for method in ("GET", "POST", "DELETE"):
            answer = await ask(app, method, path, {})
            assert answer is not None
            assert answer.status == 404, (method, path)
    for path, method in ROUTES.items():
        wrong = await ask(app, "POST" if method == "GET" else "GET", path, {})
        assert wrong is not None
        assert (wrong.status, wrong.headers["allow"]) == (405, method)


def test_with_a_key_every_route_but_health_asks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("first-key\nsecond-key\n", encoding="ascii")

    async def told() -> None:
        app = guard(virtual.Engine(speed=900), api_key_file=str(file))
        for path, method in [*ROUTES.items(), ("/classify", "POST"), ("/nothing", "GET")]:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "first-key"}, {"authorization": "Basic first-key"}):
                answer = await ask(app, method, path, {}, headers)
                assert answer is not None
                if path != "/health":
                    assert (answer.status, answer.json()) == (401, {"error": "Unauthorized"}), path
        for key in ("first-key", "second-key"):
            assert (await rerank(app, headers={"authorization": f"Bearer {key}"})).status == 200
        health = await ask(app, "GET", "/health")
        assert health is not None
        assert health.status == 200

    virtual.run(told())


@story
async def test_the_servers_own_answers_come_through_and_metrics_have_both() -> None:
    app = guard(virtual.Engine(speed=900))
    await rerank(app, RAGFLOW)
    models = await ask(app, "GET", "/v1/models")
    metrics = await ask(app, "GET", "/metrics")
    assert models is not None
    assert metrics is not None
    assert models.body == b"inner /v1/models\n"
    text = metrics.body.decode()
    assert text.startswith("inner /metrics\n")
    for line in (
        'reranker_requests_total{route="/v1/rerank",status="200"} 1', 'reranker_documents_total{result="scored"} 66', 'reranker_documents_total{result="cut"} 66',
        'reranker_documents_total{result="unscored"} 0', "reranker_cache_misses_total 66", "reranker_cache_entries 66", "reranker_call_seconds_count 1", "reranker_planned_ratio_count 1",
        "reranker_calls 0", "reranker_proven 1",
    ):  # fmt: skip
        assert f"\n{line}\n" in text, line


@story
async def test_one_log_line_a_call_and_no_text_of_the_users_in_it() -> None:
    kept = Kept()
    app = guard(virtual.Engine(speed=900))
    logging.getLogger("reranker").addHandler(kept)
    try:
        await rerank(app, {"query": "secretquery", "documents": ["secretdocument"], "instruction": "secretinstruction"})
        await rerank(app, b"secretbody")
    finally:
        logging.getLogger("reranker").removeHandler(kept)
    (line, refused) = kept.lines
    assert json.loads(refused.removeprefix("refused ")) == {"route": "/v1/rerank", "status": 400, "why": "", "seconds": 0.0}
    kind, entry = line.split(" ", 1)
    assert kind == "rerank"
    assert json.loads(entry)["scored"] == 1
    assert "secret" not in line


class Judged(virtual.Engine):
    """Scores the golden set as `golden_scores` says."""

    golden_scores: Callable[[golden.Pair], float] = staticmethod(lambda pair: 0.99 if pair.relevant else 0.01)

    async def score(self, prompts: Any) -> list[float]:
        await super().score(prompts)
        return [
            next(self.golden_scores(pair) for pair in golden.PAIRS if pair.query == prompt.query and pair.document == " ".join(prompt.document))
            for prompt in prompts
        ]


def started(engine: virtual.Engine, name: str = "qwen3-reranker-0.6b", **changes: Any) -> tuple[Answer, Answer]:
    """What /health says right after start, and a minute later."""

    async def told() -> tuple[Answer, Answer]:
        app = guard(engine, proven=False, served_model_names=(name,), **changes)
        app.start()
        first = await ask(app, "GET", "/health")
        await asyncio.sleep(60)
        second = await ask(app, "GET", "/health")
        assert first is not None
        assert second is not None
        return first, second

    return virtual.run(told())


def test_health_waits_for_the_golden_set() -> None:
    first, second = started(Judged(speed=900))
    assert (first.status, first.json()["status"], second.status) == (503, "starting", 200)
    assert second.json() == {"status": "healthy", "skipped": []}


def test_the_golden_set_teaches_the_speed() -> None:
    async def told() -> None:
        app = guard(Judged(speed=321), proven=False, served_model_names=("qwen3-reranker-0.6b",))
        app.start()
        await asyncio.sleep(60)
        assert app.scheduler.speed.tokens_per_second == pytest.approx(321, rel=0.5)

    virtual.run(told())


def test_a_model_that_ranks_its_golden_set_wrongly_is_unhealthy_with_the_reason() -> None:
    engine = Judged(speed=900)
    engine.golden_scores = lambda pair: 0.01 if pair.relevant else 0.99
    _, second = started(engine)
    assert second.status == 503
    assert "swapped" in second.json()["reason"]


def test_an_unknown_model_is_healthy_and_says_what_was_left_out() -> None:
    engine = Judged(speed=900)
    engine.golden_scores = lambda pair: 0.4 + len(pair.document) / 1000
    _, second = started(engine, name="acme-reranker")
    assert second.status == 200
    assert "acme-reranker" in second.json()["skipped"][0]


def test_the_bands_can_be_switched_off_and_health_says_so() -> None:
    engine = Judged(speed=900)
    engine.golden_scores = lambda pair: 0.4 + len(pair.document) / 1000
    _, second = started(engine, golden=False)
    assert (second.status, second.json()["skipped"]) == (
        200,
        ["The golden bands were left out: goldenCheck is off, or there is no model behind the service."],
    )


def test_an_engine_that_fails_at_start_is_unhealthy() -> None:
    first, second = started(virtual.Engine(speed=900, fails=True))
    assert (first.status, second.status) == (503, 503)
    assert "could not be scored" in second.json()["reason"]


@story
async def test_an_engine_whose_process_ended_is_unhealthy() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    engine.dead = True
    answer = await ask(app, "GET", "/health")
    assert answer is not None
    assert answer.status == 503


@story
async def test_an_engine_that_gives_nothing_although_it_has_work_is_unhealthy() -> None:
    engine = virtual.Engine(speed=900, frozen=True)
    app = guard(engine)
    work = asyncio.ensure_future(rerank(app, headers={"x-rerank-deadline-seconds": "1000"}))
    await asyncio.sleep(30)
    healthy = await ask(app, "GET", "/health")
    await asyncio.sleep(100)
    stalled = await ask(app, "GET", "/health")
    work.cancel()
    assert healthy is not None
    assert stalled is not None
    assert (healthy.status, stalled.status) == (200, 503)
    assert "no score for" in stalled.json()["reason"]


@story
async def test_an_idle_engine_is_asked_only_now_and_then() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    hours = 2
    for _ in range(hours * 360):
        await ask(app, "GET", "/health")
        await asyncio.sleep(10)
    assert 0 < len(engine.scored) <= hours * 3600 / PROBE_AFTER_SECONDS


@story
async def test_an_idle_engine_that_does_not_answer_its_probe_becomes_unhealthy() -> None:
    engine = virtual.Engine(speed=900)
    app = guard(engine)
    await asyncio.sleep(PROBE_AFTER_SECONDS + 1)
    engine.frozen = True
    first = await ask(app, "GET", "/health")
    await asyncio.sleep(100)
    second = await ask(app, "GET", "/health")
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 503)


@story
async def test_a_service_whose_prompts_cannot_be_made_is_unhealthy_and_refuses_with_the_reason() -> None:
    app = guard(NoEngine("The score template must have one space before its document; restore it."), proven=False)
    await app.vitals.prove()
    health = await ask(app, "GET", "/health")
    assert health is not None
    assert (health.status, health.json()["status"]) == (503, "unhealthy")
    assert "one space before its document" in health.json()["reason"]
    answer = await rerank(app)
    assert answer.status == 503
    assert "one space before its document" in answer.json()["error"]["message"]
