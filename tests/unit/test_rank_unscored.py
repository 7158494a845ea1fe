"""What a document is given that was not scored by the deadline."""

import random

from serving.rank.unscored import ranked


def test_every_unscored_document_is_below_every_scored_one_in_the_callers_order() -> None:
    rng = random.Random(4)
    for _ in range(200):
        count = rng.randint(1, 90)
        scored = {index: rng.choice([rng.random(), 1e-9, 0.5]) for index in rng.sample(range(count), rng.randint(1, count))}
        scores = ranked(scored, count).scores
        missing = [scores[index] for index in range(count) if index not in scored]
        assert all(0 <= score < min(scored.values()) for score in missing)
        assert missing == sorted(missing, reverse=True)
        assert len(set(missing)) == len(missing)
        assert all(scores[index] == score for index, score in scored.items())


def test_below_a_score_of_zero_a_scored_document_still_stands_before_the_others_and_those_in_the_callers_order() -> None:
    ranking = ranked({1: 0.0}, 3)
    assert ranking.order == (1, 0, 2)
    assert ranking.scores == (0.0, 0.0, 0.0)


def test_an_unscored_document_never_stands_before_one_that_was_scored() -> None:
    rng = random.Random(5)
    for _ in range(500):
        count = rng.randint(1, 60)
        scored = {place: rng.choice([0.0, 0.0, 5e-324, 1e-300, rng.random(), 1.0]) for place in rng.sample(range(count), rng.randint(0, count))}
        ranking = ranked(scored, count)
        assert sorted(ranking.order) == list(range(count))
        assert set(ranking.order[: len(scored)]) == set(scored)
        assert list(ranking.order[len(scored) :]) == [place for place in range(count) if place not in scored]
        given = [ranking.scores[place] for place in ranking.order]
        assert given == sorted(given, reverse=True)
        assert all(0 <= score <= 1 for score in given)


def test_of_equal_scores_the_callers_first_comes_first() -> None:
    assert ranked({0: 0.5, 1: 0.7, 2: 0.5, 3: 0.7}, 4).order == (1, 3, 0, 2)


def test_no_documents_have_no_order() -> None:
    assert (ranked({}, 0).scores, ranked({}, 0).order) == ((), ())
