"""What a row of measurements says, and whether it keeps a limit. Pure."""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERCENTS = (50, 90, 95, 99)


@dataclass(frozen=True)
class Spread:
    """What a row of measurements says, in their own unit."""

    count: int
    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """ValueError where there are none."""
        if not values:
            raise ValueError("a spread needs one value at least")
        return cls(len(values), statistics.median(values), min(values), max(values))


def percentile(ordered: Sequence[float], percent: float, failed: int = 0) -> float:
    """The value that `percent` of all do not exceed: one that was measured, no mean of two. `failed` more took for ever. ValueError where there are none."""
    count = len(ordered) + failed
    if not count:
        raise ValueError("a percentile needs one value at least")
    place = max(1, math.ceil(percent / 100 * count - 1e-9)) - 1
    return ordered[place] if place < len(ordered) else math.inf


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p90, p95, p99, max and mean; empty where there are none."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    return {**{f"p{percent}": percentile(ordered, percent) for percent in PERCENTS}, "max": ordered[-1], "mean": statistics.fmean(ordered)}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What must hold of every load: a percentile of the latency, or a number or share of errors. A call without an answer is one that took for ever."""

    text: str
    percent: float | None = None
    most: float = 0.0
    share: bool = False

    @classmethod
    def parse(cls, text: str) -> "Limit":
        """'p95=2s', 'p99=800ms', 'max=3', 'errors=0', 'errors=1%'. ValueError with a sentence."""
        found = re.fullmatch(r"(?:p(?P<percent>[0-9]{1,2}(?:\.[0-9]+)?)|max)=(?P<most>[0-9]+(?:\.[0-9]+)?)(?P<unit>ms|s|)", text.strip())
        errors = re.fullmatch(r"errors=([0-9]+(?:\.[0-9]+)?)(%?)", text.strip())
        if errors:
            return cls(text=text.strip(), most=float(errors[1]) / (100 if errors[2] else 1), share=bool(errors[2]))
        if not found or (found["percent"] and not float(found["percent"])):
            raise ValueError(f"{text!r} must be such as p95=2s, p99=800ms, max=3s, errors=0 or errors=1%")
        return cls(text=text.strip(), percent=float(found["percent"] or 100), most=float(found["most"]) / (1000 if found["unit"] == "ms" else 1))

    def value(self, seconds: Sequence[float], failed: int) -> float:
        """What is held against `most`, of the latencies of the answered calls and the number of the others."""
        if self.percent is not None:
            return percentile(sorted(seconds), self.percent, failed) if seconds or failed else 0.0
        return failed / max(1, failed + len(seconds)) if self.share else failed


def ratios(mine: Sequence[Mapping[str, float]], others: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """The others' values by mine, round by round, of each name that every round has."""
    names = [name for name in (mine[0] if mine else {}) if all(one.get(name) for one in (*mine, *others))]
    return {name: Spread.of([other[name] / one[name] for one, other in zip(mine, others, strict=True)]) for name in names}


def number(value: float | None) -> str:
    """Three digits that count; '-' for none."""
    if value is None or math.isinf(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
