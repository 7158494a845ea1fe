"""What a document is given that was not scored by the deadline: the one place that decides it."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A score for each document of a call, in the caller's order, and their places, best first."""

    scores: tuple[float, ...]
    order: tuple[int, ...]


def ranked(scored: Mapping[int, float], count: int) -> Ranking:
    """All `count` documents, of which `scored` have a score, by place.

    Those without one are given scores below all others, not below 0 and in the caller's order, and stand behind every document that was scored, were it
    with 0. Of equal scores the caller's first comes first.
    """
    missing = [place for place in range(count) if place not in scored]
    lowest = min(scored.values(), default=0.0)
    given = {place: lowest * (1 - (number + 1) / (len(missing) + 1)) for number, place in enumerate(missing)}
    order = sorted(scored, key=lambda place: (-scored[place], place))
    return Ranking(scores=tuple(scored[place] if place in scored else given[place] for place in range(count)), order=(*order, *missing))
