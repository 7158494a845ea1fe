"""The arithmetic, table and plot of the benchmark of the serving layer."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench.serving import measures, parts, report
from bench.serving.measures import agreement, bare_argv, computed_tokens, counters, flop_per_token, kept, limit_tokens, ranking
from rerank.bench.stats import Spread
from serving.memory import KNOWN_MODELS

SHAPE = KNOWN_MODELS["qwen3-reranker-0.6b"]


def test_a_spread_is_median_and_extremes_and_refuses_nothing_at_all() -> None:
    assert Spread.of([5, 1, 2]) == Spread(3, 2, 1, 5)
    with pytest.raises(ValueError, match="one value"):
        Spread.of([])


def test_prometheus_counters_are_summed_over_their_labels() -> None:
    text = '# HELP a_total x\na_total{engine="0",m="n"} 3.0\na_total{engine="1"} 1e2\nb 2\nhistogram_bucket{le="+Inf"} 4\n'
    assert counters(text) == {"a_total": 103.0, "b": 2.0, "histogram_bucket": 4.0}


def test_tokens_from_the_prefix_cache_do_not_count_as_computed() -> None:
    before = {"vllm:prompt_tokens_total": 100.0, "vllm:prefix_cache_hits_total": 10.0}
    after = {"vllm:prompt_tokens_total": 700.0, "vllm:prefix_cache_hits_total": 130.0}
    assert computed_tokens(before, after) == 480


def test_a_token_costs_two_for_each_weight_and_attention_over_its_context() -> None:
    weights = 28 * (1024 * 2048 * 2 + 2 * 1024 * 1024 + 3 * 1024 * 3072)
    assert flop_per_token(SHAPE, 0) == 2 * weights
    assert flop_per_token(SHAPE, 100) - flop_per_token(SHAPE, 0) == 100 * 28 * 4 * 2048
    assert limit_tokens(SHAPE, 0, 2 * weights / 1e9 * 50) == pytest.approx(50)


def test_what_has_no_score_comes_last_in_the_callers_order() -> None:
    assert ranking({3: 0.2, 1: 0.9, 4: 0.2}, 6) == [1, 3, 4, 0, 2, 5]


def test_agreement_counts_the_top_and_not_its_order() -> None:
    assert agreement([0, 1, 2, 9], [2, 1, 0, 5], count=3) == 1
    assert agreement([0, 1, 2, 3], [3, 2, 8, 9], count=4) == 0.5


@pytest.mark.parametrize(
    ("way", "tokens", "chosen"),
    [
        ("unbounded", 0, {0: 300, 1: 100, 2: 300}),
        ("first", 420, {0: 300, 1: 100}),
        ("cut", 250, {0: 128, 1: 100}),
        ("cut", 10_000, {0: 128, 1: 100, 2: 128}),
        ("plan", 10_000, {0: 300, 1: 100, 2: 300}),
        ("plan", 330, {0: 100, 1: 100, 2: 100}),
        ("plan", 225, {0: 96, 1: 96}),
    ],
)
def test_each_way_keeps_what_the_tokens_allow(way: str, tokens: int, chosen: dict[int, int]) -> None:
    assert kept(way, [300, 100, 300], each=10, tokens=tokens, least=96) == chosen


def test_with_all_the_time_there_is_every_way_but_the_cut_finds_the_unbounded_top() -> None:
    lengths = [200] * 20
    item = {"lengths": lengths, "orders": {"random": list(range(20)), "backwards": list(range(19, -1, -1))}, "relevant": 19}
    sums: dict[tuple[str, str, int, float], list[tuple[float, bool]]] = {}
    # whole, the last document is best; cut, the first one is
    parts._weigh(item, lambda keep: [float(at if keep == 200 else -at) for at in range(20)], sums)
    assert {order for order, *_ in sums} == {"random", "backwards"}
    assert all(seen == [(1.0, True)] for (_, way, _, share), seen in sums.items() if share == 1.0 and way != "cut")
    assert sums["random", "cut", 0, 1.0] == [(0.0, False)]
    assert sums["random", "first", 0, 0.5] == [(0.0, False)]
    assert sums["backwards", "first", 0, 0.5] == [(1.0, True)]


def test_no_text_is_taken_twice_before_all_were_taken() -> None:
    texts = parts.Texts({"documents": [str(at) for at in range(10)], "queries": ["a", "b"]})
    assert len({*texts.documents(4), *texts.documents(6)}) == 10
    assert len({texts.query() for _ in range(6)}) == 6


def test_vllm_without_the_guard_has_every_other_argument() -> None:
    assert bare_argv(["-m", "x", "--middleware", "serving.launch.middleware.Middleware", "--dtype", "auto"]) == ["-m", "x", "--dtype", "auto"]


def test_a_missed_goal_is_shown_as_missed() -> None:
    assert report.verdict(1.8, 1.8) == "met (goal ≥ 1.8)"
    assert report.verdict(1.7, 1.8) == "**missed** (goal ≥ 1.8)"
    assert report.verdict(0.6, 0.5, most=True) == "**missed** (goal ≤ 0.5)"


def a_spread(value: float) -> dict[str, Any]:
    return {"count": 3, "median": value, "least": value, "most": value}


def a_result(found: dict[str, Any]) -> dict[str, Any]:
    return {"machine": {"cpu": "a CPU", "flags": ["avx2"]}, "counts": {}, "found": found}


def a_ragflow(errors: int, slowest: float) -> dict[str, Any]:
    row = {
        "calls": 7,
        "errors": errors,
        "over 30 s": int(slowest > 30),
        "seconds": a_spread(slowest),
        "documents scored": a_spread(66),
        "least tokens kept": a_spread(200),
        "tokens of a prompt": a_spread(260),
    }
    return a_result({"as decided": {"dtype": "bfloat16", "matrix product GFLOP/s": {"matmul": 300.0}, "one after the other": row, "4 at once": row}})


@pytest.mark.parametrize(("errors", "slowest", "word"), [(0, 25.0, "0, 0: met"), (1, 25.0, "1, 0: **missed**"), (0, 31.0, "0, 1: **missed**")])
def test_one_error_or_one_late_answer_misses_the_goal_and_the_real_count_is_told(errors: int, slowest: float, word: str) -> None:
    written = report.table({"ragflow": a_ragflow(errors, slowest)})
    assert f"| 7 | {word} |" in written
    assert "a CPU" in written


def test_the_stand_in_for_avx2_is_told_as_one_beside_the_format_chosen() -> None:
    results = {"ragflow": a_ragflow(0, 25.0), "avx2": a_ragflow(1, 31.0)}
    written = report.table(results)
    assert written.index("0, 0: met") < written.index("stand-in for an AVX2 guest") < written.index("1, 1: **missed**")
    assert report.plot(results).count(report.MISSED) == 2


def test_the_plot_is_svg_with_a_bar_for_each_number_and_reads_from_json() -> None:
    results = json.loads(json.dumps({"ragflow": a_ragflow(0, 31.0)}))
    root = ET.fromstring(report.plot(results))
    bars = [item for item in root.iter("{http://www.w3.org/2000/svg}rect") if item.get("fill") != "white"]
    assert [bar.get("fill") for bar in bars] == [report.MISSED] * 2


def test_without_figures_there_is_a_table_without_numbers() -> None:
    assert report.table({}).startswith("# The serving layer in numbers")
    assert measures.TOP == 8
