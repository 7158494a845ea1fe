"""What the calls say: texts of drawn lengths, or those of a file. Pure, and the same for the same seed."""

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

UNITS = ("words", "characters", "tokens")
MOST = 100_000  # documents of a call, or units of a text
POOL_WORDS = 8192
# Common words, each of which is one token to most models that know English.
WORDS = (  # noqa: SIM905
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there "
    "would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two "
    "may first then do any like my now over such our man me even most made after also did many off before must well back through years much where "
    "your way down should because long each just state those people too little world good very still see work life men between used being day under "
    "last right home place great old year come water same part small number never always next word sound house school plant food sun city tree earth"
).split()


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """How many of something a call has: `how` is fixed, uniform (from `first` to `second`) or lognormal (median `first`, sigma `second` of its logarithm)."""

    how: str
    first: float
    second: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Distribution":
        """'16', 'uniform:8:64', 'lognormal:200:0.6'. ValueError with a sentence."""
        found = re.fullmatch(r"(?:(fixed|uniform|lognormal):)?([0-9]+)(?::([0-9]+(?:\.[0-9]+)?))?", text.strip())
        how, first, second = (found[1] or "fixed", int(found[2]), float(found[3] or 0)) if found else ("", 0, 0.0)
        right = {"fixed": found is not None and found[3] is None, "uniform": first <= second <= MOST, "lognormal": 0 < second <= 3}.get(how, False)
        if not right or not 1 <= first <= MOST:
            raise ValueError(f"{text!r} must be a number from 1 to {MOST}, uniform:FROM:TO, or lognormal:MEDIAN:SIGMA with a sigma up to 3")
        return cls(how=how, first=first, second=second)

    def draw(self, chance: random.Random) -> int:
        if self.how == "uniform":
            return chance.randint(int(self.first), int(self.second))
        if self.how == "lognormal":
            return min(MOST, max(1, round(self.first * math.exp(chance.gauss(0.0, self.second)))))
        return int(self.first)

    def __str__(self) -> str:
        return f"{self.first:g}" if self.how == "fixed" else f"{self.how}:{self.first:g}:{self.second:g}"


@dataclass(frozen=True)
class Call:
    query: str
    documents: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Documents of a call, and lengths of its texts in `unit`; `tokens_a_word` is what the service counts for a word of ours."""

    documents: Distribution
    length: Distribution
    query_length: Distribution
    unit: str = "words"
    tokens_a_word: float = 1.0

    def calls(self, count: int, seed: int) -> list[Call]:
        """`count` calls of English words without sense."""
        chance = random.Random(seed)
        pool = chance.choices(WORDS, k=POOL_WORDS)
        return [
            Call(
                self._text(pool, self.query_length.draw(chance), chance),
                tuple(self._text(pool, self.length.draw(chance), chance) for _ in range(self.documents.draw(chance))),
            )
            for _ in range(count)
        ]

    def _text(self, pool: Sequence[str], length: int, chance: random.Random) -> str:
        words = {"words": length, "tokens": max(1, round(length / self.tokens_a_word))}.get(self.unit, length // 2 + 1)
        start = chance.randrange(len(pool))
        taken = [*pool[start : start + words]]
        while len(taken) < words:
            taken += pool[: words - len(taken)]
        text = " ".join(taken)
        return text[:length].rstrip() if self.unit == "characters" else text


def of_file(path: Path, documents: Distribution, count: int, seed: int) -> list[Call]:
    """Calls from a file: JSON lines of {"query", "documents"} in their order, or a document a line, of which each call draws its own.

    ValueError with a sentence, OSError where it cannot be read.
    """
    try:
        lines = [(number, line.strip()) for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1) if line.strip()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    if not lines:
        raise ValueError(f"{path} has no line with text in it")
    if lines[0][1].startswith("{"):
        return [_call(path, number, line) for number, line in lines][:count]
    chance, texts = random.Random(seed), [line for _, line in lines]
    return [Call(" ".join(chance.choice(texts).split()[:12]), tuple(chance.choices(texts, k=documents.draw(chance)))) for _ in range(count)]


def _call(path: Path, number: int, line: str) -> Call:
    where = f"{path}, line {number}"
    try:
        found: Any = json.loads(line)
    except ValueError:
        raise ValueError(f'{where} is no JSON: each line is {{"query": "...", "documents": ["...", "..."]}}') from None
    query, documents = (found.get("query"), found.get("documents")) if isinstance(found, dict) else (None, None)
    if not isinstance(query, str) or not isinstance(documents, list) or not documents or not all(isinstance(one, str) for one in documents):
        raise ValueError(f"{where} must have a query, a text, and documents, a list of texts")
    return Call(query, tuple(documents))
