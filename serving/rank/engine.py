"""What is asked of an engine: the tokens of a call's prompts, and the scores of finished prompts. engines/ has two: vLLM and the mock."""

from collections.abc import Sequence
from typing import Protocol


class EngineError(Exception):
    """The engine could not score; its text is one sentence without any text of the user's."""


class Prompts(Protocol):
    """The prompts of one call: one query, some documents. Lengths are in tokens."""

    @property
    def query(self) -> int:
        """Length of the query alone."""

    @property
    def shared(self) -> int:
        """Length of what stands before the documents: computed once a call where the engine caches prefixes."""

    @property
    def tail(self) -> int:
        """Length of what stands after a document."""

    @property
    def documents(self) -> Sequence[int]:
        """Length of each document, at most `Engine.prompts`' limit + 1: one more than fits says "too long"."""

    def prompt(self, index: int, keep: int) -> object:
        """The finished prompt of document `index`, of which the first `keep` tokens stay; the template stays whole."""


class Engine(Protocol):
    """Scores prompts. `prompts` may take a second for large texts and runs in a thread; `score` runs in the event loop."""

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> Prompts:
        """Tokenizes. Texts hold no lone surrogates; markers of the template inside them are plain text."""

    def shortened(self, query: str, tokens: int) -> str:
        """The query cut to at most `tokens` tokens: its beginning and its end, where people put the question. Runs in a thread."""

    async def score(self, prompts: Sequence[object]) -> list[float]:
        """Relevance scores in [0, 1] in the order of `prompts`; EngineError where that fails. Cancelling the call aborts the work in the engine."""

    async def alive(self) -> bool:
        """Whether the engine's processes are there; costs nothing."""


class NoEngine:
    """Stands where an engine cannot be made: who asks is told why, the health check first of all (Engine)."""

    def __init__(self, why: str) -> None:
        self.why = why

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> Prompts:
        raise EngineError(self.why)

    def shortened(self, query: str, tokens: int) -> str:
        raise EngineError(self.why)

    async def score(self, prompts: Sequence[object]) -> list[float]:
        raise EngineError(self.why)

    async def alive(self) -> bool:
        return True
