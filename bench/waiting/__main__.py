"""python -m bench.waiting: plays RAGFlow's questions in virtual time for each deadline and machine; writes bench/figures/waiting.json, .md and .svg."""

import argparse
import json
import random
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from bench.waiting import quality, ragflow, report
from serving.options import ServiceOptions
from tests.support import virtual
from tests.support.options import service_options

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "bench" / "figures"
DEADLINES = (3, 5, 8, 10, 15, 25)
SPEEDS = (100, 190, 400, 700, 1500)  # tokens a second that are computed
USERS = (1, 3, 10)
PAUSES = {"an hour": 3600.0, "a minute": 60.0}
QUESTIONS, ROUNDS = 120, 5
TOKENS_PER_PASS = 1024


def options() -> ServiceOptions:
    """Those of a stack without any setting, as far as the plan of a call goes by them."""
    declared = yaml.safe_load((ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))["config"]
    return service_options(
        min_document_tokens=declared["minDocumentTokens"]["default"],
        max_model_len=declared["maxModelLen"]["default"],
        max_query_tokens=declared["maxQueryTokens"]["default"],
        max_documents=declared["maxDocuments"]["default"],
        cache_entries=declared["cacheEntries"]["default"],
        tokens_per_pass=TOKENS_PER_PASS,
    )


def played(case: tuple[str, int, int, int]) -> dict[str, Any]:
    """One pattern of questions, with so many users, on one machine, under one deadline."""
    pattern, users, speed, deadline = case
    taken = options()

    async def story() -> tuple[list[ragflow.Asked], float]:
        server = ragflow.Ragflow(speed, deadline, taken, virtual.Inline(), random.Random(f"{pattern} {users}"))
        if pattern == "at once":
            seconds = await ragflow.at_once(server, users, ROUNDS)
        else:
            seconds = await ragflow.now_and_then(server, users, PAUSES[pattern], QUESTIONS)
        return server.asked, seconds

    asked, seconds = virtual.run(story())
    measured = json.loads((FIGURES / "quality.json").read_text(encoding="utf-8"))
    curves = {order: quality.curve(measured, order, taken.min_document_tokens) for order in quality.ORDERS}
    stood = ragflow.stretches(asked)
    waited = [one.waited for one in asked]
    found: dict[str, Any] = {"pattern": pattern, "users": users, "tokens/s": speed, "deadline": deadline, "questions": len(asked)}
    if pattern == "at once":
        found |= {f"wait of asker {place + 1}": round(ragflow.waits(asked, place, users), 2) for place in range(min(3, users))}
    else:
        found["share of time"] = round(sum(stood) / seconds, 4)
    return found | {
        "longest stretch": round(max(stood), 2),
        "p95 wait": round(ragflow.p95(waited), 2),
        "longest call": round(max(one.ended - one.begun for one in asked), 2),
        "documents": statistics.median(one.scored for one in asked),
        "fewest documents": min(one.scored for one in asked),
        "refused": sum(not one.scored for one in asked),
        "tokens kept": statistics.median(statistics.median(one.kept) if one.kept else 0 for one in asked),
        "share of tokens": round(statistics.mean(one.share for one in asked), 3),
        "top 8": {
            order: round(statistics.mean(quality.agreement(curves[order], one.share) if one.scored else 0.0 for one in asked), 3)
            for order in quality.ORDERS
        },
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.waiting", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="write table and plot again from the figures there are")
    given = parser.parse_args(argv)
    figures = FIGURES / "waiting.json"
    if not given.report:
        cases = [
            (pattern, users, speed, deadline) for pattern in ("at once", *PAUSES) for users in USERS for speed in SPEEDS for deadline in DEADLINES
        ]
        with ProcessPoolExecutor(given.processes) as pool:
            found = list(pool.map(played, cases, chunksize=4))
        lines = ",\n ".join(json.dumps(row) for row in found)
        figures.write_text(f'{{"questions": {QUESTIONS}, "rounds": {ROUNDS}, "rows": [\n {lines}\n]}}\n', encoding="utf-8")
    results = json.loads(figures.read_text(encoding="utf-8"))
    (FIGURES / "waiting.md").write_text(report.table(results), encoding="utf-8")
    (FIGURES / "waiting.svg").write_text(report.plot(results), encoding="utf-8")
    print(report.chosen(results["rows"]).sentence)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
