"""Callers who come one after the other, because RAGFlow's one event loop waits for each rerank, and callers who come at once: none is starved."""

import asyncio

import pytest

from tests.support import virtual
from tests.support.virtual import Answer, rerank, service

DEADLINE = 10
SPEEDS = [190, 400, 700, 1500]


def body(caller: int) -> dict[str, object]:
    """RAGFlow's default call with a question of its own."""
    return {"query": f"cats of caller {caller}", "documents": [f"{number} of {caller} " + "cats and dogs " * 170 for number in range(66)]}


def per_pass(speed: float) -> int:
    """Passes of 0.7 s at most: virtual.PassEngine takes for one document as long as for a full pass, which vLLM does not."""
    return min(1024, int(0.7 * speed))


def engines(speed: float) -> list[virtual.Engine]:
    """That keeps its speed, that does in passes as vLLM does, and that is slower now and then."""
    return [virtual.Engine(speed=speed), virtual.PassEngine(speed, per_pass(speed)), virtual.Engine(speed=speed, jitter=(1, 1.3, 0.8, 1, 1.6))]


def scored(answer: Answer) -> int:
    assert answer.status == 200
    return int(answer.headers["x-rerank-scored"])


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("speed", SPEEDS)
def test_of_three_who_wait_for_each_other_the_second_has_its_answer_within_two_deadlines_and_as_much_scored(speed: float, kind: int) -> None:
    async def told() -> None:
        app = service(engines(speed)[kind], deadline_seconds=DEADLINE, tokens_per_pass=per_pass(speed))
        clock = asyncio.get_running_loop().time
        begun, done = clock(), []
        for caller in range(3):
            answer = await rerank(app, body(caller))
            done.append((clock() - begun, scored(answer)))
            assert done[-1][0] <= (caller + 1) * DEADLINE
        counts = [count for _, count in done]
        assert min(counts) >= 0.8 * counts[0], "what the first left in the engine costs the next ones little"

    virtual.run(told())


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("speed", SPEEDS)
def test_three_at_once_are_all_answered_within_the_deadline_with_equal_parts(speed: float, kind: int) -> None:
    async def told() -> None:
        app = service(engines(speed)[kind], deadline_seconds=DEADLINE, tokens_per_pass=per_pass(speed))
        answers = await asyncio.gather(*(rerank(app, body(caller)) for caller in range(3)))
        assert all(answer.seconds <= DEADLINE for answer in answers)
        counts = [scored(answer) for answer in answers]
        assert min(counts) >= 0.5 * max(counts)
        assert min(counts) >= 1

    virtual.run(told())


def test_who_comes_while_another_computes_is_not_behind_all_of_it() -> None:
    async def told() -> None:
        app = service(virtual.Engine(speed=400), deadline_seconds=DEADLINE, tokens_per_pass=1024)
        first = asyncio.ensure_future(rerank(app, body(0)))
        await asyncio.sleep(2)
        second = await rerank(app, body(1))
        assert second.seconds <= DEADLINE
        assert scored(second) >= 0.5 * scored(await first)

    virtual.run(told())
