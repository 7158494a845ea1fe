"""A benchmark from its plan to its figures: one service, or two in turn, at one load after the other."""

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from rerank.bench import stats
from rerank.bench.kinds import Kind
from rerank.bench.load import Load, Run, Sample, drive
from rerank.bench.texts import Call, Distribution, Shape
from rerank.bench.wire import Wire
from rerank.client import RerankClient
from rerank.errors import RerankError

POOL_CALLS, POOL_BYTES = 256, 64 << 20  # texts made before the load, so that making them is not measured
TAG = 12  # characters before each query that make it one that the service has not seen
UNREAD_BYTES, UNREAD_EACH = 64 << 20, 2048  # answers that are read after the load; later ones are read as they come
SHORT, LONG = 40, 240  # words of the calls that show what the service counts for a word
FRESH = {"Cache-Control": "no-cache"}


class Progress(Protocol):
    """Told while it goes on."""

    def begin(self, what: str, load: Load) -> None: ...

    def advance(self, done: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured. `calls_of` makes the texts once it is known how many tokens the service counts for a word (None: it does not say)."""

    loads: tuple[Load, ...]
    calls_of: Callable[[float | None, int], list[Call]]
    count_tokens: bool = False  # the lengths are in tokens
    rounds: int = 1
    warmup: int = 2
    timeout: float = 30.0
    limit: float = 900.0
    how: str = "poisson"
    seed: int = 0
    repeat: int = 1
    in_flight: int = 1024


@dataclass(kw_only=True)
class Service:
    """One service under load. `name` is A or B."""

    name: str
    client: RerankClient
    kind: Kind
    wire: Wire
    timeout: float
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: int = 1
    first: int = 0  # number of the load's first call among all
    prepared: list[tuple[bytes, bytes, int]] = field(default_factory=list)  # what stands before the tag, after it, and the documents
    unread: int = 0  # bytes of this load's answers that are kept for later
    run: int = field(default_factory=lambda: random.SystemRandom().getrandbits(24))

    def prepare(self, calls: Sequence[Call]) -> None:
        """Takes on the texts of a load, as far as POOL_BYTES goes; the calls begin anew with them, each with a tag of its own."""
        self.prepared, self.unread, size = [], 0, 0
        for call in calls:
            self.prepared.append(self._around(call))
            size += sum(map(len, self.prepared[-1][:2]))
            if size > POOL_BYTES:
                return

    def _around(self, call: Call) -> tuple[bytes, bytes, int]:
        body = self.kind.body("#" * TAG + " " + call.query, call.documents, self.client.model)
        at = body.index(b"#")
        fresh = FRESH if self.kind.name == "ours" and self.repeat == 1 else {}
        return self.wire.head(self.kind.path, len(body), {**fresh, **self.headers}) + body[:at], body[at + TAG :], len(call.documents)

    async def call(self, number: int, planned: float) -> Sample:
        """One call of the load; its error is in the sample. Its answer is to be read after the load, so that reading takes nothing from the sending."""
        number = (self.first + number) // self.repeat
        tag = f"{self.run:06x}{number & 0xFFFFFF:06x}"
        return await self._asked(self.prepared[number % len(self.prepared)], tag, planned)

    def read(self, sample: Sample) -> Sample:
        """With what its answer says, or why that is none."""
        if sample.answer is None:
            return sample
        reply = sample.answer.reply()
        try:
            if reply.status != 200:
                raise self.client.refusal(reply)
            return sample._replace(answer=None, told=self.kind.read(reply, sample.documents))
        except RerankError as error:
            return sample._replace(answer=None, error=type(error).__name__, message=str(error), cause=error)

    async def once(self, call: Call) -> Sample:
        """A call that is not measured. RerankError where it fails."""
        tag = f"{random.SystemRandom().getrandbits(48):012x}"
        sample = self.read(await self._asked(self._around(call), tag, time.perf_counter()))
        if sample.cause is not None:
            raise sample.cause
        return sample

    async def _asked(self, around: tuple[bytes, bytes, int], tag: str, planned: float) -> Sample:
        before, after, documents = around
        began = time.perf_counter()
        try:
            timed = await self.wire.post(before + tag.encode() + after, planned + self.timeout, self.timeout)
        except RerankError as error:
            now = time.perf_counter()
            return Sample(planned=planned, sent=began, ended=now, error=type(error).__name__, message=str(error), cause=error)
        sample = Sample(planned=planned, sent=timed.sent, ended=timed.ended, answer=timed, documents=documents)
        self.unread += UNREAD_EACH + len(timed.body)
        return sample if self.unread < UNREAD_BYTES else self.read(sample)


@dataclass(frozen=True, kw_only=True)
class Level:
    """The figures of a service at a load, of one round or of all (`round` 0). Latencies are seconds of the answered calls, from the planned moment."""

    service: str
    load: Load
    round: int = 0
    calls: int
    answered: int
    errors: Mapping[str, int]
    messages: Mapping[str, str]
    seconds: float
    latency: Mapping[str, float]
    calls_per_second: float
    documents_per_second: float  # those with a score of the model
    tokens_per_second: float | None
    documents: int
    scored: int
    cut: int
    unscored: int
    cached: int
    kept_tokens: int | None
    tokens: int | None
    late_p99_seconds: float  # what the sender itself was late, for one call in a hundred
    sender_core_share: float  # of one core
    connections: int
    each: tuple[float, ...] = field(repr=False, default=())


@dataclass(frozen=True, kw_only=True)
class Found:
    """All that was measured; `ended` says why it ended early, '' where it did not."""

    levels: tuple[Level, ...]
    rounds: tuple[Level, ...]
    tokens_a_word: float | None
    warmup_seconds: Mapping[str, float]
    ended: str = ""


def level(service: str, load: Load, runs: Sequence[Run], number: int = 0) -> Level:
    """The figures of all runs together."""
    samples = [sample for run in runs for sample in run.samples]
    good = [sample for sample in samples if not sample.error]
    seconds = sum(run.seconds for run in runs)
    errors: dict[str, int] = {}
    messages: dict[str, str] = {}
    for sample in samples:
        if sample.error:
            errors[sample.error] = errors.get(sample.error, 0) + 1
            messages.setdefault(sample.error, sample.message)
    told = [sample.told for sample in good]
    documents = sum(one["documents"] for one in told)
    scored = sum(one["documents"] if one["scored"] is None else one["scored"] for one in told)
    counts = [one["tokens"] for one in told if one["tokens"] is not None]
    tokens = sum(counts) if counts else None
    late = sorted(sample.sent - sample.planned for sample in good)
    return Level(
        service=service, load=load, round=number, calls=len(samples), answered=len(good), errors=errors, messages=messages, seconds=seconds,
        latency=stats.latencies([sample.seconds for sample in good]), calls_per_second=len(good) / seconds,
        documents_per_second=scored / seconds, tokens_per_second=None if tokens is None else tokens / seconds,
        documents=documents, scored=scored, cut=sum(len(one["cut"]) for one in told), unscored=sum(len(one["unscored"]) for one in told),
        cached=sum(one["cached"] or 0 for one in told), kept_tokens=min((one["kept_tokens"] for one in told if one["kept_tokens"] is not None), default=None),
        tokens=tokens, late_p99_seconds=stats.percentile(late, 99) if late else 0.0, sender_core_share=sum(run.cpu * run.seconds for run in runs) / seconds,
        connections=sum(run.connections for run in runs), each=tuple(sample.seconds for sample in good),
    )  # fmt: skip


def sent(service: Service, calls: Sequence[Call], callers: int, *, count: int = 0, tell: Callable[[int], None] = lambda done: None) -> Run:
    """One closed loop of `count` calls (0: each of `calls` once) without warm-up, for a program that measures by itself; with its answers read."""

    async def run() -> Run:
        load = Load(level=callers, calls=count or len(calls), seconds=math.inf)
        service.prepare(calls)
        await service.wire.ready(callers, service.timeout)
        try:
            return await drive(load, service.call, asyncio.Event(), tell=tell)
        finally:
            service.wire.close()

    found = asyncio.run(run())
    return replace(found, samples=tuple(map(service.read, found.samples)))


async def measure(plan: Plan, services: Sequence[Service], stop: asyncio.Event, progress: Progress) -> Found:
    """RerankError where a service does not answer the calls that warm it up; the errors under load are figures."""
    ended: list[str] = []
    loop = asyncio.get_running_loop()

    def over() -> None:
        ended.append(f"its limit of {plan.limit:g} s")
        stop.set()

    timer = loop.call_later(plan.limit, over)
    rounds: list[Level] = []
    merged: dict[tuple[str, int], list[Run]] = {}
    try:
        rate, warm = await _until(stop, _warm(plan, services)) or (None, {})
        for number in range(plan.rounds):
            for place, load in enumerate(plan.loads):
                if stop.is_set():
                    break
                first = (number * len(plan.loads) + place) * load.calls
                calls = plan.calls_of(rate, min(load.calls, POOL_CALLS))
                for service in services[:: -1 if number % 2 else 1]:  # what grows warm or slow with time is not one service's alone
                    if stop.is_set():
                        break
                    service.first = first
                    service.prepare(calls)
                    opened = service.wire.opened
                    if not load.open:
                        await _until(stop, service.wire.ready(round(load.level), plan.timeout))
                    progress.begin(f"{service.name} {load}" if len(services) > 1 else str(load), load)
                    run = await drive(load, service.call, stop, how=plan.how, seed=plan.seed + first, in_flight=plan.in_flight, tell=progress.advance)
                    run = replace(run, samples=tuple(map(service.read, run.samples)), connections=service.wire.opened - opened)
                    if run.samples:
                        merged.setdefault((service.name, place), []).append(run)
                        rounds.append(level(service.name, load, [run], number + 1))
    finally:
        timer.cancel()
        for service in services:
            service.wire.close()
    levels = [
        level(service.name, load, merged[service.name, place])
        for service in services
        for place, load in enumerate(plan.loads)
        if (service.name, place) in merged
    ]
    why = ended[0] if ended else "Ctrl-C" if stop.is_set() else ""
    return Found(levels=tuple(levels), rounds=tuple(rounds), tokens_a_word=rate, warmup_seconds=warm, ended=why)


async def _until(stop: asyncio.Event, work: Any) -> Any:
    """The result of `work`, or None where `stop` comes first."""
    task, ender = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, ender}, return_when=asyncio.FIRST_COMPLETED)
    ender.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


async def _warm(plan: Plan, services: Sequence[Service]) -> tuple[float | None, dict[str, float]]:
    """Calls each service before it is measured: tokens that the first one counts for a word, and seconds that the last call of each took."""
    rate = None
    if plan.count_tokens:
        counted = []
        for words in (SHORT, LONG):
            one, length = Distribution(how="fixed", first=1), Distribution(how="fixed", first=words)
            sample = await services[0].once(Shape(documents=one, length=length, query_length=one).calls(1, plan.seed)[0])
            counted.append(sample.told["tokens"])
        if None not in counted and counted[1] > counted[0]:
            rate = (counted[1] - counted[0]) / (LONG - SHORT)
    warm: dict[str, float] = {}
    for service in services:
        for call in (plan.calls_of(rate, max(1, plan.warmup)) * plan.warmup)[: plan.warmup]:
            warm[service.name] = (await service.once(call)).seconds
    return rate, warm


def compared(found: Found) -> dict[str, dict[str, stats.Spread]]:
    """B's figures by A's, by load: of the rounds that both have, with their spread."""
    result = {}
    for load in dict.fromkeys(one.load for one in found.rounds):
        by = {(one.service, one.round): one for one in found.rounds if one.load == load}
        numbers = [number for service, number in by if service == "A" and ("B", number) in by]
        mine, others = ([_figures(by[service, number]) for number in numbers] for service in "AB")
        if numbers:
            result[str(load)] = stats.ratios(mine, others)
    return result


def _figures(one: Level) -> dict[str, float]:
    names = {"calls/s": one.calls_per_second, "documents/s": one.documents_per_second, "tokens/s": one.tokens_per_second or 0.0}
    return {**{name: one.latency.get(name, 0.0) for name in ("p50", "p95")}, **names}


def failures(found: Found, limits: Sequence[stats.Limit], service: str = "A") -> list[str]:
    """What of the limits does not hold, a sentence each."""
    said = []
    for one in found.levels:
        for limit in limits if one.service == service else ():
            value = limit.value(one.each, one.calls - one.answered)
            if value > limit.most:
                shown = (
                    "no answer"
                    if value == float("inf")
                    else f"{value:.1%}"
                    if limit.share
                    else f"{value:g}"
                    if limit.percent is None
                    else f"{value:.3f} s"
                )
                said.append(f"{limit.text} does not hold at {one.load}: {shown}")
    return said
