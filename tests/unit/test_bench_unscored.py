"""The model by which the value of an unscored document was chosen, and that the service gives the one that won."""

import json
import random
from typing import Any

import pytest

from bench import unscored
from bench.unscored import Question, World, judged
from config.settings import Settings
from tests.support.recording import ROOT
from tests.unit.builders import DECLARED

FIGURES = ROOT / "bench" / "figures"


def figures() -> Any:
    return json.loads((FIGURES / "unscored.json").read_text(encoding="utf-8"))


def test_the_service_gives_by_default_what_the_committed_figures_choose() -> None:
    assert unscored.best(figures()["all"]) == unscored.TYPICAL
    assert DECLARED["unscored"]["default"] == "typical"
    assert "unscored" in Settings.__dataclass_fields__


def test_the_documents_table_is_that_of_the_committed_figures() -> None:
    assert unscored.short(figures()) in (ROOT / "docs" / "calls.md").read_text(encoding="utf-8")


def test_the_committed_table_is_that_of_the_committed_figures() -> None:
    assert (FIGURES / "unscored.md").read_text(encoding="utf-8") == unscored.table(figures())


def test_with_everything_scored_every_value_is_perfect() -> None:
    asked = unscored.question("broad", "rough", random.Random(1))
    for value in unscored.VALUES.values():
        assert judged(asked, 66, value) == {"page of 6": 1, "page of 8": 1, "kept": 1, "recall": 1, "places lost": 0}


def test_zeros_drop_what_the_threshold_would_have_kept() -> None:
    asked = Question(scores=(0.9, 0.8, 0.7, 0.6), terms=(0.2, 0.2, 0.2, 0.2))
    said = judged(asked, 2, unscored.VALUES["zero"])
    assert [said["recall"], said["kept"]] == pytest.approx([0.5, 2 / 3])
    assert judged(asked, 2, unscored.VALUES["mean of the last third"])["recall"] == 1


def test_a_value_that_is_too_high_takes_a_scored_documents_place() -> None:
    asked = Question(scores=(0.5,) * 8 + (0.4,), terms=(0.3,) * 9)
    assert judged(asked, 8, lambda scores, missing: [1.0] * missing)["places lost"] == 1
    assert judged(asked, 8, unscored.VALUES[unscored.TODAY])["places lost"] == 0


def test_stretched_scores_are_those_from_0_to_1() -> None:
    assert unscored.mixed((0.0, 0.0, 0.0), (0.2, 0.3, 0.4), World(stretched=True)) == pytest.approx([0, 0.15, 0.3])
    assert unscored.mixed((0.0, 0.0), (0.2, 0.2), World(stretched=True)) == [0, 0]


def test_a_strict_order_has_the_relevant_documents_first_and_a_random_one_anywhere() -> None:
    chance = random.Random(2)

    def first_half(order: str) -> float:
        asked = [unscored.question("confident", order, chance) for _ in range(30)]
        return sum(sum(one.scores[:33]) for one in asked) / sum(sum(one.scores) for one in asked)

    assert first_half("strict") > 0.95
    assert 0.35 < first_half("random") < 0.65


def test_where_the_choice_had_no_say_the_values_are_weighed_as_well() -> None:
    assert set(figures()["world"][unscored.TYPICAL]) == set(unscored.OTHERS)
    assert set(figures()["world"]) == set(unscored.SHOWN)
