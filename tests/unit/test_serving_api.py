"""Parts of the rerank API that have more cases than its callers' tests go through."""

import random
import re

import pytest

from serving import api
from serving.api import Call
from serving.metrics import Metrics


@pytest.mark.parametrize(("indexes", "written"), [([], ""), ([3], "3"), ([0, 1, 2], "0-2"), ([1, 3, 4, 9], "1,3-4,9")])
def test_places_are_written_as_ranges(indexes: list[int], written: str) -> None:
    assert api.ranges(indexes) == written


def test_places_that_no_header_should_hold_end_in_dots() -> None:
    written = api.ranges(range(0, 10_000, 2))
    assert len(written) < 2010
    assert written.startswith("0,2,4,")
    assert re.search(r",\d+,\.\.\.$", written)


def test_every_unscored_document_is_below_every_scored_one_in_the_callers_order() -> None:
    rng = random.Random(4)
    for _ in range(200):
        count = rng.randint(1, 90)
        scored = {index: rng.choice([rng.random(), 1e-9, 0.5]) for index in rng.sample(range(count), rng.randint(1, count))}
        scores = api.with_unscored(scored, count)
        missing = [scores[index] for index in range(count) if index not in scored]
        assert all(0 <= score < min(scored.values()) for score in missing)
        assert missing == sorted(missing, reverse=True)
        assert len(set(missing)) == len(missing)
        assert all(scores[index] == score for index, score in scored.items())


def test_below_a_score_of_zero_the_callers_order_still_holds() -> None:
    call = Call(rerank=True, pairs=(("q", "a"), ("q", "b"), ("q", "c")))
    answer = api.rerank_answer(call, api.with_unscored({1: 0.0}, 3), 10, "m")
    assert [item["index"] for item in answer["results"]] == [0, 1, 2]


@pytest.mark.parametrize("given", [True, "true", None, "yes", 1])
def test_documents_come_back_unless_they_are_not_wanted(given: object) -> None:
    limits = api.Limits(names=("m",), documents=10)
    body = {"query": "q", "documents": ["a"], "return_documents": given}
    assert api.parse("/rerank", "application/json", api.json.dumps(body).encode(), limits).return_documents
    body["return_documents"] = False
    assert not api.parse("/rerank", "application/json; charset=utf-8", api.json.dumps(body).encode(), limits).return_documents


def test_histograms_count_what_lies_below_their_bounds() -> None:
    metrics = Metrics()
    metrics.histogram("seconds", "Time.", (1, 2.5))
    for value in (0.5, 1, 2, 99):
        metrics.observe("seconds", value)
    text = metrics.text()
    for line in (
        'reranker_seconds_bucket{le="1"} 2',
        'reranker_seconds_bucket{le="2.5"} 3',
        'reranker_seconds_bucket{le="+Inf"} 4',
        "reranker_seconds_sum 102.500000",
        "reranker_seconds_count 4",
    ):
        assert line in text.splitlines()


def test_a_large_counter_loses_no_digit() -> None:
    metrics = Metrics()
    metrics.counter("tokens_total", "Tokens.")
    metrics.count("tokens_total", 123_456_789)
    assert "reranker_tokens_total 123456789" in metrics.text().splitlines()
