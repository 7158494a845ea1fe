"""An engine without a model, for tests and demos: scores reward words that query and document share."""

import asyncio
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

# Scripts written without spaces: Chinese, Japanese, Korean.
SCRIPT = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
PIECE = re.compile(rf"[{SCRIPT}]+|[^\W{SCRIPT}]+")
WITHOUT_SPACES = re.compile(f"[{SCRIPT}]")


def terms(text: str) -> Iterator[str]:
    """The words of `text`, in order, letter case and width ignored; of scripts without spaces each character and each pair of neighbours."""
    for found in PIECE.finditer(unicodedata.normalize("NFKC", text).casefold()):
        piece = found[0]
        if WITHOUT_SPACES.match(piece):
            yield from piece
            yield from (piece[at : at + 2] for at in range(len(piece) - 1))
        else:
            yield piece


def score(query: Iterable[str], document: Iterable[str]) -> float:
    """Of terms, in [0, 1]: the share of the query's that the document has, and a tenth for the share of the document's that the query asks for."""
    asked, given = set(query), set(document)
    if not asked or not given:
        return 0.0
    common = len(asked & given)
    return 0.9 * common / len(asked) + 0.1 * common / len(given)


@dataclass(frozen=True, kw_only=True)
class MockPrompts:
    """Terms stand for tokens (engine.Prompts)."""

    asked: Sequence[str]
    given: Sequence[Sequence[str]]
    shared: int
    tail: int = 0

    @property
    def query(self) -> int:
        return len(self.asked)

    @property
    def documents(self) -> Sequence[int]:
        return [len(terms) for terms in self.given]

    def prompt(self, index: int, keep: int) -> object:
        return self.asked, self.given[index][:keep]


class MockEngine:
    """Scores by the words that query and document share (engine.Engine)."""

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> MockPrompts:
        asked = self._terms(query)
        return MockPrompts(asked=asked, given=[self._terms(document) for document in documents], shared=len(self._terms(instruction)) + len(asked))

    def shortened(self, query: str, tokens: int) -> str:
        words = query.split()
        while words and len(self._terms(" ".join(words))) > tokens:
            del words[len(words) // 2]
        return " ".join(words) or query[:tokens]

    def _terms(self, text: str) -> list[str]:
        return list(itertools.islice(terms(text), self.max_model_len + 1))

    async def score(self, prompts: Sequence[object]) -> list[float]:
        await asyncio.sleep(0)  # other calls have their turn
        return [score(*cast(tuple[Sequence[str], Sequence[str]], prompt)) for prompt in prompts]

    async def alive(self) -> bool:
        return True
