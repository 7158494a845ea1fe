"""The cache and the learned speed."""

import pytest

from serving.cache import Cache, digest
from serving.speed import FIRST_GUESS, Speed


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


def test_the_speed_is_a_guess_until_there_was_work() -> None:
    assert Speed().tokens_per_second == FIRST_GUESS


def test_the_speed_follows_a_machine_that_slows_down() -> None:
    speed = Speed()
    speed.learn(100_000, 100)
    for _ in range(16):
        speed.learn(100, 1)
    assert 100 < speed.tokens_per_second < 350


def test_a_small_slow_piece_changes_little() -> None:
    speed = Speed()
    speed.learn(10_000, 10)
    speed.learn(1, 0.1)
    assert speed.tokens_per_second == pytest.approx(1000, rel=0.02)
