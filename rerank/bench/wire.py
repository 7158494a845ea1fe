"""HTTP/1.1 to one server at the least cost for each call, since what the sender takes is measured with the server.

rerank.transport gives a call a thread, which is right for a caller and dear for a load: docs/bench.md has the costs. The errors are those of the client.
"""

import asyncio
import http.client
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from rerank.client import RerankClient
from rerank.errors import InvalidInput, RerankError
from rerank.transport import ANSWER_BYTES, Reply


@dataclass(frozen=True)
class Timed:
    """An answer, and the moments (time.perf_counter) when it was sent and when its last byte was there."""

    reply: Reply
    sent: float
    ended: float


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
                stage, sent = "waiting", time.perf_counter()
                try:
                    reply, ended = await connection.ask(request, end)
                except ConnectionResetError:
                    if fresh or connection.begun:
                        raise
                    continue  # the server had closed a kept connection, which says nothing about this call
                finally:
                    if connection.begun:
                        stage = "reading"
                if connection.usable:
                    self.idle.append(connection)
                return Timed(reply, sent, ended)
        except RerankError:
            raise
        except asyncio.TimeoutError:
            raise self.client.transport.late(stage, seconds) from None
        except Exception as error:
            raise self.client.transport.fault(error, stage, seconds) from error

    async def _connected(self, end: float) -> "_Connection":
        left = end - time.perf_counter()
        if left <= 0:
            raise asyncio.TimeoutError
        self.opened += 1
        making = asyncio.get_running_loop().create_connection(_Connection, self.host, self.port, ssl=self.tls)
        _, connection = await asyncio.wait_for(making, left)
        return connection

    def close(self) -> None:
        for connection in self.idle:
            connection.drop()
        self.idle.clear()


class _Connection(asyncio.Protocol):
    """One request and its answer at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[tuple[Reply, float]] | None = None
        self.data = bytearray()
        self.headers: dict[str, str] | None = None
        self.status = self.start = 0
        self.begun = self.usable = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    async def ask(self, request: bytes, end: float) -> tuple[Reply, float]:
        """ConnectionResetError where the server closed it; TimeoutError at `end`."""
        loop = asyncio.get_running_loop()
        self.begun = self.usable = False
        self.data.clear()
        self.headers = None
        if self.transport is None or self.transport.is_closing():
            raise ConnectionResetError
        self.waiting = loop.create_future()
        timer = loop.call_later(max(0.0, end - time.perf_counter()), self._fail, asyncio.TimeoutError())
        try:
            self.transport.write(request)
            return await self.waiting
        finally:
            timer.cancel()
            self.waiting = None
            if not self.usable:
                self.drop()

    def drop(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self.begun = True
        self.data += data
        try:
            body = self._body(False)
        except (ValueError, http.client.HTTPException) as error:
            return self._fail(error if isinstance(error, http.client.HTTPException) else http.client.BadStatusLine("no HTTP"))
        if body is not None:
            self._done(body, now)
        elif len(self.data) > ANSWER_BYTES:
            self._fail(http.client.HTTPException("too large"))

    def eof_received(self) -> None:
        return None

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiting is not None and not self.waiting.done():
            body = self._body(True) if self.begun and self.headers is not None else None
            if body is not None:
                self._done(body, time.perf_counter())
            else:
                self._fail(ConnectionResetError())

    def _done(self, body: bytes, now: float) -> None:
        assert self.headers is not None
        self.usable = self.headers.get("connection", "").lower() != "close" and self.transport is not None and not self.transport.is_closing()
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_result((Reply(status=self.status, headers=self.headers, body=body, proxy=""), now))

    def _fail(self, error: Exception) -> None:
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(error)

    def _body(self, closed: bool) -> bytes | None:
        """The answer's body once it is whole. `closed`: nothing more will come. ValueError, HTTPException where it is no HTTP."""
        while self.headers is None:
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                if not self.data[:8].startswith(b"HTTP/1."[: len(self.data)]) or len(self.data) > 1 << 16:
                    raise http.client.BadStatusLine("no HTTP")
                return None
            first, *lines = self.data[:end].decode("latin-1").split("\r\n")
            version, status, *_ = [*first.split(" ", 2), ""]
            self.status, self.start = int(status), end + 4
            if version not in ("HTTP/1.1", "HTTP/1.0"):
                raise http.client.BadStatusLine("no HTTP/1")
            if self.status < 200:  # 100 Continue, 103 Early Hints: the answer comes after it
                del self.data[: self.start]
                continue
            self.headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if version == "HTTP/1.0":
                self.headers.setdefault("connection", "close")
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return self._chunks()
        if "content-length" in self.headers:
            length = int(self.headers["content-length"])
            return bytes(self.data[self.start : self.start + length]) if len(self.data) - self.start >= length else None
        if self.status in (204, 304):
            return b""
        return bytes(self.data[self.start :]) if closed else None

    def _chunks(self) -> bytes | None:
        if b"0\r\n" not in self.data[-256:]:  # the last chunk, and what may stand behind it
            return None
        at = self.start
        parts: list[bytes] = []
        while True:
            line = self.data.find(b"\r\n", at)
            if line < 0:
                return None
            size = int(bytes(self.data[at:line]).split(b";")[0], 16)
            at = line + 2
            if not size:
                return b"".join(parts) if self.data.find(b"\r\n", at) >= 0 else None
            if len(self.data) < at + size + 2:
                return None
            parts.append(bytes(self.data[at : at + size]))
            at += size + 2
