"""The figures, one function each: what is measured, beside what, in which order. Each returns plain numbers for report.py and figures.json."""

import dataclasses
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.serving.client import ENDLESS, FRESH, Answer
from bench.serving.measures import TOP, agreement, computed_tokens, flop_per_token, kept, limit_tokens, ranking
from bench.serving.prepare import SLUG
from bench.serving.stage import AVX2, ROOT, Server, Stage
from rerank.bench.kinds import KINDS
from rerank.bench.run import Service, sent
from rerank.bench.stats import Spread
from rerank.bench.texts import Call
from rerank.bench.wire import Wire
from rerank.client import RerankClient
from serving.memory import KNOWN_MODELS

RAGFLOW_DOCUMENTS = 66
RAGFLOW_SECONDS = 30.0
SPEED_DOCUMENTS = 16
SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
LEASTS = (32, 64, 96, 128, 192, 256)

Found = dict[str, Any]


@dataclass(frozen=True)
class Counts:
    """How often: the defaults are the issue's."""

    calls: int = 100
    together: int = 20
    rounds: int = 5
    starts: int = 3
    repeats: int = 5
    queries: int = 24
    paired: int = 300


class Texts:
    """Documents and queries that no call has had before: a queue of each, begun anew in another order when it is empty."""

    def __init__(self, made: dict[str, list[str]]) -> None:
        self.made, self.chance = made, random.Random(0)
        self.left: dict[str, list[str]] = {"documents": [], "queries": []}
        self.number = 0

    def take(self, what: str, count: int) -> list[str]:
        if len(self.left[what]) < count:
            self.left[what] = self.chance.sample(self.made[what], len(self.made[what]))
        taken, self.left[what] = self.left[what][:count], self.left[what][count:]
        return taken

    def query(self) -> str:
        self.number += 1
        return f"{self.number} {self.take('queries', 1)[0]}"

    def documents(self, count: int) -> list[str]:
        return self.take("documents", count)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def spread(values: Sequence[float]) -> Found:
    return dataclasses.asdict(Spread.of(values))


def start(stage: Stage, texts: Texts, counts: Counts) -> Found:
    """Figure 6: one server at a time, in turn."""
    seconds: dict[str, list[float]] = {"seeds, first": [], "ours, first": [], "ours, restart": []}
    for _ in range(counts.starts):
        with stage.scene():
            seconds["seeds, first"].append(stage.seeds().healthy_seconds)
        with stage.scene():
            server = stage.ours("start")
            seconds["ours, first"].append(server.healthy_seconds)
            seconds["ours, restart"].append(server.restart())
    medians = {name: Spread.of(values).median for name, values in seconds.items()}
    return {
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "ratios": {name: medians[name] / medians["seeds, first"] for name in ("ours, first", "ours, restart")},
    }


def speed(stage: Stage, texts: Texts, counts: Counts) -> Found:
    """Figures 1 and 4: tokens a second in turn, then the same call again."""
    shape, found = KNOWN_MODELS[SLUG], Found()
    with stage.scene():
        servers: dict[str, Server] = {"seeds": stage.seeds(), "ours": stage.ours("ours")}
        decided = servers["ours"].decided()
        dtype = str(decided["dtype"][0])
        if dtype != "float32":
            servers["ours in float32"] = stage.ours("float32", dtype="float32")
        found["decided"] = decided
        rates: dict[str, list[float]] = {name: [] for name in servers}
        work: dict[str, dict[str, float]] = {}
        products: dict[str, dict[str, list[float]]] = {name: {"matmul": [], "packed": []} for name in dict.fromkeys((dtype, "float32"))}
        for at in range(counts.rounds + 1):
            for name, server in sorted(servers.items(), reverse=bool(at % 2)):
                client = server.client()
                query, documents = texts.query(), texts.documents(SPEED_DOCUMENTS)
                before = client.counters()
                answer = _good(client.rerank(query, documents, {**FRESH, **ENDLESS}))
                tokens = computed_tokens(before, client.counters())
                client.close()
                prompt = answer.json["usage"]["total_tokens"] / SPEED_DOCUMENTS
                work[name] = {"tokens of a prompt": prompt, "computed of it": tokens / SPEED_DOCUMENTS}
                say(
                    f"{name}: {tokens} of {prompt * SPEED_DOCUMENTS:.0f} tokens computed in {answer.seconds:.2f} s: {tokens / answer.seconds:.0f} tokens/s"
                )
                if at:  # the first of each warms it
                    rates[name].append(tokens / answer.seconds)
            for name, ways in products.items():
                if at:
                    for way, value in stage.matmul(name, {"LD_PRELOAD": str(decided["preload"][0])}).items():
                        ways[way].append(value)
        found["tokens/s"] = {name: spread(values) for name, values in rates.items()}
        found["matrix product GFLOP/s"] = {name: {way: spread(values) for way, values in ways.items()} for name, ways in products.items()}
        found["work"] = work
        found["of the limit"] = {}
        for name, kind in (("ours", dtype), ("ours in float32", "float32"), ("seeds", "float32")):
            if name in rates:
                context = work[name]["tokens of a prompt"] - work[name]["computed of it"] / 2
                limits = [limit_tokens(shape, context, max(pair)) for pair in zip(*products[kind].values(), strict=True)]
                found["of the limit"][name] = spread([rate / limit for rate, limit in zip(rates[name], limits, strict=True)])
                found.setdefault("GFLOP a token", {})[name] = flop_per_token(shape, context) / 1e9
        found["ours / seeds"] = {
            name: spread([mine / other for mine, other in zip(values, rates["seeds"], strict=True)])
            for name, values in rates.items()
            if name != "seeds"
        }
        found["again"] = _again(servers["ours"], texts, counts)
    return found


def _again(server: Server, texts: Texts, counts: Counts) -> Found:
    pairs: dict[str, list[tuple[float, float]]] = {}
    client = server.client()
    for name, documents, headers in (
        (f"{SPEED_DOCUMENTS} documents, whole", SPEED_DOCUMENTS, ENDLESS),
        ("RAGFlow's default call", RAGFLOW_DOCUMENTS, {}),
    ):
        for _ in range(counts.repeats if headers else 1):
            call = texts.query(), texts.documents(documents)
            first, second = (_good(client.rerank(*call, headers)) for _ in range(2))
            assert first.json["results"] == second.json["results"]
            pairs.setdefault(name, []).append((first.seconds, second.seconds))
    client.close()
    return {name: {"first s": spread([a for a, _ in times]), "again s": spread([b for _, b in times]), "ratio": spread([a / b for a, b in times])}
            for name, times in pairs.items()}  # fmt: skip


def ragflow(stage: Stage, texts: Texts, counts: Counts) -> Found:
    """Figure 2: RAGFlow's default call, one after the other and four at once, in the dtype chosen."""
    return {"as decided": _ragflow(stage, texts, counts, avx2=False)}


def avx2(stage: Stage, texts: Texts, counts: Counts) -> Found:
    """Figure 2 on a stand-in for an AVX2 guest."""
    return {"float32, vLLM held to AVX2": _ragflow(stage, texts, counts, avx2=True)}


def _ragflow(stage: Stage, texts: Texts, counts: Counts, *, avx2: bool) -> Found:
    with stage.scene():
        server = stage.ours("avx2" if avx2 else "ragflow", avx2=avx2, dtype="float32" if avx2 else "auto")
        environment = {"LD_PRELOAD": str(server.decided()["preload"][0]), **(AVX2 if avx2 else {})}
        dtype = server.decided()["dtype"][0]
        return {
            "dtype": dtype,
            "matrix product GFLOP/s": stage.matmul(dtype, environment),
            "one after the other": _calls(server, texts, counts.calls, 1),
            "4 at once": _calls(server, texts, counts.together, 4),
        }


def _calls(server: Server, texts: Texts, count: int, callers: int) -> Found:
    client = RerankClient(f"http://127.0.0.1:{server.port}")
    service = Service(name=server.name, client=client, kind=KINDS["ours"], wire=Wire(client, None, None), timeout=RAGFLOW_SECONDS)
    calls = [Call(texts.query(), tuple(texts.documents(RAGFLOW_DOCUMENTS))) for _ in range(count)]
    run = sent(service, calls, callers, tell=lambda done: say(f"{server.name}: {done} of {count} calls over"))
    good = [sample for sample in run.samples if not sample.error]
    failures = [f"{sample.error} after {sample.seconds:.1f} s: {sample.message}" for sample in run.samples if sample.error]
    late = sum(sample.error == "TimedOut" for sample in run.samples)
    row: Found = {"calls": count, "errors": len(failures), "over 30 s": late, "failures": failures}
    if good:
        row |= {"seconds": spread([sample.seconds for sample in good]), "documents scored": spread([sample.told["scored"] for sample in good]),
                "least tokens kept": spread([512 if sample.told["kept_tokens"] is None else sample.told["kept_tokens"] for sample in good]),
                "tokens of a prompt": spread([sample.told["tokens"] / sample.told["scored"] for sample in good])}  # fmt: skip
    return row


def quality(stage: Stage, texts: Texts, counts: Counts, directory: str = "") -> Found:
    """Figure 3: how much of the unbounded top 8 is found when only a share of the tokens can be computed."""
    mounts = [f"{ROOT / part}:/repo/{part}:ro" for part in ("bench", "tests", "serving")]
    environment = {"PYTHONPATH": "/repo", "HOME": "/tmp"}
    if not directory:
        stage.inside("/repo/bench/ranking_model.py", "/models/rank", mounts=mounts, environment=environment, write=True)
    made = json.loads(
        stage.inside(
            "-m", "bench.serving.quality_set", "/rank" if directory else "/models/rank", str(counts.queries),
            mounts=[*mounts, *([f"{directory}:/rank:ro"] if directory else [])], environment=environment,
        )
    )  # fmt: skip
    with stage.scene():
        server = stage.ours("quality", model="rank", directory=directory)
        client = server.client()
        sums: dict[tuple[str, str, int, float], list[tuple[float, bool]]] = {}
        for item in made:
            _weigh(item, _scorer(client, item), sums)
        client.close()
    rows = [
        {"order": order, "way": way, "least": least, "share": share, f"top {TOP}": sum(a for a, _ in seen) / len(seen),
         "relevant in it": sum(b for _, b in seen) / len(seen)}
        for (order, way, least, share), seen in sorted(sums.items())
    ]  # fmt: skip
    return {"queries": len(made), "tokens of a call": spread([sum(item["lengths"]) for item in made]), "rows": rows}


def _scorer(client: Any, item: Found) -> Callable[[int], list[float]]:
    known: dict[int, list[float]] = {}

    def scores(keep: int) -> list[float]:
        """Of each document, its first `keep` tokens."""
        if keep not in known:
            answer = _good(client.rerank(item["query"], item["documents"], ENDLESS, max_tokens_per_doc=keep, return_documents=False))
            known[keep] = [result["relevance_score"] for result in sorted(answer.json["results"], key=lambda result: result["index"])]
        return known[keep]

    return scores


def _weigh(item: Found, scores: Callable[[int], list[float]], sums: dict[tuple[str, str, int, float], list[tuple[float, bool]]]) -> None:
    lengths, each = item["lengths"], 12  # tokens of the template after a document; what stands before it is computed once
    whole = scores(max(lengths))
    total = sum(lengths) + each * len(lengths)
    for order, places in item["orders"].items():
        in_order = [lengths[place] for place in places]
        wanted = ranking({at: whole[place] for at, place in enumerate(places)}, len(places))
        relevant = places.index(item["relevant"])
        for share in (*SHARES, 1.0):
            for way, least in [("plan", least) for least in LEASTS] + [("first", 0), ("cut", 0)]:
                chosen = kept(way, in_order, each=each, tokens=round(share * total), least=least)
                found = {at: (whole if keep == in_order[at] else scores(max(chosen.values())))[places[at]] for at, keep in chosen.items()}
                ranked = ranking(found, len(places))
                sums.setdefault((order, way, least, share), []).append((agreement(ranked, wanted), relevant in ranked[:TOP]))


def guard(stage: Stage, texts: Texts, counts: Counts) -> Found:
    """Figure 5: the same argv with the guard and without it, in turn."""
    found = Found()
    with stage.scene():
        with_guard, without = stage.ours("tiny", model="tiny"), stage.ours("tiny-bare", model="tiny", guarded=False)
        guarded, bare = with_guard.client(), without.client()
        query, document = texts.query(), texts.documents(1)
        _good(guarded.rerank(query, document))
        asks: dict[str, Callable[[], Answer]] = {
            "GET /v1/models, guard": lambda: guarded.ask("/v1/models"),
            "GET /v1/models, vLLM": lambda: bare.ask("/v1/models"),
            "known document, guard": lambda: guarded.rerank(query, document),
        }
        found["idle ms"] = _paired(asks, counts.paired)
        found["idle ms"]["difference"] = found["idle ms"]["GET /v1/models, guard"]["median"] - found["idle ms"]["GET /v1/models, vLLM"]["median"]
        short = [" ".join(texts.documents(1)[0].split()[:20])]
        computing: dict[str, Callable[[], Answer]] = {
            "rerank, guard": lambda: guarded.rerank(texts.query(), short, FRESH),
            "rerank, vLLM": lambda: bare.rerank(texts.query(), short),
        }
        found["computing ms, tiny model"] = _paired(computing, counts.paired)
        guarded.close()
        bare.close()
    with stage.scene():
        servers = {"guard": stage.ours("q06"), "vLLM": stage.ours("q06-bare", guarded=False)}
        found["throughput"] = {
            "1 document": _throughput(servers, texts, 2 * counts.rounds, documents=1, calls=4),
            f"{SPEED_DOCUMENTS} documents": _throughput(servers, texts, counts.rounds, documents=SPEED_DOCUMENTS, calls=1),
        }
    return found


def _throughput(servers: dict[str, Server], texts: Texts, rounds: int, *, documents: int, calls: int) -> Found:
    """Tokens a second of each server, in turn, and the first one's share of the second's."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for at in range(rounds + 1):
        for name, server in sorted(servers.items(), reverse=bool(at % 2)):
            client = server.client()
            before = client.counters()
            began = time.perf_counter()
            for _ in range(calls):
                _good(client.rerank(texts.query(), texts.documents(documents), {**FRESH, **ENDLESS}))
            took = time.perf_counter() - began
            if at:  # the first of each warms it
                rates[name].append(computed_tokens(before, client.counters()) / took)
            client.close()
    mine, other = rates.values()
    return {"tokens/s": {name: spread(values) for name, values in rates.items()}, "share": spread([a / b for a, b in zip(mine, other, strict=True)])}


def _paired(asks: dict[str, Callable[[], Answer]], count: int) -> Found:
    """Milliseconds of each, asked in turn."""
    took: dict[str, list[float]] = {name: [] for name in asks}
    for at in range(count + 10):
        for name, ask in asks.items():
            answer = _good(ask())
            if at >= 10:
                took[name].append(1000 * answer.seconds)
    return {name: spread(values) for name, values in took.items()}


def _good(answer: Answer) -> Answer:
    if answer.status != 200:
        raise RuntimeError(f"{answer.status}: {answer.body[:500]!r}")
    return answer
