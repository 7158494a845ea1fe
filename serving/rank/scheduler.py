"""Puts the work of all calls through one engine, in pieces, so that each call has its answer by its deadline.

A call's documents go to the engine in chunks of about a second. Before each chunk the call is planned anew: with the speed learned so far, with
what the other calls need, with the time left. So a newcomer takes from the others without a queue in front of it, and a wrong guess mends itself.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from serving.rank.budget import budget, share
from serving.rank.engine import Engine, EngineError, Prompts
from serving.rank.refusals import Busy
from serving.rank.speed import Speed
from serving.wording import about

CHUNK_SECONDS = 1.0  # or what the engine takes in one pass, if that is less
LEAST_CHUNK_TOKENS = 256  # smaller pieces read all weights for little work
# In the engine are two passes, one computing and one waiting, so that none begins half empty: 1.05 times the tokens a second of two chunks (measured).
PASSES_AHEAD = 2
AHEAD_SECONDS = 3.0  # but no more than this, since what is inside is ahead of a newcomer
LEAST_AHEAD = 2  # chunks, however long they take
SAFETY = 0.98  # share of the learned speed that a plan counts on
SPARE_SECONDS = 0.5  # of each call, not planned: a machine that stutters loses a chunk otherwise
SPARE_SHARE = 0.05  # but no more than this part of it
ANSWER_SECONDS = 0.4  # kept of every deadline, for writing the answer on a busy machine
ANSWER_SHARE = 0.1  # but no more than this part of it


@dataclass(frozen=True, kw_only=True)
class Item:
    """One pair to score: document `index` of `prompts`, of which at most `limit` tokens may stay. `first`: it is the first with its query."""

    prompts: Prompts
    index: int
    limit: int
    first: bool
    query_kept: int | None = None  # tokens of a query that was cut

    @property
    def beside(self) -> int:
        """Tokens of the prompt that are computed for this document alone, beside the document."""
        return self.prompts.tail


@dataclass(frozen=True, kw_only=True)
class Result:
    score: float
    kept: int
    tokens: int  # of the whole prompt


@dataclass(kw_only=True, eq=False)
class Job:
    """One call's work and how far it is. `planned` is the time its first plan said it would take."""

    items: Sequence[Item]
    least: int
    deadline: float  # by the clock, when results must be there
    ended: "asyncio.Future[None]"
    spare: float = 0.0
    sent: int = 0  # items handed to the engine so far
    results: dict[int, Result] = field(default_factory=dict)
    inside: int = 0  # chunks of it in the engine
    served: float = 0.0
    planned: float | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def rest(self) -> Sequence[Item]:
        return self.items[self.sent :]

    def demand(self) -> float:
        """Tokens that all of the rest would cost uncut."""
        return sum(item.limit + item.beside + (item.prompts.shared if item.first else 0) for item in self.rest)

    def minimum(self) -> float:
        """Tokens of the first document, while none is on its way."""
        if self.sent:
            return 0.0
        item = self.items[0]
        return item.prompts.shared + item.beside + min(item.limit, self.least)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Some items of a job on their way through the engine, each cut to its `kept`; `place` is the first one's in the job."""

    job: Job
    place: int
    items: Sequence[Item]
    kept: Sequence[int]
    tokens: int
    begun: float


class Scheduler:
    """One for each engine. All of it runs in one event loop; `clock` is the loop's."""

    def __init__(self, engine: Engine, *, tokens_per_pass: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine, self.tokens_per_pass, self.clock = engine, tokens_per_pass, clock
        self.speed = Speed()
        self.jobs: list[Job] = []
        self.chunks: dict[asyncio.Task[None], Chunk] = {}  # in the order in which the engine got them
        self.answered = clock()  # when the engine last gave scores
        self.failing_since: float | None = None  # the first failure since then
        self.finished = clock()  # when a chunk last ended, one way or the other
        # Work without an answer, which a deadline may have cut short again and again: seconds of it before, and since when there is some now.
        self.unanswered, self.busy_since = 0.0, clock()

    # -- for the service -----------------------------------------------------------------------------------------------------------------------

    async def run(self, items: Sequence[Item], *, least: int, deadline: float) -> Job:
        """The job when it has ended: with all results, or with those there are shortly before `deadline` (by the clock).

        Busy where not one document would be scored by then; EngineError where the engine fails. Cancelling aborts the work.
        """
        now = self.clock()
        allowed = max(0.0, deadline - now)
        loop = asyncio.get_running_loop()
        job = Job(
            items=items,
            least=least,
            deadline=deadline - min(ANSWER_SECONDS, ANSWER_SHARE * allowed),
            spare=min(SPARE_SECONDS, SPARE_SHARE * allowed),
            ended=loop.create_future(),
        )
        self._admit(job, now)
        # What the others have in the engine is ahead of this one anyway.
        job.served = min((other.served - self._inside(other) for other in self.jobs), default=0.0)
        self.jobs.append(job)
        job.timer = loop.call_later(max(0.0, job.deadline - now), self._end, job)
        self._fill()
        try:
            await job.ended
        finally:
            self._leave(job)
        return job

    def capacity(self, deadline: float) -> float:
        """Tokens that a call alone could have computed by `deadline`, from now on."""
        return self._capacity(deadline, self.clock())

    def stalled_seconds(self) -> float:
        """Seconds for which the engine had work since it last answered with scores or an error."""
        return self.unanswered + (self.clock() - self.busy_since if self.chunks else 0.0)

    def expected_seconds(self) -> float:
        """Seconds that what is in the engine should take."""
        return self._inside() / self.speed.tokens_per_second

    # -- inside --------------------------------------------------------------------------------------------------------------------------------

    def _oldest(self) -> Chunk:
        return next(iter(self.chunks.values()))

    def _capacity(self, until: float, now: float) -> float:
        """Tokens that can still be computed by `until`, beside those in the engine."""
        return self.speed.tokens_per_second * SAFETY * max(0.0, until - now) - self._queued(now)

    def _queued(self, now: float) -> float:
        """Tokens in the engine that are not yet computed."""
        if not self.chunks:
            return 0.0
        oldest = self._oldest()
        computed = self.speed.tokens_per_second * (now - max(oldest.begun, self.finished))
        inside = self._inside()
        # A pass computes several chunks at once; an engine that stands still has computed nothing beyond it.
        return inside - min(computed, 0.9 * max(oldest.tokens, min(inside, self.tokens_per_pass)))

    def _inside(self, job: Job | None = None) -> int:
        """Tokens of the chunks in the engine, or of one job's."""
        return sum(chunk.tokens for chunk in self.chunks.values() if job in (None, chunk.job))

    def _has_enough(self) -> bool:
        ahead = min(PASSES_AHEAD * self.tokens_per_pass, self.speed.tokens_per_second * AHEAD_SECONDS)
        return len(self.chunks) >= LEAST_AHEAD and self._inside() >= ahead

    def _admit(self, job: Job, now: float) -> None:
        needed = job.minimum() + sum(other.minimum() for other in self.jobs)
        lacking = needed - self._capacity(job.deadline - job.spare, now)
        if lacking <= 0:
            return
        speed = self.speed.tokens_per_second
        raise Busy(
            f"Not one document could be scored within {about(job.deadline - now)} s at {about(speed)} tokens/s with {about(len(self.jobs))} other calls running; "
            "ask again later, allow more time, or send shorter texts.",
            math.ceil(min([lacking / (speed * SAFETY), *(max(0.0, other.deadline - now) for other in self.jobs)])),
        )

    def _fill(self) -> None:
        """Hands chunks to the engine until it has enough; ends the calls for which nothing more can be done in time."""
        while not self._has_enough():
            now = self.clock()
            # First those that have nothing yet: they were admitted for one document at least.
            waiting = sorted(
                (job for job in self.jobs if job.rest and not job.ended.done()), key=lambda job: (job.sent > 0, job.served, job.deadline)
            )
            shared = any(self._offer(job, waiting, now) or (not job.sent and self._offer_one(job, now)) for job in waiting)
            if not shared and not any(self._offer_one(job, now) for job in waiting):
                for job in waiting:
                    if not job.inside:
                        self._end(job)
                return

    def _offer(self, job: Job, waiting: Sequence[Job], now: float) -> bool:
        """Sends the job's next documents, as many as make a chunk, cut as its share of the time allows; whether there were any."""
        # Who came first has filled the engine alone, and is ahead by that until the others have had as much.
        least = min(other.served for other in waiting)
        ahead = [other.served - least for other in waiting]
        mine = share(self._capacity(job.deadline - job.spare, now), [other.demand() for other in waiting], waiting.index(job), ahead)
        rest = job.rest
        fixed = sum(item.prompts.shared for item in rest if item.first)
        planned = budget([item.limit for item in rest], each=max(item.beside for item in rest), tokens=int(mine) - fixed, least=job.least)
        if job.planned is None:
            job.planned = (planned.tokens + fixed + self._queued(now)) / self.speed.tokens_per_second
        target = max(LEAST_CHUNK_TOKENS, min(self.tokens_per_pass, int(self.speed.tokens_per_second * CHUNK_SECONDS)))
        chosen: list[Item] = []
        tokens = 0
        for item in rest[: planned.count]:
            cost = min(item.limit, planned.keep) + item.beside
            if chosen and tokens + cost > target:
                break
            chosen.append(item)
            tokens += cost
        if chosen:
            self._send(job, chosen, planned.keep, now)
        return bool(chosen)

    def _offer_one(self, job: Job, now: float) -> bool:
        """No share holds a document: sends one whole chunk of one, so that the time left is not lost; whether it can be done in time."""
        item = job.rest[0]
        keep = min(item.limit, job.least)
        if keep + item.beside + (item.prompts.shared if item.first else 0) > self._capacity(job.deadline - job.spare, now):
            return False
        self._send(job, [item], keep, now)
        return True

    def _send(self, job: Job, items: Sequence[Item], keep: int, now: float) -> None:
        kept = [min(item.limit, keep) for item in items]
        tokens = sum(count + item.beside + (item.prompts.shared if item.first else 0) for item, count in zip(items, kept, strict=True))
        chunk = Chunk(job=job, place=job.sent, items=items, kept=kept, tokens=tokens, begun=now)
        job.sent += len(items)
        job.served += tokens
        job.inside += 1
        if not self.chunks:
            self.busy_since = now
        task = asyncio.get_running_loop().create_task(self._compute(chunk))
        self.chunks[task] = chunk
        task.add_done_callback(self._done)

    async def _compute(self, chunk: Chunk) -> None:
        prompts = [item.prompts.prompt(item.index, count) for item, count in zip(chunk.items, chunk.kept, strict=True)]
        scores = await self.engine.score(prompts)
        if len(scores) != len(prompts) or not all(0 <= score <= 1 for score in scores):  # false for NaN as well
            raise EngineError("The engine's scores are not numbers from 0 to 1, one for each prompt.")
        now = self.clock()
        # While chunks overlap, the engine was busy with this one only since the last one ended.
        self.speed.learn(chunk.tokens, now - max(chunk.begun, self.finished))
        self.answered = self.finished = now
        self.failing_since = None
        self._answered(now)
        for offset, (score, item, count) in enumerate(zip(scores, chunk.items, chunk.kept, strict=True)):
            chunk.job.results[chunk.place + offset] = Result(score=score, kept=count, tokens=count + item.beside + item.prompts.shared)

    def _done(self, task: "asyncio.Task[None]") -> None:
        job = self.chunks.pop(task).job
        job.inside -= 1
        self.finished = self.clock()
        if not self.chunks:
            self.unanswered += self.finished - self.busy_since
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._answered(self.finished)
            self.failing_since = self.finished if self.failing_since is None else self.failing_since
        if error is not None and not job.ended.done():
            job.ended.set_exception(error if isinstance(error, EngineError) else EngineError(f"The engine failed ({type(error).__name__})."))
        elif not job.rest and not job.inside:
            self._end(job)
        self._fill()

    def _answered(self, now: float) -> None:
        self.unanswered, self.busy_since = 0.0, now

    def _end(self, job: Job) -> None:
        if not job.ended.done():
            job.ended.set_result(None)

    def _leave(self, job: Job) -> None:
        if job.timer:
            job.timer.cancel()
        self.jobs.remove(job)
        for task, chunk in list(self.chunks.items()):
            if chunk.job is job:
                task.cancel()
        self._fill()
