"""The service: ASGI around a rerank server, and the only way in. It answers rerank and score calls itself.

Routes that users of a reranker need, a key for each of them but /health, limits, deadlines, a cache, and health that was proven.
"""

import asyncio
import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from serving import keys
from serving.asgi import App, Message, Receive, Send
from serving.health.vitals import Vitals
from serving.metrics import Metrics
from serving.options import ServiceOptions
from serving.rank import fit
from serving.rank.engine import Engine
from serving.rank.refusals import Late, Refusal
from serving.rank.scheduler import Scheduler
from serving.rank.scorer import Scorer
from serving.rank.unscored import ranked
from serving.web import answer, api
from serving.web.answer import Account
from serving.web.errors import WHY, ApiError
from serving.web.page import files as page
from serving.web.page.recent import Recent, caller
from serving.wording import about

HEALTH = "/health"
PASSED_ON = ("/v1/models", "/version")  # the inner server's own answers
ROUTES = {path: "POST" for path in (*api.RERANK_PATHS, *api.SCORE_PATHS)} | {path: "GET" for path in (HEALTH, "/metrics", *PASSED_ON)}
CALLS_AT_ONCE = 128
BODIES_AT_ONCE = 4  # of the largest size, in memory
INNER_SECONDS = 10.0

log = logging.getLogger("reranker")


class Hangup(Exception):
    """The client is gone; nobody is left to answer."""


class Service:
    """Serves ROUTES, and the page where it is on, around `app` (ASGI). `engine` makes the engine, given the server inside for calls of its own.

    `clock` must be the one that the event loop's timers go by.
    """

    def __init__(
        self,
        app: App,
        options: ServiceOptions,
        engine: Callable[[App], Engine],
        *,
        threads: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """BadKeys where the key file cannot be used."""
        self.app, self.options, self.clock = app, options, clock
        _log_to_stdout()
        self.keys = keys.read(Path(options.api_key_file)) if options.api_key_file else ()
        self.owner: object = None
        self.max_body_bytes = options.max_body_mib << 20
        self.routes = ROUTES | (page.ROUTES if options.page else {})
        self.recent = Recent()
        self.limits = api.Limits(names=options.served_model_names, documents=options.max_documents)
        self.metrics = self._declare()
        # Tokenizing lets go of the interpreter, but not of the cores, which the engine needs.
        self.threads = threads or ThreadPoolExecutor(2, thread_name_prefix="service")
        self.scheduler = Scheduler(engine(self._inside), tokens_per_pass=options.tokens_per_pass, clock=clock)
        self.vitals = Vitals(self.scheduler, self.threads, slug=options.served_model_names[0], judged=options.golden_check)
        self.scorer = Scorer(self.scheduler, self.threads, options, self.metrics, clock)
        self.calls, self.bytes = 0, 0  # being answered
        self.watching: asyncio.Task[None] | None = None

    # -- ASGI ------------------------------------------------------------------------------------------------------------------------------------

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.owner = scope.get("app")
        if scope["type"] == "lifespan":
            await self.app(scope, receive, self._announcing(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    async def _inside(self, scope: Message, receive: Receive, send: Send) -> None:
        """The inner server, for calls that did not come through the outer one, which names itself in the scope."""
        await self.app({**scope, "app": self.owner}, receive, send)

    def _announcing(self, send: Send) -> Send:
        async def announce(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self.start()

        return announce

    def start(self) -> None:
        """Begins to watch whether the service is well; once."""
        if self.watching is None:
            self.watching = asyncio.get_running_loop().create_task(self.vitals.watch())

    async def _http(self, scope: Message, receive: Receive, send: Send) -> None:
        begun = self.clock()
        path, method = api.route(scope["path"], scope["method"]), scope["method"]
        route = path if path in self.routes else "none"
        headers = _headers(scope)
        status, why = 500, ""
        try:
            self._admit(method, headers, path)
            if method == "GET":
                status = await self._get(scope, path, headers, send)
            else:
                status = await self._post(path, headers, receive, send, begun)
        except ApiError as error:
            status, why = error.status, error.why
            if why:
                self.metrics.count("refused_total", reason=why)
            await _answer(send, status, error.body(), error.headers)
        except Hangup:
            status = 499
            self.metrics.count("hangups_total")
        except Exception as error:  # its text and its trace may have the user's
            log.error("a request to %s failed with %s", route, type(error).__name__)
            await _answer(send, 500, ApiError(500, "InternalServerError", "The service failed; its log names the error.").body())
        finally:
            self.metrics.count("requests_total", route=route, status=str(status))
            if status not in (200, 403) and ROUTES.get(route) == method == "POST":
                took = round(self.clock() - begun, 3)
                log.info("refused %s", json.dumps({"route": route, "status": status, "why": why, "seconds": took}))
                self.recent.failed("rerank" if route in api.RERANK_PATHS else "score", caller(headers), status, why, took)

    def _admit(self, method: str, headers: dict[str, str], path: str) -> None:
        shown = method == "GET" and self.options.page and path in page.ROUTES
        ours = _same_site(headers)
        if self.keys and path != HEALTH:
            # What a browser sends by itself opens the page; a rerank takes a header beside it that no other site can send.
            basic = shown or (self.options.page and path in api.RERANK_PATHS and page.MARK in headers and ours)
            if not keys.admits(headers.get("authorization", "").encode("latin-1"), self.keys, basic=basic):
                if shown and path == page.HOME:
                    wish = [("www-authenticate", 'Basic realm="reranker", charset="UTF-8"'), ("cache-control", "no-store"), *page.SAFE]
                    raise ApiError(401, "Unauthorized", "The page needs the stack's apiKey: as the password, with any user name.", headers=wish)
                # Not the status for it: RAGFlow logs its user out at the sight of that one, or of its name, in an error's text.
                raise ApiError(403, "Forbidden", "The API key is missing or wrong; send the stack's apiKey as a Bearer token.")
        if path not in self.routes:
            raise ApiError(404, "NotFoundError", f"There is no such route; the routes are: {', '.join(sorted(self.routes))}")
        if method != self.routes[path]:
            raise ApiError(405, "MethodNotAllowedError", f"The route takes {self.routes[path]} alone", headers=[("allow", self.routes[path])])
        if shown and path != page.HOME and not ours:
            raise ApiError(403, "Forbidden", "Another site may not have what the page is made of.")

    async def _get(self, scope: Message, path: str, headers: dict[str, str], send: Send) -> int:
        if path == HEALTH:
            body = await self._health()
            status = 200 if body["status"] == "healthy" else 503
            await _answer(send, status, body)
            return status
        if path == page.DATA:
            await _answer(send, 200, await self._shown(), [("cache-control", "no-store"), *page.SAFE])
            return 200
        if path in page.FILES:
            file = page.FILES[path]
            status = 304 if file.tag in headers.get("if-none-match", "") else 200
            await _raw(send, status, _encoded(file.headers), file.body if status == 200 else b"")
            return status
        status, given, data = await self._inner(scope)
        if path == "/metrics" and status == 200:
            data += self.metrics.text().encode()
        kept = [(name, value) for name, value in given if name in (b"content-type",)]
        await _raw(send, status, kept, data)
        return status

    async def _health(self) -> dict[str, Any]:
        self.start()  # where the server has no lifespan
        if reason := await self.vitals.ill():
            return {"status": "starting" if self.vitals.starting else "unhealthy", "reason": reason}
        return {"status": "healthy", "skipped": list(self.vitals.skipped)}

    async def _shown(self) -> dict[str, Any]:
        """What the page shows, in numbers and words of the service alone."""
        options, speed = self.options, self.speed()
        found = fit.fit(fit.tokens(speed or 0.0, options.deadline_seconds), options.min_document_tokens)
        return {
            "health": await self._health(),
            "model": options.served_model_names[0],
            "mock": not options.model,
            "number_format": options.number_format,
            "tokens_per_second": speed,
            "deadline_seconds": options.deadline_seconds,
            "max_documents": options.max_documents,
            "answering": self.calls,
            "fit": {
                "documents": fit.DOCUMENTS,
                "chunk_tokens": fit.CHUNK_TOKENS,
                "page": fit.PAGE,
                "half_chunk_tokens": fit.HALF_CHUNK_TOKENS,
                "scored": found.call.count,
                "kept": min(found.call.keep, fit.CHUNK_TOKENS),
                "whole": found.whole,
                "top_k": found.top_k,
                "chunk": found.chunk,
            },
            "calls": [vars(entry) for entry in self.recent.entries],
        }

    def speed(self) -> float | None:
        """Tokens/s that this machine was seen to do; None before anything was scored."""
        learned = self.scheduler.speed
        return learned.tokens_per_second if learned.seconds > 0 else None

    async def _inner(self, scope: Message) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The inner server's answer; without the caller's headers, which might ask for another format or encoding."""
        status = 500
        headers: list[tuple[bytes, bytes]] = []
        parts: list[bytes] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message["headers"])
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        host = [(name, value) for name, value in scope["headers"] if name == b"host"]
        try:
            await asyncio.wait_for(self.app({**scope, "headers": host, "query_string": b""}, receive, send), INNER_SECONDS)
        except asyncio.TimeoutError as error:
            raise ApiError.unavailable("The server did not answer in time; try again.", 10, "engine") from error
        return status, headers, b"".join(parts)

    # -- calls -----------------------------------------------------------------------------------------------------------------------------------

    async def _post(self, path: str, headers: dict[str, str], receive: Receive, send: Send, begun: float) -> int:
        """Answers a rerank or score call within its deadline; the work stops when the client hangs up."""
        seconds = api.deadline(headers.get(api.DEADLINE_HEADER), self.options.deadline_seconds)
        way = api.unscored(headers.get(api.UNSCORED_HEADER), self.options.unscored)
        held, counted = 0, 0

        def hold(size: int) -> None:
            nonlocal held
            if self.bytes + size > BODIES_AT_ONCE * self.max_body_bytes:
                raise ApiError.unavailable("The calls being answered fill the memory for requests; ask again later.", math.ceil(seconds), "busy")
            held, self.bytes = held + size, self.bytes + size

        try:
            raw = await self._body(headers, receive, begun + min(seconds, self.options.deadline_seconds), hold)
            if self.calls >= CALLS_AT_ONCE:
                raise ApiError.unavailable(
                    f"{about(self.calls)} calls are being answered, which is the limit; ask again later.", math.ceil(seconds), "busy"
                )
            self.calls += 1
            counted = 1
            async with _listening(receive) as gone:
                work = asyncio.ensure_future(self._answer_call(path, headers, raw, begun, seconds, way))
                try:
                    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not work.done():
                        raise Hangup
                    body, more = work.result()
                finally:
                    work.cancel()
            await _answer(send, 200, body, more)
            return 200
        finally:
            self.calls, self.bytes = self.calls - counted, self.bytes - held

    async def _body(self, headers: dict[str, str], receive: Receive, deadline: float, hold: Callable[[int], None]) -> bytes:
        limit = self.max_body_bytes
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.001, deadline - self.clock()))
            except asyncio.TimeoutError as error:
                raise ApiError(408, "RequestTimeout", "The request's body did not arrive within the deadline") from error
            if message["type"] == "http.disconnect":
                raise Hangup
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise _too_large(limit)
            hold(len(parts[-1]))
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _answer_call(
        self, path: str, headers: dict[str, str], raw: bytes, begun: float, seconds: float, way: str
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """The answer's body and headers."""
        content_type = headers.get("content-type", "")
        call = await self.scorer.beside(len(raw), lambda: api.parse(path, content_type, raw, self.limits))
        try:
            outcome = await self.scorer.outcome(call, begun, seconds, fresh="no-cache" in headers.get("cache-control", "").lower())
            count, scored = len(call.pairs), {place: one.score for place, one in outcome.scored.items()}
            if not call.rerank and len(scored) < count:
                raise Late(
                    f"{about(count - len(scored))} of {about(count)} pairs could not be scored in {about(seconds)} s; send fewer, or allow more time.",
                    1,
                )
        except Refusal as refusal:
            raise ApiError.of(refusal) from refusal
        done = answer.account(call, outcome, took=self.clock() - begun, allowed=seconds, way=way)
        model = self.options.served_model_names[0]

        def written() -> bytes:
            ranking = ranked(scored, count, way)
            return (
                answer.rerank_body(call, ranking, done.tokens, model) if call.rerank else answer.score_body(call, ranking.scores, done.tokens, model)
            )

        body = await self.scorer.beside(len(raw), written)
        self._count(done)
        self.recent.answered(done, caller(headers), self.speed())
        log.info("%s", done.line())
        said = done.headers()
        if self.vitals.reason and self.vitals.proven:
            said.append(("x-rerank-unhealthy", "the golden set failed: see /health"))
        return body, said

    def _count(self, done: Account) -> None:
        outcome, metrics = done.outcome, self.metrics
        counted = {"scored": len(outcome.scored), "cut": len(done.cut), "unscored": len(done.unscored), "cached": outcome.cached}
        for result, number in counted.items():
            metrics.count("documents_total", number, result=result)
        metrics.count("tokens_total", done.tokens)
        metrics.observe("call_seconds", done.took)
        if outcome.hit_deadline:
            metrics.count("deadline_answers_total")
        if outcome.planned:
            metrics.observe("planned_ratio", done.took / outcome.planned)

    def _declare(self) -> Metrics:
        metrics = Metrics()
        metrics.counter("requests_total", "Requests by route and status (499: the client hung up).", ["route", "status"])
        results = [{"result": name} for name in ("scored", "cut", "unscored", "cached")]
        metrics.counter(
            "documents_total",
            "Documents of rerank and score calls: scored, of those cut or cached, and unscored by the deadline.",
            ["result"],
            results,
        )
        metrics.counter("tokens_total", "Tokens of the prompts that were scored, those of cached scores included.")
        metrics.counter("deadline_answers_total", "Answers that lack a score because of the deadline.")
        metrics.counter("refused_total", "Calls refused with 503.", ["reason"], [{"reason": why} for why in WHY.values()])
        metrics.counter("hangups_total", "Calls whose client hung up before the answer.")
        metrics.counter("cache_hits_total", "Pairs whose score was known.")
        metrics.counter("cache_misses_total", "Pairs whose score was not known.")
        metrics.gauge("cache_entries", "Scores in the cache.", lambda: len(self.scorer.scores))
        metrics.gauge("calls", "Calls being answered.", lambda: self.calls)
        metrics.gauge("queued_tokens", "Tokens that the calls being answered still want.", lambda: sum(job.demand() for job in self.scheduler.jobs))
        metrics.gauge("tokens_per_second", "Speed of this machine, as learned.", lambda: self.scheduler.speed.tokens_per_second)
        metrics.gauge("proven", "1 once the golden set was scored and held.", lambda: float(self.vitals.proven and not self.vitals.reason))
        metrics.histogram("call_seconds", "Time from a call's first byte to its answer.", (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 15, 20, 25, 30, 60))
        metrics.histogram("planned_ratio", "Time that a call took over the time planned for it.", (0.25, 0.5, 0.8, 0.9, 1, 1.1, 1.25, 1.5, 2, 4))
        return metrics


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, "Request Entity Too Large", f"The body is too large; it may have {about(limit >> 20)} MiB", headers=[("connection", "close")]
    )


def _log_to_stdout() -> None:
    if not log.handlers:
        handler = logging.StreamHandler(sys.__stdout__)
        handler.setFormatter(logging.Formatter("reranker: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


@contextlib.asynccontextmanager
async def _listening(receive: Receive) -> AsyncIterator["asyncio.Task[None]"]:
    """A task that ends when the client hangs up."""

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task = asyncio.ensure_future(listen())
    try:
        yield task
    finally:
        task.cancel()


def _headers(scope: Message) -> dict[str, str]:
    """A request's headers by their names in lower case; where credentials come more than once, none of them counts."""
    found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    if sum(name.lower() == b"authorization" for name, _ in scope["headers"]) > 1:
        del found["authorization"]
    return found


def _same_site(headers: dict[str, str]) -> bool:
    """Whether a request comes from the page itself, or from no browser's page at all. A browser that does not say which site asks names its origin."""
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


async def _answer(send: Send, status: int, body: bytes | dict[str, Any], headers: Sequence[tuple[str, str]] = ()) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    await _raw(send, status, [(b"content-type", b"application/json"), *_encoded(headers)], data)


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]


async def _raw(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    with contextlib.suppress(OSError):  # the client may be gone
        await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
