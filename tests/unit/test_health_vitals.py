"""Whether the service is well, as /health says it: after a start, while an engine works, fails, stalls or idles, and after it recovers. In virtual time."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from serving.health import golden
from serving.health.vitals import PROBE_AFTER_SECONDS
from serving.rank.engine import NoEngine
from serving.web.service import Service
from tests.support import virtual
from tests.support.virtual import Answer, ask, rerank, service, story


class Judged(virtual.Engine):
    """Scores the golden set as `golden_scores` says."""

    golden_scores: Callable[[golden.Pair], float] = staticmethod(lambda pair: 0.99 if pair.relevant else 0.01)

    async def score(self, prompts: Any) -> list[float]:
        await super().score(prompts)
        return [
            next(self.golden_scores(pair) for pair in golden.PAIRS if pair.query == prompt.query and pair.document == " ".join(prompt.document))
            for prompt in prompts
        ]


def started(engine: virtual.Engine, name: str = "qwen3-reranker-0.6b", **changes: Any) -> tuple[Answer, Answer]:
    """What /health says right after start, and a minute later."""

    async def told() -> tuple[Answer, Answer]:
        app = service(engine, proven=False, served_model_names=(name,), **changes)
        app.start()
        first = await ask(app, "GET", "/health")
        await asyncio.sleep(60)
        second = await ask(app, "GET", "/health")
        assert first is not None
        assert second is not None
        return first, second

    return virtual.run(told())


def test_health_waits_for_the_golden_set() -> None:
    first, second = started(Judged(speed=900))
    assert (first.status, first.json()["status"], second.status) == (503, "starting", 200)
    assert second.json() == {"status": "healthy", "skipped": []}


def test_the_golden_set_teaches_the_speed() -> None:
    async def told() -> None:
        app = service(Judged(speed=321), proven=False, served_model_names=("qwen3-reranker-0.6b",))
        app.start()
        await asyncio.sleep(60)
        assert app.scheduler.speed.tokens_per_second == pytest.approx(321, rel=0.5)

    virtual.run(told())


def test_a_model_that_ranks_its_golden_set_wrongly_is_unhealthy_with_the_reason() -> None:
    engine = Judged(speed=900)
    engine.golden_scores = lambda pair: 0.01 if pair.relevant else 0.99
    _, second = started(engine)
    assert second.status == 503
    assert "swapped" in second.json()["reason"]


def test_an_unknown_model_is_healthy_and_says_what_was_left_out() -> None:
    engine = Judged(speed=900)
    engine.golden_scores = lambda pair: 0.4 + len(pair.document) / 1000
    _, second = started(engine, name="acme-reranker")
    assert second.status == 200
    assert "acme-reranker" in second.json()["skipped"][0]


def test_the_bands_can_be_switched_off_and_health_says_so() -> None:
    engine = Judged(speed=900)
    engine.golden_scores = lambda pair: 0.4 + len(pair.document) / 1000
    _, second = started(engine, golden_check=False)
    assert (second.status, second.json()["skipped"]) == (
        200,
        ["The golden bands were left out: goldenCheck is off, or there is no model behind the service."],
    )


def test_an_engine_that_fails_at_start_is_unhealthy() -> None:
    first, second = started(virtual.Engine(speed=900, fails=True))
    assert (first.status, second.status) == (503, 503)
    assert "could not be scored" in second.json()["reason"]


@story
async def test_an_engine_whose_process_ended_is_unhealthy() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    engine.dead = True
    answer = await ask(app, "GET", "/health")
    assert answer is not None
    assert answer.status == 503


@story
async def test_an_engine_that_gives_nothing_although_it_has_work_is_unhealthy() -> None:
    engine = virtual.Engine(speed=900, frozen=True)
    app = service(engine)
    work = asyncio.ensure_future(rerank(app, headers={"x-rerank-deadline-seconds": "1000"}))
    await asyncio.sleep(30)
    healthy = await ask(app, "GET", "/health")
    await asyncio.sleep(100)
    stalled = await ask(app, "GET", "/health")
    work.cancel()
    assert healthy is not None
    assert stalled is not None
    assert (healthy.status, stalled.status) == (200, 503)
    assert "no score for" in stalled.json()["reason"]


@story
async def test_an_idle_engine_is_asked_only_now_and_then() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    hours = 2
    for _ in range(hours * 360):
        await ask(app, "GET", "/health")
        await asyncio.sleep(10)
    assert 0 < len(engine.scored) <= hours * 3600 / PROBE_AFTER_SECONDS


@story
async def test_an_idle_engine_that_does_not_answer_its_probe_becomes_unhealthy() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    await asyncio.sleep(PROBE_AFTER_SECONDS + 1)
    engine.frozen = True
    first = await ask(app, "GET", "/health")
    await asyncio.sleep(100)
    second = await ask(app, "GET", "/health")
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 503)


@story
async def test_a_service_whose_prompts_cannot_be_made_is_unhealthy_and_refuses_with_the_reason() -> None:
    app = service(NoEngine("The score template must have one space before its document; restore it."), proven=False)
    app.start()
    await asyncio.sleep(10)
    health = await ask(app, "GET", "/health")
    assert health is not None
    assert (health.status, health.json()["status"]) == (503, "unhealthy")
    assert "one space before its document" in health.json()["reason"]
    answer = await rerank(app)
    assert answer.status == 503
    assert "one space before its document" in answer.json()["error"]["message"]


# -- an engine that fails, and recovers


async def health(app: Service) -> Answer:
    answer = await ask(app, "GET", "/health")
    assert answer is not None
    return answer


async def until(app: Service, status: int, seconds: float) -> None:
    """Waits for the status of /health, which Docker asks every second here; AssertionError where it does not come within `seconds`."""
    for _ in range(int(seconds) + 1):
        if (await health(app)).status == status:
            return
        await asyncio.sleep(1)
    raise AssertionError(f"not {status} within {seconds:g} s: {(await health(app)).body.decode()}")


async def stays(app: Service, status: int, seconds: float) -> None:
    for second in range(int(seconds)):
        answer = await health(app)
        assert answer.status == status, f"after {second} s: {answer.body.decode()}"
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def calls(app: Service, every: float, seconds: float = 25) -> AsyncIterator[list[int]]:
    """Calls that come all the time, each another one; the statuses of their answers."""
    statuses: list[int] = []

    async def call(number: int) -> None:
        body = {"query": f"cats {number}", "documents": ["dogs bark", "cats purr"]}
        answer = await rerank(app, body, headers={"x-rerank-deadline-seconds": str(seconds)})
        statuses.append(answer.status)

    async def come() -> None:
        for number in itertools.count():
            await asyncio.gather(call(number), asyncio.sleep(every))

    coming = asyncio.ensure_future(come())
    try:
        yield statuses
    finally:
        coming.cancel()


@contextlib.asynccontextmanager
async def one_call(app: Service, every: float) -> AsyncIterator[list[int]]:
    """One call, and then none."""
    yield [(await rerank(app)).status]


@pytest.mark.parametrize("coming", [calls, one_call])
def test_an_engine_that_fails_every_call_is_unhealthy_within_a_minute_and_healthy_again_within_one(coming: Any) -> None:
    async def told() -> None:
        engine = virtual.Engine(speed=900)
        app = service(engine)
        await stays(app, 200, 15)
        for _ in range(2):
            engine.fails = True
            async with coming(app, every=3) as statuses:
                await until(app, 503, 60)
                assert set(statuses) == {503}
                assert "failed at everything" in (await health(app)).json()["reason"]
                await stays(app, 503, 120)
                engine.fails = False
                await until(app, 200, 60)
                await stays(app, 200, 120)

    virtual.run(told())


@story
async def test_an_idle_engine_that_begins_to_fail_is_found_when_it_is_asked() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    await stays(app, 200, 10)
    engine.fails = True
    await until(app, 503, PROBE_AFTER_SECONDS + 60)
    engine.fails = False
    await until(app, 200, 60)


@pytest.mark.parametrize("seconds", [1, 10, 300])
def test_an_engine_that_failed_at_first_is_healthy_within_a_minute_after_it_recovers(seconds: int) -> None:
    async def told() -> None:
        engine = Judged(speed=900, fails=True)
        app = service(engine, proven=False, served_model_names=("qwen3-reranker-0.6b",))
        app.start()
        await stays(app, 503, seconds)
        engine.fails = False
        await until(app, 200, 60)
        assert (await health(app)).json() == {"status": "healthy", "skipped": []}
        await stays(app, 200, 60)

    virtual.run(told())


@story
async def test_an_engine_that_was_failing_still_has_to_prove_itself() -> None:
    engine = Judged(speed=900, fails=True)
    engine.golden_scores = lambda pair: 0.01 if pair.relevant else 0.99
    app = service(engine, proven=False, served_model_names=("qwen3-reranker-0.6b",))
    app.start()
    await stays(app, 503, 10)
    engine.fails = False
    await stays(app, 503, 120)
    assert "swapped" in (await health(app)).json()["reason"]


@story
async def test_it_is_starting_at_first_and_unhealthy_when_the_engine_keeps_failing() -> None:
    app = service(virtual.Engine(speed=900, fails=True), proven=False)
    app.start()
    first = await health(app)
    assert (first.status, first.json()["status"]) == (503, "starting")
    await asyncio.sleep(60)
    later = await health(app)
    assert (later.status, later.json()["status"]) == (503, "unhealthy")
    assert "could not be scored" in later.json()["reason"]


@pytest.mark.parametrize("every", [2, 400])
def test_one_failure_between_successes_makes_nobody_unhealthy(every: int) -> None:
    async def told() -> None:
        engine = virtual.Engine(speed=900)
        app = service(engine)
        async with calls(app, every) as statuses:
            for _ in range(3):
                await stays(app, 200, 30)
                engine.fails = True
                assert (await rerank(app, headers={"cache-control": "no-cache"})).status == 503
                engine.fails = False
                await stays(app, 200, 120)
            assert 200 in statuses

    virtual.run(told())


@story
async def test_a_fault_of_the_services_own_is_no_start_that_never_ends() -> None:
    class Broken(virtual.Engine):
        def prompts(self, instruction: str, query: str, documents: Any) -> virtual.Prompts:
            raise ValueError("cannot be tokenized")

    app = service(Broken(speed=900), proven=False)
    app.start()
    await asyncio.sleep(60)
    answer = await health(app)
    assert (answer.status, answer.json()["status"]) == (503, "unhealthy")


# -- an engine that stalls


@pytest.mark.parametrize("seconds", [5, 25, 1000])
def test_an_engine_that_has_work_and_stalls_is_unhealthy_within_a_minute_whatever_the_deadlines_of_the_calls(seconds: int) -> None:
    async def told() -> None:
        engine = virtual.Engine(speed=900)
        app = service(engine)
        async with calls(app, every=1, seconds=seconds):
            await stays(app, 200, 20)
            engine.frozen = True
            await until(app, 503, 60)
            await stays(app, 503, 30)

    virtual.run(told())


@story
async def test_a_stalled_engine_is_healthy_again_once_it_goes_on() -> None:
    engine = virtual.Engine(speed=900)
    app = service(engine)
    engine.frozen = True
    async with calls(app, every=1, seconds=100):
        await until(app, 503, 60)
        engine.frozen = False
        await until(app, 200, 160)
        await stays(app, 200, 60)


SLOW = {"query": "cats", "documents": [f"{number} " + "dogs " * 200 for number in range(20)]}


@story
async def test_a_slow_machine_that_goes_on_is_healthy_although_each_chunk_takes_it_a_minute() -> None:
    app = service(virtual.Engine(speed=5))
    work = asyncio.ensure_future(rerank(app, SLOW, headers={"x-rerank-deadline-seconds": "1500"}))
    await stays(app, 200, 1450)
    assert (await work).status == 200


@story
async def test_a_slow_machine_that_stalls_is_unhealthy_within_four_times_what_it_has_to_do() -> None:
    engine = virtual.Engine(speed=5, frozen=True)
    app = service(engine)
    work = asyncio.ensure_future(rerank(app, SLOW, headers={"x-rerank-deadline-seconds": "1500"}))
    await asyncio.sleep(1)
    expected = app.scheduler.expected_seconds()
    assert expected > 60
    await stays(app, 200, expected)
    await until(app, 503, 3 * expected + 2)
    assert "it must give one within" in (await health(app)).json()["reason"]
    work.cancel()
