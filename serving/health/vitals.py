"""Whether the service is well now: the golden set scored right after start, and an engine that gives scores when it has work."""

import asyncio
import logging
from concurrent.futures import Executor

from serving.health import golden
from serving.rank.engine import EngineError
from serving.rank.refusals import Busy
from serving.rank.scheduler import Item, Scheduler

PROVE_SECONDS = 600.0  # for the golden set, on the slowest machine
PROBE_SECONDS = 30.0  # for one short prompt
PROBE_AFTER_SECONDS = 300.0  # an idle engine is asked this seldom: one short prompt, most of it cached by the engine
WATCH_SECONDS = 10.0  # how often somebody looks, and how often a failing engine is asked again
STARTING_ATTEMPTS = 3  # so many failures to score the golden set are a start; more are an illness
FAILING_SECONDS = 20.0  # an engine that failed is asked again before anyone is told: one failure may be one call's
DOUBT_SECONDS = 15.0  # work without an answer, after which it is asked: callers may have hung up each time before there was one
STALL_SECONDS = 45.0  # far beyond the time of one chunk,
STALL_TIMES = 4  # or of what a slow machine has to do

log = logging.getLogger("reranker")


class Vitals:
    """Knows why the service is not well, or that it is. `slug` is the model's, by which its golden bands are known."""

    def __init__(self, scheduler: Scheduler, threads: Executor, *, slug: str, judged: bool) -> None:
        self.scheduler, self.threads, self.slug, self.judged = scheduler, threads, slug, judged
        self.reason = "The golden set is being scored: the service has just started."
        self.skipped: tuple[str, ...] = ()
        self.proven = False
        self.attempts = 0

    @property
    def starting(self) -> bool:
        return not self.proven and self.attempts < STARTING_ATTEMPTS

    async def watch(self) -> None:
        """Proves the service, and asks an engine that fails or idles, for as long as it runs."""
        while True:
            if not self.proven:
                await self.prove()
            elif self._to_be_asked():
                await (self.prove() if self.reason else self._probe())
            await asyncio.sleep(WATCH_SECONDS if self.proven else min(self.attempts, WATCH_SECONDS))

    async def prove(self) -> None:
        """Scores the golden set and keeps the verdict, which the log gets too. Where it cannot be scored, that is the reason until it can."""
        self.attempts += 1
        try:
            verdict = self._judge(await self._score(golden.PAIRS, PROVE_SECONDS))
            self.proven, self.skipped = True, verdict.skipped
        except Exception as error:
            verdict = golden.Verdict(healthy=False, reason=f"The golden set could not be scored: {_said(error)}")
        if self.proven:
            for sentence in verdict.skipped:
                log.warning("health: %s", sentence)
        if verdict.healthy:
            log.info("health: the golden set holds at %.0f tokens/s", self.scheduler.speed.tokens_per_second)
        elif verdict.reason != self.reason:
            log.error("health: %s", verdict.reason)
        self.reason = verdict.reason

    async def ill(self) -> str:
        """Why the service is not well, or "". Costs nothing: whether an engine fails is known from its work, or from being asked now and then."""
        if self.reason:
            return self.reason
        if not await self.scheduler.engine.alive():
            return "The engine's process has ended; the container must start again: see its log."
        stalled, allowed = self.scheduler.stalled_seconds(), max(STALL_SECONDS, STALL_TIMES * self.scheduler.expected_seconds())
        if stalled > allowed:
            return f"The engine has work and gave no score for {stalled:.0f} s; it must give one within {allowed:.0f}: restart the container."
        failing = self._failing_seconds()
        if failing > FAILING_SECONDS:
            return f"The engine has failed at everything for {failing:.0f} s; the log has its errors: restart the container if it does not recover."
        return ""

    def _failing_seconds(self) -> float:
        since = self.scheduler.failing_since
        return 0.0 if since is None else self.scheduler.clock() - since

    def _to_be_asked(self) -> bool:
        scheduler = self.scheduler
        if scheduler.chunks and scheduler.stalled_seconds() < DOUBT_SECONDS:
            return False  # its work tells
        doubtful = scheduler.failing_since is not None or scheduler.stalled_seconds() >= DOUBT_SECONDS
        return doubtful or scheduler.clock() - scheduler.answered > PROBE_AFTER_SECONDS

    async def _probe(self) -> None:
        try:
            await self._score(golden.PAIRS[:1], PROBE_SECONDS)
        except Exception as error:  # else nobody would watch any more
            log.error("health: the engine was asked and failed: %s", _said(error))

    def _judge(self, scores: list[float]) -> golden.Verdict:
        if self.judged:
            return golden.judge(self.slug, scores)
        verdict = golden.judge("", scores)
        return golden.Verdict(
            healthy=verdict.healthy,
            reason=verdict.reason,
            skipped=("The golden bands were left out: goldenCheck is off, or there is no model behind the service.",),
        )

    async def _score(self, pairs: tuple[golden.Pair, ...], seconds: float) -> list[float]:
        loop = asyncio.get_running_loop()
        items: list[Item] = []
        for pair in pairs:
            prompts = await loop.run_in_executor(self.threads, self.scheduler.engine.prompts, golden.INSTRUCTION, pair.query, [pair.document])
            # The engine caches what all these prompts begin with; counted for each, it would make the machine look twice as fast.
            items.append(Item(prompts=prompts, index=0, limit=prompts.documents[0], first=not items))
        scheduler = self.scheduler
        job = await scheduler.run(items, least=max(item.limit for item in items), deadline=scheduler.clock() + seconds)
        return [job.results[place].score for place in sorted(job.results)]


def _said(error: Exception) -> str:
    """In words: what the engine said, or the name of a fault of our own, whose text might be anything."""
    return str(error) if isinstance(error, EngineError | Busy) else f"the service failed with {type(error).__name__}."
