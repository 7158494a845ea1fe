"""What was computed once, and how much of it is kept."""

import random

from serving.rank.cache import Cache, digest


def test_texts_that_join_alike_have_different_digests() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc"), digest("abc", ""), digest("", "abc")}) == 5


def test_the_ones_used_last_stay() -> None:
    cache: Cache[str, int] = Cache(2)
    cache.put("a", 1, 0)
    cache.put("b", 2, 0)
    assert cache.get("a", 0) == 1
    cache.put("c", 3, 0)
    assert (cache.get("a", 0), cache.get("b", 0), cache.get("c", 0)) == (1, None, 3)
    assert len(cache) == 2


def test_what_is_too_old_is_gone() -> None:
    cache: Cache[str, int] = Cache(2, seconds=10)
    cache.put("a", 1, now=0)
    assert cache.get("a", now=10) == 1
    assert cache.get("a", now=10.1) is None
    assert len(cache) == 0


def test_a_cache_of_no_entries_keeps_none() -> None:
    cache: Cache[str, int] = Cache(0)
    cache.put("a", 1, 0)
    assert len(cache) == 0


def test_what_weighs_more_takes_the_place_of_more() -> None:
    cache: Cache[str, int] = Cache(10)
    for key in "abc":
        cache.put(key, 0, 0, weight=3)
    cache.put("d", 0, 0, weight=6)
    assert [cache.get(key, 0) for key in "abcd"] == [None, None, 0, 0]
    assert cache.weight == 9


def test_what_is_heavier_than_all_there_may_be_is_not_kept() -> None:
    cache: Cache[str, int] = Cache(10)
    cache.put("a", 1, 0, weight=4)
    cache.put("b", 2, 0, weight=11)
    assert cache.get("b", 0) is None
    assert cache.weight <= 10
    cache.put("c", 3, 0, weight=10)
    assert (cache.get("c", 0), len(cache), cache.weight) == (3, 1, 10)


def test_a_new_value_takes_the_weight_of_the_old_one_with_it() -> None:
    cache: Cache[str, int] = Cache(10)
    for weight in (3, 7, 1, 5) * 50:
        cache.put("a", weight, 0, weight=weight)
        assert (cache.get("a", 0), cache.weight, len(cache)) == (weight, weight, 1)


def test_what_is_too_old_weighs_nothing_any_more() -> None:
    cache: Cache[str, int] = Cache(10, seconds=5)
    cache.put("a", 1, now=0, weight=8)
    assert cache.get("a", now=6) is None
    assert cache.weight == 0


def test_the_weight_is_that_of_what_is_kept_and_never_more_than_there_may_be_whatever_happens() -> None:
    rng = random.Random(6)
    cache: Cache[int, int] = Cache(40, seconds=20)
    weights: dict[int, int] = {}
    for now in range(3_000):
        key = rng.randrange(30)
        if rng.random() < 0.3:
            cache.get(key, now)
        else:
            weights[key] = rng.randrange(1, 50)
            cache.put(key, key, now, weight=weights[key])
        assert cache.weight <= 40
        assert cache.weight == sum(weights[kept] for kept in cache.values)
