"""`mock`: the guard around an engine without a model, on a small HTTP/1.1 server of its own, for tests and demos.

Scores reward words that query and document share. All else is the guard's, so that the mock has the real service's contract.
"""

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import re
import signal
import sys
import time
import traceback
import unicodedata
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from serving import keys
from serving import options as guard_options
from serving.api import ApiError
from serving.guard import App, Guard, Message, Receive, Send
from serving.options import GuardOptions

VERSION = "0.32.0+mock"
TOKENS_PER_PASS = 4096
# What the guard is told of the mock's speed, as if one second of work had shown it: else a stall of a busy machine would cut documents.
TOKENS_PER_SECOND = 1_000_000
IDLE_SECONDS = 60.0
STOP_SECONDS = 10.0
LINGER_SECONDS = 2.0
HEAD_BYTES = 64 << 10
PIECE_BYTES = 64 << 10

# -- the engine ------------------------------------------------------------------------------------------------------------------------------------

# Scripts written without spaces: Chinese, Japanese, Korean.
SCRIPT = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
PIECE = re.compile(rf"[{SCRIPT}]+|[^\W{SCRIPT}]+")
WITHOUT_SPACES = re.compile(f"[{SCRIPT}]")


def terms(text: str) -> Iterator[str]:
    """The words of `text`, in order, letter case and width ignored; of scripts without spaces each character and each pair of neighbours."""
    for found in PIECE.finditer(unicodedata.normalize("NFKC", text).casefold()):
        piece = found[0]
        if WITHOUT_SPACES.match(piece):
            yield from piece
            yield from (piece[at : at + 2] for at in range(len(piece) - 1))
        else:
            yield piece


def score(query: Iterable[str], document: Iterable[str]) -> float:
    """Of terms, in [0, 1]: the share of the query's that the document has, and a tenth for the share of the document's that the query asks for."""
    asked, given = set(query), set(document)
    if not asked or not given:
        return 0.0
    common = len(asked & given)
    return 0.9 * common / len(asked) + 0.1 * common / len(given)


@dataclass(frozen=True, kw_only=True)
class MockPrompts:
    """Terms stand for tokens (engine.Prompts)."""

    asked: Sequence[str]
    given: Sequence[Sequence[str]]
    shared: int
    tail: int = 0

    @property
    def query(self) -> int:
        return len(self.asked)

    @property
    def documents(self) -> Sequence[int]:
        return [len(terms) for terms in self.given]

    def prompt(self, index: int, keep: int) -> object:
        return self.asked, self.given[index][:keep]


class MockEngine:
    """Scores by the words that query and document share (engine.Engine)."""

    def __init__(self, max_model_len: int) -> None:
        self.max_model_len = max_model_len

    def prompts(self, instruction: str, query: str, documents: Sequence[str]) -> MockPrompts:
        asked = self._terms(query)
        return MockPrompts(asked=asked, given=[self._terms(document) for document in documents], shared=len(self._terms(instruction)) + len(asked))

    def _terms(self, text: str) -> list[str]:
        return list(itertools.islice(terms(text), self.max_model_len + 1))

    async def score(self, prompts: Sequence[object]) -> list[float]:
        await asyncio.sleep(0)  # other calls have their turn
        return [score(*cast(tuple[Sequence[str], Sequence[str]], prompt)) for prompt in prompts]

    async def alive(self) -> bool:
        return True


# -- what vLLM's own server answers -------------------------------------------------------------------------------------------------------------


class Inner:
    """The app inside the guard: vLLM's lists of models and metrics, and its version (ASGI)."""

    def __init__(self, names: tuple[str, ...], max_model_len: int) -> None:
        self.names, self.max_model_len, self.created = names, max_model_len, int(time.time())
        self.counts: dict[str, int] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        self.counts[path] = self.counts.get(path, 0) + 1
        if path == "/metrics":
            kind, body = "text/plain; version=0.0.4; charset=utf-8", self.metrics()
        else:
            kind, body = "application/json", json.dumps(self.models() if path == "/v1/models" else {"version": VERSION})
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": body.encode()})

    def metrics(self) -> str:
        lines = ["# HELP http_requests_total Total number of requests by method, status and handler.", "# TYPE http_requests_total counter"]
        lines += [f'http_requests_total{{handler="{path}",method="GET",status="2xx"}} {count:.1f}' for path, count in sorted(self.counts.items())]
        return "\n".join(lines) + "\n"

    def models(self) -> dict[str, Any]:
        permission = {
            "object": "model_permission",
            "created": self.created,
            "allow_create_engine": False,
            "allow_sampling": True,
            "allow_logprobs": True,
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        model = {"object": "model", "created": self.created, "owned_by": "vllm", "root": "mock", "parent": None, "max_model_len": self.max_model_len}
        return {
            "object": "list",
            "data": [
                {"id": name, **model, "permission": [{"id": f"modelperm-{number:016x}", **permission}]} for number, name in enumerate(self.names)
            ],
        }


# -- HTTP/1.1 ----------------------------------------------------------------------------------------------------------------------------------------

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST = re.compile(rb"(%b) ([!-~]+) HTTP/1\.([01])\r?\n" % TOKEN)
HEADER = re.compile(rb"(%b):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\r?\n" % TOKEN)
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")
LENGTH = re.compile(rb"[0-9]{1,18}")
BLANK = (b"\r\n", b"\n")


class Malformed(Exception):
    """What arrived is no HTTP/1.1; the connection cannot be used further."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Reader(asyncio.StreamReader):
    """A client's stream; `gone` is set when the client has closed it, whether anyone reads or not."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=HEAD_BYTES, loop=loop)
        self.gone = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.gone.set()

    def set_exception(self, exc: Exception) -> None:
        super().set_exception(exc)
        self.gone.set()

    async def line(self) -> bytes:
        """A line with its end, or b"" where the client left before that."""
        try:
            line = await self.readline()
        except ValueError as error:
            raise Malformed("A line of the request is too long", 431) from error
        return line if line.endswith(b"\n") else b""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A request without its body; `length` of that in bytes, None where it comes in chunks."""

    method: str
    target: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int | None

    def has(self, name: bytes, value: bytes) -> bool:
        """Whether a header lists the value."""
        return any(value == part.strip().lower() for given, values in self.headers if given == name for part in values.split(b","))

    @property
    def lasting(self) -> bool:
        """Whether the client wants to use the connection again."""
        return not self.has(b"connection", b"close") and (self.version == "1.1" or self.has(b"connection", b"keep-alive"))


async def read_head(reader: Reader) -> Head | None:
    """The next request on the connection, or None where there is none; Malformed."""
    line = await reader.line()
    while line in BLANK:
        line = await reader.line()
    if not line:
        return None
    request = REQUEST.fullmatch(line)
    if not request:
        raise Malformed("The request line must be METHOD TARGET HTTP/1.1")
    headers: list[tuple[bytes, bytes]] = []
    size = len(line)
    while (line := await reader.line()) not in BLANK:
        if not line:
            return None
        size += len(line)
        if size > HEAD_BYTES:
            raise Malformed("The headers are too large", 431)
        header = HEADER.fullmatch(line)
        if not header:
            raise Malformed("A header line must be NAME: VALUE")
        headers.append((header[1].lower(), header[2]))
    return Head(method=request[1].decode(), target=request[2], version=f"1.{request[3].decode()}", headers=headers, length=_length(headers))


def _length(headers: list[tuple[bytes, bytes]]) -> int | None:
    lengths = {value for name, value in headers if name == b"content-length"}
    encodings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if encodings:
        if encodings != [b"chunked"] or lengths:
            raise Malformed("A body must be chunked or have a Content-Length, and not both")
        return None
    if len(lengths) > 1 or not all(LENGTH.fullmatch(value) for value in lengths):
        raise Malformed("Content-Length must be one number of bytes")
    return int(lengths.pop()) if lengths else 0


class Exchange:
    """One request and its answer: what an ASGI app receives and sends. The body is read as the app asks for it."""

    def __init__(self, head: Head, reader: Reader, writer: asyncio.StreamWriter) -> None:
        self.head, self.reader, self.writer = head, reader, writer
        self.left = head.length or 0  # of the body, or of the present chunk
        self.done = False  # the body was received as a whole
        self.waits = head.has(b"expect", b"100-continue")
        self.malformed: Malformed | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.parts: list[bytes] = []

    @property
    def read_up(self) -> bool:
        return self.done or self.head.length == 0

    def scope(self) -> Message:
        path, _, query = self.head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.head.version,
            "method": self.head.method,
            "scheme": "http",
            "path": urllib.parse.unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": self.head.headers,
            "client": (self.writer.get_extra_info("peername") or ("", 0))[:2],
            "server": (self.writer.get_extra_info("sockname") or ("", 0))[:2],
        }

    async def receive(self) -> Message:
        if not self.done:
            try:
                if (body := await self._piece()) is not None:
                    return {"type": "http.request", "body": body, "more_body": not self.done}
            except Malformed as error:
                self.malformed = error
            except OSError:
                pass
        else:
            await self.reader.gone.wait()
        return {"type": "http.disconnect"}

    async def _piece(self) -> bytes | None:
        """Some of the body, or None where the client left."""
        if self.waits:
            self.waits = False
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        chunked = self.head.length is None
        if chunked and not self.left:
            line = await self.reader.line()
            size = CHUNK.fullmatch(line)
            if not size:
                if line:
                    raise Malformed("A chunk of the body must begin with its size")
                return None
            self.left = int(size[1], 16)
            if not self.left:
                return await self._trailers()
        if self.left:
            data = await self.reader.read(min(self.left, PIECE_BYTES))
            if not data:
                return None
            self.left -= len(data)
        else:
            data = b""
        if not self.left:
            if not chunked:
                self.done = True
            elif await self.reader.line() not in BLANK:
                raise Malformed("A chunk of the body must have the size that it says")
        return data

    async def _trailers(self) -> bytes | None:
        for _ in range(100):
            line = await self.reader.line()
            if line in BLANK or not line:
                self.done = line in BLANK
                return b"" if self.done else None
        raise Malformed("The body has too many trailers", 431)

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        else:
            self.parts.append(message.get("body", b""))


class Server:
    """Serves an ASGI app in the running event loop."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.stopping = False
        self.connections: set[asyncio.Task[None]] = set()
        self.idle: set[asyncio.Task[None]] = set()  # those that wait for a request
        self.running = 0  # requests being answered

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """The address that it listens on; OSError where it cannot."""
        loop = asyncio.get_running_loop()

        def connected() -> asyncio.StreamReaderProtocol:
            reader = Reader(loop)
            return asyncio.StreamReaderProtocol(reader, lambda _, writer: self._connected(reader, writer), loop=loop)

        self.listener = await loop.create_server(connected, host, port, backlog=128)
        address = self.listener.sockets[0].getsockname()
        return address[0], address[1]

    async def stop(self, seconds: float) -> int:
        """Takes no more requests and waits at most `seconds` for the answers to running ones; returns how many were given up."""
        self.stopping = True
        self.listener.close()
        for task in list(self.idle):
            task.cancel()
        if self.connections:
            await asyncio.wait(self.connections, timeout=seconds)
        given_up = self.running
        for task in list(self.connections):
            task.cancel()
        if self.connections:
            await asyncio.wait(self.connections)
        return given_up

    async def _connected(self, reader: Reader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self.connections.add(task)
        try:
            while await self._one(reader, writer, task) and not self.stopping:
                pass
        except (asyncio.TimeoutError, OSError, asyncio.CancelledError):  # the client is slow or gone, or the server stops
            writer.transport.abort()
        finally:
            self.connections.discard(task)
            self.idle.discard(task)
            writer.close()

    async def _one(self, reader: Reader, writer: asyncio.StreamWriter, task: "asyncio.Task[None]") -> bool:
        """Answers the next request of a connection; whether there may be another one."""
        self.idle.add(task)
        try:
            head = await asyncio.wait_for(read_head(reader), IDLE_SECONDS)
        except Malformed as error:
            await _write(writer, error.status, [], _refusal(error), close=True)
            return await _linger(reader, writer)
        finally:
            self.idle.discard(task)
        if head is None:
            return False
        exchange = Exchange(head, reader, writer)
        self.running += 1
        try:
            lasting = await self._exchange(exchange)
        finally:
            self.running -= 1
        return lasting if exchange.read_up else await _linger(reader, writer)

    async def _exchange(self, exchange: Exchange) -> bool:
        """Has the app answer; whether the connection can be used again."""
        try:
            await self.app(exchange.scope(), exchange.receive, exchange.send)
        except Exception:
            traceback.print_exc()
            error = ApiError(500, "InternalServerError", "The mock failed; its log says how")
            exchange.status, exchange.headers, exchange.parts = error.status, [], [json.dumps(error.body()).encode()]
        if exchange.malformed:
            exchange.status, exchange.headers, exchange.parts = exchange.malformed.status, [], [_refusal(exchange.malformed)]
        if not exchange.status:
            return False  # the app has found nobody to answer
        lasting = exchange.read_up and exchange.head.lasting and exchange.status != 500 and (b"connection", b"close") not in exchange.headers
        lasting = lasting and not self.stopping
        body = b"".join(exchange.parts)
        await _write(exchange.writer, exchange.status, exchange.headers, body, close=not lasting, bare=exchange.head.method == "HEAD")
        return lasting


def _refusal(error: Malformed) -> bytes:
    return json.dumps(ApiError(error.status, "Bad Request", str(error)).body()).encode()


async def _write(
    writer: asyncio.StreamWriter, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes, *, close: bool, bare: bool = False
) -> None:
    """An answer; `bare`: without its body."""
    kept = [(name, value) for name, value in headers if name not in (b"connection", b"content-length")]
    if not any(name == b"content-type" for name, _ in kept):
        kept.append((b"content-type", b"application/json"))
    kept.append((b"content-length", str(len(body)).encode()))
    if close:
        # What is left of the request's body would be taken for the next request.
        kept.append((b"connection", b"close"))
    lines = [f"HTTP/1.1 {status} {_phrase(status)}".encode(), *(name + b": " + value for name, value in kept), b"", b"" if bare else body]
    writer.write(b"\r\n".join(lines))
    await asyncio.wait_for(writer.drain(), IDLE_SECONDS)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


async def _linger(reader: Reader, writer: asyncio.StreamWriter) -> bool:
    """Reads on for a moment before the connection closes: closed with unread data it would be reset, and the client lose the answer."""

    async def discard() -> None:
        while await reader.read(PIECE_BYTES):
            pass

    if writer.can_write_eof():
        writer.write_eof()
    try:
        await asyncio.wait_for(discard(), LINGER_SECONDS)
    except (asyncio.TimeoutError, OSError):
        pass
    return False


# -- the command -------------------------------------------------------------------------------------------------------------------------------------


def build(options: GuardOptions) -> Guard:
    """The guard around the mock's engine; keys.BadKeys where its key file cannot be used."""
    # Shared words reach no band of a model's, whose name the mock may bear.
    options = dataclasses.replace(options, golden=False)
    guard = Guard(Inner(options.served_model_names, options.max_model_len), options, MockEngine(options.max_model_len))
    guard.scheduler.speed.learn(TOKENS_PER_SECOND, 1.0)
    return guard


async def serve(app: App, host: str, port: int, *, stop: asyncio.Event, ready: Callable[[tuple[str, int]], None]) -> int:
    """Serves until `stop` is set, and says where as soon as it listens; returns how many running answers were given up after 10 s. OSError."""
    server = Server(app)
    ready(await server.listen(host, port))
    if isinstance(app, Guard):
        app.start()
    await stop.wait()
    return await server.stop(STOP_SECONDS)


def run(options: GuardOptions, host: str, port: int) -> int:
    """Serves until SIGTERM or SIGINT; running answers get 10 s to end. Status 1 and one sentence where key file or port cannot be used."""

    def ready(address: tuple[str, int]) -> None:
        print(json.dumps({"mock": options.served_model_names, "listening": "{}:{}".format(*address), "key": bool(guard.keys)}), flush=True)

    async def until_stopped() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await serve(guard, host, port, stop=stop, ready=ready)

    try:
        guard = build(options)
        given_up = asyncio.run(until_stopped())
    except keys.BadKeys as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        print(f"The mock cannot listen on {host}:{port} ({reason}); the port must be free: stop what uses it.", file=sys.stderr)
        return 1
    print(json.dumps({"mock": "stopped", "running": given_up}), flush=True)
    return 0


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="serving mock", allow_abbrev=False)
    guard_options.add_arguments(parser)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on, for use outside a container")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on, 0 for a free one, for use outside a container")
    given = parser.parse_args(argv)
    return run(guard_options.from_arguments(given, model="", tokens_per_pass=TOKENS_PER_PASS), given.host, given.port)
