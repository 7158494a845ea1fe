"""The last calls, in numbers: what the page shows of them. No text of a call is kept, and no more calls than a page has room for."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from serving.web.answer import Account
from serving.web.page.files import MARK

KEPT = 120
# By what a caller's User-Agent begins with. Only these words are kept of it.
_AGENTS = {
    "python-requests": "requests",
    "python-httpx": "httpx",
    "aiohttp": "aiohttp",
    "python-aiohttp": "aiohttp",
    "python-urllib": "urllib",
    "go-http-client": "go",
    "curl": "curl",
    "mozilla": "browser",
    "node": "node",
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One call: when (Unix seconds), its route's kind, who asked in a word, and how it ended. What there is only of answered calls is None otherwise.

    `kept`: tokens that the shortest cut document kept; `speed`: tokens/s that the machine had learned by then.
    """

    at: float
    kind: str
    caller: str
    status: int
    seconds: float
    why: str = ""
    documents: int | None = None
    scored: int | None = None
    cut: int | None = None
    kept: int | None = None
    unscored: int | None = None
    cached: int | None = None
    tokens: int | None = None
    deadline: float | None = None
    speed: float | None = None


class Recent:
    """The last KEPT calls, oldest first."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self.wall = wall
        self.entries: deque[Entry] = deque(maxlen=KEPT)

    def answered(self, done: Account, caller: str, speed: float | None) -> None:
        kind = ("texts" if done.call.bare else "rerank") if done.call.rerank else "score"
        self.entries.append(
            Entry(
                at=round(self.wall(), 1),
                kind=kind,
                caller=caller,
                status=200,
                seconds=round(done.took, 3),
                documents=len(done.call.pairs),
                scored=len(done.outcome.scored),
                cut=len(done.cut),
                kept=done.kept,
                unscored=len(done.unscored),
                cached=done.outcome.cached,
                tokens=done.tokens,
                deadline=done.allowed,
                speed=None if speed is None else round(speed, 1),
            )
        )

    def failed(self, kind: str, caller: str, status: int, why: str, seconds: float) -> None:
        """`why`: the word of the metrics, where they have one."""
        self.entries.append(Entry(at=round(self.wall(), 1), kind=kind, caller=caller, status=status, why=why, seconds=round(seconds, 3)))


def caller(headers: Mapping[str, str]) -> str:
    """Who asks, in one of a few words; "" where that is not known. `headers` by their names in lower case."""
    if MARK in headers:
        return "page"
    if headers.get("x-fern-sdk-name", "").lower() == "cohere":  # as RAGFlow's factories VLLM and Cohere do
        return "cohere"
    agent = headers.get("user-agent", "").lower()
    return next((word for start, word in _AGENTS.items() if agent.startswith(start)), "")
