"""`rerank bench`: its arithmetic, its texts, its loops, what it says of servers of each kind, and its figures against the server's own account."""

import asyncio
import csv
import http.server
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.sender import of_bench
from rerank.bench import plot, stats, texts
from rerank.bench.kinds import KINDS, detect
from rerank.bench.load import Load, Sample, arrivals, drive
from rerank.bench.stats import Limit, Spread, latencies, percentile
from rerank.bench.texts import Call, Distribution, Shape
from rerank.client import RerankClient
from rerank.command import app
from rerank.errors import MalformedAnswer
from rerank.transport import Reply
from tests.support import asgi, rerankers
from tests.support.options import service_options
from tests.support.recording import ROOT

cli = CliRunner()


def bench(*words: str, **environment: str) -> Any:
    return cli.invoke(app, ["bench", *words], env={"COLUMNS": "300", "TERMINAL_WIDTH": "300", "RERANK_API_KEY": "", **environment})


def measured(*words: str, **environment: str) -> dict[str, Any]:
    """What --json says."""
    found = bench(*words, "--json", **environment)
    assert found.exit_code == 0, found.output
    return dict(json.loads(found.stdout))


@pytest.fixture(scope="module")
def quick() -> Iterator[rerankers.Running]:
    with rerankers.running("vllm") as server:
        yield server


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Answers as `request.param`, a function of the socket's file, says; for servers that are none."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_error(404)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            request.param(self)

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}"
    made.shutdown()
    thread.join()
    made.server_close()


def answers(status: int, body: Any, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        data = json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def writes(*pieces: bytes, close: bool = False) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        for piece in pieces:
            handler.wfile.write(piece)
            handler.wfile.flush()
        handler.close_connection = close

    return answer


# -- arithmetic


@pytest.mark.parametrize(("percent", "value"), [(1, 1), (50, 5), (90, 9), (91, 10), (99, 10), (100, 10)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile(list(range(1, 11)), percent) == value


def test_a_failed_call_is_one_that_took_for_ever() -> None:
    assert percentile([1, 2, 3], 75, failed=1) == 3
    assert percentile([1, 2, 3], 76, failed=1) == float("inf")
    assert latencies([]) == {}
    with pytest.raises(ValueError, match="one value"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("text", "seconds", "failed", "value", "most"),
    [
        ("p50=2s", [1.0, 2.0, 3.0], 0, 2.0, 2.0),
        ("p95=800ms", [1.0], 0, 1.0, 0.8),
        ("p95=1", [0.5] * 9, 1, float("inf"), 1.0),
        ("max=3s", [1.0, 4.0], 0, 4.0, 3.0),
        ("errors=0", [1.0], 2, 2, 0),
        ("errors=25%", [1.0], 1, 0.5, 0.25),
        ("p99.9=1s", [1.0] * 10, 0, 1.0, 1.0),
    ],
)
def test_a_limit_is_held_against_all_calls(text: str, seconds: list[float], failed: int, value: float, most: float) -> None:
    limit = Limit.parse(text)
    assert limit.value(seconds, failed) == value
    assert limit.most == pytest.approx(most)


@pytest.mark.parametrize("text", ["", "p95", "p95=", "p0=1s", "p101=1s", "p95=2m", "errors=1s", "errors=-1", "mean=1s", "p95=fast"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limit.parse(text)


def test_a_ratio_is_taken_round_by_round() -> None:
    assert stats.ratios([{"p50": 1.0, "x": 0.0}, {"p50": 2.0, "x": 1.0}], [{"p50": 2.0, "x": 1.0}, {"p50": 2.0, "x": 1.0}]) == {
        "p50": Spread(2, 1.5, 1.0, 2.0)
    }


# -- texts


@pytest.mark.parametrize(
    ("text", "least", "most", "middle"), [("7", 7, 7, 7), ("uniform:3:9", 3, 9, 6), ("lognormal:200:0.5", 20, 2000, 200), ("fixed:2", 2, 2, 2)]
)
def test_lengths_are_drawn_as_said(text: str, least: int, most: int, middle: int) -> None:
    chance, distribution = random.Random(1), Distribution.parse(text)
    drawn = [distribution.draw(chance) for _ in range(4000)]
    assert least <= min(drawn) <= max(drawn) <= most
    assert statistics.median(drawn) == pytest.approx(middle, rel=0.05)
    assert Distribution.parse(str(distribution)) == distribution


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "many", "uniform:9:3", "uniform:3", "lognormal:200:0", "lognormal:200:9", "normal:3:1", "100001", "3:4", "1.5"]
)
def test_what_is_no_distribution_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        Distribution.parse(text)


@pytest.mark.parametrize(
    ("unit", "measure"), [("words", lambda text: len(text.split())), ("characters", len), ("tokens", lambda text: len(text.split()) * 2)]
)
def test_texts_have_the_length_that_was_asked_for_and_the_same_seed_gives_the_same(unit: str, measure: Callable[[str], int]) -> None:
    shape = Shape(
        documents=Distribution.parse("3"), length=Distribution.parse("600"), query_length=Distribution.parse("10"), unit=unit, tokens_a_word=2.0
    )
    made = shape.calls(20, 5)
    assert made == shape.calls(20, 5) != shape.calls(20, 6)
    assert all(len(call.documents) == 3 for call in made)
    assert all(590 <= measure(document) <= 600 for call in made for document in call.documents)
    assert len({document for call in made for document in call.documents}) == 60


def test_a_text_longer_than_the_pool_of_words_is_as_long_as_asked_for() -> None:
    shape = Shape(documents=Distribution.parse("1"), length=Distribution.parse("20000"), query_length=Distribution.parse("1"))
    assert len(shape.calls(1, 0)[0].documents[0].split()) == 20_000


def test_a_file_has_calls_or_documents(tmp_path: Path) -> None:
    file, two = tmp_path / "calls", Distribution.parse("2")
    file.write_text('{"query": "q", "documents": ["a", "b", "c"]}\n\n{"query": "ü", "documents": ["d"]}\n', encoding="utf-8")
    assert texts.of_file(file, two, 9, 0) == [Call("q", ("a", "b", "c")), Call("ü", ("d",))]
    assert len(texts.of_file(file, two, 1, 0)) == 1
    file.write_text("one document\nanother document\n")
    made = texts.of_file(file, two, 5, 0)
    assert len(made) == 5
    assert {document for call in made for document in call.documents} == {"one document", "another document"}


# -- loops


def test_an_open_loop_sends_by_its_plan_and_no_longer_than_its_seconds() -> None:
    load = Load(open=True, level=50.0, calls=1000, seconds=10.0)
    even = list(arrivals(load, "constant", 0))
    assert len(even) == 500
    assert even[:3] == [0.0, 0.02, 0.04]
    odd = list(arrivals(load, "poisson", 3))
    gaps = [after - before for before, after in zip([0.0, *odd], odd, strict=False)]
    assert statistics.fmean(gaps) == pytest.approx(0.02, rel=0.15)
    assert statistics.pstdev(gaps) == pytest.approx(0.02, rel=0.2)
    assert odd == list(arrivals(load, "poisson", 3)) != list(arrivals(load, "poisson", 4))
    assert len(list(arrivals(Load(open=True, level=50.0, calls=7, seconds=10.0), "poisson", 0))) == 7


def test_a_stall_is_in_the_latency_of_every_call_that_was_due_in_it() -> None:
    """A server that takes one call at a time and stalls once: counted from the planned moment, those behind it have waited too."""

    async def run() -> list[float]:
        turn = asyncio.Lock()

        async def call(number: int, planned: float) -> Sample:
            async with turn:
                sent = time.perf_counter()
                await asyncio.sleep(0.5 if number == 5 else 0.001)
            return Sample(planned=planned, sent=sent, ended=time.perf_counter())

        done = await drive(Load(open=True, level=100.0, calls=40, seconds=5.0), call, asyncio.Event(), how="constant")
        return [sample.seconds for sample in sorted(done.samples, key=lambda sample: sample.planned)]

    seconds = asyncio.run(run())
    assert len(seconds) == 40
    assert min(seconds[5:20]) > 0.3  # due up to 0.15 s after the stall began


def test_calls_on_their_way_at_the_end_are_counted_and_none_is_begun() -> None:
    async def run() -> tuple[Sample, ...]:
        stop = asyncio.Event()

        async def call(number: int, planned: float) -> Sample:
            if number == 6:
                stop.set()
            await asyncio.sleep(60 if number >= 4 else 0)
            return Sample(planned=planned, sent=planned, ended=time.perf_counter())

        return (await drive(Load(level=3, calls=100, seconds=60), call, stop)).samples

    samples = asyncio.run(run())
    assert [sample.error for sample in samples].count("Unfinished") == 3
    assert [sample.error for sample in samples].count("") == 4


def test_a_closed_loop_keeps_so_many_callers_busy_and_no_more() -> None:
    async def run() -> tuple[int, int]:
        busy, most = 0, 0

        async def call(number: int, planned: float) -> Sample:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.001)
            busy -= 1
            return Sample(planned=planned, sent=planned, ended=time.perf_counter())

        done = await drive(Load(level=7, calls=50, seconds=60), call, asyncio.Event())
        return most, len(done.samples)

    assert asyncio.run(run()) == (7, 50)


# -- servers of each kind


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_of_each_kind_is_known_called_and_read(kind: str) -> None:
    with rerankers.running(kind) as server:
        found = measured(server.url + ("/v1" if kind in ("ours", "vllm", "llamacpp") else ""), "--concurrency", "2", "--calls", "9", "--length", "5")
        account = server.account()
    one = found["levels"][0]
    assert found["services"]["A"]["kind"] == kind
    assert (one["calls"], one["answered"], one["errors"], one["documents"], one["scored"]) == (9, 9, {}, 144, 144)
    assert one["tokens"] == 9 * 16 * 9
    assert len(account.queries) == len(set(account.queries)) == 11  # two to warm it up; no text twice
    assert ("no-cache" in {one.get("cache-control") for one in account.headers}) is (kind == "ours")
    assert account.connections <= 2 + 3  # those of the callers, and of the looks at what it is


def test_a_kind_that_cannot_be_seen_is_asked_for() -> None:
    assert detect(lambda path: None) == ""
    assert detect(lambda path: Reply(status=200, headers={}, body=b"<html>", proxy="")) == ""


@pytest.mark.parametrize("body", [b"[]", b'{"results": []}', b'{"results": [{"index": 0}]}', b"null", b"7", b"x"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_answer_that_is_none_is_an_error(kind: Any, body: bytes) -> None:
    with pytest.raises(MalformedAnswer):
        kind.read(Reply(status=200, headers={}, body=body, proxy=""), 1)


def test_what_our_service_says_of_cuts_is_counted() -> None:
    from serving.launch import mock

    options = service_options(
        served_model_names=("qwen3-reranker-0.6b",), max_model_len=2048, max_query_tokens=64, deadline_seconds=60, max_documents=70
    )
    with asgi.running(mock.build(options)) as (host, port):
        url = f"http://{host}:{port}"
        with RerankClient(url) as client:
            client.wait(10, every=0.01)
        found = measured(url, "--profile", "ragflow", "--calls", "2", "--length", "3000")
        again = measured(url, "--concurrency", "1", "--calls", "8", "--repeat", "4", "--warmup", "0")["levels"][0]
        fresh = measured(url, "--concurrency", "1", "--calls", "8", "--warmup", "0")["levels"][0]
    one = found["levels"][0]
    assert (one["documents"], one["scored"], one["cut"], one["unscored"]) == (132, 132, 132, 0)
    assert 1800 < one["kept_tokens"] < 2048
    assert "2 of 2 calls were answered in time" in found["notes"][0]
    assert "cut 132" in found["notes"][0]
    assert (again["cached"], fresh["cached"]) == (6 * 16, 0)


def test_the_load_of_two_services_is_in_turn_and_their_ratio_has_a_spread() -> None:
    with rerankers.running("vllm", 0.002) as first, rerankers.running("tei", 0.05) as second:
        found = bench(
            first.url,
            "--against",
            second.url,
            "--concurrency",
            "1",
            "--calls",
            "6",
            "--rounds",
            "3",
            "--length",
            "5",
            "--json",
            "--fail-over",
            "p50=30s",
        )
        accounts = first.account(), second.account()
    document = json.loads(found.stdout)
    assert [(one["service"], one["round"]) for one in document["rounds"]] == [("A", 1), ("B", 1), ("B", 2), ("A", 2), ("A", 3), ("B", 3)]
    assert [one["calls"] for one in document["levels"]] == [18, 18]
    ratio = document["b_by_a"]["1 at once"]["p50"]
    assert ratio["count"] == 3
    assert 1 < ratio["least"] <= ratio["median"] <= ratio["most"]
    assert [len(account.received) for account in accounts] == [20, 20]


# -- errors


@pytest.mark.parametrize(
    ("server", "kind"),
    [
        (answers(503, {"error": {"message": "busy"}}, retry_after="3"), "Overloaded"),
        (answers(403, {"error": {"message": "key"}}), "Unauthorised"),
        (answers(413, {"error": {"message": "may have 4"}}), "TooLong"),
        (answers(500, {"error": {"message": "broken"}}), "Failed"),
        (answers(422, {"error": "shape"}), "Rejected"),
        (answers(200, {"results": []}), "MalformedAnswer"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "Unreachable"),
        (writes(b"SSH-2.0-none\r\n\r\n"), "MalformedAnswer"),
        (writes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", close=True), "MalformedAnswer"),
        (lambda handler: time.sleep(0.6), "TimedOut"),
    ],
    ids=["503", "403", "413", "500", "422", "lie", "hang up", "no http", "half", "stall"],
    indirect=["server"],
)
def test_errors_are_counted_by_the_clients_names_and_are_no_latencies(server: str, kind: str) -> None:
    found = bench(server, "--kind", "vllm", "--concurrency", "2", "--calls", "4", "--length", "5", "--warmup", "0", "--timeout", "0.3", "--json")
    one = json.loads(found.stdout)["levels"][0]
    assert (one["calls"], one["answered"], one["errors"]) == (4, 0, {kind: 4})
    assert one["p50_seconds"] is None
    assert one["messages"][kind]
    assert found.exit_code == (3 if kind in ("Unreachable", "TimedOut") else 1)
    assert "no call was answered" in found.stderr


ONE = b'{"results": [{"index": 0, "relevance_score": 0.5}]}'


@pytest.mark.parametrize(
    "server",
    [
        writes(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            *(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (ONE[:9], ONE[9:])),
            b"0\r\n\r\n",
        ),
        writes(b"HTTP/1.1 200 OK\r\n\r\n" + ONE, close=True),
        writes(*(bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ONE), ONE))),
        writes(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ONE), ONE), close=True),
        writes(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ONE), ONE), close=True),
    ],
    ids=["chunked", "until the end", "byte by byte", "closes without a word", "HTTP/1.0"],
    indirect=True,
)
def test_an_answer_is_read_however_http_sends_it(server: str) -> None:
    one = measured(server, "--kind", "vllm", "--concurrency", "2", "--calls", "6", "--documents", "1", "--length", "5")["levels"][0]
    assert (one["answered"], one["errors"]) == (6, {})


def test_a_warm_up_that_fails_ends_it_with_the_clients_sentence(quick: rerankers.Running) -> None:
    found = bench("http://127.0.0.1:9", "--kind", "vllm")
    assert found.exit_code == 3
    assert "the connection was refused" in found.stderr
    found = bench(quick.url, "--kind", "tei")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "error:" in found.stderr


# -- the command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--profile", "dify"], "must be ragflow"),
        (["--concurrency", "0"], "whole number from 1 to 1024"),
        (["--concurrency", "1,two"], "whole number from 1 to 1024"),
        (["--concurrency", ","], "has no number in it"),
        (["--rate", "-1"], "calls a second above 0"),
        (["--rate", "nan"], "calls a second above 0"),
        (["--arrivals", "bursts"], "poisson or constant"),
        (["--unit", "bytes"], "words, characters, tokens"),
        (["--documents", "none"], "must be a number from 1"),
        (["--length", "uniform:9:1"], "must be a number from 1"),
        (["--query-length", "0"], "must be a number from 1"),
        (["--fail-over", "p95<2s"], "must be such as p95=2s"),
        (["--plot", "/no/such/folder/x.png"], "cannot be written"),
        (["--plot", "x.pdf"], "must end in .png or .svg"),
        (["--out", "/"], "cannot be written"),
        (["--csv", "/no/such/folder/x.csv"], "cannot be written"),
        (["--file", "/no/such/file"], "cannot be read"),
        (["--kind", "ollama"], "must be auto, ours, vllm"),
        (["--against", "ftp://x"], "base_url"),
        (["--calls", "-1"], "--calls"),
        (["--seconds", "0"], "--seconds"),
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_before_anything_is_sent(words: list[str], said: str, quick: rerankers.Running) -> None:
    before = len(quick.account().received)
    found = bench(quick.url, *words)
    assert found.exit_code == 2, found.output
    assert said in " ".join(found.stderr.replace("│", " ").split())
    assert len(quick.account().received) == before


@pytest.mark.parametrize("text", ["", "\n\n", '{"query": 1}', '{"query": "q", "documents": []}', '{"query": "q", "documents": ["a"]}\nplain'])
def test_a_file_without_calls_is_refused_with_its_line(text: str, tmp_path: Path, quick: rerankers.Running) -> None:
    file = tmp_path / "calls.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"calls\.jsonl"):
        texts.of_file(file, Distribution.parse("1"), 9, 0)


def test_a_plot_without_matplotlib_is_refused_before_the_run(quick: rerankers.Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "missing", lambda: True)
    found = bench(quick.url, "--plot", str(tmp_path / "x.png"))
    assert (found.exit_code, found.stdout) == (2, "")
    assert "pip install" in found.stderr


def test_figures_go_to_files_and_a_table_that_says_the_same(quick: rerankers.Running, tmp_path: Path) -> None:
    out, table, png, svg = (tmp_path / name for name in ("x.json", "x.csv", "x.png", "x.svg"))
    words = ["--concurrency", "1,2", "--rate", "50", "--calls", "10", "--length", "5", "--out", str(out), "--csv", str(table)]
    found = bench(quick.url, *words, "--plot", str(png))
    assert found.exit_code == 0, found.output
    document = json.loads(out.read_text())
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert [(line["loop"], line["load"], line["answered"]) for line in lines] == [
        ("closed", "1.0", "10"),
        ("closed", "2.0", "10"),
        ("open", "50.0", "10"),
    ]
    assert [float(line["p95_seconds"]) for line in lines] == [one["p95_seconds"] for one in document["levels"]]
    assert [name in found.stdout for name in ("1 at once", "2 at once", "50 calls/s", "max ms", "docs/s", "cores: ")] == [True] * 6
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "\x1b[" not in found.stdout
    assert bench(quick.url, "--calls", "3", "--plot", str(svg), "--concurrency", "1").exit_code == 0
    assert "<svg" in svg.read_text()


def test_a_limit_that_does_not_hold_ends_with_1_and_says_where(quick: rerankers.Running) -> None:
    found = bench(quick.url, "--concurrency", "1", "--calls", "5", "--fail-over", "p95=30s,max=0.000001s", "--fail-over", "errors=0")
    assert found.exit_code == 1
    assert found.stderr.count("does not hold") == 1
    assert "max=0.000001s does not hold at 1 at once" in found.stderr


def test_the_limit_of_the_run_ends_it_with_what_was_measured() -> None:
    with rerankers.running("vllm", 0.1) as server:
        found = bench(server.url, "--concurrency", "1,2", "--calls", "100", "--limit", "1.5", "--length", "5", "--json")
    document = json.loads(found.stdout)
    assert found.exit_code == 1
    assert document["ended_early_by"] == "its limit of 1.5 s"
    assert document["levels"][0]["answered"] >= 1
    assert document["levels"][-1]["errors"] == {"Unfinished": document["levels"][-1]["failed"]}


def test_ctrl_c_prints_what_was_measured_and_ends_with_130() -> None:
    with rerankers.running("vllm", 0.1) as server:
        argv = [sys.executable, "-m", "rerank", "bench", server.url, "--concurrency", "1", "--calls", "1000", "--length", "5", "--json"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            end = time.monotonic() + 60
            while len(server.account().answered) < 6 and time.monotonic() < end:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            said, error = process.communicate(timeout=30)
    document = json.loads(said)
    assert process.returncode == 130, error
    assert document["ended_early_by"] == "Ctrl-C"
    assert document["levels"][0]["answered"] >= 3
    assert document["levels"][0]["errors"] == {"Unfinished": 1}
    assert "Traceback" not in error


def test_the_key_is_sent_and_shown_nowhere() -> None:
    with rerankers.running("ours") as server:
        found = bench(server.url, "--concurrency", "1", "--calls", "2", "--json", RERANK_API_KEY="s3cret")
        account = server.account()
    assert {one.get("authorization") for one in account.headers} == {"Bearer s3cret"}
    assert "s3cret" not in found.output


def test_a_key_may_be_in_a_file_and_one_place_is_enough(quick: rerankers.Running, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("fr0m-file\n")
    assert bench(quick.url, "--concurrency", "1", "--calls", "1", RERANK_API_KEY_FILE=str(file)).exit_code == 0
    assert quick.account().headers[-1]["authorization"] == "Bearer fr0m-file"
    found = bench(quick.url, RERANK_API_KEY_FILE=str(file), RERANK_API_KEY="x")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "both set" in found.stderr


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"internalUrl": "http://r:8000/v1", "containerName": "r", "hostUrl": ""}, "publishes no port"),
        (
            {"internalUrl": "http://r:8000/v1", "containerName": "r", "hostUrl": "http://127.0.0.1:8123/v1", "dockerHost": "ssh://me@there"},
            "ssh -N -L 8123:",
        ),
    ],
    ids=["no port", "another machine's loopback"],
)
def test_a_stack_that_cannot_be_called_from_here_says_how(outputs: dict[str, str], said: str) -> None:
    found = cli.invoke(app, ["bench", "-"], input=json.dumps(outputs))
    assert found.exit_code == 2
    assert said in found.stderr


def test_a_stack_is_called_at_its_published_port_by_its_model_name(quick: rerankers.Running) -> None:
    outputs = {"internalUrl": "http://r:8000/v1", "containerName": "r", "hostUrl": quick.url + "/v1", "modelName": "m"}
    found = cli.invoke(app, ["bench", "-", "--concurrency", "1", "--calls", "1", "--json"], input=json.dumps(outputs))
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["services"]["A"] == {"url": quick.url, "kind": "vllm", "model": "m"}


def test_tokens_are_the_services_own_count_where_it_tells() -> None:
    with rerankers.running("tei") as server:  # a token for each word, and 4 for each document
        found = measured(server.url, "--unit", "tokens", "--length", "100", "--documents", "2", "--concurrency", "1", "--calls", "3")
    assert found["plan"]["tokens_a_word"] == 1.0
    assert found["levels"][0]["tokens"] == 3 * 2 * 104
    assert any("the service's own count" in note for note in found["notes"])


# -- its honesty


@pytest.mark.parametrize(("seconds", "callers", "calls"), [(0.0, 64, 1500), (0.02, 64, 1000), (0.02, 8, 200)])
def test_its_rate_is_the_one_that_the_server_saw(seconds: float, callers: int, calls: int) -> None:
    """Of the very same calls, by the server's own account: no load on the machine makes a difference between the two."""
    with rerankers.running("vllm", seconds) as server:
        found = of_bench(server, callers, calls)
        account = server.account()
    assert (found.calls, found.answered) == (calls, calls)
    seen = (account.answered[-1] - min(account.received)) or 1e-9
    assert found.calls_per_second == pytest.approx(calls / seen, rel=0.05)


def test_an_open_loop_counts_from_the_planned_moment_as_the_server_saw_it() -> None:
    with rerankers.running("vllm", 0.05, workers=1) as server:  # 20 calls a second, asked for 40
        one = measured(server.url, "--rate", "40", "--arrivals", "constant", "--calls", "40", "--length", "5", "--warmup", "0")["levels"][0]
        account = server.account()
    assert one["calls"] == one["answered"] == 40
    waited = max(answered - (account.received[0] + place / 40) for place, answered in enumerate(account.answered))
    assert one["max_seconds"] == pytest.approx(waited, rel=0.05)
