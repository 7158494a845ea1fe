"""HTTP/1.1 for an ASGI app in the running event loop, with what Python brings: the mock's image has no uvicorn."""

import asyncio
import json
import re
import traceback
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

from serving.api import ApiError
from serving.asgi import App, Message

IDLE_SECONDS = 60.0
LINGER_SECONDS = 2.0
HEAD_BYTES = 64 << 10
PIECE_BYTES = 64 << 10
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
