"""The simulation of RAGFlow's serial calls: what it plays, what it chooses, and that the committed figures say what the stack does."""

import asyncio
import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench.serving.report import MISSED, OTHER, OURS
from bench.waiting import __main__ as waiting
from bench.waiting import machine, quality, ragflow, report
from tests.support import virtual
from tests.support.recording import ROOT
from tests.unit.builders import DECLARED

FIGURES = ROOT / "bench" / "figures"


def figures() -> Any:
    return json.loads((FIGURES / "waiting.json").read_text(encoding="utf-8"))


def test_the_stacks_deadline_is_the_one_that_the_committed_figures_choose() -> None:
    assert report.chosen(figures()["rows"]).deadline == DECLARED["deadlineSeconds"]["default"]


def test_the_documents_table_is_that_of_the_committed_figures() -> None:
    assert report.short(figures()) in (ROOT / "docs" / "calls.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "write"), [("waiting.md", report.table), ("waiting.svg", report.plot)])
def test_the_committed_table_and_plot_are_those_of_the_committed_figures(name: str, write: Any) -> None:
    assert Path(FIGURES / name).read_text(encoding="utf-8") == write(figures())


def test_the_committed_figures_are_still_about_what_the_scheduler_gives() -> None:
    """About: a better scheduler may differ; one that differs by a tenth asks for `python -m bench.waiting`."""
    case = ("at once", 3, 400, 10)
    row = next(row for row in figures()["rows"] if (row["pattern"], row["users"], row["tokens/s"], row["deadline"]) == case)
    today = waiting.played(case)
    for name in ("wait of asker 3", "documents", "tokens kept"):
        assert today[name] == pytest.approx(row[name], rel=0.1)


def test_three_who_ask_ragflow_at_once_are_answered_one_after_the_other_while_it_stands_still() -> None:
    async def told() -> None:
        server = ragflow.Ragflow(400, 10, waiting.options(), virtual.Inline(), random.Random(1))
        await ragflow.at_once(server, 3, 1)
        first, second, third = server.asked
        assert (first.came, first.ended, second.ended) == (second.came, second.begun, third.begun)
        assert second.waited <= 20
        assert ragflow.stretches(server.asked) == [pytest.approx(third.waited)]
        assert min(second.scored, third.scored) >= 0.9 * first.scored

    virtual.run(told())


def test_with_a_pause_between_them_ragflow_breathes() -> None:
    async def told() -> None:
        server = ragflow.Ragflow(1500, 3, waiting.options(), virtual.Inline(), random.Random(1))
        seconds = await ragflow.now_and_then(server, 1, 60, 5)
        stood = ragflow.stretches(server.asked)
        assert len(stood) == len(server.asked) == 5
        assert sum(stood) < 0.2 * seconds

    virtual.run(told())


def test_a_question_that_cannot_be_scored_in_time_counts_as_refused_and_costs_ragflow_no_time() -> None:
    async def told() -> None:
        server = ragflow.Ragflow(20, 3, waiting.options(), virtual.Inline(), random.Random(1))
        await server.ask()
        assert (server.asked[0].scored, server.asked[0].waited) == (0, 0)

    virtual.run(told())


def test_what_is_aborted_while_it_is_computed_holds_up_the_next() -> None:
    async def told() -> None:
        engine, now = machine.Machine(100), asyncio.get_running_loop().time
        begun = now()
        task = asyncio.ensure_future(engine.score([200]))
        await asyncio.sleep(1)
        task.cancel()
        await engine.score([100])
        assert now() - begun == pytest.approx(3)

    virtual.run(told())


def test_agreement_lies_on_a_line_between_what_was_measured() -> None:
    points = [(0.1, 0.4), (0.5, 0.8), (1.0, 1.0)]
    assert [quality.agreement(points, share) for share in (0.0, 0.1, 0.3, 0.5, 0.75, 1.0)] == pytest.approx([0.4, 0.4, 0.6, 0.8, 0.9, 1.0])


def test_an_order_that_was_not_measured_has_no_agreement() -> None:
    with pytest.raises(ValueError, match="no rows for the order 'by colour'"):
        quality.curve({"found": {"rows": []}}, "by colour", 192)


def a_row(deadline: int, third: float, refused: int = 0) -> dict[str, Any]:
    return {"pattern": "at once", "users": 3, "tokens/s": 100, "deadline": deadline, "wait of asker 3": third, "refused": refused}


def test_the_longest_deadline_that_follows_the_rule_is_chosen_and_where_there_is_none_that_is_said() -> None:
    assert report.chosen([a_row(5, 14.0), a_row(10, 29.0), a_row(15, 44.0)]).deadline == 10
    assert report.chosen([a_row(5, 14.0), a_row(10, 29.0, refused=1)]).deadline == 5
    with pytest.raises(ValueError, match="no deadline follows the rule"):
        report.chosen([a_row(15, 44.0)])


def test_the_plot_is_svg_and_marks_who_waits_too_long() -> None:
    root = ET.fromstring(report.plot(figures()))
    bars = [item.get("fill") for item in root.iter("{http://www.w3.org/2000/svg}rect") if item.get("fill") != "white"]
    assert {MISSED, OURS, OTHER} == set(bars)
