"""What a document is given that was not scored by the deadline: the one place that decides it. bench/unscored.py measured what suits RAGFlow."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

BELOW, TYPICAL = "below", "typical"
WAYS = (TYPICAL, BELOW)
BEST = 0.5  # the best of the scored ones, this share of them, that no unscored document's value exceeds
STEADY_DOCUMENTS = 10  # added to the distance over which a fall was seen: a few scores are no trend


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A score for each document of a call, in the caller's order, and their places, best first."""

    scores: tuple[float, ...]
    order: tuple[int, ...]


def ranked(scored: Mapping[int, float], count: int, way: str) -> Ranking:
    """All `count` documents, of which `scored` have a score, by place; the others are given values by `way`, one of WAYS.

    Of equal scores those of the model come first, then the caller's first.
    """
    missing = [place for place in range(count) if place not in scored]
    known = [scored[place] for place in sorted(scored)]
    values = (typical if way == TYPICAL else below)(known, len(missing))
    given = dict(zip(missing, values, strict=True)) | dict(scored)
    order = sorted(range(count), key=lambda place: (-given[place], place not in scored, place))
    return Ranking(scores=tuple(given[place] for place in range(count)), order=tuple(order))


def below(scores: Sequence[float], missing: int) -> list[float]:
    """Values below all `scores` and not below 0, falling in the caller's order: who reads them finds every scored document before every other one."""
    lowest = min(scores, default=0.0)
    return [lowest * (1 - (number + 1) / (missing + 1)) for number in range(missing)]


def typical(scores: Sequence[float], missing: int, best: float = BEST, steady: int = STEADY_DOCUMENTS) -> list[float]:
    """Values that go on as `scores` do in the caller's order: from the mean of their last third, falling on as far as they fell from the first third to it.

    For who adds scores to something else and drops what is below a threshold, as RAGFlow does. None exceeds a score of the best half.
    """
    if not scores:
        return [0.0] * missing
    third = max(1, len(scores) // 3)
    first, last = fmean(scores[:third]), fmean(scores[-third:])
    begin = min(last, sorted(scores, reverse=True)[math.ceil(best * len(scores)) - 1])
    fall = min(1.0, last / first) if first > 0 else 1.0
    return [begin * fall ** ((number + 1) / (len(scores) - third + steady)) for number in range(missing)]
