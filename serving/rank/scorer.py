"""What a call gets: scores that are known, and those that are computed for it by its deadline."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from serving.metrics import Metrics
from serving.options import ServiceOptions
from serving.rank.budget import level
from serving.rank.cache import Cache, digest
from serving.rank.call import Call, Outcome, Scored
from serving.rank.engine import EngineError, Prompts
from serving.rank.refusals import BadQuery, Failed, Late
from serving.rank.scheduler import Item, Scheduler

ANSWER_SECONDS = 300.0  # how long a cut or partial answer is given again: RAGFlow asks once more for every page
GROUP = 64  # documents tokenized in one go
CUTS = 3  # of a query: to what it may have, to what a long instruction leaves, and a last look
TOKENIZED_AHEAD = 2.0  # times what could be scored by the deadline: the machine may get faster meanwhile
WIDEST_BYTES = 64 << 10  # a body beyond this is parsed beside the event loop

log = logging.getLogger("reranker")


@dataclass(kw_only=True, eq=False)
class Shared:
    """A computation that several equal calls wait for."""

    task: "asyncio.Task[Outcome]"
    deadline: float
    waiting: int = 0


class Scorer:
    """Scores calls through an engine and remembers. Equal calls at one time are computed once; where the last of them gives up, the work stops."""

    def __init__(self, scheduler: Scheduler, threads: Executor, options: ServiceOptions, metrics: Metrics, clock: Callable[[], float]) -> None:
        """`threads` tokenize; `clock` is the event loop's."""
        self.scheduler, self.threads, self.options, self.metrics, self.clock = scheduler, threads, options, metrics, clock
        self.scores: Cache[bytes, Scored] = Cache(options.cache_entries)
        # Weighed by their documents: no more of them than of scores, which bounds the memory of both.
        self.answers: Cache[bytes, Outcome] = Cache(options.cache_entries, ANSWER_SECONDS)
        self.computing: dict[tuple[bytes, bool], Shared] = {}  # by call, and whether it is computed in any case

    async def outcome(self, call: Call, begun: float, seconds: float, *, fresh: bool) -> Outcome:
        """What is known of the call already, or computed for it within `seconds` of `begun`; `fresh`: computed in any case. Refusal where there is no score."""
        if not call.pairs:
            return Outcome(scored={}, cached=0, hit_deadline=False)
        instruction = call.instruction or self.options.instruction
        size = sum(len(document) for _, document in call.pairs)
        limits = f"{call.keep} {call.keep_query}"
        pair_keys = await self.beside(size, lambda: [digest(instruction, query, document, limits) for query, document in call.pairs])
        key = digest(f"{call.rerank} {seconds:g}", *(pair.hex() for pair in pair_keys))
        if not fresh and (known := self.answers.get(key, self.clock())) is not None and not self._whole(pair_keys):
            return Outcome(scored=known.scored, cached=len(known.scored), hit_deadline=False)
        # What is computed anew serves everyone; what took known scores does not serve a caller who wants none of those.
        running = ((key, True),) if fresh else ((key, True), (key, False))
        place = next((each for each in running if each in self.computing and self.computing[each].deadline <= begun + seconds), (key, fresh))
        shared = self.computing.get(place)
        if shared is None or shared.deadline > begun + seconds:
            task = asyncio.get_running_loop().create_task(self._compute(call, instruction, pair_keys, key, begun + seconds, fresh))
            shared = self.computing[place] = Shared(task=task, deadline=begun + seconds)
        shared.waiting += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiting -= 1
            if not shared.waiting:
                shared.task.cancel()
                if self.computing.get(place) is shared:
                    del self.computing[place]

    def _whole(self, pair_keys: Sequence[bytes]) -> bool:
        """Whether all pairs have scores of whole documents: better than an answer that was cut or partial."""
        now = self.clock()
        return all((found := self.scores.get(pair, now)) is not None and found.whole for pair in pair_keys)

    async def _compute(self, call: Call, instruction: str, pair_keys: Sequence[bytes], key: bytes, deadline: float, fresh: bool) -> Outcome:
        now = self.clock()
        known: dict[bytes, Scored] = {}
        for pair in dict.fromkeys(pair_keys):
            if not fresh and (found := self.scores.get(pair, now)) is not None:
                known[pair] = found
        settled = {pair: scored for pair, scored in known.items() if scored.whole or scored.kept == call.keep}
        items, places = await self._items(call, instruction, pair_keys, settled, deadline)
        # A score of a part of a document serves where the time would not allow a longer part anyway.
        if len(settled) < len(known):
            budget = self._budget(items, deadline)
            settled |= {pair: scored for pair, scored in known.items() if scored.kept >= min(budget, scored.length)}
            items = [item for item, pair in zip(items, places, strict=True) if pair not in settled]
            places = [pair for pair in places if pair not in settled]
        self.metrics.count("cache_hits_total", len(settled))
        self.metrics.count("cache_misses_total", len(places))
        planned, computed = None, dict(settled)
        if items:
            try:
                job = await self.scheduler.run(items, least=self.options.min_document_tokens, deadline=deadline)
            except EngineError as error:
                raise _failed(error) from error
            planned = job.planned
            for place, result in job.results.items():
                item = items[place]
                length = item.prompts.documents[item.index]
                computed[places[place]] = Scored(
                    score=result.score, kept=result.kept, length=length, tokens=result.tokens, query_kept=item.query_kept
                )
                self.scores.put(places[place], computed[places[place]], now)
        if not computed:
            raise Late("Not one document was scored by the deadline; ask again later, or allow more time.")
        outcome = Outcome(
            scored={place: computed[pair] for place, pair in enumerate(pair_keys) if pair in computed},
            cached=sum(pair in settled for pair in pair_keys),
            hit_deadline=len(computed) < len(set(pair_keys)),
            planned=planned,
        )
        # Whole scores are in the other cache for as long as there is room.
        if len(outcome.scored) < len(pair_keys) or not all(scored.whole for scored in outcome.scored.values()):
            self.answers.put(key, outcome, now, weight=len(pair_keys))
        return outcome

    async def _items(
        self, call: Call, instruction: str, pair_keys: Sequence[bytes], settled: dict[bytes, Scored], deadline: float
    ) -> tuple[list[Item], list[bytes]]:
        """What is to be scored, each pair once, by query and in the caller's order; and the key of each."""
        wanted: dict[str, dict[bytes, str]] = {}
        for pair, (query, document) in zip(pair_keys, call.pairs, strict=True):
            if pair not in settled:
                wanted.setdefault(query, {})[pair] = document
        items: list[Item] = []
        places: list[bytes] = []
        least = 0
        for query, documents in wanted.items():
            keys_of, texts, kept = list(documents), list(documents.values()), None
            for start in range(0, len(texts), GROUP):
                # What cannot be scored even at its least is not worth its tokens: a call with a thousand long documents would hold up the others. The first
                # ones are asked for all the same: without them nobody would be told that the engine is busy.
                if items and least > TOKENIZED_AHEAD * self.scheduler.capacity(deadline):
                    return items, places
                prompts, query, kept = await self._fitting(call, instruction, query, texts[start : start + GROUP], deadline, kept)
                room = self._room(prompts)
                limit = min(room, call.keep or room)
                for index, pair in enumerate(keys_of[start : start + GROUP]):
                    limited = min(limit, prompts.documents[index])
                    item = Item(prompts=prompts, index=index, limit=limited, first=start == index == 0, query_kept=kept)
                    items.append(item)
                    places.append(pair)
                    least += item.beside + min(item.limit, self.options.min_document_tokens)
        return items, places

    async def _fitting(
        self, call: Call, instruction: str, query: str, documents: list[str], deadline: float, kept: int | None
    ) -> tuple[Prompts, str, int | None]:
        """Prompts that leave room for a document; the query, cut where it is too long; and how many tokens of it are left then (`kept`: so far)."""
        for _ in range(CUTS):
            prompts = await self._prompts(instruction, query, documents, deadline)
            allowed = self._query_tokens(prompts, min(self.options.max_query_tokens, call.keep_query or self.options.max_query_tokens))
            if prompts.query <= allowed:
                return prompts, query, prompts.query if kept is not None else None
            kept = allowed
            query = await asyncio.get_running_loop().run_in_executor(self.threads, self.scheduler.engine.shortened, query, allowed)
        raise BadQuery("The query cannot be cut to what fits; shorten it.")

    def _room(self, prompts: Prompts) -> int:
        """Tokens of a document at most."""
        return self.options.max_model_len - prompts.shared - prompts.tail

    def _query_tokens(self, prompts: Prompts, most: int) -> int:
        """Tokens that the query may have, at most `most`; BadQuery where the instruction leaves it none."""
        room = self._room(prompts)
        lacking = 0 if room >= 1 else self.options.min_document_tokens - room
        allowed = min(most, prompts.query - lacking) if lacking else most
        if allowed < 1:
            raise BadQuery("The instruction leaves no room for query and document; shorten it.")
        return allowed

    def _budget(self, items: Sequence[Item], deadline: float) -> int:
        """Tokens of each document that a call alone would keep now."""
        tokens = self.scheduler.capacity(deadline) - sum(item.beside + (item.prompts.shared if item.first else 0) for item in items)
        return max(self.options.min_document_tokens, level([item.limit for item in items], int(tokens)))

    async def _prompts(self, instruction: str, query: str, documents: list[str], deadline: float) -> Prompts:
        made = asyncio.get_running_loop().run_in_executor(self.threads, self.scheduler.engine.prompts, instruction, query, documents)
        try:
            return await asyncio.wait_for(made, max(0.001, deadline - self.clock()))
        except asyncio.TimeoutError as error:
            raise Late("The texts were not tokenized by the deadline; send shorter texts, or allow more time.") from error
        except EngineError as error:
            raise _failed(error) from error

    async def beside(self, size: int, work: Callable[[], Any]) -> Any:
        """`work`'s result; large work does not stop the event loop."""
        return work() if size < WIDEST_BYTES else await asyncio.get_running_loop().run_in_executor(self.threads, work)


def _failed(error: EngineError) -> Failed:
    log.error("engine: %s", error)
    return Failed(f"{error} It may be starting again: ask again later.", 30)
