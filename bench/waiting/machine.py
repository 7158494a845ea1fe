"""A machine of known speed in virtual time, and calls as RAGFlow makes them; a document is its length."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.rank.call import Call

DOCUMENTS = 66  # of RAGFlow's default call
CHUNK_TOKENS = 512  # RAGFlow's chunk_token_num
SHARED, BESIDE = 64, 40  # tokens of a prompt beside its document, once a call and once a document: 616 and 552 for 512 in figures/speed.json


@dataclass(frozen=True)
class Prompts:
    """Lengths alone (rank/engine.py)."""

    documents: tuple[int, ...]
    query: int = 20
    shared: int = SHARED
    tail: int = BESIDE

    def prompt(self, index: int, keep: int) -> int:
        """The tokens that are computed for it; the first document of a call has the shared ones computed as well."""
        return keep + self.tail + (self.shared if index == 0 else 0)


class Machine:
    """Computes `speed` tokens a second, one piece after the other. What was aborted while it was computed is still computed to its end, as in vLLM."""

    def __init__(self, speed: float) -> None:
        self.speed, self.turn, self.free_at = speed, asyncio.Lock(), 0.0

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> Prompts:
        return Prompts(documents=tuple(int(document.split()[0]) for document in documents))

    def shortened(self, query: str, tokens: int) -> str:
        return query  # no question here is too long

    async def score(self, prompts: Sequence[Any]) -> list[float]:
        now = asyncio.get_running_loop().time
        async with self.turn:
            await asyncio.sleep(max(0.0, self.free_at - now()))
            self.free_at = now() + sum(prompts) / self.speed
            await asyncio.sleep(self.free_at - now())
        return [0.5] * len(prompts)

    async def alive(self) -> bool:
        return True


def lengths(chance: random.Random) -> list[int]:
    """Most chunks are full to a sentence or two; every fifth is the rest of a section."""
    return [chance.randint(40, CHUNK_TOKENS) if chance.random() < 0.2 else round(chance.gauss(CHUNK_TOKENS, 40)) for _ in range(DOCUMENTS)]


def question(number: int, chance: random.Random) -> Call:
    """A question of its own: nothing of it is known from another."""
    return Call(rerank=True, pairs=tuple((f"question {number}", f"{length} {place}") for place, length in enumerate(lengths(chance))))
