"""From figures to the committed table and plot: pure."""

from collections.abc import Sequence
from html import escape
from typing import Any, TypeAlias

from bench.serving.measures import NAIVE_CUT_TOKENS, TOP
from rerank.bench.stats import number

Found = dict[str, Any]
Chart: TypeAlias = tuple[str, list[tuple[str, float, str]], float | None]  # title, (label, value, color) ..., the goal's place
GOALS = {"ours / seeds": 1.8, "of the limit": 0.9, "first start": 0.5, "restart": 0.35, "again": 20.0, "idle ms": 1.0, "share": 0.99}
BAR, ROW, LEFT, WIDE = 300, 22, 330, 760
OURS, OTHER, MISSED = "#2f6f9f", "#a9b4bd", "#b5533c"


def spread(found: Found, unit: str = "") -> str:
    """'12.3 s (11–14, n = 5)'."""
    tail = f"{number(found['least'])}–{number(found['most'])}, n = {found['count']}"
    return f"{number(found['median'])}{unit and f' {unit}'} ({tail})"


def verdict(value: float, goal: float, *, most: bool = False) -> str:
    """Whether a goal was met; `most`: the value may be that at most."""
    met = value <= goal if most else value >= goal
    return f"{'met' if met else '**missed**'} (goal {'≤' if most else '≥'} {goal:g})"


def rows(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines)) + "\n"


def table(results: dict[str, Found]) -> str:
    """All figures that were measured, each with the machine it was measured on."""
    made = {"speed": _speed, "ragflow": _ragflow, "avx2": _avx2, "quality": _quality, "guard": _guard, "start": _start}
    parts = [
        "# The serving layer in numbers\n\n`make bench` writes this file, the plot beside it and the .json that both are made of; nothing here is edited by hand.\n\n"
        "![The figures as bars](serving.svg)\n"
    ]
    for name, write in made.items():
        if name in results:
            parts += [write(results[name]["found"], results[name]["counts"]), _machine(results[name]["machine"])]
    return "\n".join(parts)


def _machine(facts: Found) -> str:
    return (
        "<sub>"
        + "; ".join(f"{name}: {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in facts.items())
        + "</sub>\n"
    )


def _speed(found: Found, counts: Found) -> str:
    ratios, limits = found["ours / seeds"], found["of the limit"]
    lines = [
        [
            name,
            spread(rate),
            number(found["work"][name]["computed of it"]) + " of " + number(found["work"][name]["tokens of a prompt"]),
            f"{spread(ratios[name])}, {verdict(ratios[name]['median'], GOALS['ours / seeds'])}" if name in ratios else "1",
            spread(limits[name]) + (f", {verdict(limits[name]['median'], GOALS['of the limit'])}" if name != "seeds" else ""),
        ]
        for name, rate in found["tokens/s"].items()
    ]
    products = ", ".join(f"{name} {way} {spread(value)}" for name, ways in found["matrix product GFLOP/s"].items() for way, value in ways.items())
    flop = ", ".join(f"{name} {value:.3f}" for name, value in found["GFLOP a token"].items())
    return (
        "## 1. Tokens a second, the shape of Qwen3-Reranker-0.6B with random weights\n\n"
        f"Calls of 16 documents of 512 tokens, each with texts of its own and no cache of ours, in turn against servers side by side. Counted are the tokens "
        "that vLLM computed by its own metrics: prompt tokens less those found in its prefix cache. Ours took "
        f"{found['decided']['dtype'][0]} ({found['decided']['dtype'][1]}); the seeds' is float32.\n\n"
        + rows(["server", "tokens/s computed", "tokens of a prompt computed", "against the seeds'", "of the matrix product's limit"], lines)
        + f"\nMatrix product 2048x1024x3072, same image, threads, allocator and OpenMP, between the calls, GFLOP/s: {products} ('matmul' "
        "is torch's, 'packed' oneDNN's on weights laid out beforehand, as vLLM's layers have them; the limit is the faster of the two). A token costs 2 for each weight "
        f"outside the embedding and attention's part, GFLOP: {flop}.\n\n"
        "## 4. The same call again\n\n"
        + rows(
            ["call", "first, s", "again, s", "first / again"],
            [
                [
                    name,
                    spread(item["first s"]),
                    spread(item["again s"]),
                    f"{spread(item['ratio'])}, {verdict(item['ratio']['median'], GOALS['again'])}",
                ]
                for name, item in found["again"].items()
            ],
        )
    )


def _start(found: Found, counts: Found) -> str:
    goals = {"ours, first": GOALS["first start"], "ours, restart": GOALS["restart"]}
    lines = [
        [
            name,
            spread(seconds),
            f"{number(found['ratios'][name])}, {verdict(found['ratios'][name], goals[name], most=True)}" if name in goals else "1",
        ]
        for name, seconds in found["seconds"].items()
    ]
    return (
        "## 6. Start to healthy\n\nFrom the container's start by Docker's clock to the first 200 of /health, one server at a time, in turn; the image's files were read before. "
        "First: nothing kept from another start.\n\n" + rows(["start", "s", "median against the seeds'"], lines)
    )


def _ragflow(found: Found, counts: Found) -> str:
    return (
        "## 2. RAGFlow's default call: 66 documents of 512 tokens, hung up on after 30 s\n\n"
        "Real text (docstrings of Python's standard library), every call its own query. The issue asks for 100 calls one after the other and 20 with 4 at once; "
        "the counts are those of this run.\n\n" + _answers(found)
    )


def _avx2(found: Found, counts: Found) -> str:
    return (
        "## 2. The same on a stand-in for an AVX2 guest\n\n"
        "Float32, vLLM's own AVX2 library (torch.cpu's answer is changed, bench/serving/avx2), and oneDNN, MKL and torch's kernels limited by their variables "
        "(ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS, ATEN_CPU_CAPABILITY). Not held back: clock, caches, memory, and MKL where it ignores its variable.\n\n"
        + _answers(found)
    )


def _answers(found: Found) -> str:
    """A row for each server and way of calling it."""
    lines = []
    for name, item in found.items():
        for way in ("one after the other", "4 at once"):
            row = item[way]
            met = "met" if not row["errors"] and not row["over 30 s"] else "**missed**"
            said = [spread(row[key]) if key in row else "-" for key in ("seconds", "documents scored", "least tokens kept", "tokens of a prompt")]
            lines.append([f"{name} ({item['dtype']})", way, str(row["calls"]), f"{row['errors']}, {row['over 30 s']}: {met}", *said])
    header = ["server", "how", "calls", "errors, over 30 s", "s", "documents scored of 66", "tokens kept of the document cut most", "tokens of a prompt scored, on average"]  # fmt: skip
    products = ", ".join(f"{way} {number(value)}" for item in found.values() for way, value in item["matrix product GFLOP/s"].items())
    return rows(header, lines) + f"\nMatrix product of the same threads, GFLOP/s: {products}.\n"


def _quality(found: Found, counts: Found) -> str:
    parts = [
        "## 3. What the deadline costs in quality\n\n"
        f"{found['queries']} held-out queries with 66 documents of 60 to 330 words from Python's documentation, {spread(found['tokens of a call'])} tokens a call, scored by "
        f"the small model of bench/ranking_model.py through the service. 'Allowed': share of the call's tokens that can be computed by the deadline. Cells: agreement "
        f"of the top {TOP} with the unbounded answer, and in brackets how often the relevant document is in it. 'plan N': this project's with minDocumentTokens N; "
        f"'first': documents whole until the time is over; 'cut': the first {NAIVE_CUT_TOKENS} tokens of each until the time is over. The caller's order is best first "
        "by word overlap with the query, roughly so (with a third of the query's words), or random.\n"
    ]
    for order in dict.fromkeys(row["order"] for row in found["rows"]):
        mine = [row for row in found["rows"] if row["order"] == order]
        ways = list(dict.fromkeys((row["way"], row["least"]) for row in mine))
        shares = sorted({row["share"] for row in mine})
        cells = {(row["way"], row["least"], row["share"]): f"{row[f'top {TOP}']:.2f} ({row['relevant in it']:.2f})" for row in mine}
        lines = [[f"{share:.0%}", *(cells[way, least, share] for way, least in ways)] for share in shares]
        parts.append(f"Caller's order: {order}\n\n" + rows(["allowed", *(_way({"way": way, "least": least}) for way, least in ways)], lines))
    return "\n".join(parts)


def _way(row: Found) -> str:
    return f"{row['way']} {row['least']}" if row["least"] else str(row["way"])


def _guard(found: Found, counts: Found) -> str:
    idle, computing = found["idle ms"], found["computing ms, tiny model"]
    lines = [[name, spread(value)] for name, value in (*((k, v) for k, v in idle.items() if isinstance(v, dict)), *computing.items())]
    more = computing["rerank, guard"]["median"] - computing["rerank, vLLM"]["median"]
    known = idle["known document, guard"]["median"]
    shares = [
        [
            f"{name}, one call after the other",
            *(spread(item["tokens/s"][server]) for server in ("guard", "vLLM")),
            f"{spread(item['share'])}, {verdict(item['share']['median'], GOALS['share'])}",
        ]
        for name, item in found["throughput"].items()
    ]
    return (
        "## 5. What the guard costs\n\nThe same arguments of vLLM with the guard and without it, asked in turn over kept connections.\n\n"
        + rows(["call", "ms"], lines)
        + f"\nGET /v1/models: {number(idle['difference'])} ms more than vLLM alone, {verdict(idle['difference'], GOALS['idle ms'], most=True)}. "
        f"A known document: {number(known)} ms in all, {verdict(known, GOALS['idle ms'], most=True)}. A short rerank that is computed, tiny model: "
        f"{more:+.2f} ms against vLLM's own /v1/rerank, {verdict(more, GOALS['idle ms'], most=True)}.\n\n"
        "Throughput, 0.6B, documents of 512 tokens, tokens/s computed:\n\n"
        + rows(["call", "with the guard", "vLLM's own /v1/rerank", "share"], shares)
    )


def bars(results: dict[str, Found]) -> list[Chart]:
    charts: list[Chart] = []
    if "speed" in results:
        found = results["speed"]["found"]
        rates = {name: value["median"] for name, value in found["tokens/s"].items()}
        charts.append(
            (
                "1. tokens/s computed (line: 1.8 of the seeds')",
                [(name, value, OTHER if name == "seeds" else OURS) for name, value in rates.items()],
                1.8 * rates["seeds"],
            )
        )
        charts.append(
            (
                "1. share of the matrix product's limit (line: 0.9)",
                [(name, value["median"], OTHER if name == "seeds" else OURS) for name, value in found["of the limit"].items()],
                0.9,
            )
        )
    if "start" in results:
        seconds = {name: value["median"] for name, value in results["start"]["found"]["seconds"].items()}
        charts.append(
            (
                "6. start to healthy, s (line: half of the seeds')",
                [(name, value, OTHER if name.startswith("seeds") else OURS) for name, value in seconds.items()],
                0.5 * seconds["seeds, first"],
            )
        )
    items = [item for part in ("ragflow", "avx2") if part in results for item in results[part]["found"].items()]
    if items:
        slowest = [
            (f"{name}, {way}", item[way]["seconds"]["most"], OURS)
            for name, item in items
            for way in ("one after the other", "4 at once")
            if "seconds" in item[way]
        ]
        charts.append(("2. RAGFlow's default call, slowest answer, s (line: 30)", [(a, b, c if b <= 30 else MISSED) for a, b, c in slowest], 30.0))
    if "quality" in results:
        order = "roughly best first"
        rows_there = [row for row in results["quality"]["found"]["rows"] if (row["order"], row["share"]) == (order, 0.3)]
        charts.append(
            (
                f"3. agreement of the top {TOP} where time allows 30 % of the tokens, {order}",
                [(_way(row), row[f"top {TOP}"], OURS if row["way"] == "plan" else OTHER) for row in rows_there],
                None,
            )
        )
    return charts


def plot(results: dict[str, Found]) -> str:
    """The charts as one SVG."""
    return drawing(bars(results))


def drawing(charts: Sequence[Chart]) -> str:
    """Little bar charts, one below the other, as SVG."""
    drawn, y = [], 10
    for title, lines, goal in charts:
        largest = max([value for _, value, _ in lines] + ([goal] if goal else []), default=0.0) or 1.0
        drawn.append(f'<text x="10" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
        top, y = y + 22, y + 22
        for label, value, color in lines:
            width = BAR * value / largest
            drawn.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
            drawn.append(f'<rect x="{LEFT}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" fill="{color}"/>')
            drawn.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 15}">{number(value)}</text>')
            y += ROW
        if goal:
            x = LEFT + BAR * goal / largest
            drawn.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{y}" stroke="#333" stroke-dasharray="4 3"/>')
        y += 14
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y}" width="{WIDE}" height="{y}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )
