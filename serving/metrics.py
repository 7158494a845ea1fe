"""What the service counts, for Prometheus, beside the inner server's own: in a registry of its own, by prometheus_client."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "reranker_"


class Metrics:
    """Declared once with their help text, then counted by name; a name that was not declared is a KeyError."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.counters: dict[str, Counter] = {}
        self.histograms: dict[str, Histogram] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = (), shown: Iterable[Mapping[str, str]] = ()) -> None:
        """`shown`: the series to show as 0 before they are counted."""
        self.counters[name] = Counter(PREFIX + name, help, labels, registry=self.registry)
        for series in shown:
            self.counters[name].labels(**series)

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        Gauge(PREFIX + name, help, registry=self.registry).set_function(read)

    def histogram(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.histograms[name] = Histogram(PREFIX + name, help, buckets=bounds, registry=self.registry)

    def count(self, name: str, by: float = 1.0, **labels: str) -> None:
        counter = self.counters[name]
        (counter.labels(**labels) if labels else counter).inc(by)

    def observe(self, name: str, value: float) -> None:
        self.histograms[name].observe(value)

    def text(self) -> str:
        return generate_latest(self.registry).decode()
