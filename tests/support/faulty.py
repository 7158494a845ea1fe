"""A server that does as a test says, byte by byte: stalls, trickles, hangs up, lies. On loopback, in threads of this process, gone afterwards."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """One request as it came. Header names in lower case."""

    line: str
    headers: Mapping[str, str]
    body: bytes
    connection: socket.socket

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Faulty:
    """`url`, the requests so far, and `over`, which is set at the end: a behaviour waits for it in place of sleeping."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    connections: int = 0


# Answers one request on its connection; True keeps the connection for another one.
Behaviour = Callable[[Faulty, Asked], object]


def said(body: object, status: str = "200 OK", **headers: str) -> Behaviour:
    """A whole answer: `body` as JSON, or as it is where it is bytes."""

    def answer(_: Faulty, asked: Asked) -> bool:
        asked.connection.sendall(wire(body, status, **headers))
        return True

    return answer


def wire(body: object, status: str = "200 OK", **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = {
        "content-type": "application/json",
        "content-length": str(len(data)),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return f"HTTP/1.1 {status}\r\n".encode() + "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode() + b"\r\n" + data


def silent(server: Faulty, _: Asked) -> None:
    server.over.wait()


def trickling(data: bytes, every: float = 0.05) -> Behaviour:
    """`data` byte by byte, as long as somebody reads and the test runs."""

    def answer(server: Faulty, asked: Asked) -> None:
        for at in range(len(data)):
            asked.connection.sendall(data[at : at + 1])
            if server.over.wait(every):
                return

    return answer


def reset(_: Faulty, asked: Asked) -> None:
    """Hangs up so that the client sees a reset."""
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour a request, the last one from then on."""

    def answer(server: Faulty, asked: Asked) -> object:
        return behaviours[min(len(server.asked), len(behaviours)) - 1](server, asked)

    return answer


@contextlib.contextmanager
def serving(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> Iterator[Faulty]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    server = Faulty(url=f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}")
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def converse(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.closing(connection):
            plain = connection
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
                sockets.append(connection)
            while (asked := _request(connection)) is not None:
                server.asked.append(asked)
                if behaviour(server, asked) is not True:
                    break
            if connection is not plain:
                connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            sockets.append(connection)
            threads.append(threading.Thread(target=converse, args=(connection,), name="faulty"))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, name="faulty-accept")
    acceptor.start()
    try:
        yield server
    finally:
        server.over.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in [acceptor, *threads]:
            thread.join(10)
            assert not thread.is_alive(), "a faulty server did not stop"


def _request(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(1 << 16)
        if not more:
            return None
        data += more
        if data.startswith(b"\x16\x03"):  # TLS, where none is spoken
            return Asked(line="", headers={}, body=data, connection=connection)
    head, _, body = data.partition(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
    while len(body) < int(headers.get("content-length", 0)):
        more = connection.recv(1 << 16)
        if not more:
            return None
        body += more
    return Asked(line=line, headers=headers, body=body, connection=connection)
