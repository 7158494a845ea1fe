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


def share(capacity: float, demands: Sequence[float], mine: int, ahead: Sequence[float] = ()) -> float:
    """What the call `demands[mine]` may use of `capacity`: equal parts, and what smaller calls leave of theirs (max-min fair).

    `ahead`: what each has had more than the one that had least. It counts as a piece of its part; who has had more than a part waits.
    """
    had = ahead or [0.0] * len(demands)
    taking = sorted(range(len(demands)), key=lambda index: had[index])
    while len(taking) > 1:
        if had[taking[-1]] <= _part(capacity, demands, had, taking, None):
            break
        taking.pop()
    return _part(capacity, demands, had, taking, mine) - had[mine] if mine in taking else 0.0


def _part(capacity: float, demands: Sequence[float], had: Sequence[float], taking: Sequence[int], mine: int | None) -> float:
    """The part of `mine`, or of those that want more than there is, with what they had before."""
    rest, part = capacity + sum(had[index] for index in taking), 0.0
    for place, (wanted, index) in enumerate(sorted((demands[index] + had[index], index) for index in taking)):
        part = rest / (len(taking) - place)
        if index == mine or wanted > part:
            break
        rest -= wanted
    return part
