"""What a share of a call's tokens is worth: agreement of the top 8, as bench/figures/quality.json has it, between its shares on a straight line.

A model and no measurement of these calls: the documents there have half the length, and the ranking model is a small one.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

ORDERS = ("best first", "roughly best first", "random")


def curve(quality: Mapping[str, Any], order: str, least: int) -> list[tuple[float, float]]:
    """(share, agreement of the top 8) of the project's plan with minDocumentTokens `least`, by share; ValueError where it was not measured."""
    found = sorted(
        (row["share"], row["top 8"]) for row in quality["found"]["rows"] if (row["order"], row["way"], row["least"]) == (order, "plan", least)
    )
    if not found:
        raise ValueError(f"quality.json has no rows for the order {order!r} with {least} tokens at least")
    return found


def agreement(points: Sequence[tuple[float, float]], share: float) -> float:
    """At `share`; below the least share that was measured, as there: the caller's order is what is left then."""
    if share <= points[0][0]:
        return points[0][1]
    for (left, low), (right, high) in itertools.pairwise(points):
        if share <= right:
            return low + (high - low) * (share - left) / (right - left)
    return points[-1][1]
