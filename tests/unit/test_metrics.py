"""What the service counts, as Prometheus reads it."""

import pytest

from serving.metrics import Metrics
from tests.support.contract import prometheus


def test_histograms_count_what_lies_below_their_bounds() -> None:
    metrics = Metrics()
    metrics.histogram("seconds", "Time.", (1, 2.5))
    for value in (0.5, 1, 2, 99):
        metrics.observe("seconds", value)
    found = prometheus(metrics.text())
    buckets = {float(dict(labels)["le"]): value for (name, labels), value in found.items() if name == "reranker_seconds_bucket"}
    assert buckets == {1.0: 2, 2.5: 3, float("inf"): 4}
    assert (found["reranker_seconds_sum", ()], found["reranker_seconds_count", ()]) == (102.5, 4)


def test_a_large_counter_loses_no_digit() -> None:
    metrics = Metrics()
    metrics.counter("tokens_total", "Tokens.")
    metrics.count("tokens_total", 123_456_789)
    assert prometheus(metrics.text())["reranker_tokens_total", ()] == 123_456_789
    metrics.count("tokens_total", 1)
    assert prometheus(metrics.text())["reranker_tokens_total", ()] == 123_456_790


def test_series_that_are_shown_are_0_before_they_are_counted_and_others_are_not_there() -> None:
    metrics = Metrics()
    metrics.counter("refused_total", "Refused.", ["reason"], [{"reason": "busy"}])
    busy, engine = (("reranker_refused_total", (("reason", name),)) for name in ("busy", "engine"))
    found = prometheus(metrics.text())
    assert found[busy] == 0
    assert engine not in found
    metrics.count("refused_total", reason="engine")
    metrics.count("refused_total", 2, reason="busy")
    found = prometheus(metrics.text())
    assert (found[busy], found[engine]) == (2, 1)


def test_a_gauge_is_read_when_somebody_asks() -> None:
    metrics = Metrics()
    value = 1.0
    metrics.gauge("calls", "Calls.", lambda: value)
    assert prometheus(metrics.text())["reranker_calls", ()] == 1
    value = 2.0
    assert prometheus(metrics.text())["reranker_calls", ()] == 2


def test_what_was_not_declared_is_not_counted() -> None:
    with pytest.raises(KeyError):
        Metrics().count("tokens_total")


def test_two_services_in_one_process_do_not_share_their_numbers() -> None:
    one, other = Metrics(), Metrics()
    for metrics in (one, other):
        metrics.counter("tokens_total", "Tokens.")
    one.count("tokens_total", 5)
    assert prometheus(other.text())["reranker_tokens_total", ()] == 0
