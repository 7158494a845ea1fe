"""What a document is given that was not scored by the deadline."""

import math
import random

import pytest

from serving.rank.unscored import BELOW, TYPICAL, WAYS, ranked, typical


def cases(seed: int, count: int = 300) -> list[tuple[dict[int, float], int]]:
    """Scores by place, among them none, equal ones, zeros and ones too small to halve; and how many documents there are."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        documents = rng.randint(1, 90)
        values = rng.choice(
            [[0.0], [0.5, 0.7], [0.0, 0.0, 5e-324, 1e-300, 1.0], [rng.random() for _ in range(documents)], [rng.random() / 90 for _ in range(5)]]
        )
        found.append(({place: rng.choice(values) for place in rng.sample(range(documents), rng.randint(0, documents))}, documents))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_every_document_has_a_place_and_a_score_from_0_to_1_the_models_own_where_there_is_one(way: str) -> None:
    for scored, count in cases(1):
        ranking = ranked(scored, count, way)
        assert sorted(ranking.order) == list(range(count))
        given = [ranking.scores[place] for place in ranking.order]
        assert given == sorted(given, reverse=True)
        assert all(0 <= score <= 1 for score in given)
        assert all(ranking.scores[place] == score for place, score in scored.items())


@pytest.mark.parametrize("way", WAYS)
def test_unscored_documents_keep_the_callers_order_among_themselves(way: str) -> None:
    for scored, count in cases(2):
        ranking = ranked(scored, count, way)
        missing = [place for place in range(count) if place not in scored]
        assert [place for place in ranking.order if place not in scored] == missing
        values = [ranking.scores[place] for place in missing]
        assert values == sorted(values, reverse=True)


def test_below_means_below_every_score() -> None:
    for scored, count in cases(3):
        ranking = ranked(scored, count, BELOW)
        assert set(ranking.order[: len(scored)]) == set(scored)
        if scored and min(scored.values()) > 1e-9:
            assert all(ranking.scores[place] < min(scored.values()) for place in range(count) if place not in scored)


def test_a_typical_value_exceeds_no_score_of_the_best_half_and_takes_no_place_among_them() -> None:
    for scored, count in cases(4):
        ranking = ranked(scored, count, TYPICAL)
        half = math.ceil(len(scored) / 2)
        best = sorted(scored.values(), reverse=True)[:half]
        values = [ranking.scores[place] for place in range(count) if place not in scored]
        assert not (best and values) or max(values) <= min(best)
        assert set(ranking.order[:half]) <= set(scored)


def test_where_the_scores_fall_the_typical_values_fall_on_and_where_they_do_not_they_stay() -> None:
    falling = typical([0.9, 0.8, 0.7, 0.4, 0.3, 0.2], 10)
    assert 0.2 <= falling[0] <= 0.3
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.5 * falling[0]
    assert typical([0.4] * 6, 3) == pytest.approx([0.4] * 3)
    assert typical([0.3, 0.3, 0.4, 0.4, 0.8, 0.8], 2) == pytest.approx([0.4] * 2), "rising ones are held down to the best half"


def test_typical_values_scale_with_the_scores() -> None:
    scores = [0.9, 0.2, 0.7, 0.4, 0.3, 0.1, 0.2]
    assert typical([score / 50 for score in scores], 9) == pytest.approx([value / 50 for value in typical(scores, 9)])


@pytest.mark.parametrize(("scores", "values"), [([], [0.0, 0.0]), ([0.6], [0.6, 0.6]), ([0.0, 0.0], [0.0, 0.0]), ([0.9, 0.0, 0.0], [0.0, 0.0])])
def test_little_to_go_by_is_no_error(scores: list[float], values: list[float]) -> None:
    assert typical(scores, 2) == pytest.approx(values)


@pytest.mark.parametrize("way", WAYS)
def test_beside_a_score_of_zero_a_scored_document_still_stands_before_the_others_and_those_in_the_callers_order(way: str) -> None:
    ranking = ranked({1: 0.0}, 3, way)
    assert ranking.order == (1, 0, 2)
    assert ranking.scores == (0.0, 0.0, 0.0)


def test_of_equal_scores_the_callers_first_comes_first() -> None:
    assert ranked({0: 0.5, 1: 0.7, 2: 0.5, 3: 0.7}, 4, BELOW).order == (1, 3, 0, 2)


@pytest.mark.parametrize("way", WAYS)
def test_no_documents_have_no_order(way: str) -> None:
    assert (ranked({}, 0, way).scores, ranked({}, 0, way).order) == ((), ())
