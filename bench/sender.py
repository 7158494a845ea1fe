"""`python -m bench.sender`: what `rerank bench` measures, against an independent load generator in turn, on servers of this machine whose latency is known."""

import asyncio
import statistics

from bench import generator
from rerank.bench.kinds import KINDS
from rerank.bench.load import Load
from rerank.bench.run import Level, Service, level, sent
from rerank.bench.stats import Spread
from rerank.bench.texts import Call, Distribution, Shape
from rerank.bench.wire import Wire
from rerank.client import RerankClient
from tests.support import rerankers

ROUNDS = 7
# seconds of latency, workers of the server (0: as many as callers), callers, calls
CASES = ((0.02, 0, 8, 200), (0.02, 0, 64, 1000), (0.2, 0, 64, 256), (0.004, 2, 64, 300), (0.0, 0, 64, 1500))


def made(server: rerankers.Running) -> tuple[Service, Call, bytes]:
    """The service, a call to it, and the body of that call."""
    client = RerankClient(server.url, retries=0)
    shape = Shape(documents=Distribution.parse("8"), length=Distribution.parse("20"), query_length=Distribution.parse("8"))
    call = shape.calls(1, 0)[0]
    service = Service(name="A", client=client, kind=KINDS["vllm"], wire=Wire(client, None, None), timeout=30.0)
    return service, call, KINDS["vllm"].body("#" * 12 + " " + call.query, call.documents, None)


def of_bench(server: rerankers.Running, callers: int, calls: int) -> Level:
    service, call, _ = made(server)
    return level("A", Load(level=callers, calls=calls, seconds=60.0), [sent(service, [call], callers, count=calls)])


def compared(seconds: float, workers: int, callers: int, calls: int) -> tuple[Spread, Spread]:
    """Calls a second and the median latency of `rerank bench`, divided by the other generator's, over ROUNDS in turn."""
    rates, medians = [], []
    with rerankers.running("vllm", seconds, workers) as server:
        _, _, body = made(server)
        for _ in range(ROUNDS):
            mine = of_bench(server, callers, calls)
            took, each = asyncio.run(generator.closed(server.url, "/v1/rerank", body, callers, calls))
            rates.append(mine.calls_per_second / (calls / took))
            medians.append(mine.latency["p50"] / statistics.median(each))
    return Spread.of(rates), Spread.of(medians)


def main() -> None:
    print("latency of the server, callers: calls/s and p50 of rerank bench, divided by the other generator's")
    for seconds, workers, callers, calls in CASES:
        rate, median = compared(seconds, workers, callers, calls)
        place = f"{seconds * 1000:g} ms{f' with {workers} workers' if workers else ''}, {callers} callers"
        print(f"{place}: {_said(rate)}; {_said(median)}", flush=True)


def _said(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


if __name__ == "__main__":
    main()
