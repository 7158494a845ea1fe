"""HTTP/1.1 to one server at the least cost for each call, since what the sender takes is measured with the server.

rerank.transport gives a call a thread, which is right for a caller and dear for a load: docs/bench.md has the costs. The errors are those of the client.
"""

import asyncio
import http.client
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from rerank.client import RerankClient
from rerank.errors import InvalidInput, RerankError
from rerank.transport import ANSWER_BYTES, Reply

BUFFER_BYTES = 1 << 16  # asyncio's own are of 256 KiB, made anew for each answer
LOOK_SECONDS = 0.02  # between looks for calls whose time is over: a timer for each call costs more


class Timed(NamedTuple):
    """An answer as it came, and the moments (time.perf_counter) when the request was sent and when the last byte was there."""

    sent: float
    ended: float
    head: bytes
    body: bytes

    def reply(self) -> Reply:
        """The answer with its headers, whose reading is not to be measured."""
        first, *lines = self.head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Reply(status=int(first.split(" ", 2)[1]), headers=headers, body=self.body, proxy="")


class Wire:
    """Connections to the service of `client`, which are kept; of one event loop. No proxy is used, whatever the environment says."""

    def __init__(self, client: RerankClient, api_key: str | None, ca_bundle: str | None) -> None:
        self.client = client
        url = urlsplit(client.base_url)
        self.host, self.port, self.base = url.hostname or "", url.port or (443 if url.scheme == "https" else 80), url.path
        self.tls: ssl.SSLContext | None = None
        if url.scheme == "https":
            try:
                self.tls = ssl.create_default_context(cafile=ca_bundle)
            except OSError as error:
                raise InvalidInput(f"The CA file {ca_bundle} cannot be read.", remedy="It must be a PEM file.") from error
        signed = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.headers = {"Host": url.netloc, "User-Agent": "rerank-bench", "Accept": "application/json", "Accept-Encoding": "identity", **signed}
        self.idle: list[_Connection] = []
        self.busy: set[_Connection] = set()
        self.looking: asyncio.TimerHandle | None = None
        self.opened = 0

    def head(self, path: str, length: int, headers: Mapping[str, str]) -> bytes:
        """What stands before a body of `length` bytes; made once for all calls of that length."""
        lines = {**self.headers, "Content-Type": "application/json", "Content-Length": str(length), **headers}
        return (f"POST {self.base}{path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n").encode("latin-1")

    async def post(self, request: bytes, end: float, seconds: float) -> Timed:
        """The answer with any status by `end` (time.perf_counter); `seconds` is what the call may take in all, for the message. RerankError where there is none."""
        stage = "connecting"
        try:
            while True:
                fresh = not self.idle
                connection = await self._connected(end) if fresh else self.idle.pop()
                stage = "waiting"
                self.busy.add(connection)
                if self.looking is None:
                    self._look()
                try:
                    timed = await connection.ask(request, end)
                except ConnectionResetError:
                    if fresh or connection.begun:
                        raise
                    continue  # the server had closed a kept connection, which says nothing about this call
                finally:
                    self.busy.discard(connection)
                    if connection.begun:
                        stage = "reading"
                if connection.usable:
                    self.idle.append(connection)
                return timed
        except RerankError:
            raise
        except asyncio.TimeoutError:
            raise self.client.transport.late(stage, seconds) from None
        except Exception as error:
            raise self.client.transport.fault(error, stage, seconds) from error

    async def ready(self, count: int, seconds: float) -> None:
        """Opens connections until `count` are kept, so that opening them is not measured. Where that fails the calls will say why."""
        end = time.perf_counter() + seconds
        self.idle = [connection for connection in self.idle if connection.open]
        opened = await asyncio.gather(*(self._connected(end) for _ in range(count - len(self.idle))), return_exceptions=True)
        self.idle += [connection for connection in opened if isinstance(connection, _Connection)]

    async def _connected(self, end: float) -> "_Connection":
        left = end - time.perf_counter()
        if left <= 0:
            raise asyncio.TimeoutError
        self.opened += 1
        making = asyncio.get_running_loop().create_connection(_Connection, self.host, self.port, ssl=self.tls)
        _, connection = await asyncio.wait_for(making, left)
        return connection

    def _look(self) -> None:
        now = time.perf_counter()
        for connection in self.busy:
            connection.look(now)
        self.looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look) if self.busy else None

    def close(self) -> None:
        if self.looking is not None:
            self.looking.cancel()
            self.looking = None
        for connection in self.idle:
            connection.drop()
        self.idle.clear()


class _Connection(asyncio.BufferedProtocol):
    """One request and its answer at a time. What is done for each of many calls is as little as can be: headers are looked for, not read."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[Timed] | None = None
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.data = b""
        self.head: bytes | None = None
        self.length: int | None = None  # of the body; None: chunked, or until the connection ends
        self.sent = self.end = 0.0
        self.begun = self.usable = self.chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    async def ask(self, request: bytes, end: float) -> Timed:
        """ConnectionResetError where the server closed it; TimeoutError at `end`."""
        self.begun = self.usable = False
        self.data, self.head = b"", None
        if not self.open:
            raise ConnectionResetError
        self.waiting = self.loop.create_future()
        self.sent = time.perf_counter()
        self.end = end
        try:
            assert self.transport is not None
            self.transport.write(request)
            return await self.waiting
        finally:
            self.waiting = None
            if not self.usable:
                self.drop()

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        now = time.perf_counter()
        self.begun = True
        data = bytes(self.buffer[:nbytes])
        self.data = self.data + data if self.data else data
        try:
            if self.head is None and not self._headed():
                return
            body = self._chunks() if self.chunked else None
        except (ValueError, http.client.HTTPException):
            return self._fail(http.client.BadStatusLine("no HTTP"))
        if self.length is not None and len(self.data) >= self.length:
            body = self.data[: self.length]
        if body is not None:
            self._done(body, now)
        elif len(self.data) > ANSWER_BYTES:
            self._fail(http.client.HTTPException("too large"))

    def connection_lost(self, error: Exception | None) -> None:
        if self.head is not None and self.length is None and not self.chunked:
            self._done(self.data, time.perf_counter())
        self._fail(ConnectionResetError())

    def look(self, now: float) -> None:
        """Ends a call whose time is over."""
        if now >= self.end:
            self._fail(asyncio.TimeoutError())

    def _done(self, body: bytes, now: float) -> None:
        if self.waiting is not None and not self.waiting.done() and self.head is not None:
            self.waiting.set_result(Timed(self.sent, now, self.head, body))

    def _fail(self, error: Exception) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(error)

    def _headed(self) -> bool:
        """Whether the headers are there; `data` is what follows them. ValueError, HTTPException where it is no HTTP."""
        while True:
            head, found, rest = self.data.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1."[: len(head)]) or len(head) > 1 << 16:
                raise http.client.BadStatusLine("no HTTP")
            if not found:
                return False
            self.data = rest
            status = int(head[9:12])
            if status >= 200:  # before: 100 Continue, 103 Early Hints
                break
        lower = head.lower()
        self.head, self.chunked = head, b"\r\ntransfer-encoding:" in lower
        _, found, length = lower.partition(b"\r\ncontent-length:")
        self.length = None if self.chunked else 0 if status in (204, 304) else int(length.partition(b"\r\n")[0]) if found else None
        self.usable = b"\r\nconnection: close" not in lower and not head.startswith(b"HTTP/1.0") and (self.chunked or self.length is not None)
        return True

    def _chunks(self) -> bytes | None:
        """The body of a chunked answer once it is whole."""
        if b"0\r\n" not in self.data[-256:]:  # the last chunk, and what may stand behind it
            return None
        at = 0
        parts: list[bytes] = []
        while (line := self.data.find(b"\r\n", at)) >= 0:
            size, at = int(self.data[at:line].partition(b";")[0], 16), line + 2
            if not size:
                return b"".join(parts) if self.data.find(b"\r\n", at) >= 0 else None
            parts.append(self.data[at : at + size])
            at += size + 2
        return None
