"""Sends calls: closed loop (so many callers, each sends its next call when it has its answer) and open loop (so many calls a second, whatever comes back)."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from rerank.bench.wire import Timed
from rerank.errors import RerankError

UNFINISHED = "Unfinished"


@dataclass(frozen=True, kw_only=True)
class Load:
    """`open`: `level` calls a second; else `level` callers. It ends after `calls` calls or `seconds`, whichever comes first; calls on their way are waited for."""

    open: bool = False
    level: float
    calls: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.level:g} calls/s" if self.open else f"{self.level:g} at once"


class Sample(NamedTuple):
    """A call: the moments (time.perf_counter) when it was to be sent, was sent, and was over; `error` and its words, or `told`, the fields of Answer.

    An answer that was not read yet is in `answer`, to a call of so many `documents`.
    """

    planned: float
    sent: float
    ended: float
    error: str = ""
    message: str = ""
    cause: RerankError | None = None
    told: Mapping[str, Any] = {}
    answer: Timed | None = None
    documents: int = 0

    @property
    def seconds(self) -> float:
        """From the planned moment: a call that had to wait for its turn has waited."""
        return self.ended - self.planned


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a load brought. `cpu` is the share of one core that the sender itself took, `connections` how many were opened."""

    samples: tuple[Sample, ...]
    seconds: float
    cpu: float
    connections: int = 0


def arrivals(load: Load, how: str, seed: int) -> Iterator[float]:
    """Seconds from the start at which an open loop's calls are due: constant gaps, or those of a Poisson process."""
    chance, at = random.Random(seed), 0.0
    for number in range(load.calls):
        if how == "poisson":
            at += chance.expovariate(load.level)
        if at >= load.seconds:
            return
        yield at
        if how == "constant":
            at = (number + 1) / load.level


async def drive(
    load: Load,
    call: Callable[[int, float], Awaitable[Sample]],
    stop: asyncio.Event,
    *,
    how: str = "poisson",
    seed: int = 0,
    in_flight: int = 1024,
    tell: Callable[[int], None] = lambda done: None,
) -> Run:
    """`call` is given a call's number and its planned moment. `stop` ends it at once: calls on their way are counted as errors of the kind Unfinished."""
    samples: list[Sample] = []
    flying: dict[int, float] = {}
    numbers = itertools.count()
    begun, used = time.perf_counter(), time.process_time()

    async def one(number: int, planned: float) -> None:
        samples.append(await call(number, planned))
        del flying[number]
        tell(len(samples))

    async def caller() -> None:
        while (now := time.perf_counter()) - begun < load.seconds and (number := next(numbers)) < load.calls:
            flying[number] = now
            await one(number, now)

    async def sender() -> None:
        gate = asyncio.Semaphore(in_flight)

        async def gated(number: int, planned: float) -> None:
            async with gate:
                await one(number, planned)

        tasks: set[asyncio.Task[None]] = set()
        try:
            for number, at in enumerate(arrivals(load, how, seed)):
                planned = begun + at
                await asyncio.sleep(max(0.0, planned - time.perf_counter()))
                flying[number] = planned
                tasks.add(asyncio.create_task(gated(number, planned)))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    work = asyncio.gather(sender() if load.open else caller(), *(caller() for _ in range(0 if load.open else round(load.level) - 1)))
    ender = asyncio.ensure_future(stop.wait())
    both: set[asyncio.Future[Any]] = {work, ender}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        try:
            await work
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
    finally:
        ender.cancel()
    now = time.perf_counter()
    left = [
        Sample(planned=planned, sent=planned, ended=now, error=UNFINISHED, message="It was on its way when the run was ended.")
        for planned in flying.values()
    ]
    last = max((sample.ended for sample in samples), default=now) if not left else now
    seconds = max(last - begun, 1e-9)
    return Run(samples=(*samples, *left), seconds=seconds, cpu=(time.process_time() - used) / max(now - begun, 1e-9))
