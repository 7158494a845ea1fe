"""Latency against load, as PNG or SVG, by matplotlib."""

import importlib.util
from pathlib import Path
from typing import Any

from rerank.bench.run import Found

SUFFIXES = (".png", ".svg")
MARKS = (("p50", "-", "o"), ("p95", "--", "s"), ("p99", ":", "^"))
COLOURS = {"A": "#2f6f9f", "B": "#b5533c"}


def missing() -> bool:
    """Whether matplotlib is not installed."""
    return importlib.util.find_spec("matplotlib") is None


def write(found: Found, path: Path, names: dict[str, str]) -> None:
    """A panel for each loop: latencies by load, errors in brackets. `names`: what the services are called in the legend."""
    from matplotlib.figure import Figure  # no window, whatever the backend

    loops = [loop for loop in (False, True) if any(one.load.open is loop and one.latency for one in found.levels)]
    figure = Figure(figsize=(7.5 * max(1, len(loops)), 4.8), layout="constrained")
    for place, loop in enumerate(loops, 1):
        axes: Any = figure.add_subplot(1, len(loops), place)
        for service in names:
            mine = sorted(
                (one for one in found.levels if one.service == service and one.load.open is loop and one.latency), key=lambda one: one.load.level
            )
            for percent, line, mark in MARKS:
                label = f"{names[service]} {percent}" if len(names) > 1 else percent
                axes.plot(
                    [one.load.level for one in mine], [one.latency[percent] for one in mine], line, marker=mark, color=COLOURS[service], label=label
                )
            for one in mine:
                if one.answered < one.calls:
                    axes.annotate(
                        f"({one.calls - one.answered} errors)",
                        (one.load.level, one.latency["p99"]),
                        textcoords="offset points",
                        xytext=(0, 7),
                        fontsize=8,
                    )
        axes.set_xlabel("calls a second, sent" if loop else "calls at once")
        axes.set_ylabel("latency from the planned moment, s" if loop else "latency, s")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    if not loops:
        figure.text(0.5, 0.5, "no call was answered", ha="center")
    figure.savefig(path, format=path.suffix[1:].lower())
