"""Deadlines, fair shares and aborts in virtual time, against an engine of known speed."""

import asyncio

import pytest

from serving.rank.engine import EngineError
from serving.rank.refusals import Busy
from serving.rank.scheduler import Item, Job, Scheduler
from tests.support import virtual


def items(count: int, length: int, query: str = "q") -> list[Item]:
    prompts = virtual.Prompts(query_text=query, texts=tuple(tuple(f"w{word}" for word in range(length)) for _ in range(count)))
    return [Item(prompts=prompts, index=index, limit=length, first=index == 0) for index in range(count)]


def scheduler(engine: virtual.Engine, learned: float | None = None) -> Scheduler:
    """A scheduler that has learned a speed, by default the engine's own."""
    made = Scheduler(engine, tokens_per_pass=2048, clock=asyncio.get_running_loop().time)
    made.speed.learn(int(10 * (learned or engine.speed)), 10)
    return made


async def timed(made: Scheduler, work: list[Item], seconds: float, least: int = 96) -> tuple[Job, float]:
    begun = made.clock()
    job = await made.run(work, least=least, deadline=begun + seconds)
    return job, made.clock() - begun


def test_what_fits_is_scored_whole() -> None:
    async def story() -> None:
        job, took = await timed(scheduler(virtual.Engine(speed=1000)), items(10, 500), 25)
        assert [job.results[place].kept for place in range(10)] == [500] * 10
        assert took == pytest.approx((10 * 510 + 50) / 1000, rel=0.05)

    virtual.run(story())


def test_ragflows_default_call_is_answered_in_time_with_every_document_cut_alike() -> None:
    async def story() -> None:
        job, took = await timed(scheduler(virtual.Engine(speed=900)), items(66, 512), 25)
        kept = [job.results[place].kept for place in range(66)]
        assert took <= 25
        assert took > 20, "the time allowed is used"
        assert min(kept) > 250
        assert max(kept) - min(kept) < 60

    virtual.run(story())


def test_on_a_slow_machine_the_callers_first_documents_are_scored() -> None:
    async def story() -> None:
        engine = virtual.Engine(speed=134)
        job, took = await timed(scheduler(engine), items(66, 512), 25)
        assert sorted(job.results) == list(range(len(job.results)))
        most = 25 * 134 / (96 + 10)
        assert 0.9 * most <= len(job.results) <= most
        assert {result.kept for result in job.results.values()} == {96}
        assert took <= 25

    virtual.run(story())


@pytest.mark.parametrize("learned", [100, 300, 3000])
def test_a_wrong_idea_of_the_speed_mends_itself_before_the_deadline(learned: float) -> None:
    async def story() -> None:
        job, took = await timed(scheduler(virtual.Engine(speed=600), learned), items(66, 512), 25)
        assert took <= 25
        assert len(job.results) > 45

    virtual.run(story())


def test_a_machine_that_stutters_still_answers_in_time() -> None:
    async def story() -> None:
        job, took = await timed(scheduler(virtual.Engine(speed=500, jitter=(0.5, 1, 3, 1, 0.7))), items(66, 512), 25)
        assert took <= 25
        assert len(job.results) > 30

    virtual.run(story())


def test_an_engine_that_freezes_costs_no_caller_more_than_the_deadline() -> None:
    async def story() -> None:
        engine = virtual.Engine(speed=500, frozen=True)
        made = scheduler(engine)
        job, took = await timed(made, items(5, 100), 25)
        assert took <= 25
        assert job.results == {}
        await asyncio.sleep(0)
        assert engine.aborted == 5, "what the deadline left over was aborted"

    virtual.run(story())


def test_four_callers_at_once_all_meet_the_deadline_and_get_alike() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=900))
        done = await asyncio.gather(*(timed(made, items(66, 512, f"q{caller}"), 25) for caller in range(4)))
        for job, took in done:
            assert took <= 25
            assert len(job.results) > 30
        tokens = [sum(result.tokens for result in job.results.values()) for job, _ in done]
        assert max(tokens) < 1.3 * min(tokens)

    virtual.run(story())


def test_a_newcomer_does_not_wait_behind_a_large_call() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=900))
        large = asyncio.ensure_future(timed(made, items(66, 512), 25))
        await asyncio.sleep(1)
        _, took = await timed(made, items(2, 50, "small"), 25)
        assert took < 4
        job, took = await large
        assert took <= 25
        assert len(job.results) == 66

    virtual.run(story())


def test_no_pass_of_the_engine_begins_half_empty_while_there_is_work() -> None:
    async def story() -> None:
        engine = virtual.PassEngine(speed=650, tokens_per_pass=1024)
        made = Scheduler(engine, tokens_per_pass=1024, clock=asyncio.get_running_loop().time)
        made.speed.learn(6500, 10)
        job, _ = await timed(made, items(24, 540), 60)
        assert len(job.results) == 24
        assert engine.passes <= 1.2 * 24 * 550 / 1024
        assert made.speed.tokens_per_second == pytest.approx(24 * 550 / engine.passes / 1024 * 650, rel=0.05), (
            "two chunks that end with one pass are learned once"
        )

    virtual.run(story())


def test_who_came_first_and_filled_the_engine_gets_no_more_than_the_others() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=2500))
        done = await asyncio.gather(*(timed(made, items(66, 512, f"q{caller}"), 25) for caller in range(4)))
        tokens = [sum(result.kept for result in job.results.values()) for job, _ in done]
        assert max(tokens) < 1.12 * min(tokens)

    virtual.run(story())


def test_when_a_caller_leaves_its_work_stops_and_the_others_get_its_time() -> None:
    async def story() -> None:
        engine = virtual.Engine(speed=900)
        made = scheduler(engine)
        leaving = asyncio.ensure_future(timed(made, items(66, 512, "leaves"), 25))
        staying = asyncio.ensure_future(timed(made, items(66, 512, "stays"), 25))
        await asyncio.sleep(3)
        leaving.cancel()
        await asyncio.sleep(0.1)
        before = len(engine.scored)
        job, _ = await staying
        assert {prompt.query for prompt in engine.scored[before:]} == {"stays"}
        assert engine.aborted > 0
        kept = [job.results[place].kept for place in range(66)]
        assert kept[-1] > 1.5 * kept[0], "the rest has the whole machine"

    virtual.run(story())


def test_not_even_one_document_is_an_honest_no_with_a_time() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=100))
        with pytest.raises(Busy, match="Not one document") as refused:
            await made.run(items(3, 500), least=96, deadline=made.clock() + 1)
        assert refused.value.retry_after >= 1
        assert made.jobs == []

    virtual.run(story())


def test_so_many_callers_that_none_would_get_a_document_are_refused_and_the_admitted_ones_get_theirs() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=134))
        done = await asyncio.gather(*(timed(made, items(66, 512, f"q{caller}"), 25) for caller in range(60)), return_exceptions=True)
        admitted = [each for each in done if not isinstance(each, BaseException)]
        assert 10 <= len(admitted) <= 25
        assert sum(isinstance(each, Busy) for each in done) == 60 - len(admitted)
        for job, took in admitted:
            assert took <= 25
            assert len(job.results) >= 1

    virtual.run(story())


def test_a_shorter_deadline_of_ones_own_is_met_beside_others() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=900))
        slow = asyncio.ensure_future(timed(made, items(66, 512, "slow"), 25))
        job, took = await timed(made, items(66, 512, "hurry"), 5)
        assert took <= 5
        assert len(job.results) >= 3
        await slow

    virtual.run(story())


def test_an_engine_that_fails_is_an_error_for_every_caller_at_once() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=900, fails=True))
        done = await asyncio.gather(*(timed(made, items(66, 512, f"q{caller}"), 25) for caller in range(3)), return_exceptions=True)
        assert [type(each) for each in done] == [EngineError] * 3
        assert made.jobs == []
        assert made.clock() < 1002

    virtual.run(story())


def test_one_document_beyond_all_limits_is_cut_to_the_time_there_is() -> None:
    async def story() -> None:
        job, took = await timed(scheduler(virtual.Engine(speed=134)), items(1, 4000), 25)
        assert took <= 25
        assert 2000 < job.results[0].kept < 4000

    virtual.run(story())


def test_work_without_an_answer_counts_as_stalled_also_when_it_was_given_up_and_until_there_is_one() -> None:
    async def story() -> None:
        made = scheduler(virtual.Engine(speed=900, frozen=True))
        assert made.stalled_seconds() == 0
        work = asyncio.ensure_future(timed(made, items(1, 100), 1000))
        await asyncio.sleep(100)
        assert made.stalled_seconds() == pytest.approx(100)
        work.cancel()
        await asyncio.sleep(50)
        assert made.stalled_seconds() == pytest.approx(100)  # no work, no more of it
        made.engine = virtual.Engine(speed=900)
        await timed(made, items(1, 100), 1000)
        assert made.stalled_seconds() == 0
        await asyncio.sleep(50)
        assert made.stalled_seconds() == 0

    virtual.run(story())


def test_the_plan_says_how_long_a_call_takes() -> None:
    async def story() -> None:
        job, took = await timed(scheduler(virtual.Engine(speed=900)), items(30, 200), 25)
        assert job.planned == pytest.approx(took, rel=0.1)

    virtual.run(story())
