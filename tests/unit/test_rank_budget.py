"""Token budgets: pure arithmetic, checked against brute force."""

import random

import pytest

from serving.rank.budget import Budget, budget, level, share


def cost(lengths: list[int], keep: int, each: int = 0) -> int:
    return sum(min(length, keep) + each for length in lengths)


def test_the_equal_budget_is_the_largest_that_fits() -> None:
    rng = random.Random(1)
    for _ in range(300):
        lengths = [rng.randint(0, 60) for _ in range(rng.randint(1, 12))]
        tokens = rng.randint(0, 700)
        keep = level(lengths, tokens)
        assert cost(lengths, keep) <= tokens
        assert keep == max(lengths) or cost(lengths, keep + 1) > tokens


def test_what_fits_is_not_cut() -> None:
    planned = budget([100, 500, 30], each=10, tokens=10_000, least=96)
    assert (planned.count, planned.keep, planned.tokens) == (3, 500, 660)


def test_too_much_is_cut_to_one_budget_while_enough_of_each_is_left() -> None:
    planned = budget([512] * 10, each=10, tokens=10 * 210, least=96)
    assert (planned.count, planned.keep, planned.tokens) == (10, 200, 2100)


def test_short_documents_leave_their_part_to_long_ones() -> None:
    planned = budget([20, 1000, 20], each=0, tokens=440, least=96)
    assert (planned.count, planned.keep) == (3, 400)


def test_where_enough_of_each_does_not_fit_the_first_ones_are_scored() -> None:
    planned = budget([512] * 10, each=10, tokens=500, least=96)
    assert (planned.count, planned.keep, planned.tokens) == (4, 96, 424)


def test_short_documents_alone_are_never_cut_for_the_least() -> None:
    assert budget([10] * 5, each=0, tokens=25, least=96) == Budget(count=2, keep=96, tokens=20)


@pytest.mark.parametrize("tokens", [-5, 0, 5])
def test_no_time_is_no_document(tokens: int) -> None:
    assert budget([100, 100], each=10, tokens=tokens, least=96).count == 0


def test_no_documents_cost_nothing() -> None:
    assert budget([], each=10, tokens=100, least=96).tokens == 0


def test_a_budget_never_costs_more_than_it_may() -> None:
    rng = random.Random(2)
    for _ in range(300):
        lengths = [rng.randint(0, 600) for _ in range(rng.randint(1, 70))]
        tokens, each, least = rng.randint(0, 20_000), rng.randint(0, 40), rng.randint(1, 200)
        planned = budget(lengths, each=each, tokens=tokens, least=least)
        assert planned.tokens <= tokens
        assert planned.tokens == cost(lengths[: planned.count], planned.keep, each)


def test_callers_share_equally_and_small_ones_leave_the_rest_to_the_others() -> None:
    assert share(90, [50, 50, 50], 1) == 30
    assert share(90, [10, 50, 50], 1) == 40
    assert share(90, [10, 50, 50], 0) == 30
    assert share(90, [1000], 0) == 90


def test_shares_add_up_to_no_more_than_there_is() -> None:
    rng = random.Random(3)
    for _ in range(200):
        demands = [rng.uniform(0, 100) for _ in range(rng.randint(1, 9))]
        capacity = rng.uniform(1, 300)
        used = sum(min(demand, share(capacity, demands, index)) for index, demand in enumerate(demands))
        assert used <= capacity + 1e-6
        assert used >= min(capacity, sum(demands)) - 1e-6, "nothing is left idle while somebody wants it"


def test_who_had_more_than_the_others_waits_until_they_had_as_much() -> None:
    assert [share(30, [100, 100, 100], place, [30, 0, 0]) for place in range(3)] == [0, 15, 15]
    assert [share(60, [100, 100, 100], place, [30, 0, 0]) for place in range(3)] == [0, 30, 30]
    assert [share(90, [100, 100, 100], place, [30, 0, 0]) for place in range(3)] == [10, 40, 40]


def test_shares_with_a_head_start_add_up_and_end_as_equal_as_they_can() -> None:
    rng = random.Random(4)
    for _ in range(300):
        count = rng.randint(1, 9)
        demands = [rng.uniform(0, 100) for _ in range(count)]
        ahead = [rng.choice([0.0, rng.uniform(0, 100)]) for _ in range(count)]
        ahead = [one - min(ahead) for one in ahead]
        capacity = rng.uniform(1, 300)
        used = [max(0.0, min(demand, share(capacity, demands, index, ahead))) for index, demand in enumerate(demands)]
        assert sum(used) <= capacity + 1e-6
        assert sum(used) >= min(capacity, sum(demands)) - 1e-6, "nothing is left idle while somebody wants it"
        totals = [mine + had for mine, had in zip(used, ahead, strict=True)]
        wanting = [total for total, mine, demand in zip(totals, used, demands, strict=True) if mine < demand - 1e-6]
        served = [total for total, mine in zip(totals, used, strict=True) if mine > 1e-6]
        assert not (wanting and served) or max(served) <= min(wanting) + 1e-6, "nobody gets more while another has less and wants some"
