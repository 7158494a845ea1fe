"""Numbers in sentences: no three digits of them are a status."""

import pytest

from serving.wording import about


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (7, "7"),
        (0.4012, "0.4"),
        (24.01, "24"),
        (96, "96"),
        (401, "400"),
        (1401, "1400"),
        (24_010, "24000"),
        (40_149, "40000"),
        (996, "1000"),
    ],
)
def test_a_number_is_told_in_two_digits(number: float, said: str) -> None:
    assert about(number) == said


def test_no_number_of_any_size_can_be_read_as_a_wrong_login() -> None:
    assert not [number for number in range(200_000) if "401" in about(number)]
    assert not [number for number in range(10_000) if "401" in about(number / 100)]
