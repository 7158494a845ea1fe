"""The speed that is learned while it works."""

import pytest

from serving.rank.speed import FIRST_GUESS, Speed


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
