"""serving/rank/fit.py and setup/fit.py: what of RAGFlow's call fits, held against the scheduler that serves it, and the advice in RAGFlow's terms."""

import asyncio

import pytest

from serving.rank import fit
from serving.rank.scheduler import Item, Scheduler
from setup.fit import lines as told_lines
from tests.support import virtual
from tests.support.recording import ROOT
from tests.unit.builders import a_settings

SPEEDS = (40, 134, 300, 640, 900, 1500, 3000)


async def served(speed: float, deadline: float, least: int, count: int, chunk: int) -> tuple[int, int]:
    """How many documents of a call an idle scheduler scores, and the fewest tokens that it keeps of one."""
    engine = virtual.Engine(speed=speed)
    scheduler = Scheduler(engine, tokens_per_pass=2048, clock=asyncio.get_running_loop().time)
    scheduler.speed.learn(int(10 * speed), 10)
    prompts = virtual.Prompts(query_text="q", texts=tuple(("w",) * chunk for _ in range(count)), tail=fit.BEHIND_TOKENS)
    items = [Item(prompts=prompts, index=index, limit=chunk, first=index == 0) for index in range(count)]
    job = await scheduler.run(items, least=least, deadline=scheduler.clock() + deadline)
    return len(job.results), min(result.kept for result in job.results.values())


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("deadline", [8, 25])
def test_what_is_said_to_fit_is_what_the_scheduler_scores(speed: float, deadline: int) -> None:
    said = fit.default_call(fit.tokens(speed, deadline), 192)
    if said.count == 0:
        return
    count, kept = virtual.run(served(speed, deadline, 192, fit.DOCUMENTS, fit.CHUNK_TOKENS))
    assert count == pytest.approx(said.count, rel=0.1, abs=1)
    assert kept == pytest.approx(min(said.keep, fit.CHUNK_TOKENS), rel=0.1)


@pytest.mark.parametrize("speed", [300, 640, 900])
@pytest.mark.parametrize("chunk", [fit.CHUNK_TOKENS, fit.HALF_CHUNK_TOKENS])
def test_the_advised_top_k_is_scored_whole(speed: float, chunk: int) -> None:
    advised = fit.whole(fit.tokens(speed, 25), chunk) // fit.PAGE * fit.PAGE
    assert virtual.run(served(speed, 25, 192, advised, chunk)) == (advised, chunk)


def test_a_faster_machine_is_never_advised_less() -> None:
    rooms = [fit.tokens(speed, 25) for speed in SPEEDS]
    calls = [fit.default_call(room, 192) for room in rooms]
    assert rooms == sorted(rooms)
    assert [fit.whole(room, 512) for room in rooms] == sorted(fit.whole(room, 512) for room in rooms)
    assert [call.count for call in calls] == sorted(call.count for call in calls)


SAID = [
    (40, "the first 4 scored, on their first 192 tokens; 62 get no score of the model", "not even 6 chunks of 256 tokens fit whole"),
    (300, "the first 34 scored, on their first 192 tokens; 32 get no score of the model",
     "nothing is cut with top_k 12 (chunks of 512) or 24 (chunks of 256) or any (chunks of 96); top_k counts from v0.25 on"),
    (640, "all scored, on their first 218 tokens each", "or any (chunks of 192)"),
    (1500, "all scored whole", "as they are"),
    (1, "not one can be scored, and the call is refused (503)", "give the reranker more cpus"),
]  # fmt: skip


@pytest.mark.parametrize(("speed", "call", "advice"), SAID)
def test_the_fit_is_told_in_ragflows_own_terms_and_five_lines(speed: float, call: str, advice: str) -> None:
    lines = told_lines(speed, deadline=25, least=192, engines={})
    assert len(lines) == 5
    assert lines[1] == f"  RAGFlow's default call   66 chunks of 512 tokens: {call}"
    assert lines[2].startswith("  top_k and chunk size     ")
    assert advice in lines[2]


STEMS = "0.05 to 0.1: DOC_ENGINE {} sends words cut to their stems, which score low"
SENTENCES = "0.2 will do: DOC_ENGINE infinity ({}) sends sentences (v0.23 and later)"


@pytest.mark.parametrize(("engines", "said"), [
    ({"a": "elasticsearch"}, STEMS.format("elasticsearch (a)")),
    ({"a": ""}, STEMS.format("elasticsearch (a)")),
    ({"a": "OpenSearch "}, STEMS.format("opensearch (a)")),
    ({"a": "infinity"}, SENTENCES.format("a")),
    ({"a": "infinity", "b": "", "c": "infinity"}, f"{SENTENCES.format('a, c')}; {STEMS.format('elasticsearch (b)')}"),
    ({}, "0.05 to 0.1, as words cut to their stems score low; 0.2 where `docker exec RAGFLOW printenv DOC_ENGINE` says infinity"),
])  # fmt: skip
def test_the_threshold_follows_the_engine_that_each_ragflow_has_set(engines: dict[str, str], said: str) -> None:
    assert told_lines(640, deadline=25, least=192, engines=engines)[4] == f"  similarity_threshold     {said}"


def test_the_documents_show_what_is_said_by_default() -> None:
    deadline = a_settings().deadline_seconds
    told = [line.strip() for line in told_lines(300, deadline=deadline, least=192, engines={"docker-ragflow-cpu-1": "elasticsearch"})[1:]]
    shown = (ROOT / "docs/ragflow.md").read_text(encoding="utf-8")
    assert f"within `deadlineSeconds` {deadline}" in shown
    for line in told:
        name, _, text = line.partition("  ")
        assert f"| {name} | {text.strip()} |" in shown
