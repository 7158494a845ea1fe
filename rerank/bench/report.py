"""What was measured, as a JSON document, as CSV and as a table."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rerank.bench.load import UNFINISHED
from rerank.bench.run import Found, Level, compared
from rerank.bench.stats import number

BUSY, LATE = 0.7, 0.05  # shares of a core, and of the median latency, from which on the sender itself is in the figures


def row(one: Level) -> dict[str, Any]:
    """A level as flat fields; latencies are in seconds."""
    fields = {name: value for name, value in asdict(one).items() if name not in ("load", "each", "latency", "messages", "errors")}
    latency = {f"{name}_seconds": one.latency.get(name) for name in ("p50", "p90", "p95", "p99", "max", "mean")}
    return {
        "service": fields.pop("service"),
        "round": fields.pop("round"),
        "loop": "open" if one.load.open else "closed",
        "load": one.load.level,
        **{name: fields.pop(name) for name in ("calls", "answered")},
        "failed": one.calls - one.answered,
        **latency,
        **fields,
    }


def document(
    found: Found,
    machine: Mapping[str, Any],
    told: Mapping[str, Any],
    services: Mapping[str, Mapping[str, Any]],
    broken: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The whole report. `told` is what was asked for, `broken` the limits that do not hold."""
    levels = [{**row(one), "errors": dict(one.errors), "messages": dict(one.messages)} for one in found.levels]
    rounds = [{**row(one), "errors": dict(one.errors)} for one in found.rounds]
    return {
        "ended_early_by": found.ended or None,
        "machine": dict(machine),
        "plan": {**told, "tokens_a_word": found.tokens_a_word},
        "services": dict(services),
        "warm_up_seconds": dict(found.warmup_seconds),
        "levels": levels,
        "rounds": rounds if len({one.round for one in found.rounds}) > 1 else [],
        "b_by_a": {load: {name: asdict(spread) for name, spread in figures.items()} for load, figures in compared(found).items()},
        "limits_not_held": list(broken),
        "notes": list(notes),
    }


def as_csv(found: Found) -> str:
    """A line for each level, and for each round of it where there are several; errors as 'TimedOut=3 Overloaded=1'."""
    several = len({one.round for one in found.rounds}) > 1
    lines = [
        {**row(one), "errors": " ".join(f"{kind}={count}" for kind, count in one.errors.items())}
        for one in (*found.levels, *(found.rounds if several else ()))
    ]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(lines[0]) if lines else ["service"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def notes(found: Found, *, repeat: int, unit: str, drawn: bool) -> list[str]:
    """What a reader of the figures must know, a sentence each."""
    said = []
    if found.ended:
        said.append(f"The run was ended early, by {found.ended}: calls on their way are counted as {UNFINISHED}.")
    if any(one.answered < one.calls for one in found.levels):
        said.append("Latencies are of the answered calls; one that failed, a timeout too, is an error, and no latency.")
    if drawn and unit == "tokens":
        rate = found.tokens_a_word
        said.append(
            f"Lengths in tokens are the service's own count: {rate:.3f} for a word of these texts, without its template."
            if rate
            else "The service counts no tokens: a word was taken for one, which is about right for common English words."
        )
    if repeat == 1 and any(one.cached for one in found.levels):
        said.append("The service says that it knew some scores already, though each call's query was new to it: the figures are too good.")
    if any(one.unscored for one in found.levels):
        said.append("Some documents got no score in time (unscored); documents/s are those with one.")
    for one in found.levels:
        where = _where(found, one)
        if one.sender_core_share > BUSY:
            said.append(f"{where}: sending took {one.sender_core_share:.0%} of a core here, so the service may be faster than these figures.")
        if one.load.open and one.latency and one.late_p99_seconds > LATE * one.latency["p50"]:
            said.append(
                f"{where}: one call in a hundred was sent {one.late_p99_seconds * 1000:.0f} ms late or more; its latency counts from when it was due."
            )
    return said


def tables(found: Found, services: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    """The levels of each service, and the comparison, for rich to print within 80 columns."""
    made = []
    for name, facts in services.items():
        if mine := [one for one in found.levels if one.service == name]:
            title = f"{name + ': ' if len(services) > 1 else ''}{facts['url']} ({facts['kind']})"
            table = _table(title, "load", "calls", "errors", "p50", "p90", "p95", "p99", "max ms", "calls/s", "docs/s", "tokens/s")
            for one in mine:
                latency = [number(1000 * one.latency[key]) if one.latency else "-" for key in ("p50", "p90", "p95", "p99", "max")]
                rates = [number(value) for value in (one.calls_per_second, one.documents_per_second, one.tokens_per_second)]
                table.add_row(str(one.load), str(one.calls), str(one.calls - one.answered), *latency, *rates)
            made.append(table)
    if ratios := compared(found):
        table = _table("B by A, round by round", "load", "", "median", "least", "most", "rounds")
        for load, figures in ratios.items():
            for name, spread in figures.items():
                table.add_row(load, name, number(spread.median), number(spread.least), number(spread.most), str(spread.count))
        made.append(table)
    return made


def _table(title: str, first: str, *headings: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column(first, no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def lines(found: Found) -> list[str]:
    """What stands below the tables: of each level the errors by kind, with one's words, and what the service says of its documents."""
    said = []
    for one in found.levels:
        where = _where(found, one)
        said += [f"{where}: {count} {kind}: {one.messages[kind]}" for kind, count in one.errors.items()]
        if told := [f"{getattr(one, what)} {what}" for what in ("cut", "unscored", "cached") if getattr(one, what)]:
            said.append(f"{where}: of {one.documents} documents {', '.join(told)}")
    return said


def _where(found: Found, one: Level) -> str:
    return f"{one.service} at {one.load}" if len({other.service for other in found.levels}) > 1 else str(one.load)


def ragflow(one: Level, timeout: float) -> str:
    """What RAGFlow's user would have seen of these calls."""
    said = f"RAGFlow hangs up after {timeout:g} s: {one.answered} of {one.calls} calls were answered in time"
    if not one.answered:
        return f"{said}. Its user gets no answer at all: {next(iter(one.messages.values()), 'see the errors')}"
    said += f", the slowest in {number(one.latency['max'])} s; scored {one.scored} of {one.documents} documents, cut {one.cut}"
    said += f" (to {one.kept_tokens} tokens or more)" if one.kept_tokens is not None else ""
    if one.answered == one.calls and one.scored == one.documents and not one.cut:
        return said + ". Nothing to do."
    if one.answered < one.calls:
        return said + ". Lower top_k in RAGFlow, make its chunks smaller, or shorten deadlineSeconds."
    return said + ". For more: lower top_k in RAGFlow, smaller chunks, or more cpus (docs/calls.md)."


def text(report: Mapping[str, Any]) -> str:
    """The report as a file."""
    return json.dumps(report, ensure_ascii=False, indent=2) + "\n"
