"""`rerank bench`: a rerank service under load."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rerank.bench import machine, plot, report, stats, texts
from rerank.bench.kinds import KINDS, detect
from rerank.bench.load import Load
from rerank.bench.run import Found, Plan, Service, failures, measure
from rerank.bench.texts import Distribution, Shape
from rerank.bench.wire import Wire
from rerank.client import RerankClient
from rerank.command.out import FAILED, UNREACHED, USAGE, Trouble, colours, complain, say, show_json
from rerank.command.target import Stack, Where, resolve
from rerank.errors import InvalidInput, RerankError, TimedOut, Unreachable
from rerank.helpers import first_key
from rerank.transport import Reply
from rerank.version import VERSION

app = typer.Typer(add_completion=False)

INTERRUPTED = 130
LOOK_SECONDS = 15.0
PROFILES: dict[str, dict[str, Any]] = {
    # RAGFlow's call with its defaults, one after the other, as its own event loop sends them (docs/calls.md).
    "ragflow": {"documents": "66", "length": "512", "unit": "tokens", "query_length": "12", "timeout": 30.0, "concurrency": "1", "calls": 10},
}
USUAL: dict[str, Any] = {
    "documents": "16", "length": "200", "unit": "words", "query_length": "8", "timeout": 30.0, "concurrency": "1,2,4,8", "calls": 50,
}  # fmt: skip
T = TypeVar("T")


def _shown(name: str) -> str:
    return f"{USUAL[name]}" + "".join(
        f"; {profile}: {values[name]}" for profile, values in PROFILES.items() if values.get(name, USUAL[name]) != USUAL[name]
    )


@app.command()
def bench(
    where: Where = "",
    stack: Stack = "",
    profile: Annotated[str, typer.Option(help="ragflow: RAGFlow's default call, 66 documents of 512 tokens within 30 s")] = "",
    concurrency: Annotated[
        str, typer.Option(help="Closed loop: callers at once, one level after the other", show_default=_shown("concurrency"), rich_help_panel="Load")
    ] = "",
    rate: Annotated[str, typer.Option(help="Open loop: calls a second, whatever comes back, such as 0.5,1,2", rich_help_panel="Load")] = "",
    arrivals: Annotated[str, typer.Option(help="Of the open loop: poisson or constant", rich_help_panel="Load")] = "poisson",
    calls: Annotated[
        int, typer.Option(help="Calls of each level at most", min=0, max=1_000_000, show_default=_shown("calls"), rich_help_panel="Load")
    ] = 0,
    seconds: Annotated[float, typer.Option(help="Seconds in which a level sends", min=0.1, max=86400, rich_help_panel="Load")] = 60.0,
    limit: Annotated[
        float, typer.Option(help="Seconds of the whole run, after which it is ended", min=1, max=604800, rich_help_panel="Load")
    ] = 900.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds after which a call is an error", min=0, max=3600, show_default=_shown("timeout"), rich_help_panel="Load")
    ] = 0.0,
    warmup: Annotated[int, typer.Option(help="Calls before the first level, which are not counted", min=0, max=1000, rich_help_panel="Load")] = 2,
    in_flight: Annotated[int, typer.Option(help="Of the open loop: calls on their way at most", min=1, max=4096, rich_help_panel="Load")] = 1024,
    documents: Annotated[
        str,
        typer.Option(
            help="Documents of a call: a number, uniform:FROM:TO, or lognormal:MEDIAN:SIGMA",
            show_default=_shown("documents"),
            rich_help_panel="Texts",
        ),
    ] = "",
    length: Annotated[str, typer.Option(help="Length of a document, in the same form", show_default=_shown("length"), rich_help_panel="Texts")] = "",
    query_length: Annotated[
        str, typer.Option(help="Length of a query, in the same form", show_default=_shown("query_length"), rich_help_panel="Texts")
    ] = "",
    unit: Annotated[
        str,
        typer.Option(
            help="What lengths are in: words, characters, or tokens as the service counts them", show_default=_shown("unit"), rich_help_panel="Texts"
        ),
    ] = "",
    file: Annotated[
        Path | None,
        typer.Option(help='Texts instead: JSON lines of {"query", "documents"}, or one document a line', show_default=False, rich_help_panel="Texts"),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same number gives the same texts and arrivals", rich_help_panel="Texts")] = 0,
    repeat: Annotated[int, typer.Option(help="Send each call so often in a row, to measure a cache", min=1, max=1000, rich_help_panel="Texts")] = 1,
    kind: Annotated[str, typer.Option(help=f"The server: auto, {', '.join(KINDS)}", rich_help_panel="Service")] = "auto",
    model: Annotated[str, typer.Option(help="The name to ask for", show_default="the stack's, or none", rich_help_panel="Service")] = "",
    deadline: Annotated[
        float,
        typer.Option(
            help="Seconds that our service may take (X-Rerank-Deadline-Seconds)", min=0, max=3600, show_default="its own", rich_help_panel="Service"
        ),
    ] = 0.0,
    against: Annotated[str, typer.Option(help="URL of a second service, B, measured in turn with the first, A", rich_help_panel="Comparison")] = "",
    against_kind: Annotated[str, typer.Option(help="Its kind", rich_help_panel="Comparison")] = "auto",
    against_model: Annotated[str, typer.Option(help="Its model's name", show_default="none", rich_help_panel="Comparison")] = "",
    rounds: Annotated[
        int, typer.Option(help="How often in turn", min=0, max=100, show_default="1; with --against 4", rich_help_panel="Comparison")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output", rich_help_panel="Output")] = False,
    out: Annotated[Path | None, typer.Option(help="File for that JSON document", show_default=False, rich_help_panel="Output")] = None,
    csv: Annotated[Path | None, typer.Option(help="File for the figures as CSV", show_default=False, rich_help_panel="Output")] = None,
    chart: Annotated[
        Path | None, typer.Option("--plot", help="File for latency against load, .png or .svg", show_default=False, rich_help_panel="Output")
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        typer.Option(
            help="Status 1 where this does not hold: p95=2s, max=800ms, errors=0, errors=1%; repeat it", show_default=False, rich_help_panel="Output"
        ),
    ] = None,
) -> None:
    """Measure a rerank service under load: latency, documents and tokens a second, errors by kind. Of ours, and of vLLM, TEI, Infinity and llama.cpp.

    Keys are taken from RERANK_API_KEY or the file that RERANK_API_KEY_FILE names, the second service's from RERANK_AGAINST_API_KEY or _FILE.
    """
    if profile and profile not in PROFILES:
        raise typer.BadParameter(f"{profile!r} must be {' or '.join(PROFILES)}", param_hint="--profile")
    usual = {**USUAL, **PROFILES.get(profile, {})}
    if rate and not concurrency:
        usual["concurrency"] = ""
    timeout, calls = timeout or usual["timeout"], calls or usual["calls"]
    levels = _numbers("--concurrency", concurrency or usual["concurrency"], whole=True)
    rates = _numbers("--rate", rate, whole=False)
    if arrivals not in ("poisson", "constant"):
        raise typer.BadParameter(f"{arrivals!r} must be poisson or constant", param_hint="--arrivals")
    unit = unit or usual["unit"]
    if unit not in texts.UNITS:
        raise typer.BadParameter(f"{unit!r} must be one of {', '.join(texts.UNITS)}", param_hint="--unit")
    drawn = {
        name: _parsed("--" + name.replace("_", "-"), Distribution.parse, given or usual[name])
        for name, given in (("documents", documents), ("length", length), ("query_length", query_length))
    }
    limits = [_parsed("--fail-over", stats.Limit.parse, part) for text in fail_over or () for part in text.split(",")]
    _writable(out, csv, chart)
    if file is not None:
        _of_file(file, drawn["documents"], 1, seed)

    def calls_of(tokens_a_word: float | None, count: int) -> list[texts.Call]:
        if file is not None:
            return _of_file(file, drawn["documents"], count, seed)
        return Shape(unit=unit, tokens_a_word=tokens_a_word or 1.0, **drawn).calls(count, seed)

    plan = Plan(
        loads=tuple(Load(open=False, level=one, calls=calls, seconds=seconds) for one in levels)
        + tuple(Load(open=True, level=one, calls=calls, seconds=seconds) for one in rates),
        calls_of=calls_of, count_tokens=unit == "tokens" and file is None, rounds=rounds or (4 if against else 1), warmup=warmup, timeout=timeout, limit=limit,
        how=arrivals, seed=seed, repeat=repeat, in_flight=in_flight,
    )  # fmt: skip
    target = resolve(where, stack)
    url = _reached(target.url, target.docker_host)
    given = {"A": (url, kind, model or target.model, _key("RERANK_API_KEY"))}
    if against:
        given["B"] = (against, against_kind, against_model, _key("RERANK_AGAINST_API_KEY"))
    more = {"X-Rerank-Deadline-Seconds": f"{deadline:g}"} if deadline else {}
    facts = machine.facts()
    services = [_service(name, *one, plan, more) for name, one in given.items()]
    told = {
        "version": VERSION, "profile": profile or None, "closed": levels, "open": rates, "arrivals": arrivals if rates else None, "calls": calls, "seconds": seconds,
        "limit": limit, "timeout": timeout, "warm_up": warmup, "rounds": plan.rounds, "repeat": repeat, "seed": seed, "file": str(file) if file else None,
        "documents": str(drawn["documents"]), "length": str(drawn["length"]), "query_length": str(drawn["query_length"]), "unit": unit, "deadline": deadline or None,
    }  # fmt: skip
    try:
        found = asyncio.run(_run(plan, services))
    except RerankError as error:
        raise Trouble(str(error), UNREACHED if isinstance(error, Unreachable | TimedOut) else FAILED) from None
    shown = {one.name: {"url": one.client.base_url, "kind": one.kind.name, "model": one.client.model} for one in services}
    broken = failures(found, limits)
    notes = report.notes(found, repeat=repeat, unit=unit, drawn=file is None)
    if profile == "ragflow":
        notes[:0] = [report.ragflow(one, timeout) for one in found.levels if one.service == "A" and not one.load.open]
    document = {**report.document(found, facts, told, shown, broken, notes)}
    if out is not None:
        _write(out, lambda path: path.write_text(report.text(document), encoding="utf-8"))
    if csv is not None:
        _write(csv, lambda path: path.write_text(report.as_csv(found), encoding="utf-8"))
    if chart is not None:
        _write(chart, lambda path: plot.write(found, path, {name: f"{name} {facts['kind']}" for name, facts in shown.items()}))
    if as_json:
        show_json(document)
    else:
        _show(found, shown, facts, notes)
    if found.ended == "Ctrl-C":
        raise typer.Exit(INTERRUPTED)
    for sentence in broken:
        complain(f"error: {sentence}")
    if broken or found.ended:
        raise typer.Exit(FAILED)
    if not any(one.answered for one in found.levels):
        kinds = {error for one in found.levels for error in one.errors}
        raise Trouble("no call was answered, see the errors", UNREACHED if kinds <= {"Unreachable", "TimedOut"} else FAILED)


# -- what was asked for


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _numbers(option: str, text: str, *, whole: bool) -> list[float]:
    """Numbers above 0, between commas."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            value = float(int(part) if whole else float(part))
        except ValueError:
            value = 0.0
        if not 0 < value <= (1024 if whole else 100_000):
            raise typer.BadParameter(
                f"{part!r} must be " + ("a whole number from 1 to 1024, such as 1,2,4,8" if whole else "calls a second above 0, such as 0.5,1"),
                param_hint=option,
            )
        found.append(value)
    if text and not found:
        raise typer.BadParameter(f"{text!r} has no number in it", param_hint=option)
    return found


def _of_file(path: Path, documents: Distribution, count: int, seed: int) -> list[texts.Call]:
    try:
        return texts.of_file(path, documents, count, seed)
    except OSError as error:
        raise Trouble(f"{path} cannot be read ({error.strerror}): give --file a file of JSON lines, or of documents", USAGE) from None
    except ValueError as error:
        raise Trouble(str(error), USAGE) from None


def _writable(out: Path | None, csv: Path | None, chart: Path | None) -> None:
    """Before anything is measured: the files can be written, and drawn."""
    for option, path in (("--out", out), ("--csv", csv), ("--plot", chart)):
        if path is None:
            continue
        if path.is_dir() or not path.absolute().parent.is_dir() or not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
            raise typer.BadParameter(f"{str(path)!r} cannot be written: is its folder there, and yours?", param_hint=option)
    if chart is not None and chart.suffix.lower() not in plot.SUFFIXES:
        raise typer.BadParameter(f"{str(chart)!r} must end in {' or '.join(plot.SUFFIXES)}", param_hint="--plot")
    if chart is not None and plot.missing():
        raise Trouble(
            "--plot needs matplotlib: pip install 'ragflow-reranker[plot]' (in a checkout: pip install '.[plot]'), or leave --plot out", USAGE
        )


def _reached(url: str, docker_host: str) -> str:
    if not url:
        raise Trouble(
            "this stack publishes no port (hostPort: 0), so nothing outside its network can call it: give the URL of one that can be called", USAGE
        )
    if docker_host.startswith("ssh://") and any(name in url for name in ("127.0.0.1", "localhost", "[::1]")):
        port = url.rpartition(":")[2]
        at = docker_host.removeprefix("ssh://")
        raise Trouble(f"{url} is an address of {at}: open a tunnel, ssh -N -L {port}:127.0.0.1:{port} {at}, and run rerank bench {url}", USAGE)
    return url


def _key(variable: str) -> str | None:
    """The key in a variable, or in the file that its sister names."""
    key, file = (os.environ.get(name, "").strip() for name in (variable, f"{variable}_FILE"))
    if key and file:
        raise Trouble(f"{variable} and {variable}_FILE are both set: unset one of them", USAGE)
    try:
        return (first_key(file) if file else key) or None
    except InvalidInput as error:
        raise Trouble(str(error), USAGE) from None


def _service(name: str, url: str, kind: str, model: str, api_key: str | None, plan: Plan, more: dict[str, str]) -> Service:
    option = "--kind" if name == "A" else "--against-kind"
    if kind not in ("auto", *KINDS):
        raise typer.BadParameter(f"{kind!r} must be auto, {', '.join(KINDS)}", param_hint=option)
    ca_bundle = os.environ.get("REQUESTS_CA_BUNDLE") or None
    try:
        client = RerankClient(url, api_key=api_key, model=model or None, timeout=plan.timeout, retries=0)
        wire = Wire(client, api_key, ca_bundle)
        if kind == "auto":
            kind = detect(_getter(client))
    except InvalidInput as error:
        raise Trouble(str(error), USAGE) from None
    except RerankError as error:
        raise Trouble(str(error), UNREACHED) from None
    if not kind:
        raise Trouble(f"what kind of server {client.base_url} is cannot be seen: say {option}, one of {', '.join(KINDS)}", USAGE)
    return Service(
        name=name, client=client, kind=KINDS[kind], wire=wire, timeout=plan.timeout, headers=more if kind == "ours" else {}, repeat=plan.repeat
    )


def _getter(client: RerankClient) -> Callable[[str], Reply | None]:
    """GET of a path. RerankError where nobody answers at all; None where this path has no answer."""

    def get(path: str) -> Reply | None:
        try:
            return client.transport.exchange("GET", path, LOOK_SECONDS)
        except (Unreachable, TimedOut, InvalidInput):
            raise
        except RerankError:
            return None

    return get


# -- the run


async def _run(plan: Plan, services: list[Service]) -> Found:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupted() -> None:
        loop.remove_signal_handler(signal.SIGINT)  # a second Ctrl-C ends it as usual
        stop.set()

    loop.add_signal_handler(signal.SIGINT, interrupted)
    with _Bar() as bar:
        return await measure(plan, services, stop, bar)


class _Bar:
    """A progress bar on standard error; without a terminal a line for each level."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal, refresh_per_second=4)
        self.task: Any = None
        self.said = 0.0

    def __enter__(self) -> "_Bar":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def begin(self, what: str, load: Load) -> None:
        if self.console.is_terminal:
            self.task = self.bar.add_task(what, total=load.calls)
        else:
            say(f"{what}: up to {load.calls} calls in {load.seconds:g} s")

    def advance(self, done: int) -> None:
        if self.task is not None and (now := time.monotonic()) - self.said >= 0.2:
            self.said = now
            self.bar.update(self.task, completed=done)


# -- what came of it


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    try:
        write(path)
    except OSError as error:
        complain(f"error: {path} could not be written ({error.strerror}); the figures are below")


def _show(found: Found, services: dict[str, dict[str, Any]], facts: dict[str, Any], notes: list[str]) -> None:
    import sys

    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    console = Console(no_color=not colours(sys.stdout), highlight=False, width=width)
    for table in report.tables(found, services):
        console.print(table)
    for line in (*report.lines(found), *notes):
        console.print(line, markup=False)
    console.print(
        "; ".join(f"{name}: {', '.join(value) if isinstance(value, list) else value}" for name, value in facts.items()), style="dim", markup=False
    )
