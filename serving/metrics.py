"""Counters and histograms in Prometheus' text format: what the guard counts, beside vLLM's own. The standard library alone, since the mock has no other."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

PREFIX = "reranker_"
Labels = tuple[tuple[str, str], ...]


def _labelled(name: str, labels: Labels) -> str:
    inner = ",".join(f'{key}="{value}"' for key, value in labels)
    return f"{PREFIX}{name}{{{inner}}}" if inner else f"{PREFIX}{name}"


class Metrics:
    """Declared once with their help text, then counted by name; a name that was not declared is a KeyError."""

    def __init__(self) -> None:
        self.counters: dict[str, tuple[str, dict[Labels, float]]] = {}
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self.histograms: dict[str, tuple[str, Sequence[float], list[int], list[float]]] = {}

    def counter(self, name: str, help: str, *labels: Labels) -> None:
        """`labels`: the ones to show as 0 before they are counted."""
        self.counters[name] = (help, {label: 0.0 for label in labels or ((),)})

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        self.gauges[name] = (help, read)

    def histogram(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.histograms[name] = (help, bounds, [0] * (len(bounds) + 1), [0.0])

    def count(self, name: str, by: float = 1.0, **labels: str) -> None:
        values = self.counters[name][1]
        if labels:
            values.pop((), None)  # a series without labels is none of these
        key = tuple(sorted(labels.items()))
        values[key] = values.get(key, 0.0) + by

    def observe(self, name: str, value: float) -> None:
        _, bounds, counts, total = self.histograms[name]
        counts[bisect_left(bounds, value)] += 1
        total[0] += value

    def text(self) -> str:
        lines = []
        for name, (help, values) in self.counters.items():
            lines += [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} counter"]
            lines += [
                f"{_labelled(name, labels)} {value:g}" if value < 1e6 else f"{_labelled(name, labels)} {value:.0f}"
                for labels, value in sorted(values.items())
            ]
        for name, (help, read) in self.gauges.items():
            lines += [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} gauge", f"{PREFIX}{name} {read():g}"]
        for name, (help, bounds, counts, total) in self.histograms.items():
            lines += [f"# HELP {PREFIX}{name} {help}", f"# TYPE {PREFIX}{name} histogram"]
            running = 0
            for bound, number in zip([*map(str, bounds), "+Inf"], counts, strict=True):
                running += number
                lines.append(f'{PREFIX}{name}_bucket{{le="{bound}"}} {running}')
            lines += [f"{PREFIX}{name}_sum {total[0]:.6f}", f"{PREFIX}{name}_count {running}"]
        return "\n".join(lines) + "\n"
