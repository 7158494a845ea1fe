"""The service around an engine of known speed, in virtual time: what callers get, when, and what they are told about it."""

import asyncio
import dataclasses
import json
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from serving.web.service import ROUTES, Service
from tests.support import virtual
from tests.support.contract import Labels, prometheus
from tests.support.virtual import Answer, ask, rerank, service, story

RAGFLOW = {"model": "some-reranker", "query": "cats", "documents": [f"{number} " + "cats and dogs " * 170 for number in range(66)]}


class Kept(logging.Handler):
    """Keeps the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def metrics(app: Service) -> dict[tuple[str, Labels], float]:
    """The service's own samples, by name and labels."""
    answer = await ask(app, "GET", "/metrics")
    assert answer is not None
    return prometheus(answer.body.decode().removeprefix("inner /metrics\n"))


@story
async def test_a_rerank_comes_sorted_with_what_was_done_in_headers() -> None:
    answer = await rerank(service(virtual.Engine(speed=900)))
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
    answer = await rerank(service(virtual.Engine(speed=900)), RAGFLOW)
    assert answer.status == 200
    assert answer.seconds <= 25
    assert len(answer.json()["results"]) == 66
    assert answer.headers["x-rerank-scored"] == "66"
    assert answer.headers["x-rerank-cut"] == "0-65"
    assert 200 < int(answer.headers["x-rerank-kept-tokens"]) < 400


@story
async def test_who_asks_for_it_gets_what_was_not_scored_last_in_the_callers_order() -> None:
    answer = await rerank(service(virtual.Engine(speed=134)), RAGFLOW, headers={"x-rerank-unscored-as": "below"})
    scored = int(answer.headers["x-rerank-scored"])
    results = answer.json()["results"]
    assert 0 < scored < 66
    assert answer.headers["x-rerank-unscored"] == f"{scored}-65"
    assert [item["index"] for item in results[scored:]] == list(range(scored, 66))
    scores = [item["relevance_score"] for item in results]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores[scored - 1 :])) == 66 - scored + 1, "strictly below"
    assert min(scores) >= 0
    assert answer.headers["x-rerank-unscored-as"] == "below"


MIXED = {"query": "cats", "documents": [f"{number} " + " ".join(["cats"] * (60 - 3 * number) + ["dogs"] * (40 + 3 * number)) for number in range(20)]}


@story
async def test_for_ragflow_what_was_not_scored_goes_on_as_the_scores_do_and_stands_behind_the_best_half_of_them() -> None:
    app = service(virtual.Engine(speed=134), deadline_seconds=10)
    answer = await rerank(app, MIXED)
    scored = int(answer.headers["x-rerank-scored"])
    assert (answer.headers["x-rerank-unscored"], answer.headers["x-rerank-unscored-as"]) == (f"{scored}-19", "typical")
    results = answer.json()["results"]
    values = {item["index"]: item["relevance_score"] for item in results}
    assert [item["relevance_score"] for item in results] == sorted(values.values(), reverse=True)
    assert {item["index"] for item in results[: scored // 2]} <= set(range(scored))
    assert 0.3 * values[0] < values[scored] < values[0], "an ordinary value, and not next to nothing"
    again = await rerank(app, MIXED, headers={"x-rerank-unscored-as": "below"})
    assert again.seconds == 0, "how values are given is no other call"
    assert {item["index"] for item in again.json()["results"][:scored]} == set(range(scored))
    assert again.json()["results"][0] == results[0]


@pytest.mark.parametrize("given", ["", "above", "below, typical"])
def test_a_way_to_value_what_was_not_scored_that_is_none_is_refused(given: str) -> None:
    async def told() -> None:
        answer = await rerank(service(virtual.Engine(speed=900)), headers={"x-rerank-unscored-as": given})
        assert answer.status == 400
        assert answer.json()["error"]["message"] == "The header x-rerank-unscored-as must be one of typical, below"

    virtual.run(told())


@story
async def test_a_deadline_in_the_request_is_kept() -> None:
    answer = await rerank(service(virtual.Engine(speed=900)), RAGFLOW, headers={"x-rerank-deadline-seconds": "8"})
    assert answer.status == 200
    assert 6 < answer.seconds <= 8


@pytest.mark.parametrize("given", ["0", "-1", "nan", "inf", "soon", "", "1e9", "1_0", "9" * 400])
def test_a_deadline_that_is_none_is_refused(given: str) -> None:
    async def told() -> None:
        answer = await rerank(service(virtual.Engine(speed=900)), headers={"x-rerank-deadline-seconds": given})
        assert answer.status == 400
        assert "x-rerank-deadline-seconds" in answer.json()["error"]["message"]

    virtual.run(told())


@story
async def test_the_same_call_again_is_free_and_the_same() -> None:
    app = service(virtual.Engine(speed=134))
    first = await rerank(app, RAGFLOW)
    again = await rerank(app, RAGFLOW)
    assert again.seconds == 0
    assert [item["index"] for item in again.json()["results"]] == [item["index"] for item in first.json()["results"]]
    assert again.headers["x-rerank-cached"] == first.headers["x-rerank-scored"]
    assert again.headers["x-rerank-unscored"] == first.headers["x-rerank-unscored"]


@story
async def test_a_document_is_scored_once_for_a_query_whatever_stands_beside_it() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
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
    answer = await rerank(service(engine), {"query": "cats", "documents": ["cats", "dogs", "cats"]})
    assert len(engine.scored) == 2
    assert [item["index"] for item in answer.json()["results"]] == [0, 2, 1]


@story
async def test_no_cache_in_the_request_computes_again() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    await rerank(app)
    answer = await rerank(app, headers={"cache-control": "no-cache"})
    assert answer.headers["x-rerank-cached"] == "0"
    assert len(engine.scored) == 4


@story
async def test_a_score_of_a_part_serves_again_only_where_no_more_would_fit() -> None:
    engine = virtual.Engine(speed=134)
    app = service(engine)
    await rerank(app, RAGFLOW)
    few = {**RAGFLOW, "documents": RAGFLOW["documents"][:2]}
    answer = await rerank(app, few)
    assert answer.headers["x-rerank-cached"] == "0", "two documents fit whole, so their cut scores are not good enough"
    assert "x-rerank-cut" not in answer.headers


@story
async def test_whole_scores_win_over_an_answer_that_was_cut() -> None:
    app = service(virtual.Engine(speed=900))
    cut = await rerank(app, RAGFLOW)
    await rerank(app, RAGFLOW, headers={"x-rerank-deadline-seconds": "300"})
    again = await rerank(app, RAGFLOW)
    assert cut.headers["x-rerank-cut"] == "0-65"
    assert "x-rerank-cut" not in again.headers
    assert again.headers["x-rerank-cached"] == "66"


@story
async def test_callers_together_cannot_fill_the_memory() -> None:
    app = service(virtual.Engine(speed=900))
    large = {"query": "cats", "documents": ["x" * 900_000]}
    answers = await asyncio.gather(*(rerank(app, {**large, "top_n": number}) for number in range(8)))
    assert {answer.status for answer in answers} <= {200, 503}
    assert [answer.status for answer in answers].count(200) == 4
    assert app.bytes == 0


@story
async def test_the_cache_is_bounded() -> None:
    engine = virtual.Engine(speed=1e6)
    app = service(engine, cache_entries=10)
    await rerank(app, {"query": "cats", "documents": [f"document {number}" for number in range(50)]})
    assert len(app.scorer.scores) == 10
    answer = await rerank(app, {"query": "cats", "documents": [f"document {number}" for number in range(50)]})
    assert answer.headers["x-rerank-cached"] == "10"


@story
async def test_remembered_answers_are_bounded_by_their_documents() -> None:
    app = service(virtual.Engine(speed=134), cache_entries=200)
    for number in range(30):
        answer = await rerank(app, {**RAGFLOW, "query": f"cats {number}"})
        assert "x-rerank-unscored" in answer.headers, "what is remembered is not whole"
        assert app.scorer.answers.weight <= 200
        assert len(app.scorer.answers) * 66 <= 200
    assert len(app.scorer.answers) == 3
    assert sum(len(outcome.scored) for _, _, outcome in app.scorer.answers.values.values()) <= 200
    again = await rerank(app, {**RAGFLOW, "query": "cats 29"})
    assert again.seconds == 0


@story
async def test_an_answer_with_more_documents_than_are_remembered_is_not_remembered() -> None:
    app = service(virtual.Engine(speed=134), cache_entries=50)
    await rerank(app, RAGFLOW)
    assert (len(app.scorer.answers), app.scorer.answers.weight) == (0, 0)


@story
async def test_without_a_cache_nothing_is_remembered() -> None:
    app = service(virtual.Engine(speed=1e6), cache_entries=0)
    await rerank(app)
    assert (await rerank(app)).headers["x-rerank-cached"] == "0"


@story
async def test_equal_calls_at_one_time_are_computed_once() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    answers = await asyncio.gather(*(rerank(app, RAGFLOW) for _ in range(3)))
    assert len(engine.scored) == 66
    assert len({answer.body[60:] for answer in answers}) == 1


FEW = {"query": "cats", "documents": [f"{number} " + "cats and dogs " * 30 for number in range(12)]}
FRESH = {"cache-control": "no-cache"}


@story
async def test_no_cache_does_not_join_an_equal_running_call_that_took_known_scores() -> None:
    engine = virtual.Engine(speed=200)
    app = service(engine)
    await rerank(app, {**FEW, "documents": FEW["documents"][:3]})
    running = asyncio.ensure_future(rerank(app, FEW))
    await asyncio.sleep(1)
    before = len(engine.scored)
    answer, joined = await asyncio.gather(rerank(app, FEW, headers={**FRESH, "x-rerank-deadline-seconds": "60"}), running)
    assert joined.headers["x-rerank-cached"] == "3"
    assert (answer.headers["x-rerank-cached"], answer.headers["x-rerank-scored"]) == ("0", "12")
    first = FEW["documents"][0].split()
    assert [list(prompt.document) for prompt in engine.scored[before:]].count(first) == 1, "the known ones were computed anew"


@story
async def test_two_equal_no_cache_calls_at_once_are_computed_once() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    await rerank(app, FEW)
    before = len(engine.scored)
    answers = await asyncio.gather(*(rerank(app, FEW, headers=FRESH) for _ in range(3)))
    assert len(engine.scored) - before == 12
    assert {answer.headers["x-rerank-cached"] for answer in answers} == {"0"}


@story
async def test_a_plain_call_may_join_a_running_no_cache_call() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    fresh = asyncio.ensure_future(rerank(app, FEW, headers=FRESH))
    await asyncio.sleep(0.5)
    plain, first = await asyncio.gather(rerank(app, FEW), fresh)
    assert len(engine.scored) == 12
    assert (plain.status, first.status) == (200, 200)
    assert plain.json()["results"] == first.json()["results"]


@story
async def test_the_work_of_equal_calls_goes_on_while_one_of_them_waits() -> None:
    app = service(virtual.Engine(speed=900))
    leaving = ask(app, "POST", "/rerank", RAGFLOW, hang_up_after=2)
    left, answer = await asyncio.gather(leaving, rerank(app, RAGFLOW))
    assert left is None
    assert answer.headers["x-rerank-scored"] == "66"


@story
async def test_when_the_client_hangs_up_the_work_stops_in_the_engine() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    assert await ask(app, "POST", "/rerank", RAGFLOW, hang_up_after=3) is None
    await asyncio.sleep(1)
    assert engine.aborted > 0
    assert (app.scheduler.jobs, app.scheduler.chunks, app.scorer.computing, app.calls) == ([], {}, {}, 0)
    assert (await metrics(app))["reranker_hangups_total", ()] == 1
    before = len(engine.scored)
    await asyncio.sleep(100)
    assert len(engine.scored) == before


@story
async def test_not_one_document_in_time_is_503_with_a_time_to_come_back() -> None:
    answer = await rerank(service(virtual.Engine(speed=134)), RAGFLOW, headers={"x-rerank-deadline-seconds": "0.5"})
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == 503


def retry_after(answer: Answer) -> int:
    return int(answer.headers["retry-after"])


@pytest.mark.parametrize("seconds", ["1", "2", "3"])
def test_a_hurried_call_while_another_fills_the_engine_is_503_and_right_after_on_an_idle_engine_it_has_scores(seconds: str) -> None:
    async def told() -> None:
        app = service(virtual.Engine(speed=134))
        hurried = {"query": "dogs", "documents": ["dogs bark", "cats purr"] * 4}
        filling = asyncio.ensure_future(ask(app, "POST", "/rerank", RAGFLOW, hang_up_after=6))
        await asyncio.sleep(1)
        refused = await rerank(app, hurried, headers={"x-rerank-deadline-seconds": seconds})
        assert refused.status == 503
        assert retry_after(refused) >= 1
        assert refused.seconds <= float(seconds)
        assert await filling is None
        await asyncio.sleep(5)  # what the engine had in hand
        answer = await rerank(app, hurried, headers={"x-rerank-deadline-seconds": seconds})
        assert answer.status == 200
        assert int(answer.headers["x-rerank-scored"]) == 8

    virtual.run(told())


@pytest.mark.parametrize("speed", [20, 134, 500, 900, 5000])
@pytest.mark.parametrize("jitter", [(1.0,), (0.5, 1, 3, 1, 0.7), (1, 1, 12)])
def test_a_200_to_a_rerank_with_documents_always_has_a_score_whatever_the_load_and_the_deadline(speed: float, jitter: tuple[float, ...]) -> None:
    shapes = [["dogs bark"], ["dogs bark " * 4] * 3, RAGFLOW["documents"], [f"{number} " + "dogs " * 20 for number in range(150)]]

    async def told(rng: random.Random) -> list[Answer]:
        app = service(virtual.Engine(speed=speed, jitter=jitter))

        async def call(number: int) -> Answer:
            await asyncio.sleep(rng.uniform(0, 6))
            seconds = rng.choice((0.05, 0.3, 0.7, 1, 1.5, 2, 2.5, 3, 5, 10, 25))
            body = {"query": f"cats {number % 5}", "documents": rng.choice(shapes)}
            headers = {"x-rerank-deadline-seconds": str(seconds), **({"cache-control": "no-cache"} if rng.random() < 0.3 else {})}
            answer = await rerank(app, body, headers=headers)
            assert answer.seconds <= seconds + 1e-6
            return answer

        return await asyncio.gather(*(call(number) for number in range(rng.randint(1, 12))))

    answers = [answer for seed in range(12) for answer in virtual.run(told(random.Random(seed)))]
    assert {answer.status for answer in answers} <= {200, 503}
    assert {answer.status for answer in answers} >= {200}
    for answer in answers:
        if answer.status == 200:
            assert int(answer.headers["x-rerank-scored"]) >= 1
        else:
            assert retry_after(answer) >= 1


@story
async def test_a_refusal_is_not_remembered_as_an_answer() -> None:
    app = service(virtual.Engine(speed=134, frozen=True))
    late = await rerank(app, headers={"x-rerank-deadline-seconds": "3"})
    assert (late.status, retry_after(late) >= 1) == (503, True)
    assert len(app.scorer.answers) == len(app.scorer.scores) == 0


@story
async def test_score_calls_keep_the_callers_order_and_never_lack_a_score() -> None:
    app = service(virtual.Engine(speed=134))
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
    answer = await rerank(service(virtual.Engine(speed=900)), {"query": "cats", "documents": []})
    assert (answer.status, answer.json()["results"]) == (200, [])


@story
async def test_a_document_too_long_for_the_model_is_cut_and_the_others_are_not() -> None:
    app = service(virtual.Engine(speed=1e5))
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
        service(engine, max_documents=5000, max_body_mib=16),
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
    await rerank(service(engine), {"query": "cats", "documents": ["a b c d e f", "a b"], "max_tokens_per_doc": 3})
    assert [len(prompt.document) for prompt in engine.scored] == [3, 2]


@story
async def test_a_query_too_long_keeps_its_beginning_and_its_end_and_the_answer_says_how_much() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    words = " ".join(f"w{number}" for number in range(501))
    answer = await rerank(app, {"query": words, "documents": ["w0 w500", "w250"]})
    assert (answer.status, answer.headers["x-rerank-query-kept-tokens"]) == (200, "200")
    asked = engine.scored[0].query.split()
    assert (len(asked), asked[0], asked[-1], "w250" in asked) == (200, "w0", "w500", False)
    assert answer.json()["results"][0]["index"] == 0
    # a known score of it still says that the query was cut
    again = await rerank(app, {"query": words, "documents": ["w250", "w0 w500"]})
    assert (again.headers["x-rerank-cached"], again.headers["x-rerank-query-kept-tokens"]) == ("2", "200")


@story
async def test_a_query_makes_room_for_a_document_where_the_instruction_is_long() -> None:
    """In virtual.Engine the template takes fifty tokens whatever its text: a model of 300 leaves no room for a query of 260."""
    engine = LongTemplate(speed=900)
    answer = await rerank(
        service(engine, max_model_len=300, max_query_tokens=280, min_document_tokens=96), {"query": "cats " * 260, "documents": ["a " * 400]}
    )
    assert answer.status == 200
    kept = int(answer.headers["x-rerank-query-kept-tokens"])
    assert kept < 260
    assert kept + 50 + 10 + len(engine.scored[0].document) <= 300
    assert len(engine.scored[0].document) >= 96


class LongTemplate(virtual.Engine):
    """Counts the query among what the documents share, as a model's prompt does."""

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> virtual.Prompts:
        made = super().prompts(instruction, query, documents)
        return dataclasses.replace(made, shared=50 + made.query)


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
        answer = await rerank(service(engine), body)
        assert answer.status == status
        error = answer.json()["error"]
        assert error["code"] == status
        assert error["message"]
        assert engine.scored == []

    virtual.run(told())


@story
async def test_an_engine_that_fails_is_a_503_without_any_text_of_the_users() -> None:
    answer = await rerank(service(virtual.Engine(speed=900, fails=True)), {"query": "secretquery", "documents": ["secretdocument"]})
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
        answer = await rerank(service(Broken(speed=900)), {"query": "secretquery", "documents": ["a"]})
    finally:
        logging.getLogger("reranker").removeHandler(kept)
    assert (answer.status, answer.json()["error"]["code"]) == (500, 500)
    assert b"secret" not in answer.body
    assert kept.lines[0] == "a request to /v1/rerank failed with ValueError"
    assert "secret" not in "".join(kept.lines)


class Wild(virtual.Engine):
    async def score(self, prompts: Any) -> list[float]:
        return [float("nan") for _ in prompts]


@story
async def test_a_score_that_is_no_number_is_never_given_to_a_caller() -> None:
    answer = await rerank(service(Wild(speed=900)))
    assert answer.status == 503
    assert b"NaN" not in answer.body


@story
async def test_only_the_routes_of_a_reranker_are_there() -> None:
    app = service(virtual.Engine(speed=900))
    for path in (
        "/classify",
        "/pooling",
        "/tokenize",
        "/invocations",
        "/docs",
        "/openapi.json",
        "/v2",
        "/rerank/x",
        "/reranker",
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
        app = service(virtual.Engine(speed=900), api_key_file=str(file))
        for path, method in [*ROUTES.items(), ("/classify", "POST"), ("/nothing", "GET")]:
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "first-key"}, {"authorization": "Basic first-key"}):
                answer = await ask(app, method, path, {}, headers)
                assert answer is not None
                if path != "/health":
                    assert (answer.status, answer.json()["error"]["type"]) == (403, "Forbidden"), path
        for key in ("first-key", "second-key"):
            assert (await rerank(app, headers={"authorization": f"Bearer {key}"})).status == 200
        health = await ask(app, "GET", "/health")
        assert health is not None
        assert health.status == 200

    virtual.run(told())


@story
async def test_the_servers_own_answers_come_through_and_metrics_have_both() -> None:
    app = service(virtual.Engine(speed=900))
    await rerank(app, RAGFLOW)
    models = await ask(app, "GET", "/v1/models")
    both = await ask(app, "GET", "/metrics")
    assert models is not None
    assert both is not None
    assert models.body == b"inner /v1/models\n"
    assert both.body.startswith(b"inner /metrics\n")
    assert {
        ("reranker_requests_total", (("route", "/v1/rerank"), ("status", "200"))): 1,
        ("reranker_documents_total", (("result", "scored"),)): 66,
        ("reranker_documents_total", (("result", "cut"),)): 66,
        ("reranker_documents_total", (("result", "unscored"),)): 0,
        ("reranker_refused_total", (("reason", "busy"),)): 0,
        ("reranker_cache_misses_total", ()): 66,
        ("reranker_cache_entries", ()): 66,
        ("reranker_call_seconds_count", ()): 1,
        ("reranker_planned_ratio_count", ()): 1,
        ("reranker_calls", ()): 0,
        ("reranker_proven", ()): 1,
    }.items() <= (await metrics(app)).items()


@story
async def test_one_log_line_a_call_and_no_text_of_the_users_in_it() -> None:
    kept = Kept()
    app = service(virtual.Engine(speed=900))
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
