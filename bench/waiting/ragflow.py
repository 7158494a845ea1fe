"""RAGFlow as it is since v0.24: one event loop, in which a rerank call blocks everything else, so that further questions queue."""

import asyncio
import math
import random
import statistics
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from bench.waiting.machine import BESIDE, SHARED, Machine, question
from serving.metrics import Metrics
from serving.options import ServiceOptions
from serving.rank.refusals import Refusal
from serving.rank.scheduler import Scheduler
from serving.rank.scorer import Scorer


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question: when it came, when its call began and ended, and what was scored of its documents."""

    came: float
    begun: float
    ended: float
    scored: int
    kept: tuple[int, ...]  # tokens of each document scored; none: the call was refused, and RAGFlow shows an error
    share: float  # of the tokens of the whole call

    @property
    def waited(self) -> float:
        return self.ended - self.came


class Ragflow:
    """Its API server. `ask` is a question that needs a rerank; its own work, the search and the chat model count nothing here."""

    def __init__(self, speed: float, deadline: float, options: ServiceOptions, threads: Executor, chance: random.Random) -> None:
        self.now = asyncio.get_running_loop().time
        self.deadline, self.chance, self.turn = deadline, chance, asyncio.Lock()
        self.asked: list[Asked] = []
        scheduler = Scheduler(Machine(speed), tokens_per_pass=options.tokens_per_pass, clock=self.now)
        scheduler.speed.learn(int(10 * speed), 10)
        metrics = Metrics()
        for name in ("cache_hits_total", "cache_misses_total"):
            metrics.counter(name, name)
        self.scorer = Scorer(scheduler, threads, options, metrics, self.now)

    async def ask(self) -> None:
        came, call = self.now(), question(len(self.asked), self.chance)
        async with self.turn:
            begun = self.now()
            try:
                outcome = await self.scorer.outcome(call, begun, self.deadline, fresh=True)
            except Refusal:
                self.asked.append(Asked(came=came, begun=begun, ended=self.now(), scored=0, kept=(), share=0.0))
                return
            whole = SHARED + sum(int(document.split()[0]) + BESIDE for _, document in call.pairs)
            done = SHARED + sum(one.kept + BESIDE for one in outcome.scored.values())
            kept = tuple(one.kept for one in outcome.scored.values())
            self.asked.append(Asked(came=came, begun=begun, ended=self.now(), scored=len(kept), kept=kept, share=done / whole))


async def at_once(ragflow: Ragflow, users: int, rounds: int) -> float:
    """All ask at the same moment, `rounds` times, with quiet between; the seconds it took."""
    began = ragflow.now()
    for _ in range(rounds):
        await asyncio.gather(*(ragflow.ask() for _ in range(users)))
        await asyncio.sleep(600)
    return ragflow.now() - began


async def now_and_then(ragflow: Ragflow, users: int, pause: float, questions: int) -> float:
    """Each asks, has the answer, and asks again after a pause of `pause` seconds on average; the seconds until `questions` were answered."""
    began, left = ragflow.now(), questions

    async def user() -> None:
        nonlocal left
        while True:
            await asyncio.sleep(ragflow.chance.expovariate(1 / pause))
            if left <= 0:
                return
            left -= 1
            await ragflow.ask()

    await asyncio.gather(*(user() for _ in range(users)))
    return max(asked.ended for asked in ragflow.asked) - began


def stretches(asked: Sequence[Asked]) -> list[float]:
    """Seconds of each time in which RAGFlow stood still: calls that follow one another without a breath are one."""
    found: list[list[float]] = []
    for one in sorted(asked, key=lambda one: one.begun):
        if found and one.begun <= found[-1][1] + 1e-6:
            found[-1][1] = one.ended
        else:
            found.append([one.begun, one.ended])
    return [end - begin for begin, end in found]


def p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def waits(asked: Sequence[Asked], place: int, users: int) -> float:
    """Median wait of the asker at `place` of those who asked at one moment."""
    return statistics.median(one.waited for number, one in enumerate(asked) if number % users == place)
