"""The golden set's verdict on scores: of a right service, and of each way to be wrong."""

import math
import random

import pytest

from serving.health.golden import BANDS, PAIRS, REPEAT_TOLERANCE, judge

KNOWN = "qwen3-reranker-0.6b"
FIRST_IRRELEVANT = next(place for place, pair in enumerate(PAIRS) if not pair.relevant)


def scored(relevant: float, irrelevant: float) -> list[float]:
    return [relevant if pair.relevant else irrelevant for pair in PAIRS]


def but(place: int, score: float) -> list[float]:
    """A right service's scores, one of them another."""
    return [score if index == place else right for index, right in enumerate(scored(0.98, 0.001))]


@pytest.mark.parametrize("language", ["en", "de", "zh"])
def test_each_language_asks_two_queries_at_least_each_with_a_relevant_and_an_irrelevant_document(language: str) -> None:
    asked = {(pair.query, pair.relevant) for pair in PAIRS if pair.language == language}
    queries = {query for query, _ in asked}
    assert len(queries) >= 2
    assert asked == {(query, relevant) for query in queries for relevant in (True, False)}


def test_the_last_pair_repeats_the_first_and_no_other_pair_comes_twice() -> None:
    assert PAIRS[-1] == PAIRS[0]
    assert len({(pair.query, pair.document) for pair in PAIRS}) == len(PAIRS) - 1


@pytest.mark.parametrize("slug", BANDS)
@pytest.mark.parametrize(
    ("relevant", "irrelevant"),
    [
        pytest.param(0.975, 0.0, id="8B, vllm 55501"),
        pytest.param(0.9944, 6.7e-7, id="8B, vllm-ascend"),
        pytest.param(0.7982, 2.0e-4, id="0.6B, sglang 16403"),
    ],
)
def test_scores_as_published_with_the_template_are_healthy_and_nothing_is_left_out(slug: str, relevant: float, irrelevant: float) -> None:
    verdict = judge(slug, scored(relevant, irrelevant))
    assert (verdict.healthy, verdict.reason, verdict.skipped) == (True, "", ())


@pytest.mark.parametrize("slug", BANDS)
@pytest.mark.parametrize(("relevant", "irrelevant"), [(0.8155, 0.8016), (0.804, 0.958), (0.80, 0.96)])
def test_scores_as_published_without_the_template_are_unhealthy_and_the_template_is_suspected(slug: str, relevant: float, irrelevant: float) -> None:
    verdict = judge(slug, scored(relevant, irrelevant))
    assert not verdict.healthy
    assert f"scored {irrelevant:.4g}, but {slug} scores it at most 0.2" in verdict.reason
    assert "template is left out or changed" in verdict.reason
    assert slug + "'s" in verdict.reason


def test_swapped_overrides_turn_every_score_round_and_are_named() -> None:
    verdict = judge(KNOWN, [1 - score for score in scored(0.975, 0.0)])
    assert not verdict.healthy
    assert 'swapped; give classifier_from_token as ["no", "yes"]' in verdict.reason
    assert "template" not in verdict.reason


@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_one_pair_out_of_its_band_is_enough_and_is_the_one_named(place: int) -> None:
    pair, score = PAIRS[place], 0.3  # too low for a relevant document, too high for an irrelevant one
    verdict = judge(KNOWN, but(place, score))
    assert not verdict.healthy
    assert f'"{pair.query}"' in verdict.reason
    assert f"({pair.language}, {'relevant' if pair.relevant else 'irrelevant'}) scored 0.3" in verdict.reason
    assert f"1 of {len(PAIRS)} pairs" in verdict.reason


def test_of_several_pairs_out_of_their_band_the_farthest_is_named() -> None:
    scores = but(FIRST_IRRELEVANT, 0.6)
    scores[-2] = 0.9
    reason = judge(KNOWN, scores).reason
    assert f'"{PAIRS[-2].query}"' in reason
    assert "scored 0.9" in reason


@pytest.mark.parametrize("seed", range(20))
def test_weights_that_know_nothing_are_unhealthy_under_a_known_name_and_healthy_under_another(seed: int) -> None:
    draw = random.Random(seed)
    scores = [draw.uniform(0.3, 0.7) for _ in PAIRS]
    scores[-1] = scores[0]
    assert not judge(KNOWN, scores).healthy
    assert judge("tiny-qwen3-reranker", scores).healthy


@pytest.mark.parametrize("slug", [KNOWN, "tiny-qwen3-reranker", ""])
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, -0.001, 1.001])
@pytest.mark.parametrize("place", [0, FIRST_IRRELEVANT, len(PAIRS) - 1])
def test_a_score_that_is_no_number_from_0_to_1_is_unhealthy_for_every_model(slug: str, score: float, place: int) -> None:
    verdict = judge(slug, but(place, score))
    assert not verdict.healthy
    assert f"scored {score:g}, but a score is a number from 0 to 1" in verdict.reason
    assert "dtype" in verdict.reason


@pytest.mark.parametrize("slug", [KNOWN, "tiny-qwen3-reranker", ""])
@pytest.mark.parametrize("score", [0.0, 0.5, 1.0])
def test_one_score_for_every_text_is_unhealthy_for_every_model(slug: str, score: float) -> None:
    verdict = judge(slug, scored(score, score))
    assert not verdict.healthy
    assert verdict.reason.endswith(".")


@pytest.mark.parametrize("slug", [KNOWN, "tiny-qwen3-reranker"])
@pytest.mark.parametrize("count", [0, 1, len(PAIRS) - 1, len(PAIRS) + 1])
def test_another_number_of_scores_than_pairs_is_unhealthy_and_no_exception(slug: str, count: int) -> None:
    verdict = judge(slug, [0.5] * count)
    assert not verdict.healthy
    assert f"{len(PAIRS)} pairs got {count} scores" in verdict.reason


@pytest.mark.parametrize("slug", [KNOWN, "tiny-qwen3-reranker"])
def test_a_pair_that_does_not_keep_its_score_is_unhealthy(slug: str) -> None:
    verdict = judge(slug, but(len(PAIRS) - 1, 0.98 - REPEAT_TOLERANCE - 0.01))
    assert not verdict.healthy
    assert "scored 0.98 and then 0.93" in verdict.reason


@pytest.mark.parametrize("slug", [KNOWN, "tiny-qwen3-reranker"])
def test_a_pair_may_move_by_what_bfloat16_rounds(slug: str) -> None:
    assert judge(slug, but(len(PAIRS) - 1, 0.98 - 2e-2)).healthy


def test_an_unknown_model_is_healthy_without_order_and_the_verdict_says_what_was_left_out() -> None:
    verdict = judge("bge-reranker-v2-m3", scored(0.2, 0.3))
    assert verdict.healthy
    (skipped,) = verdict.skipped
    assert "bge-reranker-v2-m3 scores relevant documents high" in skipped
    assert "was not checked" in skipped
    assert all(slug in skipped for slug in BANDS)


def test_what_was_left_out_is_said_of_an_unhealthy_unknown_model_too() -> None:
    assert judge("", scored(0.5, 0.5)).skipped


@pytest.mark.parametrize("slug", [KNOWN, "x"])
@pytest.mark.parametrize("scores", [[0.8155, 0.8016], scored(0.0, 1.0), scored(0.5, 0.5), but(0, math.nan), but(0, 0.3), but(len(PAIRS) - 1, 0.6)])
def test_a_reason_is_one_sentence_on_one_line(slug: str, scores: list[float]) -> None:
    for text in (judge(slug, scores).reason, *judge(slug, scores).skipped):
        assert "\n" not in text
        assert not text or text.endswith(".")
