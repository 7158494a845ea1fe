"""How much of which document fits into the time left: arithmetic over tokens, without a clock."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The first `count` documents are scored, each cut to `keep` tokens; `tokens` is what that costs."""

    count: int
    keep: int
    tokens: int


def level(lengths: Sequence[int], tokens: int) -> int:
    """The largest equal budget: how many tokens each document may keep so that all together cost no more than `tokens`. 0 where that is nothing."""
    rest = tokens
    ordered = sorted(lengths)
    for place, length in enumerate(ordered):
        budget = rest // (len(ordered) - place)
        if budget < length:
            return max(0, budget)
        rest -= length
    return ordered[-1] if ordered else 0


def budget(lengths: Sequence[int], *, each: int, tokens: int, least: int) -> Budget:
    """Which documents to score, and how much of each.

    `lengths`: documents still to score, in the caller's order; `each`: tokens of a prompt beside the document; `tokens`: what may be computed;
    `least`: a document is not cut below this. All documents are cut to one budget where that leaves `least` of each; otherwise the first ones that
    fit keep `least`, since the caller's order is the better guess than a few words of each.
    """
    keep = level(lengths, tokens - each * len(lengths))
    if keep >= min(least, max(lengths, default=0)):
        cost = sum(min(length, keep) + each for length in lengths)
        return Budget(count=len(lengths), keep=keep, tokens=cost)
    count, cost = 0, 0
    for length in lengths:
        more = min(length, least) + each
        if cost + more > tokens:
            break
        count, cost = count + 1, cost + more
    return Budget(count=count, keep=least, tokens=cost)


def share(capacity: float, demands: Sequence[float], mine: int) -> float:
    """What the call `demands[mine]` may use of `capacity`: equal parts, and what smaller calls leave of theirs (max-min fair)."""
    rest = capacity
    for place, (demand, index) in enumerate(sorted((demand, index) for index, demand in enumerate(demands))):
        part = rest / (len(demands) - place)
        if index == mine or demand > part:
            return part
        rest -= demand
    return rest
