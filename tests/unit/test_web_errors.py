"""What HTTP makes of the refusals of rank/."""

import pytest

from serving.rank.refusals import BadQuery, Busy, Failed, Late, Refusal
from serving.web.errors import WHY, ApiError


@pytest.mark.parametrize(("kind", "why"), [(Busy, "busy"), (Late, "deadline"), (Failed, "engine")])
def test_a_refusal_that_may_pass_is_503_with_the_time_to_come_back_and_a_word_for_the_metrics(kind: type[Refusal], why: str) -> None:
    error = ApiError.of(kind("It is so.", 7))
    assert (error.status, error.message, error.why, dict(error.headers)) == (503, "It is so.", why, {"retry-after": "7"})
    assert dict(ApiError.of(kind("It is so.", 0)).headers) == {"retry-after": "1"}


def test_a_query_that_is_too_long_is_400_about_the_query() -> None:
    error = ApiError.of(BadQuery("Shorten it."))
    assert (error.status, error.headers, error.body()["error"]["param"]) == (400, (), "query")


def test_every_refusal_there_is_has_an_answer_of_its_own() -> None:
    assert {BadQuery, *WHY} == set(Refusal.__subclasses__())
    assert len(set(WHY.values())) == len(WHY)
