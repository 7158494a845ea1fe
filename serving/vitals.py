"""Whether the service is well: the golden set scored right after start, and an engine that answered lately."""

import asyncio
import logging
from concurrent.futures import Executor

from serving import golden
from serving.engine import EngineError
from serving.scheduler import Busy, Item, Scheduler

PROVE_SECONDS = 600.0  # for the golden set, on the slowest machine
PROBE_AFTER_SECONDS = 300.0  # an idle engine is asked this seldom: one short prompt, most of it cached by the engine
STALL_SECONDS = 90.0  # far beyond the time of one chunk
ATTEMPTS = 3

log = logging.getLogger("reranker")


class Vitals:
    """Knows why the service is not well, or that it is. `slug` is the model's, by which its golden bands are known."""

    def __init__(self, scheduler: Scheduler, threads: Executor, *, slug: str, judged: bool) -> None:
        self.scheduler, self.threads, self.slug, self.judged = scheduler, threads, slug, judged
        self.reason = "The golden set is being scored: the service has just started."
        self.skipped: tuple[str, ...] = ()
        self.proven = False
        self.probe: asyncio.Task[None] | None = None

    async def prove(self) -> None:
        """Scores the golden set and keeps the verdict, which the log gets too. An engine that fails to answer is asked a few times."""
        verdict = golden.Verdict(healthy=False)
        for attempt in range(ATTEMPTS):
            try:
                verdict = self._judge(await self._score(golden.PAIRS))
                break
            except (EngineError, Busy) as error:
                verdict = golden.Verdict(healthy=False, reason=f"The golden set could not be scored: {error}")
                await asyncio.sleep(attempt)
        self.proven, self.reason, self.skipped = True, verdict.reason, verdict.skipped
        for sentence in verdict.skipped:
            log.warning("health: %s", sentence)
        if verdict.healthy:
            log.info("health: the golden set holds at %.0f tokens/s", self.scheduler.speed.tokens_per_second)
        else:
            log.error("health: %s", verdict.reason)

    async def ill(self) -> str:
        """Why the service is not well, or "". Costs nothing while there is work; an idle engine is asked now and then, without waiting for it."""
        if self.reason:
            return self.reason
        if not await self.scheduler.engine.alive():
            return "The engine's process has ended; the container must start again: see its log."
        stalled = self.scheduler.stalled_seconds()
        if stalled > STALL_SECONDS:
            return f"The engine has work and gave no score for {stalled:.0f} s; it must give one within {STALL_SECONDS:.0f}: restart the container."
        if self.scheduler.clock() - self.scheduler.answered > PROBE_AFTER_SECONDS and not self.scheduler.chunks and self.probe is None:
            self.probe = asyncio.get_running_loop().create_task(self._probe())
        return ""

    async def _probe(self) -> None:
        try:
            await self._score(golden.PAIRS[:1])
        except (EngineError, Busy) as error:
            log.error("health: an idle engine was asked and failed: %s", error)
        finally:
            self.probe = None

    def _judge(self, scores: list[float]) -> golden.Verdict:
        if self.judged:
            return golden.judge(self.slug, scores)
        verdict = golden.judge("", scores)
        return golden.Verdict(
            healthy=verdict.healthy,
            reason=verdict.reason,
            skipped=("The golden bands were left out: goldenCheck is off, or there is no model behind the service.",),
        )

    async def _score(self, pairs: tuple[golden.Pair, ...]) -> list[float]:
        loop = asyncio.get_running_loop()
        items: list[Item] = []
        for pair in pairs:
            prompts = await loop.run_in_executor(self.threads, self.scheduler.engine.prompts, golden.INSTRUCTION, pair.query, [pair.document])
            # The engine caches what all these prompts begin with; counted for each, it would make the machine look twice as fast.
            items.append(Item(prompts=prompts, index=0, limit=prompts.documents[0], first=not items))
        scheduler = self.scheduler
        job = await scheduler.run(items, least=max(item.limit for item in items), deadline=scheduler.clock() + PROVE_SECONDS)
        return [job.results[place].score for place in sorted(job.results)]
